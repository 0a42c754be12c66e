"""A number as digits of a radix, most significant first: the arithmetic that everything here rests on."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def digit_count(number: int, base: int) -> int:
    """Digits that `number` ≥ 0 takes without leading zeros; 0 takes one.

    >>> digit_count(9, 9), digit_count(8, 9), digit_count(0, 9)
    (2, 1, 1)
    """
    count = 1
    while number >= base:
        number //= base
        count += 1
    return count


def digit_counts(numbers: NDArray[np.int64], base: int, most: int) -> NDArray[np.int64]:
    """`digit_count` of an array of numbers, none of which has more than `most` digits."""
    thresholds = np.array([base**k for k in range(1, most)], np.int64)
    return 1 + np.searchsorted(thresholds, numbers, side="right").astype(np.int64)


def place_bounds(size: int, base: int, width: int) -> NDArray[np.int64]:
    """Largest value of the first k + 1 of `width` digits of any number below `size`, for k = 0 … width - 1.

    A prefix can be completed to a number below `size` exactly when its value is at most this bound.
    """
    return np.array([(size - 1) // base ** (width - 1 - k) for k in range(width)], np.int64)
