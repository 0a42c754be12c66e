"""What every assignment offers."""

from __future__ import annotations

from typing import Protocol

from omnijax.errors import VocabularyError
from omnijax.vocab.ids import Numbers


def check_size(size: int) -> None:
    """Refuses a space without ids, of which nothing is a bijection.

    Raises:
        VocabularyError: the size is below 1.
    """
    if size < 1:
        raise VocabularyError("space.size", size, "must be a whole number ≥ 1", "add fragments")


class Assignment(Protocol):
    """A bijection of a space onto itself: from a fragment's id to the number that is written.

    A frozen dataclass of plain values, so that it has a text form, a hash and a share in the vocabulary's fingerprint.

    Attributes:
        kind: its name, in the fingerprint of the vocabulary.
    """

    @property
    def kind(self) -> str:
        """Its name, in the fingerprint of the vocabulary."""
        ...

    def check(self, size: int, radices: tuple[int, ...]) -> None:
        """Refuses a space that it can't be a bijection of.

        Args:
            size: of the space.
            radices: of the digits of its largest id, most significant first.

        Raises:
            VocabularyError: names the rule.
        """
        ...

    def forward(self, ids: Numbers, size: int, radices: tuple[int, ...]) -> Numbers:
        """The numbers that are written for these ids, in the same form (int64[items] or uint32[items, limbs])."""
        ...

    def inverse(self, numbers: Numbers, size: int, radices: tuple[int, ...]) -> Numbers:
        """The ids that these numbers are written for."""
        ...

    def keeps(self, old: Assignment, sizes: tuple[int, int], radices: tuple[tuple[int, ...], tuple[int, ...]]) -> bool:
        """Whether every id that a smaller space had gets the number that it had there.

        Args:
            old: assignment of the smaller space.
            sizes: of the smaller space and of this one.
            radices: of the largest id of each.
        """
        ...
