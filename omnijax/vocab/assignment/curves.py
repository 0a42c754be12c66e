"""Numbers that go through the digits or the coordinates of the fragments without jumps: Gray codes, Hilbert curves."""

from __future__ import annotations

import dataclasses
import functools
import math

import numpy as np
from numpy.typing import NDArray

from omnijax.vocab.assignment.base import Assignment, Radices, require
from omnijax.vocab.ids import Numbers
from omnijax.vocab.numbers import from_digits, to_digits, to_int64
from omnijax.vocab.radix import to_digits as digits_of_one

LARGEST_BOX = 2**22
"""Most ids of a box whose sides are not equal powers of two. Its order is a table in memory."""
_Digits = NDArray[np.int32]
"""int32[places, items], most significant place first."""


@dataclasses.dataclass(frozen=True)
class Gray(Assignment):
    """The reflected Gray code in the radices of the vocabulary: ids i and i + 1 differ in one digit, by one.

    Every second sweep through the lower digits goes backwards (Knuth, The Art of Computer Programming 7.2.1.1).

    If the size is not the product of the radices, the last sweep of each place is unfinished. The finished sweeps come
    first. The unfinished one is a Gray sequence of its own size in the lower digits; it runs backwards if the sweep
    goes backwards. An unfinished sweep that goes backwards can't begin where the sweep before it ended. There, one pair
    of neighbours differs in more than one digit. This happens at most once for each digit place but the last, and never
    if the size is a multiple of the product of all radices but the first.
    """

    kind: str = dataclasses.field(default="gray", kw_only=True)

    def _block(self, numbers: Numbers, size: int, radices: Radices, back: bool) -> Numbers:
        digits, last = np.ascontiguousarray(to_digits(numbers, radices).T), digits_of_one(size - 1, radices)
        return from_digits(_code(digits, radices, last, back).T, radices)


def _code(digits: _Digits, radices: Radices, last: list[int], back: bool) -> _Digits:
    """Digits of ids to those of their numbers, or with `back` the inverse; `last` are the digits of the largest id.

    An item is at the edge while the digits of its id equal those of the largest id. From the first other digit on, it
    is in a finished sweep. An unfinished sweep that goes backwards is turned.
    """
    result, edges = np.empty_like(digits), np.ones((len(radices) + 1, digits.shape[1]), bool)
    backwards = np.zeros(digits.shape[1], bool)
    for place, radix in enumerate(radices):
        result[place] = np.where(backwards, radix - 1 - digits[place], digits[place])
        digit = (result if back else digits)[place]
        # The number of sweeps so far is that of the place before, times the radix, plus this digit.
        backwards = (digit & 1 == 1) ^ (backwards if radix % 2 else False)
        edges[place + 1] = edges[place] & (digit == last[place])
        backwards &= ~edges[place + 1]
        if last[place] % 2 and not back:
            _turn(digits, place + 1, radices, last, edges[place + 1])
    for place in reversed(range(len(radices) if back else 0)):
        if last[place] % 2:
            _turn(result, place + 1, radices, last, edges[place + 1])
    return result


def _turn(digits: _Digits, start: int, radices: Radices, last: list[int], edge: NDArray[np.bool_]) -> None:
    """Reverses the digits from `start` on of the items at the edge, counting from the end of the space; in place."""
    items = np.flatnonzero(edge)
    borrow = np.zeros(items.size, np.int32)
    for place in reversed(range(start, len(radices))):
        difference = last[place] - digits[place, items] - borrow
        borrow = (difference < 0).astype(np.int32)
        digits[place, items] = difference + borrow * radices[place]


@dataclasses.dataclass(frozen=True)
class Hilbert(Assignment):
    """The place of a fragment on a Hilbert curve. Fragments with neighbouring numbers are near in all coordinates.

    The coordinates are the digits of the id in the radices `sides`, most significant first. (A patch has its pixels as
    digits.) If all sides are the same power of two, numbers i and i + 1 differ in one coordinate, by one (J. Skilling,
    Programming the Hilbert curve, 2004). Otherwise the box is cut out of the smallest such cube that holds it. Its
    points are numbered in the order in which the curve meets them. Where the curve leaves the box and comes back,
    neighbours are further apart. Raises a `VocabularyError` if there are no sides, or if one is out of its bounds.

    Attributes:
        sides: sides of the box, one for each coordinate, each in 2 … 2^16. Their product is the size of the space.
    """

    kind: str = dataclasses.field(default="hilbert", kw_only=True)
    sides: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        sides = self.sides
        whole = isinstance(sides, tuple) and all(type(side) is int and 2 <= side <= 2**16 for side in sides)
        rule = "must be a tuple, one whole number in 2 … 65536 for each coordinate"
        require(whole and bool(sides), "sides", sides, rule, "for example (17,) * 4 for 4 pixels of 17 levels")

    def check(self, size: int, radices: Radices) -> None:
        """Refuses a space of another size, and a box that is too large for a table, with a `VocabularyError`."""
        rule = f"the box has {math.prod(self.sides)} points, and the space {size} ids"
        fix = "give the sides that multiply to the size"
        require(math.prod(self.sides) == size, "sides", self.sides, rule, fix)
        rule = f"sides that are no equal powers of two need a table, of at most {LARGEST_BOX} entries"
        fix = "use fewer coordinates, or equal powers of two"
        require(self._cube or size <= LARGEST_BOX, "sides", self.sides, rule, fix)

    def _block(self, numbers: Numbers, size: int, radices: Radices, back: bool) -> Numbers:
        if not self._cube:
            return _box(self.sides)[back][to_int64(numbers)].astype(np.int64)
        if back:
            return from_digits(_off_curve(numbers, self.sides), self.sides)
        return _along_curve(to_digits(numbers, self.sides), self.sides[0])

    @property
    def _cube(self) -> bool:
        side = self.sides[0]
        return len(set(self.sides)) == 1 and side & (side - 1) == 0


@functools.lru_cache(maxsize=4)
def _box(sides: tuple[int, ...]) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """int32[ids], the number of each id; and the id of each number."""
    size, side = math.prod(sides), 2 ** (max(sides) - 1).bit_length()
    ids = np.lexsort(np.atleast_2d(_along_curve(to_digits(np.arange(size), sides), side).T)).astype(np.int32)
    numbers = np.empty(size, np.int32)
    numbers[ids] = np.arange(size, dtype=np.int32)
    return numbers, ids


def _along_curve(coordinates: NDArray[np.int32], side: int) -> Numbers:
    """From coordinates [items, axes] to the places on the curve through the cube of this side."""
    x = np.array(coordinates.T, order="C")
    for level in reversed(_levels(side)):
        for column in x:
            _flip(x[0], column, level)
    for k in range(1, len(x)):
        x[k] ^= x[k - 1]
    parity = np.zeros_like(x[0])
    for level in _levels(side):
        parity ^= np.where(x[-1] & level, level - 1, 0)
    x ^= parity
    depth = side.bit_length() - 1
    bits = x >> np.arange(depth)[::-1, None, None] & 1
    return from_digits(bits.reshape(-1, x.shape[1]).T, (2,) * len(x) * depth)


def _off_curve(numbers: Numbers, sides: tuple[int, ...]) -> NDArray[np.int32]:
    """The inverse of `_along_curve`."""
    axes, depth = len(sides), sides[0].bit_length() - 1
    bits = to_digits(numbers, (2,) * axes * depth).T.reshape(depth, axes, -1)
    x = np.tensordot(1 << np.arange(depth)[::-1], bits, 1).astype(np.int32)
    parity = x[-1] >> 1
    for k in range(axes - 1, 0, -1):
        x[k] ^= x[k - 1]
    x[0] ^= parity
    for level in _levels(sides[0]):
        for column in x[::-1]:
            _flip(x[0], column, level)
    return x.T


def _levels(side: int) -> list[int]:
    """2, 4, … side / 2."""
    return [2**bit for bit in range(1, side.bit_length() - 1)]


def _flip(first: NDArray[np.int32], column: NDArray[np.int32], level: int) -> None:
    """One step of Skilling's: turns the lower bits of `first` over, or changes them for those of `column`; in place."""
    there = (column & level) != 0
    changed = (first ^ column) & np.where(there, 0, level - 1).astype(np.int32)
    first ^= np.where(there, level - 1, changed).astype(np.int32)
    if column is not first:
        column ^= changed
