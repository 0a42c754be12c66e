"""Assignments that are tables with a number for each id, and the assignment by frequency."""

from __future__ import annotations

import base64
import binascii
import dataclasses
import functools

import numpy as np
from numpy.typing import ArrayLike, NDArray

from omnijax.errors import VocabularyError
from omnijax.vocab.assignment.base import Assignment, Radices, require
from omnijax.vocab.ids import Numbers
from omnijax.vocab.numbers import to_int64

LARGEST_TABLE = 2**22
"""Most entries of a table. A table is part of the configuration of a run and of each of its checkpoints."""


@dataclasses.dataclass(frozen=True, repr=False)
class Table(Assignment):
    """A number for each id of a space, as a text. Equal tables are equal texts.

    Attributes:
        entries: number of ids.
        table: the numbers in base64. Each takes as many bits as `entries - 1`, most significant bit first. Zeros fill
            the last byte.

    Raises:
        VocabularyError: the text is not that of a permutation.
    """

    kind: str = dataclasses.field(default="table", kw_only=True)
    entries: int = 1
    table: str = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        whole = isinstance(self.entries, int) and not isinstance(self.entries, bool)
        _require(whole and 1 <= self.entries <= LARGEST_TABLE, "entries", self.entries, f"must be 1 … {LARGEST_TABLE}")
        _check_permutation(self.numbers)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(entries={self.entries}, table={self.table[:8]!r}…)"

    @functools.cached_property
    def numbers(self) -> NDArray[np.int64]:
        """int64[entries], the number of each id. Nobody may write to this array."""
        try:
            packed = np.frombuffer(base64.b64decode(self.table, validate=True), np.uint8)
        except (binascii.Error, TypeError, ValueError) as error:
            _require(False, "table", str(self.table)[:40], f"must be base64 ({error})")
        bits = (self.entries - 1).bit_length()
        rule = f"must have {self.entries} numbers of {bits} bits"
        _require(packed.size == -(-self.entries * bits // 8), "table", f"{packed.size} bytes", rule)
        unpacked = np.unpackbits(packed)
        _require(not unpacked[self.entries * bits :].any(), "table", self.table[-8:], "must be filled up with zeros")
        weights = (1 << np.arange(bits, dtype=np.int64))[::-1]
        return (unpacked[: self.entries * bits].reshape(self.entries, bits) @ weights).astype(np.int64)

    @functools.cached_property
    def ids(self) -> NDArray[np.int64]:
        """int64[entries], the id of each number."""
        ids = np.empty_like(self.numbers)
        ids[self.numbers] = np.arange(self.entries)
        return ids

    def check(self, size: int, radices: Radices) -> None:
        """Refuses a space of another size.

        Raises:
            VocabularyError: it has more or fewer ids than the table.
        """
        rule = f"a table of {self.entries} entries can't be a bijection of {size} ids"
        require(size == self.entries, "table", repr(self), rule, "make it anew for this space")

    def keeps(self, old: Assignment, sizes: tuple[int, int], radices: tuple[Radices, Radices]) -> bool:
        """Whether this table begins with the table of the smaller space."""
        return isinstance(old, Table) and np.array_equal(old.numbers, self.numbers[: old.entries])

    def _block(self, numbers: Numbers, size: int, radices: Radices, back: bool) -> Numbers:
        return (self.ids if back else self.numbers)[to_int64(numbers)]


@dataclasses.dataclass(frozen=True, repr=False)
class Frequency(Table):
    """The commonest fragment gets number 0, and so on. With minimal width common fragments have few digits."""

    kind: str = dataclasses.field(default="frequency", kw_only=True)

    @classmethod
    def of(cls, counts: ArrayLike) -> Frequency:
        """The assignment by these counts.

        Args:
            counts: number[size], how often each id occurs. Of equal counts the smaller id comes first.

        Raises:
            VocabularyError: there are no counts, or a count is not a number ≥ 0.
        """
        array = np.asarray(counts)
        if array.ndim != 1 or not array.size or array.dtype.kind not in "iuf" or not (array >= 0).all():
            rule = "must be one number ≥ 0 for each id"
            raise VocabularyError(
                "counts", f"{array.dtype}{list(array.shape)}", rule, "count the fragments of the data"
            )
        order = np.lexsort((np.arange(array.size), -array.astype(np.float64)))
        numbers = np.empty(array.size, np.int64)
        numbers[order] = np.arange(array.size)
        return cls(entries=array.size, table=packed(numbers))

    def grown(self, size: int) -> Frequency:
        """The assignment of the space enlarged to `size` ids. New ids come last, in their own order."""
        return Frequency(entries=size, table=packed(np.append(self.numbers, np.arange(self.entries, size))))


def packed(numbers: NDArray[np.int64]) -> str:
    """The text of a table.

    Raises:
        VocabularyError: the numbers are not a permutation of 0 … count - 1, or there are too many.
    """
    size = len(numbers)
    _require(1 <= size <= LARGEST_TABLE, "entries", size, f"must be 1 … {LARGEST_TABLE}")
    _check_permutation(numbers)
    bits = (size - 1).bit_length()
    planes = numbers[:, None] >> np.arange(bits - 1, -1, -1) & 1
    return base64.b64encode(np.packbits(planes.astype(np.uint8)).tobytes()).decode()


def _check_permutation(numbers: NDArray[np.int64]) -> None:
    size = len(numbers)
    inside = numbers.ndim == 1 and numbers.dtype.kind in "iu" and numbers.min() >= 0 and numbers.max() < size
    rule = f"must hold each of 0 … {size - 1} once: two ids with the same number could not be told apart"
    _require(bool(inside) and bool((np.bincount(numbers, minlength=size) == 1).all()), "table", numbers[:4], rule)


def _require(holds: bool, field: str, value: object, rule: str) -> None:
    require(holds, field, value, rule, "make the table anew, or take the text as it was written")
