"""Neighbouring ids get numbers that differ in one digit."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
from numpy.typing import NDArray

from omnijax.vocab.assignment.base import Assignment, Radices
from omnijax.vocab.ids import Numbers
from omnijax.vocab.numbers import from_digits, to_digits
from omnijax.vocab.radix import to_digits as digits_of_one

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

    def keeps(self, old: Assignment, sizes: tuple[int, int], radices: tuple[Radices, Radices]) -> bool:
        """Whether the smaller space has no backward sweep that is unfinished there and goes on here."""
        suffix = radices[1][len(radices[1]) - len(radices[0]) :]
        return old == self and suffix == radices[0] and _goes_on(*sizes, radices[1])

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


def _goes_on(size: int, larger: int, radices: Radices) -> bool:
    """Whether the sequence of a space is the beginning of that of a larger one."""
    if size == larger:
        return True
    block = math.prod(radices[1:])
    sweep = (size - 1) // block
    done, there = size - sweep * block, min(block, larger - sweep * block)
    return done == there if sweep % 2 else _goes_on(done, there, radices[1:])
