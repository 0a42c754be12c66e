"""Assignments that are written out: a number for each id, and the one by frequency."""

from __future__ import annotations

import base64
import binascii
import dataclasses
import functools
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from omnijax.errors import VocabularyError
from omnijax.vocab.assignment.blocks import look_up
from omnijax.vocab.assignment.protocol import Assignment
from omnijax.vocab.ids import Numbers

LARGEST_TABLE = 2**22
"""Entries; a table stands in the configuration of a run and in each of its checkpoints."""


@dataclasses.dataclass(frozen=True, repr=False)
class Table:
    """A number for each id of a space, as a text: equal tables are equal texts.

    Attributes:
        entries: how many ids there are.
        table: the numbers, each in as many bits as entries - 1 has, most significant bit first, filled up with zeros
            to whole bytes, in base64.

    Raises:
        VocabularyError: the text is none of a permutation.
    """

    kind: str
    entries: int
    table: str

    def __post_init__(self) -> None:
        default = next(field.default for field in dataclasses.fields(self) if field.name == "kind")
        _require(self.kind == default, "kind", self.kind, f"must be {default}")
        whole = isinstance(self.entries, int) and not isinstance(self.entries, bool)
        _require(whole and 1 <= self.entries <= LARGEST_TABLE, "entries", self.entries, f"must be 1 … {LARGEST_TABLE}")
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
        numbers = unpacked[: self.entries * bits].reshape(self.entries, bits) @ weights
        _check_permutation(numbers)
        object.__setattr__(self, "_numbers", numbers.astype(np.int64))

    def __repr__(self) -> str:
        return f"{type(self).__name__}(entries={self.entries}, table={self.table[:8]!r}…)"

    @property
    def numbers(self) -> NDArray[np.int64]:
        """int64[entries], the number of each id; not to be written to."""
        numbers: NDArray[np.int64] = self.__dict__["_numbers"]
        return numbers

    @functools.cached_property
    def ids(self) -> NDArray[np.int64]:
        """int64[entries], the id of each number."""
        ids = np.empty_like(self.numbers)
        ids[self.numbers] = np.arange(self.entries)
        return ids

    def check(self, size: int, radices: tuple[int, ...]) -> None:
        """Refuses a space of another size.

        Raises:
            VocabularyError: it has more or fewer ids than the table.
        """
        if size != self.entries:
            rule = f"a table of {self.entries} entries can't be a bijection of {size} ids"
            raise VocabularyError("assignment.table", repr(self), rule, "make it anew for this space")

    def forward(self, ids: Numbers, size: int, radices: tuple[int, ...]) -> Numbers:
        """The numbers that are written for these ids."""
        return look_up(self.numbers, ids)

    def inverse(self, numbers: Numbers, size: int, radices: tuple[int, ...]) -> Numbers:
        """The ids that these numbers are written for."""
        return look_up(self.ids, numbers)

    def keeps(self, old: Assignment, sizes: tuple[int, int], radices: tuple[tuple[int, ...], tuple[int, ...]]) -> bool:
        """If the smaller space's table is the beginning of this one, or both have the identity there."""
        return isinstance(old, Table) and np.array_equal(old.numbers, self.numbers[: old.entries])


@dataclasses.dataclass(frozen=True, repr=False)
class Frequency(Table):
    """Fragments by how often they occur, the commonest first: with minimal width, common fragments have short numbers.

    Attributes:
        entries: see `Table`.
        table: see `Table`.
    """

    kind: Literal["frequency"] = "frequency"
    entries: int = 1
    table: str = ""

    @classmethod
    def of(cls, counts: ArrayLike) -> Frequency:
        """By counts.

        Args:
            counts: number[size], of each id; among equals the smaller id comes first.

        Raises:
            VocabularyError: no counts, or some that are no numbers ≥ 0.
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
        """For a space enlarged to `size` ids: the new ones come behind all others, in their own order."""
        return Frequency(entries=size, table=packed(np.append(self.numbers, np.arange(self.entries, size))))


def packed(numbers: NDArray[np.int64]) -> str:
    """The text of a table.

    Raises:
        VocabularyError: the numbers are no permutation of 0 … their count - 1, or too many.
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
    if not holds:
        raise VocabularyError(
            f"assignment.{field}", value, rule, "make the table anew, or take the text as it was written"
        )
