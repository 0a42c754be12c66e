"""The knobs of the spoken digits."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import ClassVar

from omnijax.errors import ConfigError
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

    def check(self) -> None:
        """Checks that splits can be made.

        Raises:
            ConfigError: a number that no data set can be built with.
        """
        for name, least in (("utterances", 1), ("validation_images", 1), ("validation_voices", 1)):
            if getattr(self, name) < least:
                raise ConfigError(f"data.{name}", getattr(self, name), f"must be at least {least}", "raise it")
        if (self.test_images > 0) != (self.test_voices > 0) or min(self.test_images, self.test_voices) < 0:
            rule = "test_images and test_voices must both be above 0, or both 0"
            raise ConfigError("data.test_images", self.test_images, rule, "change one of them")
