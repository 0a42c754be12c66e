"""The data set `spoken_digits`: a source, and the TFDS builder that writes its records."""

from omnijax.data.sources.spoken_digits.source import SpokenDigits

__all__ = ["SpokenDigits"]
