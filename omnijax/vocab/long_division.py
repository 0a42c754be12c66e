"""Digits split off numbers of any size: long division over limbs for whole runs of digits, then 32-bit arithmetic.

The machinery of `numbers.py`, for a block of items at a time.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from omnijax.vocab.ids import Numbers

LIMB = 32
LOW = np.uint64(2**LIMB - 1)
SHIFT = np.uint64(LIMB)


def write_digits(numbers: Numbers, radices: tuple[int, ...], out: NDArray[np.int32], first: int) -> None:
    """Puts `first` + digit into int32[items, places], most significant place first; meant for a block of items."""
    target, start = out.view(np.uint32), np.uint32(first)  # NumPy is fast where integers keep their kind
    columns = _columns(numbers, math.prod(radices))
    if len(radices) > 1 and all(radix & (radix - 1) == 0 for radix in radices):
        _write_bits(columns, radices, target, start)
        return
    end = len(radices)
    for count in runs_of(radices)[::-1]:
        run = radices[end - count : end]
        if end == count and columns[0].dtype == np.uint32:
            part = columns[0]
        else:
            columns, part = _divide(columns, math.prod(run))
        _write_part(part, run, target[:, end - count : end], start)
        end -= count


def limbs_for(size: int) -> int:
    """Limbs of the numbers below `size`."""
    return max(1, -(-(size - 1).bit_length() // LIMB))


def _columns(numbers: Numbers, most: int) -> list[NDArray]:
    """The numbers, of which `most` can be written, as arrays that lie in one piece, least significant first.

    One uint32 or uint64 array where that is enough, otherwise uint64 arrays with a limb each.
    """
    if numbers.ndim == 1:
        return [numbers.astype(np.uint32 if most <= 2**32 else np.uint64)]
    if numbers.shape[1] == 1 or most <= 2**32:
        return [np.ascontiguousarray(numbers[:, 0])]
    return [numbers[:, limb].astype(np.uint64) for limb in range(min(numbers.shape[1], limbs_for(most)))]


def runs_of(radices: tuple[int, ...]) -> list[int]:
    """Numbers of neighbouring places whose radices multiply to 2^32 at most; the first run is the one cut short."""
    counts, product = [0], 1
    for radix in reversed(radices):
        if product * radix > 2**LIMB:
            counts, product = [*counts, 0], 1
        counts[-1] += 1
        product *= radix
    return counts[::-1]


def _divide(columns: list[NDArray], by: int) -> tuple[list[NDArray], NDArray[np.uint32]]:
    """Quotients and remainders of a division by a number up to 2^32."""
    if len(columns) == 1 and (columns[0].dtype == np.uint64 or by < 2**LIMB):
        divisor = columns[0].dtype.type(by)
        quotient = columns[0] // divisor
        return [quotient], (columns[0] - quotient * divisor).astype(np.uint32)
    if len(columns) == 1:
        return [np.zeros_like(columns[0])], columns[0]
    quotients, rest, divisor = [], np.zeros(len(columns[0]), np.uint64), np.uint64(by)
    for limb in reversed(columns):
        dividend = rest << SHIFT | limb
        quotient = dividend // divisor
        rest = dividend - quotient * divisor
        quotients.append(quotient)
    return quotients[::-1], rest.astype(np.uint32)


def multiply_add(columns: list[NDArray], by: int, carry: NDArray[np.uint64]) -> list[NDArray]:
    """The numbers times `by` ≤ 2^32, plus what is below 2^32: neither overflows 64 bits."""
    out = []
    for limb in columns:
        product = limb * np.uint64(by) + carry
        out.append(product & LOW)
        carry = product >> SHIFT
    return out


def _write_part(part: NDArray[np.uint32], radices: tuple[int, ...], out: NDArray[np.uint32], first: np.uint32) -> None:
    """Digits of 32-bit numbers; of the first radix, all that is left."""
    for place in range(1, len(radices))[::-1]:
        quotient = part // np.uint32(radices[place])
        np.add(part - quotient * np.uint32(radices[place]), first, out=out[:, place])
        part = quotient
    np.add(part, first, out=out[:, 0])


def _write_bits(columns: list[NDArray], radices: tuple[int, ...], out: NDArray[np.uint32], first: np.uint32) -> None:
    """Digits that are bits of the numbers, which may go over the border of two limbs."""
    bits = LIMB if len(columns) > 1 else 8 * columns[0].dtype.itemsize
    at = 0
    for place in range(len(radices))[::-1]:
        limb, shift = divmod(at, bits)
        length = radices[place].bit_length() - 1
        at += length
        if limb >= len(columns):
            out[:, place] = first
            continue
        kind = columns[limb].dtype.type
        digit = columns[limb] >> kind(shift) if shift else columns[limb]
        if shift + length > bits and limb + 1 < len(columns):
            digit = digit | columns[limb + 1] << kind(bits - shift)
        if place or len(columns) > 1:
            digit = digit & kind(radices[place] - 1)
        np.add(digit.astype(np.uint32, copy=False), first, out=out[:, place])
