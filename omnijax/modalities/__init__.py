"""One file a modality: signals to items and back. They know nothing of tokens."""

from collections.abc import Sequence

from omnijax.modalities.base import GENERAL, Items, Modality, Part
from omnijax.modalities.clip import Clip
from omnijax.modalities.codes import Codes
from omnijax.modalities.patch_codes import PatchCodes
from omnijax.modalities.picture import Picture
from omnijax.modalities.sound import Sound
from omnijax.modalities.speech import Speech
from omnijax.modalities.text import Text
from omnijax.modalities.text_pieces import TextPieces

MODALITIES: tuple[type[Modality], ...] = (Clip, Codes, PatchCodes, Picture, Sound, Speech, Text, TextPieces)
"""All of the package; the contract tests take each of them."""

FROM_FILES: Sequence[tuple[type[Modality], ...]] = ((Picture, PatchCodes), (Clip,), (Sound, Speech), (Text, TextPieces))
"""Those that a folder of files is read with. The first of each has the `suffixes`, and is used if it loses nothing."""

__all__ = ["FROM_FILES", "GENERAL", "MODALITIES", "Clip", "Codes", "Items", "Modality", "Part", "PatchCodes", "Picture"]
__all__ += ["Sound", "Speech", "Text", "TextPieces"]
