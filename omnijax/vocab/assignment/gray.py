"""Neighbouring ids get numbers that differ in one digit."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from omnijax.errors import VocabularyError
from omnijax.vocab.assignment.blocks import in_blocks
from omnijax.vocab.assignment.protocol import Assignment, check_size
from omnijax.vocab.ids import Numbers
from omnijax.vocab.numbers import from_digits, to_digits
from omnijax.vocab.radix import to_digits as digits_of_one

_Digits = NDArray[np.int32]
"""int32[places, items], most significant place first."""


@dataclasses.dataclass(frozen=True)
class Gray:
    """The reflected Gray code in the radices of the vocabulary: ids i and i + 1 differ in one digit, by one.

    Every other sweep through the lower digits goes backwards (Knuth, The Art of Computer Programming 7.2.1.1).

    A space that doesn't fill its radices ends within a sweep at each place. The numbers before that end come in the
    order above, then those of the unfinished sweep: a Gray sequence of its own size in the lower digits, backwards if
    the sweep goes backwards. Where an unfinished sweep goes backwards it can't begin where the one before ended, so
    that one pair of neighbours differs in more than a digit: at most one pair for each digit place but the last,
    and none where the size is a multiple of the product of all radices but the first.
    """

    kind: Literal["gray"] = "gray"

    def __post_init__(self) -> None:
        if self.kind != "gray":
            raise VocabularyError("assignment.kind", self.kind, "must be gray", "leave it out")

    def check(self, size: int, radices: tuple[int, ...]) -> None:
        """Every space with ids will do."""
        check_size(size)

    def forward(self, ids: Numbers, size: int, radices: tuple[int, ...]) -> Numbers:
        """The numbers that are written for these ids."""
        return _by_digits(_code, ids, size, radices)

    def inverse(self, numbers: Numbers, size: int, radices: tuple[int, ...]) -> Numbers:
        """The ids that these numbers are written for."""
        return _by_digits(_decode, numbers, size, radices)

    def keeps(self, old: Assignment, sizes: tuple[int, int], radices: tuple[tuple[int, ...], tuple[int, ...]]) -> bool:
        """In a larger space, if the smaller one doesn't end in a sweep that goes backwards and is finished there."""
        suffix = radices[1][len(radices[1]) - len(radices[0]) :]
        return old == self and suffix == radices[0] and _goes_on(*sizes, radices[1])


def _by_digits(change: Callable[..., _Digits], numbers: Numbers, size: int, radices: tuple[int, ...]) -> Numbers:
    last = digits_of_one(size - 1, radices)

    def on_block(block: Numbers) -> Numbers:
        digits = np.ascontiguousarray(to_digits(block, radices).T)
        return from_digits(change(digits, radices, last).T, radices)

    return in_blocks(on_block, numbers, size)


def _code(digits: _Digits, radices: tuple[int, ...], last: list[int]) -> _Digits:
    """Digits of ids to those of their numbers; `last` are the digits of the largest id.

    An item is at the edge as long as its digits are those of the end of the space; from then on it is in a whole sweep.
    """
    result = np.empty_like(digits)
    edge, backwards = np.ones(digits.shape[1], bool), np.zeros(digits.shape[1], bool)
    for place, radix in enumerate(radices):
        digit = digits[place]
        result[place] = np.where(backwards, radix - 1 - digit, digit)
        # Number of sweeps so far: that of the place before, times the radix, and this digit.
        backwards = (digit & 1 == 1) ^ (backwards if radix % 2 else False)
        edge &= digit == last[place]
        backwards &= ~edge
        if last[place] % 2:
            _turn(digits, place + 1, radices, last, edge)
    return result


def _decode(digits: _Digits, radices: tuple[int, ...], last: list[int]) -> _Digits:
    """The inverse of `_code`."""
    result, edges = np.empty_like(digits), np.empty(digits.shape, bool)
    edge, backwards = np.ones(digits.shape[1], bool), np.zeros(digits.shape[1], bool)
    for place, radix in enumerate(radices):
        digit = np.where(backwards, radix - 1 - digits[place], digits[place])
        result[place] = digit
        backwards = (digit & 1 == 1) ^ (backwards if radix % 2 else False)
        edge = edge & (digit == last[place])
        backwards &= ~edge
        edges[place] = edge
    for place in reversed(range(len(radices))):
        if last[place] % 2:
            _turn(result, place + 1, radices, last, edges[place])
    return result


def _turn(digits: _Digits, start: int, radices: tuple[int, ...], last: list[int], edge: NDArray[np.bool_]) -> None:
    """The digits from `start` on of the items at the edge, counted backwards from the end of the space; in place."""
    items = np.flatnonzero(edge)
    if not items.size:
        return
    borrow = np.zeros(items.size, np.int32)
    for place in reversed(range(start, len(radices))):
        difference = last[place] - digits[place, items] - borrow
        borrow = (difference < 0).astype(np.int32)
        digits[place, items] = difference + borrow * radices[place]


def _goes_on(size: int, larger: int, radices: tuple[int, ...]) -> bool:
    """Whether the sequence of a space is the beginning of that of a larger one."""
    if size == larger:
        return True
    block = math.prod(radices[1:])
    sweep = (size - 1) // block
    done, there = size - sweep * block, min(block, larger - sweep * block)
    return done == there if sweep % 2 else _goes_on(done, there, radices[1:])
