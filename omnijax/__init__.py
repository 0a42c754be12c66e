"""omnijax: one decoder-only transformer over every modality, by means of a two-level vocabulary."""

__version__ = "0.1.0"
