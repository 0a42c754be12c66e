"""The data set `spoken_digits`: a source, and what makes its records."""

from omnijax.data.sources.spoken_digits.source import SpokenDigits

__all__ = ["SpokenDigits"]
