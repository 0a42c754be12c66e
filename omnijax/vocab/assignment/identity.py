"""Every fragment is written as its id."""

from __future__ import annotations

import dataclasses
from typing import Literal

from omnijax.vocab.assignment.protocol import Assignment, check_size
from omnijax.vocab.ids import Numbers


@dataclasses.dataclass(frozen=True)
class Identity:
    """Ids as they are."""

    kind: Literal["identity"] = "identity"

    def check(self, size: int, radices: tuple[int, ...]) -> None:
        """Every space with ids will do."""
        check_size(size)

    def forward(self, ids: Numbers, size: int, radices: tuple[int, ...]) -> Numbers:
        """The ids."""
        return ids

    def inverse(self, numbers: Numbers, size: int, radices: tuple[int, ...]) -> Numbers:
        """The numbers."""
        return numbers

    def keeps(self, old: Assignment, sizes: tuple[int, int], radices: tuple[tuple[int, ...], tuple[int, ...]]) -> bool:
        """Always, if ids were written as they are before."""
        return old == self
