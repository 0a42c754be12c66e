"""Pictures as codes of patches: the Karhunen-Loève transform of each patch, and a few levels for each coefficient.

All of it is closed form or one-dimensional: the covariance of patches, its eigenvectors, and the levels of Lloyd and
Max ("Quantizing for minimum distortion", 1960). A learned tokenizer should beat it at equal bits.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

import numpy as np
from jaxtyping import Float32, Float64, Shaped, UInt32

from omnijax.errors import ConfigError, DataError
from omnijax.modalities.base import Part, Progress
from omnijax.modalities.picture import Picture

_FIT_PATCHES = 200_000
_ITERATIONS = 60


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
        most = self.patch**2 * self.channels
        if not 1 <= len(self.code) <= most or not all(2 <= levels <= 2**16 for levels in self.code):
            rule = f"has 1 to {most} coefficients, each with 2 … 65,536 levels"
            raise ConfigError(f"{field}.code", self.code, rule, "choose such a code")

    def fit(self, signals: Sequence[Any], seed: int, progress: Progress) -> dict[str, np.ndarray]:
        """Fits the transform to all patches, and the levels to at most about 200,000 of them.

        Returns:
            `mean`: float32[sub-pixels], `basis`: float32[coefficients, sub-pixels], `levels`: float32[coefficients,
            most levels], ascending, the last one repeated.
        """
        size, count = self.patch**2 * self.channels, 0
        total, products = np.zeros(size), np.zeros((size, size))
        random, kept = np.random.default_rng((seed, 5)), list[Float32[np.ndarray, "n size"]]()
        share = max(1, -(-_FIT_PATCHES // max(1, len(signals))))
        for done, place in enumerate(range(len(signals))):
            patches = self._cut(self._checked(np.asarray(signals[place])[None]))[0].astype(np.float64)
            total += patches.sum(0)
            products += patches.T @ patches
            count += len(patches)
            kept.append(patches[random.permutation(len(patches))[:share]].astype(np.float32))
            progress(0.8 * done / len(signals))
        if count < 2:
            raise DataError(f"{self.name} codes", count, "they are fitted on two patches or more", "add pictures")
        mean = total / count
        vectors = np.linalg.eigh(products / count - np.outer(mean, mean))[1][:, ::-1].T[: len(self.code)]
        largest = np.abs(vectors).argmax(axis=1)  # an eigenvector's sign is arbitrary
        basis = vectors * np.sign(vectors[np.arange(len(vectors)), largest])[:, None]
        coefficients = (np.concatenate(kept) - mean) @ basis.T
        levels = np.zeros((len(self.code), max(self.code)), np.float32)
        for place, number in enumerate(self.code):
            found = _lloyd_max(np.sort(coefficients[:, place]), number)
            levels[place] = np.pad(found, (0, levels.shape[1] - number), mode="edge")
            progress(0.8 + 0.2 * (place + 1) / len(self.code))
        return {"mean": mean.astype(np.float32), "basis": basis.astype(np.float32), "levels": levels}

    def units(self, signal: Shaped[np.ndarray, "..."]) -> tuple[int, str] | None:
        """None: codes aren't lossless, so that their bits aren't those of pixels."""
        return None

    def _written(self, patches: Shaped[np.ndarray, "n patches size"]) -> UInt32[np.ndarray, "n patches digits"]:
        coefficients = (patches.astype(np.float32) - self._fitted("mean")) @ self._fitted("basis").T
        digits = np.empty(coefficients.shape, np.uint32)
        for place, number in enumerate(self.code):
            levels = self._fitted("levels")[place, :number]
            digits[..., place] = np.searchsorted((levels[1:] + levels[:-1]) / 2, coefficients[..., place])
        return digits

    def _pixels(self, digits: UInt32[np.ndarray, "patches digits"]) -> Shaped[np.ndarray, "patches size"]:
        chosen = np.take_along_axis(self._fitted("levels"), digits.T.astype(np.int64), axis=1).T
        values = chosen @ self._fitted("basis") + self._fitted("mean")
        return np.clip(np.rint(values), 0, self.levels - 1).astype(self._dtype)

    def _fitted(self, name: str) -> Float32[np.ndarray, "..."]:
        if self.arrays.keys() != {"mean", "basis", "levels"}:
            rule = "the codes are fitted on the training split"
            raise DataError(f"{self.name} codes", sorted(self.arrays), rule, "build the data set: omnijax prepare")
        return self.arrays[name]

    @classmethod
    def suited(cls, headers: Sequence[Mapping[str, int | float]], tokens: int) -> tuple[Self, list[str]]:
        """Codes of 32 bits for each 8 × 8 pixels, of the largest size that the tokens allow."""
        lossless, lost = Picture.suited(headers, tokens * 64 * 13 // (4 * 5))
        height, width = (max(8, math.ceil(edge / 8) * 8) for edge in (lossless.height, lossless.width))
        found = cls(height=height, width=width, channels=lossless.channels, variable=lossless.variable)
        return found, [*lost, "pictures become codes of 32 bits for each 8 × 8 pixels: fine detail is lost"]


def _lloyd_max(values: Float64[np.ndarray, " n"], number: int) -> Float64[np.ndarray, " levels"]:
    """Levels with the least squared error for sorted values, from equal shares of the values on."""
    sums = np.concatenate([[0.0], np.cumsum(values)])
    levels = np.quantile(values, (np.arange(number) + 0.5) / number)
    for _ in range(_ITERATIONS):
        edges = np.concatenate([[0], np.searchsorted(values, (levels[1:] + levels[:-1]) / 2), [len(values)]])
        counts = np.diff(edges)
        means = (sums[edges[1:]] - sums[edges[:-1]]) / np.maximum(counts, 1)
        levels = np.sort(np.where(counts > 0, means, levels))
    return levels
