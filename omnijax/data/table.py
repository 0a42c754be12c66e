"""Records of equally many items: rows of one array rather than an array each, so that a million of them cost little."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Int64, Integer, UInt32

from omnijax.vocab.documents import Documents, Segment
from omnijax.vocab.ids import Numbers
from omnijax.vocab.numbers import to_limbs


class Table(Sequence[Numbers]):
    """One view of every record; the ids of a record get their form when they are asked for.

    Args:
        array: ids [rows, items], in as small a type as holds them.
        rows: int64[records], which row each record is; all of them, in order, by default.
    """

    def __init__(self, array: Integer[np.ndarray, "r items"], rows: Int64[np.ndarray, " n"] | None = None):
        self._array, self._rows = array, rows

    def __len__(self) -> int:
        return len(self._array if self._rows is None else self._rows)

    def __getitem__(self, record: Any) -> Any:
        if isinstance(record, slice):
            return Table(self._array[record]) if self._rows is None else Table(self._array, self._rows[record])
        return self.take([record])[0]

    def take(self, records: Sequence[int] | Int64[np.ndarray, " n"]) -> np.ndarray:
        """Ids of some records: int64[n, items], or uint32[n, items, 2] in limbs where these go beyond int64."""
        chosen = np.asarray(records, np.int64)
        ids = self._array[chosen if self._rows is None else self._rows[chosen]]
        if ids.dtype != np.uint64:
            return ids.astype(np.int64)
        return to_limbs(ids.reshape(-1).view(np.int64), 2).reshape(*ids.shape, 2)


def documents(first: Sequence[Segment], ids: Sequence[np.ndarray]) -> Documents:
    """Many documents whose segments are alike, with no Python loop over them.

    Args:
        first: one of them.
        ids: int64[documents, items] or uint32[documents, items, limbs] of each segment.
    """
    count = len(ids[0])
    limbs = max(part.shape[2] if part.ndim == 3 else 0 for part in ids)
    same = [part if part.ndim == 3 or not limbs else _in_limbs(part, limbs) for part in ids]
    items = np.concatenate(same, axis=1)
    return Documents(
        np.tile(np.concatenate([segment.spaces for segment in first]), count),
        items.reshape(-1, *items.shape[2:]),
        np.tile(np.array([len(segment.ids) for segment in first], np.int64), count),
        np.tile(np.array([segment.marker for segment in first], np.int64), count),
        np.full(count, len(first), np.int64),
    )


def _in_limbs(ids: Int64[np.ndarray, "n items"], limbs: int) -> UInt32[np.ndarray, "n items limbs"]:
    return to_limbs(ids.reshape(-1), limbs).reshape(*ids.shape, limbs)
