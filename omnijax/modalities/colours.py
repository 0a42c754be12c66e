"""Colour transforms that lose nothing: three channels to three, one to one on all values below `levels`.

Each is a chain of steps that add to one channel a function of the others, modulo `levels`. Such a step can be undone,
whatever the function is (lifting: I. Daubechies, W. Sweldens, J. Fourier Anal. Appl. 4 (1998)). `ycocg` is YCoCg-R
(H. Malvar, G. Sullivan, JVT-I014 (2003)) with wrapped differences, so that its chroma needs no extra bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from jaxtyping import Shaped

Colours = Literal["rgb", "green", "ycocg"]
"""As they are; green, red - green and blue - green; or luma, orange and green chroma."""


def written(pixels: Shaped[np.ndarray, "... channels"], colours: Colours, levels: int) -> np.ndarray:
    """The first three channels of pixels in other colours, modulo `levels`; further channels stay."""
    red, green, blue, rest = _split(pixels)
    if colours == "green":
        found = green, red - green, blue - green
    else:
        orange = (red - blue) % levels
        middle = blue + _half(orange, levels)
        chroma = (green - middle) % levels
        found = middle + _half(chroma, levels), orange, chroma
    return _joined(found, rest, levels, pixels.dtype)


def original(pixels: Shaped[np.ndarray, "... channels"], colours: Colours, levels: int) -> np.ndarray:
    """The inverse of `written`."""
    first, second, third, rest = _split(pixels)
    if colours == "green":
        return _joined((second + first, first, third + first), rest, levels, pixels.dtype)
    middle = first - _half(third, levels)
    blue = middle - _half(second, levels)
    return _joined((blue + second, third + middle, blue), rest, levels, pixels.dtype)


def _split(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    wide = pixels.astype(np.int64)
    return wide[..., 0], wide[..., 1], wide[..., 2], wide[..., 3:]


def _joined(colours: Sequence[np.ndarray], rest: np.ndarray, levels: int, dtype: np.dtype[Any]) -> np.ndarray:
    return np.concatenate([np.stack(colours, axis=-1) % levels, rest], axis=-1).astype(dtype)


def _half(wrapped: np.ndarray, levels: int) -> np.ndarray:
    """Half of a difference that was wrapped into 0 … levels - 1, rounded down."""
    signed = (wrapped + levels // 2) % levels - levels // 2
    return signed >> 1
