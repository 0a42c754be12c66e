"""What every assignment offers, and the assignment that changes nothing."""

from __future__ import annotations

import dataclasses

import numpy as np

from omnijax.errors import VocabularyError
from omnijax.vocab.ids import Numbers
from omnijax.vocab.numbers import below, blocks, check_form, to_int64, to_ints, to_limbs

WIDTH = 16
"""About as many words as an assignment needs for a number."""
Radices = tuple[int, ...]


def require(holds: bool, field: str, value: object, rule: str, fix: str = "change it") -> None:
    """Refuses an assignment with a `VocabularyError` unless a rule holds."""
    if not holds:
        raise VocabularyError(f"assignment.{field}", value, rule, fix)


@dataclasses.dataclass(frozen=True)
class Assignment:
    """A bijection of a space onto itself: from the id of a fragment to the number that is written for it.

    An assignment is a frozen dataclass of plain values, so that it has a text form and a hash, and is part of the
    fingerprint of its vocabulary. The field `kind` has its name. Subclasses define `_block`.
    """

    kind: str = dataclasses.field(default="", kw_only=True)

    def __post_init__(self) -> None:
        require(self.kind == type(self).kind, "kind", self.kind, f"must be {type(self).kind}", "leave it out")

    def check(self, size: int, radices: Radices) -> None:
        """Raises a `VocabularyError` if this assignment doesn't fit a space of `size` ids. By default every space fits.

        `radices` are those of the digits of its largest id, most significant first.
        """

    def forward(self, ids: Numbers, size: int, radices: Radices, back: bool = False) -> Numbers:
        """The numbers that are written for these ids, in the same form (int64[items] or uint32[items, limbs]).

        `back` gives the inverse. Works on blocks that fit the processor's cache. Raises a `VocabularyError` if an id
        isn't in 0 … size - 1, or if these are not `Numbers`.
        """
        result = np.empty_like(check_form(ids, "ids"))
        for part in blocks(len(ids), WIDTH):
            block = ids[part]
            inside = below(block, size)
            if not inside.all():
                wrong = to_ints(block[~inside][:1])[0]
                raise VocabularyError("ids", wrong, f"must be in 0 … {size - 1}", "check where they come from")
            found = self._block(block, size, radices, back)
            result[part] = to_int64(found) if block.ndim == 1 else to_limbs(found, block.shape[1])
        return result

    def inverse(self, numbers: Numbers, size: int, radices: Radices) -> Numbers:
        """The ids that these numbers are written for. The inverse of `forward`."""
        return self.forward(numbers, size, radices, back=True)

    def keeps(self, old: Assignment, grown: bool) -> bool:
        """Whether every id has the number that `old` gave it before the space has `grown`, by default if it hasn't."""
        return old == self and not grown

    def _block(self, numbers: Numbers, size: int, radices: Radices, back: bool) -> Numbers:
        """The numbers of these ids, or with `back` the ids of these numbers, in any form; by default the same."""
        return numbers


@dataclasses.dataclass(frozen=True)
class Identity(Assignment):
    """Each fragment is written as its id."""

    kind: str = dataclasses.field(default="identity", kw_only=True)

    def keeps(self, old: Assignment, grown: bool) -> bool:
        """Whether the smaller space wrote its ids as they are, too."""
        return old == self

    def forward(self, ids: Numbers, size: int, radices: Radices, back: bool = False) -> Numbers:
        """The same ids, unchecked."""
        return ids
