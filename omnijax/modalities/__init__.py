"""One file a modality: raw signal to fragments and back. They know nothing of tokens."""

from __future__ import annotations

from typing import Protocol, TypeVar

import numpy as np
from jaxtyping import Int64

from omnijax.modalities.codebook import Codebook
from omnijax.modalities.picture import PatchImage
from omnijax.modalities.speech import Speech
from omnijax.modalities.text import Text

__all__ = ["Codebook", "Modality", "PatchImage", "Speech", "Text"]

Signal = TypeVar("Signal")


class Modality(Protocol[Signal]):
    """What every modality offers."""

    @property
    def name(self) -> str:
        """Name of the modality and of its space of fragments."""
        ...

    @property
    def size(self) -> int:
        """How many fragments the space holds; ids are `0 .. size - 1`."""
        ...

    def fragments(self, signal: Signal) -> Int64[np.ndarray, " items"]:
        """Returns the ids, within the modality's own space, of the fragments that the signal consists of."""
        ...

    def signal(self, ids: Int64[np.ndarray, " items"]) -> Signal:
        """Returns the signal that the fragments describe; raises DataError where an id lies outside the space."""
        ...
