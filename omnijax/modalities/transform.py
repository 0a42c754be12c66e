"""Vectors as digits: the Karhunen-Loève transform, and a few levels for each of its coefficients.

All of it is closed form or one-dimensional: the covariance, its eigenvectors, and the levels of Lloyd and Max
("Quantizing for minimum distortion", 1960). A learned tokenizer should beat it at equal bits.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple, Self

import numpy as np
from jaxtyping import Float32, Float64, Shaped, UInt32

from omnijax.errors import ConfigError, DataError
from omnijax.modalities.base import Modality, Progress

_FIT_VECTORS = 200_000
_ITERATIONS = 60


class Transform(NamedTuple):
    """A fitted transform.

    Attributes:
        mean: float32[size].
        basis: float32[coefficients, size], orthonormal, by decreasing variance.
        levels: float32[coefficients, most levels], ascending, the last one repeated.
    """

    mean: Float32[np.ndarray, " size"]
    basis: Float32[np.ndarray, "coefficients size"]
    levels: Float32[np.ndarray, "coefficients most"]

    @classmethod
    def fit(
        cls,
        parts: Iterable[Shaped[np.ndarray, "n size"]],
        count: int,
        code: Sequence[int],
        seed: int,
        name: str,
        progress: Progress,
    ) -> Self:
        """Fits the mean and the basis to all vectors, and the levels to a sample of about 200,000 vectors.

        Args:
            parts: the vectors of each signal.
            count: number of signals.
            code: number of levels of each coefficient.
            seed: draws the vectors that the levels are fitted to.
            name: of the modality, for errors.
            progress: told the share that is done.

        Raises:
            DataError: there are fewer than two vectors.
        """
        random, kept = np.random.default_rng((seed, 5)), list[Float32[np.ndarray, "n size"]]()
        share, number = max(1, -(-_FIT_VECTORS // max(1, count))), 0
        total, products = np.zeros(()), np.zeros(())
        for done, part in enumerate(parts):
            vectors = part.astype(np.float64)
            total, products, number = total + vectors.sum(0), products + vectors.T @ vectors, number + len(vectors)
            kept.append(vectors[random.permutation(len(vectors))[:share]].astype(np.float32))
            progress(0.8 * done / count)
        if number < 2:
            raise DataError(f"{name} codes", number, "they are fitted on two vectors or more", "add records")
        mean = total / number
        basis = np.linalg.eigh(products / number - np.outer(mean, mean))[1][:, ::-1].T[: len(code)]
        largest = np.abs(basis).argmax(axis=1)  # an eigenvector's sign is arbitrary
        basis = basis * np.sign(basis[np.arange(len(basis)), largest])[:, None]
        coefficients = (np.concatenate(kept) - mean) @ basis.T
        levels = np.zeros((len(code), max(code)), np.float32)
        for place, most in enumerate(code):
            found = _lloyd_max(np.sort(coefficients[:, place]), most)
            levels[place] = np.pad(found, (0, levels.shape[1] - most), mode="edge")
            progress(0.8 + 0.2 * (place + 1) / len(code))
        return cls(mean.astype(np.float32), basis.astype(np.float32), levels)

    def digits(self, vectors: Shaped[np.ndarray, "... size"], code: Sequence[int]) -> UInt32[np.ndarray, "... digits"]:
        """For each vector the index of the nearest level of each coefficient."""
        coefficients = (vectors.astype(np.float32) - self.mean) @ self.basis.T
        digits = np.empty(coefficients.shape, np.uint32)
        for place, number in enumerate(code):
            levels = self.levels[place, :number]
            digits[..., place] = np.searchsorted((levels[1:] + levels[:-1]) / 2, coefficients[..., place])
        return digits

    def vectors(self, digits: UInt32[np.ndarray, "n digits"]) -> Float32[np.ndarray, "n size"]:
        """Reconstructs vectors from the levels that the digits name."""
        return np.take_along_axis(self.levels, digits.T.astype(np.int64), axis=1).T @ self.basis + self.mean


def transform_of(modality: Modality) -> Transform:
    """The fitted transform of a modality; raises a `DataError` if the modality isn't fitted."""
    if not set(Transform._fields) <= modality.arrays.keys():
        rule = "the codes are fitted on the training split"
        raise DataError(f"{modality.name} codes", sorted(modality.arrays), rule, "build the data set: omnijax prepare")
    return Transform(*(modality.arrays[name] for name in Transform._fields))


def check_code(field: str, code: Sequence[int], least: int, most: int) -> None:
    """Raises a `ConfigError` unless a code has `least` to `most` coefficients, each with 2 to 65,536 levels."""
    if not least <= len(code) <= most or not all(2 <= levels <= 2**16 for levels in code):
        rule = f"has {least} to {most} coefficients, each with 2 … 65,536 levels"
        raise ConfigError(f"{field}.code", code, rule, "choose such a code")


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
