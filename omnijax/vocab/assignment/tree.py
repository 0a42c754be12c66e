"""A balanced tree of clusters, in which similar fragments share their leading digits."""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray

from omnijax.errors import VocabularyError
from omnijax.vocab.assignment.base import Radices, require
from omnijax.vocab.assignment.table import Table, packed
from omnijax.vocab.radix import Base, radices_of, width_of

_POWER_STEPS, _LLOYD_STEPS = 8, 6


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
        """The tree over these embeddings.

        Args:
            embeddings: float[size, width], one for each id.
            base: base of the vocabulary.
            seed: draws the directions that clustering begins with.

        Raises:
            VocabularyError: there are no embeddings, or a number is not finite.
        """
        points = np.asarray(embeddings)
        if points.ndim != 2 or 0 in points.shape or points.dtype.kind not in "iuf" or not np.isfinite(points).all():
            rule = "must be finite numbers [ids, width]"
            given = f"{points.dtype}{list(points.shape)}"
            raise VocabularyError("embeddings", given, rule, "give a row for each fragment of the space")
        radices = radices_of(base, width_of(len(points) - 1, base))
        order = _tree_order(points.astype(np.float64), radices, seed)
        numbers = np.empty(len(points), np.int64)
        numbers[order] = np.arange(len(points))
        return cls(entries=len(points), table=packed(numbers), radices=radices)

    def check(self, size: int, radices: Radices) -> None:
        """Refuses a space of another size, or other radices.

        Raises:
            VocabularyError: the digits of this space would not be the branches of the tree.
        """
        super().check(size, radices)
        rule = f"the tree was made for digits in the radices {self.radices}, and these are {radices}"
        require(radices == self.radices, "radices", self.radices, rule, "make it anew: Tree.of(embeddings, base)")


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
