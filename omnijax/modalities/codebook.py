"""A codebook: vectors to the ids of their nearest centroids and back."""

from __future__ import annotations

import dataclasses
import functools

import numpy as np
from jaxtyping import Float32, Int64

from omnijax import errors

_FIT_VECTORS = 60_000
_ITERATIONS = 25


@dataclasses.dataclass(frozen=True, eq=False)
class Codebook:
    """Centroids of k-means over centred vectors.

    Attributes:
        vectors: float32 [codes, width]; the codes are in the order of the data's main direction, so that neighbouring
            ids mean similar things.
        mean: float32 [width]; what `decode` adds to a centroid.
    """

    vectors: Float32[np.ndarray, "codes width"]
    mean: Float32[np.ndarray, " width"]

    @staticmethod
    def fit(
        vectors: Float32[np.ndarray, "n width"], mean: Float32[np.ndarray, " width"], codes: int, seed: int
    ) -> Codebook:
        """Fits by k-means and sorts the centroids along their first principal axis.

        Lloyd's algorithm starts from `codes` vectors that the seed draws, and reads at most `_FIT_VECTORS` vectors.
        It is written in NumPy, because scikit-learn's threads add up in an order that changes from run to run.

        Raises:
            DataError: fewer different vectors than codes.
        """
        random = np.random.default_rng(seed)
        sample = vectors[np.sort(random.permutation(len(vectors))[:_FIT_VECTORS])]
        different = np.unique(sample, axis=0)
        if len(different) < codes:
            rule = f"there are only {len(different)} different vectors to fit"
            raise errors.DataError("codebook codes", codes, rule, "use fewer codes or more data")
        book = Codebook(different[random.choice(len(different), codes, replace=False)], mean)
        for _ in range(_ITERATIONS):
            ids = book.encode(sample)
            order = np.argsort(ids, kind="stable")
            used, starts = np.unique(ids[order], return_index=True)
            centroids = different[random.choice(len(different), codes, replace=False)]  # for codes that none uses
            sums = np.add.reduceat(sample[order], starts, axis=0, dtype=np.float64)
            centroids[used] = sums / np.diff(np.append(starts, len(order)))[:, None]
            book = Codebook(centroids, mean)
        centred = book.vectors.astype(np.float64) - book.vectors.mean(axis=0)
        axis = np.linalg.eigh(centred.T @ centred)[1][:, -1]
        axis = axis if axis.sum() >= 0 else -axis  # an eigenvector's sign is arbitrary: louder is later
        return Codebook(book.vectors[np.argsort(centred @ axis, kind="stable")], mean)

    @property
    def size(self) -> int:
        """Number of codes."""
        return len(self.vectors)

    @functools.cached_property
    def _half_squares(self) -> Float32[np.ndarray, " codes"]:
        return 0.5 * np.square(self.vectors).sum(axis=1)

    def encode(self, vectors: Float32[np.ndarray, "n width"]) -> Int64[np.ndarray, " n"]:
        """Returns for each centred vector the id of the nearest centroid, the smallest among equals."""
        chunks = [vectors[start : start + 16384] for start in range(0, len(vectors), 16384)]
        nearest = [np.argmin(self._half_squares - chunk @ self.vectors.T, axis=1) for chunk in chunks]
        return np.concatenate(nearest).astype(np.int64) if nearest else np.zeros(0, np.int64)

    def decode(self, ids: Int64[np.ndarray, " n"]) -> Float32[np.ndarray, "n width"]:
        """The centroids of some ids, plus the mean."""
        return self.mean + self.vectors[ids]
