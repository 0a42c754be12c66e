"""A codebook: vectors to the ids of their nearest centroids."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float32, Int64

from omnijax.errors import DataError

_FIT_VECTORS = 60_000
_ITERATIONS = 25


def fit_codebook(
    vectors: Float32[np.ndarray, "n width"], codes: int, seed: int, name: str = "codebook"
) -> Float32[np.ndarray, "codes width"]:
    """Centroids of k-means, in the order of their first principal axis: neighbouring ids mean similar things.

    Lloyd's algorithm starts from `codes` vectors that the seed draws, and reads at most `_FIT_VECTORS` vectors. It is
    written in NumPy, because scikit-learn's threads add up in an order that changes from run to run. Raises a
    `DataError` if there are fewer different vectors than codes.
    """
    random = np.random.default_rng(seed)
    sample = vectors[np.sort(random.permutation(len(vectors))[:_FIT_VECTORS])]
    different = np.unique(sample, axis=0)
    if len(different) < codes:
        rule = f"there are only {len(different)} different vectors to fit"
        fix = f"set `codes` of {name} to at most that, or add data; a folder needs another --out then"
        raise DataError(f"{name} codes", codes, rule, fix)
    centroids = different[random.choice(len(different), codes, replace=False)]
    for _ in range(_ITERATIONS):
        ids = nearest(centroids, sample)
        order = np.argsort(ids, kind="stable")
        used, starts = np.unique(ids[order], return_index=True)
        centroids = different[random.choice(len(different), codes, replace=False)]  # for codes that none uses
        sums = np.add.reduceat(sample[order], starts, axis=0, dtype=np.float64)
        centroids[used] = sums / np.diff(np.append(starts, len(order)))[:, None]
    centred = centroids.astype(np.float64) - centroids.mean(axis=0)
    axis = np.linalg.eigh(centred.T @ centred)[1][:, -1]
    axis = axis if axis.sum() >= 0 else -axis  # an eigenvector's sign is arbitrary: louder is later
    return centroids[np.argsort(centred @ axis, kind="stable")]


def nearest(
    codebook: Float32[np.ndarray, "codes width"], vectors: Float32[np.ndarray, "n width"]
) -> Int64[np.ndarray, " n"]:
    """For each vector the id of the nearest centroid, the smallest among equals."""
    half_squares = 0.5 * np.square(codebook).sum(axis=1)
    chunks = (vectors[start : start + 16384] for start in range(0, len(vectors), 16384))
    found = [np.argmin(half_squares - chunk @ codebook.T, axis=1) for chunk in chunks]
    return np.concatenate([np.zeros(0, np.int64), *found])
