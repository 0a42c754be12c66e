"""Numbers along a Hilbert curve through the coordinates of the fragments."""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from omnijax.errors import VocabularyError
from omnijax.vocab.assignment.blocks import in_blocks, look_up
from omnijax.vocab.assignment.protocol import Assignment
from omnijax.vocab.ids import Numbers
from omnijax.vocab.numbers import bytes_of, from_digits, limbs_of_bytes, to_digits

LARGEST_BOX = 2**22
"""Ids of a space whose sides are no equal powers of two: their order is a table in memory."""


@dataclasses.dataclass(frozen=True)
class Hilbert:
    """The place of a fragment on a Hilbert curve: neighbouring numbers are fragments that are near in all coordinates.

    The coordinates are the digits of the id in the radices `sides`, first the most significant, as `PatchImage` makes
    the id of a patch from its pixels. If all sides are the same power of two, numbers i and i + 1 differ in one
    coordinate, by one (J. Skilling, Programming the Hilbert curve, 2004). Else the box is cut out of the smallest such
    cube that holds it, and its points are numbered in the order in which the curve meets them; where it leaves the box
    and comes back, neighbours are further apart.

    Attributes:
        sides: of the box, one for each coordinate, each in 2 … 2^16; their product is the size of the space.

    Raises:
        VocabularyError: no sides, or one out of its bounds.
    """

    kind: Literal["hilbert"] = dataclasses.field(default="hilbert", kw_only=True)
    sides: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        sides = self.sides
        whole = isinstance(sides, tuple) and all(type(side) is int and 2 <= side <= 2**16 for side in sides)
        if self.kind != "hilbert" or not whole or not sides:
            rule = "must be a tuple, one whole number in 2 … 65536 for each coordinate"
            raise VocabularyError("assignment.sides", sides, rule, "for example (17,) * 4 for 4 pixels of 17 levels")

    def check(self, size: int, radices: tuple[int, ...]) -> None:
        """Refuses a space of another size, and boxes too large for a table.

        Raises:
            VocabularyError: names the rule.
        """
        if math.prod(self.sides) != size:
            rule = f"the box has {math.prod(self.sides)} points, and the space {size} ids"
            raise VocabularyError("assignment.sides", self.sides, rule, "give the sides that multiply to the size")
        if not self._cube and size > LARGEST_BOX:
            rule = f"sides that are no equal powers of two need a table, of at most {LARGEST_BOX} entries"
            raise VocabularyError("assignment.sides", self.sides, rule, "use fewer coordinates, or equal powers of two")

    def forward(self, ids: Numbers, size: int, radices: tuple[int, ...]) -> Numbers:
        """The numbers that are written for these ids."""
        if not self._cube:
            return look_up(_box(self.sides)[0], ids)
        return in_blocks(lambda block: _along_curve(to_digits(block, self.sides), self.sides[0]), ids, size)

    def inverse(self, numbers: Numbers, size: int, radices: tuple[int, ...]) -> Numbers:
        """The ids that these numbers are written for."""
        if not self._cube:
            return look_up(_box(self.sides)[1], numbers)
        return in_blocks(lambda block: from_digits(_off_curve(block, self.sides), self.sides), numbers, size)

    def keeps(self, old: Assignment, sizes: tuple[int, int], radices: tuple[tuple[int, ...], tuple[int, ...]]) -> bool:
        """Only in the same space: the curve of a larger box is another one."""
        return old == self

    @property
    def _cube(self) -> bool:
        side = self.sides[0]
        return len(set(self.sides)) == 1 and side & (side - 1) == 0


@functools.lru_cache(maxsize=4)
def _box(sides: tuple[int, ...]) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """int32[ids], the number of each id; and the id of each number."""
    size, side = math.prod(sides), 2 ** (max(sides) - 1).bit_length()
    ids = np.lexsort(_along_curve(to_digits(np.arange(size), sides), side).T).astype(np.int32)
    numbers = np.empty(size, np.int32)
    numbers[ids] = np.arange(size, dtype=np.int32)
    return numbers, ids


def _along_curve(coordinates: NDArray[np.int32], side: int) -> NDArray[np.uint32]:
    """From coordinates [items, axes] to the places on the curve through the cube of this side, [items, limbs]."""
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
    bits = np.zeros((x.shape[1], -(-len(x) * depth // 8) * 8), np.uint8)  # filled up with zeros in front
    start = bits.shape[1] - len(x) * depth
    for bit in range(depth):
        bits[:, start + bit * len(x) : start + (bit + 1) * len(x)] = (x >> depth - 1 - bit & 1).T
    return limbs_of_bytes(np.packbits(bits, axis=1))


def _off_curve(numbers: Numbers, sides: tuple[int, ...]) -> NDArray[np.int32]:
    """The inverse of `_along_curve`."""
    axes, depth = len(sides), sides[0].bit_length() - 1
    bits = np.unpackbits(bytes_of(numbers, -(-axes * depth // 8)), axis=1)[:, -axes * depth :]
    x = np.zeros((axes, len(numbers)), np.int32)
    for bit in range(depth):
        x = x << 1 | bits[:, bit * axes : (bit + 1) * axes].T
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
