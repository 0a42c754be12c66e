"""Arrays of whole numbers of any size, and their digits, in vectorised NumPy.

`Numbers` are int64[items], or uint32[items, limbs] with the least significant limb first. Digits come by long division
over limbs for runs of digits, then by 32-bit arithmetic within a run.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from omnijax.errors import VocabularyError
from omnijax.vocab.ids import Numbers

LIMB = 32
LOW = np.uint64(2**LIMB - 1)
SHIFT = np.uint64(LIMB)
BLOCK = 2**18
"""Number of digits in a block of work, which fits the processor's cache."""


def check_form(numbers: Numbers, field: str) -> Numbers:
    """Returns `Numbers`; raises a `VocabularyError` if they have another dtype or number of dimensions, or a mask."""
    if isinstance(numbers, np.ma.MaskedArray):
        rule = "must be a plain array: masked values would be written, too"
        raise VocabularyError(field, type(numbers).__name__, rule, "leave masked items out: ids.compressed()")
    if (numbers.dtype.name, numbers.ndim) not in (("int64", 1), ("uint32", 2)) or 0 in numbers.shape[1:]:
        rule = "must be int64[items], or uint32[items, limbs]"
        raise VocabularyError(field, f"{numbers.dtype}{list(numbers.shape)}", rule, "convert them")
    return numbers


def to_digits(numbers: Numbers, radices: tuple[int, ...]) -> NDArray[np.int32]:
    """Digits of numbers below the product of the radices, int32[items, places], most significant first."""
    out = np.empty((len(numbers), len(radices)), np.int32)
    for block in blocks(len(numbers), len(radices)):
        write_digits(numbers[block], radices, out[block], 0)
    return out


def blocks(items: int, width: int) -> list[slice]:
    """Divides items of `width` digits each into blocks of at most `BLOCK` digits."""
    length = max(1, BLOCK // width)
    return [slice(start, min(start + length, items)) for start in range(0, items, length)]


def from_digits(digits: NDArray[np.integer], radices: tuple[int, ...]) -> Numbers:
    """The numbers with these digits, int[items, places]; int64 if all numbers with such digits fit, else limbs.

    Lossless fragments are numbers whose digits in base 256 are their bytes: a 2×2 RGB patch has 12 of them, 3 limbs.
    """
    most = math.prod(radices)
    if set(radices) == {256}:  # the digits are the bytes of the limbs, and are read as they lie in memory
        raw = np.pad(digits, ((0, 0), (-len(radices) % 4, 0))) if len(radices) % 4 else digits
        numbers = np.ascontiguousarray(raw, np.uint8).view(">u4")[:, ::-1].astype(np.uint32)
        return to_int64(numbers) if most <= 2**63 else numbers
    columns = [np.zeros(len(digits), np.uint64)] * limbs_for(most)
    start = 0
    for count in runs_of(radices):
        part = digits[:, start].astype(np.uint32)
        for place in range(start + 1, start + count):
            part = part * np.uint32(radices[place]) + digits[:, place].astype(np.uint32)
        by, carry = math.prod(radices[start : start + count]), part.astype(np.uint64)
        if by == 2**LIMB:
            columns = [carry, *columns[:-1]]
        else:
            for limb, column in enumerate(columns):  # limb * by + carry, which doesn't overflow 64 bits
                product = column * np.uint64(by) + carry
                columns[limb], carry = product & LOW, product >> SHIFT
        start += count
    numbers = np.stack(columns, axis=1).astype(np.uint32)
    return to_int64(numbers) if most <= 2**63 else numbers


def add(numbers: Numbers, amount: int) -> Numbers:
    """Adds `amount`, which may be negative, to each number. The form stays; bits that don't fit are lost."""
    if numbers.ndim == 1 or amount == 0:
        return numbers + np.int64(amount) if amount else numbers
    amounts = from_ints([amount % 2 ** (LIMB * numbers.shape[1])], numbers.shape[1])[0]
    out, carry = np.empty_like(numbers), np.zeros(len(numbers), np.uint64)
    for limb, more in enumerate(amounts):
        total = carry + numbers[:, limb].astype(np.uint64) + np.uint64(more)
        out[:, limb] = total & LOW
        carry = total >> SHIFT
    return out


def below(numbers: Numbers, bound: int) -> NDArray[np.bool_]:
    """Whether each number is in 0 … bound - 1, bool[items]."""
    if numbers.ndim == 1:
        # As uint64 a negative number is above 2^63, so that one comparison checks both ends.
        return numbers.view(np.uint64) < np.uint64(min(bound, 2**63))
    if bound >= 2 ** (LIMB * numbers.shape[1]):
        return np.ones(len(numbers), bool)
    less, equal = np.zeros(len(numbers), bool), np.ones(len(numbers), bool)
    for limb, most in reversed(list(enumerate(from_ints([bound], numbers.shape[1])[0]))):
        less |= equal & (numbers[:, limb] < most)
        equal &= numbers[:, limb] == most
    return less


def to_limbs(numbers: Numbers, limbs: int) -> NDArray[np.uint32]:
    """The same numbers as uint32[items, limbs]. Further limbs of the numbers must be 0."""
    if numbers.ndim == 1:
        numbers = np.ascontiguousarray(numbers, "<i8").view("<u4").reshape(-1, 2)
    out = np.zeros((len(numbers), limbs), np.uint32)
    out[:, : numbers.shape[1]] = numbers[:, :limbs]
    return out


def to_int64(numbers: Numbers) -> NDArray[np.int64]:
    """The same numbers, which must be below 2^63, as int64[items]."""
    if numbers.ndim == 1:
        return numbers.astype(np.int64, copy=False)
    low = numbers[:, 0].astype(np.int64)
    return low | numbers[:, 1].astype(np.int64) << LIMB if numbers.shape[1] > 1 else low


def from_ints(numbers: Sequence[int], limbs: int) -> NDArray[np.uint32]:
    """Python integers as uint32[items, limbs], for tables and tests."""
    raw = b"".join(int(number).to_bytes(4 * limbs, "little") for number in numbers)
    return np.frombuffer(raw, "<u4").astype(np.uint32).reshape(-1, limbs)


def to_ints(numbers: Numbers) -> list[int]:
    """The numbers as Python integers, for tables and tests."""
    if numbers.ndim == 1:
        return [int(number) for number in numbers]
    return [int.from_bytes(row.tobytes(), "little") for row in numbers.astype("<u4")]


def write_digits(numbers: Numbers, radices: tuple[int, ...], out: NDArray[np.int32], first: int) -> None:
    """Writes `first` + digit to int32[items, places], most significant place first, for a block of items."""
    target, start = out.view(np.uint32), np.uint32(first)  # NumPy is fast if the kind of integers stays the same
    columns = _columns(numbers, math.prod(radices))
    end, binary = len(radices), all(radix & (radix - 1) == 0 for radix in radices)
    for count in runs_of(radices)[::-1]:
        run = radices[end - count : end]
        if end == count and columns[0].dtype == np.uint32:
            part = columns[0]
        elif binary:
            part = _bits(columns, math.prod(radices[end:]), math.prod(run))
        else:
            columns, part = _divide(columns, math.prod(run))
        _write_part(part, run, target[:, end - count : end], start)
        end -= count


def limbs_for(size: int) -> int:
    """Number of limbs of the numbers below `size`."""
    return max(1, -(-(size - 1).bit_length() // LIMB))


def _columns(numbers: Numbers, most: int) -> list[NDArray]:
    """Numbers below `most` as contiguous arrays, least significant first.

    The result is one uint32 or uint64 array if that is enough, otherwise a uint64 array for each limb.
    """
    if most <= 2**32:
        return [(numbers if numbers.ndim == 1 else numbers[:, 0]).astype(np.uint32)]
    if numbers.ndim == 1:
        return [numbers.astype(np.uint64)]
    return [numbers[:, limb].astype(np.uint64) for limb in range(min(numbers.shape[1], limbs_for(most)))]


def runs_of(radices: tuple[int, ...], most: int = 2**LIMB) -> list[int]:
    """Lengths of runs of places whose radices multiply to at most `most`. All but the first are as long as possible."""
    counts, product = [0], 1
    for radix in reversed(radices):
        if product * radix > most:
            counts, product = [*counts, 0], 1
        counts[-1] += 1
        product *= radix
    return counts[::-1]


def _bits(columns: list[NDArray], unit: int, radix: int) -> NDArray[np.uint32]:
    """The digits number // unit % radix, for powers of two: a range of bits of each number. The radix is ≤ 2^32."""
    digits = np.zeros(1, np.uint64)
    for limb, column in enumerate(columns):
        left = LIMB * limb - unit.bit_length() + 1
        if 2**left < radix and (left > -LIMB or len(columns) == 1):
            digits = digits | (column << np.uint64(left) if left > 0 else column >> np.uint64(-left))
    return digits.astype(np.uint32) & np.uint32(radix - 1)


def _divide(columns: list[NDArray], by: int) -> tuple[list[NDArray], NDArray[np.uint32]]:
    """Quotients and remainders of a division by a number ≤ 2^32."""
    quotients, rest = list(columns), np.zeros(0, np.uint64)
    for limb in reversed(range(len(columns))):
        dividend = rest << SHIFT | columns[limb] if rest.size else columns[limb]
        quotients[limb], rest = _quotient_and_rest(dividend, by)
    return quotients, rest.astype(np.uint32)


def _quotient_and_rest(numbers: NDArray, by: int) -> tuple[NDArray, NDArray]:
    kind = numbers.dtype.type
    if by & (by - 1) == 0:
        return numbers >> kind(by.bit_length() - 1), numbers & kind(by - 1)
    quotient = numbers // kind(by)
    return quotient, numbers - quotient * kind(by)


def _write_part(part: NDArray[np.uint32], radices: tuple[int, ...], out: NDArray[np.uint32], first: np.uint32) -> None:
    """Writes the digits of 32-bit numbers. The first digit is the rest, whatever its radix."""
    for place in range(1, len(radices))[::-1]:
        part, digit = _quotient_and_rest(part, radices[place])
        np.add(digit, first, out=out[:, place])
    np.add(part, first, out=out[:, 0])
