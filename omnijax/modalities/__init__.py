"""One file a modality: signals to items and back. They know nothing of tokens."""

from omnijax.modalities.base import GENERAL, Items, Modality, Part
from omnijax.modalities.codes import Codes
from omnijax.modalities.picture import Picture
from omnijax.modalities.speech import Speech
from omnijax.modalities.text import Text

MODALITIES: tuple[type[Modality], ...] = (Codes, Picture, Speech, Text)
"""All of the package; the contract tests take each of them."""

__all__ = ["GENERAL", "MODALITIES", "Codes", "Items", "Modality", "Part", "Picture", "Speech", "Text"]
