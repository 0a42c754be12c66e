"""Assignments that are tables with a number for each id: by frequency, and by a tree of clusters.

In a balanced tree of clusters, similar fragments share their leading digits.
"""

from __future__ import annotations

import base64
import dataclasses
import functools
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from omnijax.errors import VocabularyError
from omnijax.vocab.assignment.base import Assignment, Radices, require
from omnijax.vocab.ids import Numbers
from omnijax.vocab.numbers import to_int64
from omnijax.vocab.radix import Base, radices_for

LARGEST_TABLE = 2**22
"""Most entries of a table. A table is part of the configuration of a run and of each of its checkpoints."""
_FIX = "make the table anew, or take the text as it was written"
_POWER_STEPS, _LLOYD_STEPS = 8, 6


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
        whole, rule = type(self.entries) is int and 1 <= self.entries <= LARGEST_TABLE, f"must be 1 … {LARGEST_TABLE}"
        require(whole, "entries", self.entries, rule, _FIX)
        rule = f"must be the base64 text of {self.entries} numbers, filled up with zeros"
        require(packed(self.numbers) == self.table, "table", self.table[-8:], rule, _FIX)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(entries={self.entries}, table={self.table[:8]!r}…)"

    @classmethod
    def _in_order(cls, ids: NDArray[np.int64], **parts: Any) -> Self:
        """The table that numbers these ids in their order."""
        return cls(entries=len(ids), table=packed(np.argsort(ids)), **parts)

    @functools.cached_property
    def numbers(self) -> NDArray[np.int64]:
        """int64[entries], the number of each id. Nobody may write to this array."""
        bits = (self.entries - 1).bit_length()
        try:
            unpacked = np.unpackbits(np.frombuffer(base64.b64decode(self.table, validate=True), np.uint8))
            numbers = unpacked[: self.entries * bits].reshape(self.entries, bits)
        except (TypeError, ValueError) as error:
            rule = f"must be {self.entries} numbers of {bits} bits in base64 ({error})"
            raise VocabularyError("assignment.table", str(self.table)[:40], rule, _FIX) from error
        return numbers @ (1 << np.arange(bits, dtype=np.int64))[::-1]

    @functools.cached_property
    def ids(self) -> NDArray[np.int64]:
        """int64[entries], the id of each number."""
        return np.argsort(self.numbers)

    def check(self, size: int, radices: Radices) -> None:
        """Raises a `VocabularyError` if the space and the table have different numbers of ids."""
        rule = f"a table of {self.entries} entries can't be a bijection of {size} ids"
        require(size == self.entries, "table", repr(self), rule, "make it anew for this space")

    def keeps(self, old: Assignment, grown: bool) -> bool:
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
        """The assignment by number[size], how often each id occurs. Of equal counts the smaller id comes first.

        Raises a `VocabularyError` if there are no counts, or a count is not a number ≥ 0.
        """
        array = np.asarray(counts)
        if array.ndim != 1 or not array.size or array.dtype.kind not in "iuf" or not (array >= 0).all():
            given, fix = f"{array.dtype}{list(array.shape)}", "count the fragments of the data"
            raise VocabularyError("counts", given, "must be one number ≥ 0 for each id", fix)
        return cls._in_order(np.argsort(-array.astype(np.float64), kind="stable"))

    def grown(self, size: int) -> Frequency:
        """The assignment of the space enlarged to `size` ids. New ids come last, in their own order."""
        return self._in_order(np.append(self.ids, np.arange(self.entries, size)))


@dataclasses.dataclass(frozen=True, repr=False)
class Tree(Table):
    """Numbers by a balanced k-means tree over the embeddings of the fragments.

    A digit place of radix r cuts each cluster into r parts, which are all full except for the last. A cut into many
    parts is a series of cuts into two parts. Each of these is a balanced 2-means clustering. If the sizes of two
    clusters are given, the best assignment to two centroids sorts the points along the line through the centroids. So
    Lloyd's iteration needs no search.

    Attributes:
        radices: radices that the tree was made for, most significant first.
    """

    kind: str = dataclasses.field(default="tree", kw_only=True)
    radices: Radices = ()

    @classmethod
    def of(cls, embeddings: NDArray[np.floating], base: Base, seed: int = 0) -> Tree:
        """The tree over float[size, width], an embedding for each id, and the base of the vocabulary.

        The seed draws the directions that clustering begins with. Raises a `VocabularyError` if there are no
        embeddings, or a number is not finite.
        """
        points = np.asarray(embeddings)
        if points.ndim != 2 or 0 in points.shape or points.dtype.kind not in "iuf" or not np.isfinite(points).all():
            given, fix = f"{points.dtype}{list(points.shape)}", "give a row for each fragment of the space"
            raise VocabularyError("embeddings", given, "must be finite numbers [ids, width]", fix)
        radices = radices_for(len(points), base)
        return cls._in_order(_tree_order(points.astype(np.float64), radices, seed), radices=radices)

    def check(self, size: int, radices: Radices) -> None:
        """Refuses another size, or radices whose digits aren't the branches of the tree, with a `VocabularyError`."""
        super().check(size, radices)
        rule = f"the tree was made for digits in the radices {self.radices}, and these are {radices}"
        require(radices == self.radices, "radices", self.radices, rule, "make it anew: Tree.of(embeddings, base)")


def packed(numbers: NDArray[np.int64]) -> str:
    """The text of a table; raises a `VocabularyError` if these are no permutation of 0 … count - 1, or too many."""
    size = len(numbers)
    require(1 <= size <= LARGEST_TABLE, "entries", size, f"must be 1 … {LARGEST_TABLE}", _FIX)
    rule = f"must hold each of 0 … {size - 1} once: two ids with the same number could not be told apart"
    require(np.array_equal(np.sort(numbers), np.arange(size)), "table", numbers[:4], rule, _FIX)
    planes = numbers[:, None] >> np.arange((size - 1).bit_length())[::-1] & 1
    return base64.b64encode(np.packbits(planes.astype(np.uint8)).tobytes()).decode()


def _tree_order(points: NDArray[np.float64], radices: Radices, seed: int) -> NDArray[np.int64]:
    """int64[items], the item with each number.

    All clusters of a level are cut at once. They are runs in an array of items, given by the starts of the runs.
    """
    random = np.random.default_rng(seed)
    order, starts = np.arange(len(points)), np.zeros(1, np.int64)
    for block in np.multiply.accumulate((1, *radices[:0:-1]))[::-1]:  # ids with the same digits up to each place
        while True:
            counts = np.diff(np.append(starts, len(order)))
            parts = -(-counts // block)
            if parts.max() == 1:
                break
            left = np.where(parts > 1, (parts + 1) // 2 * block, counts)
            order = _cut(points, order, starts, counts, left, random)
            starts = np.union1d(starts, (starts + left)[parts > 1])
    return order


def _cut(
    points: NDArray[np.float64],
    order: NDArray[np.int64],
    starts: NDArray[np.int64],
    counts: NDArray[np.int64],
    left: NDArray[np.int64],
    random: np.random.Generator,
) -> NDArray[np.int64]:
    """The items of each run in a new order: first the `left` items of one cluster, then those of the other."""
    run = np.repeat(np.arange(len(starts)), counts)
    x = points[order]
    x = x - (np.add.reduceat(x, starts) / counts[:, None])[run]
    direction = random.standard_normal((len(starts), x.shape[1]))
    for _ in range(_POWER_STEPS):  # towards the first principal axis of each run
        direction = _unit(np.add.reduceat(x * _along(x, direction, run)[:, None], starts))
    place = np.arange(len(order)) - starts[run]
    for _ in range(_LLOYD_STEPS):
        by_projection = np.lexsort((_along(x, direction, run), run))
        order, x = order[by_projection], x[by_projection]
        first = np.add.reduceat(np.where((place < left[run])[:, None], x, 0), starts)
        # Centred: the sums of both sides are opposite, and so are the directions to their centroids.
        direction = _unit(np.where(np.any(first, axis=1, keepdims=True), -first, direction))
    direction *= np.where(direction.sum(axis=1) < 0, -1, 1)[:, None]
    return order[np.lexsort((_along(x, direction, run), run))]


def _along(x: NDArray[np.float64], direction: NDArray[np.float64], run: NDArray[np.int64]) -> NDArray[np.float64]:
    return np.einsum("nd,nd->n", x, direction[run])


def _unit(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    length = np.sqrt(np.square(vectors).sum(axis=1, keepdims=True))
    return np.divide(vectors, length, out=np.zeros_like(vectors), where=length > 0)
