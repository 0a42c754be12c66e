"""The knobs of the spoken digits."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import ClassVar

from omnijax.modalities import Modality, Picture, Speech, Text
from omnijax.source import TEST, TRAIN, VALIDATION, Source

WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


@dataclasses.dataclass(frozen=True)
class Settings(Source):
    """What shapes the data set, and its fields."""

    directory: str = "data/spoken_digits"
    utterances: int = 8
    """Spoken utterances, hence records, for each training picture."""
    validation_images: int = 360
    validation_voices: int = 20
    test_images: int = 180
    test_voices: int = 10
    text: Text = Text(least=min(map(len, WORDS)), most=max(map(len, WORDS)))
    image: Picture = Picture("image", height=8, width=8, levels=17)
    speech: Speech = Speech()

    label: ClassVar[str] = "digit"
    classes: ClassVar[tuple[str, ...]] = tuple(map(str, range(10)))

    @property
    def fields(self) -> Mapping[str, Modality]:
        """Words, pictures and sounds."""
        return {"text": self.text, "image": self.image, "speech": self.speech}

    @property
    def splits(self) -> tuple[str, ...]:
        """`train` and `validation`, and `test` where it has pictures."""
        return (TRAIN, VALIDATION, TEST) if self.test_images else (TRAIN, VALIDATION)
