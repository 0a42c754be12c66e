"""Pictures as codes of patches: a transform of each patch, and a few levels for each coefficient."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

import numpy as np
from jaxtyping import Shaped, UInt32

from omnijax.modalities.base import Part, Progress
from omnijax.modalities.picture import Picture
from omnijax.modalities.transform import Transform, check_code, transform_of


@dataclasses.dataclass(frozen=True)
class PatchCodes(Picture):
    """A picture as one fragment for each patch, whose natural digits are quantised coefficients, coarse ones first."""

    height: int = 64
    width: int = 64
    channels: int = 3
    patch: int = 8
    code: tuple[int, ...] = (16,) * 8
    """Levels of each coefficient, by decreasing variance. Levels that multiply up to the radix suit it best."""

    lossless: ClassVar[bool] = False
    learned: ClassVar[bool] = True

    @property
    def parts(self) -> tuple[Part, ...]:
        """Codes; before them, where the size varies, a header of height - 1 and width - 1."""
        *header, patch = super().parts
        return (*header, Part(patch.name.replace(".patch", ".code"), self.code))

    def check(self, field: str) -> None:
        """Checks the number of coefficients and of levels, too."""
        super().check(field)
        check_code(field, self.code, 1, self.patch**2 * self.channels)

    def fit(self, signals: Sequence[Any], seed: int, progress: Progress) -> dict[str, np.ndarray]:
        """The arrays of `Transform.fit` to all patches."""
        pictures = (self._checked(np.asarray(signals[place])[None]) for place in range(len(signals)))
        patches = (self._cut(one)[0] for one in pictures)
        return Transform.fit(patches, len(signals), self.code, seed, self.name, progress)._asdict()

    def units(self, signal: Shaped[np.ndarray, "..."]) -> tuple[int, str] | None:
        """None: codes aren't lossless, so that their bits aren't those of pixels."""
        return None

    def _written(self, patches: Shaped[np.ndarray, "n patches size"]) -> UInt32[np.ndarray, "n patches digits"]:
        return transform_of(self).digits(patches, self.code)

    def _pixels(self, digits: UInt32[np.ndarray, "patches digits"]) -> Shaped[np.ndarray, "patches size"]:
        values = transform_of(self).vectors(digits)
        return np.clip(np.rint(values), 0, self.levels - 1).astype(self._dtype)

    @classmethod
    def suited(cls, headers: Sequence[Mapping[str, int | float]], tokens: int) -> tuple[Self, list[str]]:
        """Codes of 32 bits for each 8 × 8 pixels, of the largest size that the tokens allow."""
        lossless, lost = Picture.suited(headers, tokens * 64 * 13 // (4 * 5))
        height, width = (max(8, math.ceil(edge / 8) * 8) for edge in (lossless.height, lossless.width))
        found = cls(height=height, width=width, channels=lossless.channels, variable=lossless.variable)
        return found, [*lost, "pictures become codes of 32 bits for each 8 × 8 pixels: fine detail is lost"]
