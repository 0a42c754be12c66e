"""The digits of ids in another order, to test how much the order and the borders of digits matter."""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from omnijax.vocab.assignment.base import Assignment, Radices, require
from omnijax.vocab.ids import Numbers
from omnijax.vocab.numbers import from_digits, to_digits


@dataclasses.dataclass(frozen=True)
class Transposed(Assignment):
    """Numbers whose digits are those of the ids in another order, as `numpy.transpose` orders the axes of an array.

    `Transposed(sides=(256,) * 12, axes=…)` reorders the sub-pixels of a patch of 2×2 RGB pixels, and
    `Transposed(sides=(2,) * 96, axes=…)` its bits, so that a digit of 8 bits has bits of several sub-pixels. Raises a
    `VocabularyError` if there are no sides, if one is out of its bounds, or if the axes are no order of the sides.

    Attributes:
        sides: radices of the digits of an id, most significant first, each in 2 … 2^16. Their product is the size of
            the space.
        axes: for each digit of a number its place in the id, each of 0 … len(sides) - 1 once.
    """

    kind: str = dataclasses.field(default="transposed", kw_only=True)
    sides: tuple[int, ...] = ()
    axes: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        sides, axes = self.sides, self.axes
        whole = isinstance(sides, tuple) and all(type(side) is int and 2 <= side <= 2**16 for side in sides)
        rule = "must be a tuple, one whole number in 2 … 65536 for each digit"
        require(whole and bool(sides), "sides", sides, rule, "for example (256,) * 12 for 4 pixels of three bytes")
        whole = isinstance(axes, tuple) and all(type(axis) is int for axis in axes)
        rule = f"must be a tuple with each of 0 … {len(sides) - 1} once"
        require(whole and sorted(axes) == list(range(len(sides))), "axes", axes, rule, "give one place for each side")

    def check(self, size: int, radices: Radices) -> None:
        """Refuses a space of another size with a `VocabularyError`."""
        rule = f"the sides multiply to {math.prod(self.sides)}, and the space has {size} ids"
        fix = "give the sides that multiply to the size"
        require(math.prod(self.sides) == size, "sides", self.sides, rule, fix)

    def _block(self, numbers: Numbers, size: int, radices: Radices, back: bool) -> Numbers:
        written, axes = tuple(self.sides[axis] for axis in self.axes), list(self.axes)
        if back:
            return from_digits(to_digits(numbers, written)[:, np.argsort(axes)], self.sides)
        return from_digits(to_digits(numbers, self.sides)[:, axes], written)
