"""Arrays of whole numbers of any size, and their digits: NumPy, vectorised, no Python integer for an item.

`Numbers` are int64[items], or uint32[items, limbs] with the least significant limb first.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from omnijax.errors import VocabularyError
from omnijax.vocab.ids import Digits, Numbers, SecondaryIds, expect
from omnijax.vocab.long_division import LIMB as LIMB
from omnijax.vocab.long_division import LOW, SHIFT, multiply_add, runs_of
from omnijax.vocab.long_division import limbs_for as limbs_for
from omnijax.vocab.long_division import write_digits as write_digits
from omnijax.vocab.radix import Base, radices_of

BLOCK = 2**18
"""Digits that are worked on at a time: what belongs to them stays in the processor's cache."""


def digits_of(ids: SecondaryIds, radices: tuple[int, ...]) -> Digits:
    """Digits of fragments' ids, as many places as there are radices.

    Raises:
        VocabularyError: an id that these places can't write, or something else than secondary ids.
    """
    numbers = check_form(expect(SecondaryIds, ids, "ids").numbers, "ids")
    if not below(numbers, math.prod(radices)).all():
        rule = f"digits in radices {radices} write ids below {math.prod(radices)}"
        raise VocabularyError("radices", radices, rule, "add places")
    return Digits(to_digits(numbers, radices), radices)


def ids_of(space: str, digits: Digits) -> SecondaryIds:
    """The fragments of a space whose digits these are: the inverse of `digits_of`.

    Raises:
        VocabularyError: a digit that isn't below its radix, or something else than digits.
    """
    given = expect(Digits, digits, "digits")
    array = np.asarray(given.array)
    if not np.issubdtype(array.dtype, np.integer) or array.ndim != 2 or array.shape[1] != len(given.radices):
        rule = f"must be whole numbers [items, {len(given.radices)}]"
        raise VocabularyError("digits", f"{array.dtype}{list(array.shape)}", rule, "one digit for each radix")
    wrong = (array < 0) | (array >= np.array(given.radices))
    if wrong.any():
        rule = f"digits are below their radices {given.radices}"
        raise VocabularyError("digits", int(array[wrong][0]), rule, "give digits, not tokens")
    return SecondaryIds(space, from_digits(array, given.radices))


def check_form(numbers: Numbers, field: str) -> Numbers:
    """The numbers, if they are `Numbers`.

    Raises:
        VocabularyError: another dtype, or another number of dimensions.
    """
    if (numbers.dtype.name, numbers.ndim) not in (("int64", 1), ("uint32", 2)) or 0 in numbers.shape[1:]:
        rule = "must be int64[items], or uint32[items, limbs]"
        raise VocabularyError(field, f"{numbers.dtype}{list(numbers.shape)}", rule, "convert them")
    return numbers


def to_digits(numbers: Numbers, radices: tuple[int, ...]) -> NDArray[np.int32]:
    """int32[items, places], most significant first, of numbers below the product of the radices."""
    out = np.empty((len(numbers), len(radices)), np.int32)
    for block in blocks(len(numbers), len(radices)):
        write_digits(numbers[block], radices, out[block], 0)
    return out


def blocks(items: int, width: int) -> list[slice]:
    """The items block by block, each as many as a block has room for, if an item has `width` digits."""
    length = max(1, BLOCK // width)
    return [slice(start, min(start + length, items)) for start in range(0, items, length)]


def from_digits(digits: NDArray[np.integer], radices: tuple[int, ...]) -> Numbers:
    """The numbers with these digits, int[items, places]; int64 where all that can be written fit, limbs otherwise."""
    most = math.prod(radices)
    columns = [np.zeros(len(digits), np.uint64)] * limbs_for(most)
    start = 0
    for count in runs_of(radices):
        part = np.zeros(len(digits), np.uint32)
        for place in range(start, start + count):
            part = part * np.uint32(radices[place]) + digits[:, place].astype(np.uint32)
        columns = multiply_add(columns, math.prod(radices[start : start + count]), part.astype(np.uint64))
        start += count
    numbers = np.stack(columns, axis=1).astype(np.uint32)
    return to_int64(numbers) if most <= 2**63 else numbers


def widths(numbers: Numbers, base: Base, most: int) -> NDArray[np.int64]:
    """int64[items], digits without leading zeros of numbers that take `most` at most; 0 takes one digit."""
    if numbers.ndim == 1:
        thresholds = [math.prod(radices_of(base, width)) for width in range(1, most)]
        found = np.ones(len(numbers), np.uint8)
        for threshold in thresholds:
            found += numbers >= threshold
        return found.astype(np.int64)
    digits = to_digits(numbers, radices_of(base, most))
    width = np.ones(len(numbers), np.int64)
    for place in range(most - 1)[::-1]:
        width[digits[:, place] > 0] = most - place
    return width


def add(numbers: Numbers, amount: int) -> Numbers:
    """The numbers, each with `amount` added (which may be negative), in the same form; what doesn't fit is cut off."""
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
    """bool[items], whether each number is in 0 … bound - 1."""
    if numbers.ndim == 1:
        # Negative numbers are beyond 2^63 in the eyes of uint64: one comparison sees both ends.
        return numbers.view(np.uint64) < np.uint64(min(bound, 2**63))
    if bound >= 2 ** (LIMB * numbers.shape[1]):
        return np.ones(len(numbers), bool)
    less, equal = np.zeros(len(numbers), bool), np.ones(len(numbers), bool)
    for limb, most in reversed(list(enumerate(from_ints([bound], numbers.shape[1])[0]))):
        less |= equal & (numbers[:, limb] < most)
        equal &= numbers[:, limb] == most
    return less


def to_limbs(numbers: Numbers, limbs: int) -> NDArray[np.uint32]:
    """uint32[items, limbs] of the same numbers, whose further limbs are 0."""
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
    """uint32[items, limbs] of Python integers: for tables and tests."""
    raw = b"".join(int(number).to_bytes(4 * limbs, "little") for number in numbers)
    return np.frombuffer(raw, "<u4").astype(np.uint32).reshape(-1, limbs)


def to_ints(numbers: Numbers) -> list[int]:
    """Python integers of the same value: for tables and tests."""
    if numbers.ndim == 1:
        return [int(number) for number in numbers]
    return [int.from_bytes(row.tobytes(), "little") for row in numbers.astype("<u4")]


def limbs_of_bytes(raw: NDArray[np.uint8]) -> NDArray[np.uint32]:
    """uint32[items, limbs] of lossless fragments, uint8[items, bytes]: the first byte is the most significant.

    A 2×2 RGB patch is 12 bytes, 3 limbs. In base 256 its digits are the bytes themselves, in their order.

    Raises:
        VocabularyError: these are no bytes, or not in two dimensions.
    """
    if raw.dtype != np.uint8 or raw.ndim != 2:
        rule, fix = "must be uint8[items, bytes]", "convert it, or reshape it: x.reshape(len(x), -1)"
        raise VocabularyError("raw", f"{raw.dtype}{list(raw.shape)}", rule, fix)
    pad = -raw.shape[1] % 4
    whole = np.concatenate([np.zeros((len(raw), pad), np.uint8), raw], axis=1) if pad else np.ascontiguousarray(raw)
    return whole.view(">u4")[:, ::-1].astype(np.uint32)


def bytes_of(numbers: Numbers, count: int) -> NDArray[np.uint8]:
    """uint8[items, count], the inverse of `limbs_of_bytes`."""
    limbs = to_limbs(numbers, -(-count // 4))
    raw = np.ascontiguousarray(limbs[:, ::-1], ">u4").view(np.uint8)
    return raw.reshape(len(limbs), -1)[:, limbs.shape[1] * 4 - count :]
