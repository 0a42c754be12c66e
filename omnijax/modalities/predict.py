"""What is left of a value when its neighbours have predicted it, modulo the number of levels: nothing is lost.

The prediction is the median of the left neighbour, the upper one, and the plane through both and their corner, as in
JPEG-LS (M. Weinberger, G. Seroussi, G. Sapiro, IEEE Trans. Image Process. 9 (2000)). Beyond the edges all values are 0,
so that the first row is predicted by its left neighbours and the first column by its upper ones.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Shaped


def residuals(values: Shaped[np.ndarray, "n h w c"], levels: int) -> Shaped[np.ndarray, "n h w c"]:
    """The values without their predictions, in 0 … levels - 1."""
    framed = np.pad(values.astype(np.int64), ((0, 0), (1, 0), (1, 0), (0, 0)))
    found = values - _median(framed[:, 1:, :-1], framed[:, :-1, 1:], framed[:, :-1, :-1])
    return (found % levels).astype(values.dtype)


def original(left: Shaped[np.ndarray, "n h w c"], levels: int) -> Shaped[np.ndarray, "n h w c"]:
    """The inverse of `residuals`. Values on a diagonal don't depend on each other, and are computed at once."""
    _, height, width, _ = left.shape
    framed = np.zeros((left.shape[0], height + 1, width + 1, left.shape[3]), np.int64)
    for diagonal in range(height + width - 1):
        rows = np.arange(max(0, diagonal - width + 1), min(diagonal, height - 1) + 1)
        columns = diagonal - rows
        west, north, corner = framed[:, rows + 1, columns], framed[:, rows, columns + 1], framed[:, rows, columns]
        framed[:, rows + 1, columns + 1] = (left[:, rows, columns] + _median(west, north, corner)) % levels
    return framed[:, 1:, 1:].astype(left.dtype)


def _median(west: np.ndarray, north: np.ndarray, corner: np.ndarray) -> np.ndarray:
    return np.clip(west + north - corner, np.minimum(west, north), np.maximum(west, north))
