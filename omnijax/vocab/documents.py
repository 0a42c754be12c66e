"""What is written: documents of segments of items, many at a time, as flat arrays."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from omnijax.errors import VocabularyError

GENERAL = -1
UNMARKED = -1


@dataclasses.dataclass(frozen=True)
class Segment:
    """What is encoded by itself; positions count from 1 in each.

    Attributes:
        marker: index of the control token that opens it, or `UNMARKED`.
        spaces: int32[items], index of the space of each item, `GENERAL` for a general token.
        ids: int64[items], id within its space, or of the general token.
    """

    marker: int
    spaces: NDArray[np.int32]
    ids: NDArray[np.int64]

    @classmethod
    def of(cls, marker: int, space: int, ids: ArrayLike) -> Segment:
        """A segment with items of one space (or `GENERAL`)."""
        array = np.asarray(ids)
        return cls(marker, np.full(array.shape, space, np.int32), array)

    def __eq__(self, other: object) -> bool:
        """Same marker and items."""
        if not isinstance(other, Segment):
            return NotImplemented
        return (
            self.marker == other.marker
            and np.array_equal(self.spaces, other.spaces)
            and np.array_equal(self.ids, other.ids)
        )


Document = Sequence[Segment]


@dataclasses.dataclass(frozen=True)
class Documents:
    """Many documents, ragged, as flat arrays: items in segments in documents.

    Attributes:
        spaces: int32[items], as in `Segment`.
        ids: int64[items], as in `Segment`.
        segment_items: int64[segments], items in each segment.
        segment_markers: int64[segments], control token that opens it, or `UNMARKED`.
        document_segments: int64[documents], segments in each document.
    """

    spaces: NDArray[np.int32]
    ids: NDArray[np.int64]
    segment_items: NDArray[np.int64]
    segment_markers: NDArray[np.int64]
    document_segments: NDArray[np.int64]

    @classmethod
    def of(cls, documents: Iterable[Document]) -> Documents:
        """The flat form of a list of documents.

        Raises:
            VocabularyError: ids are not whole numbers.
        """
        documents = list(documents)
        segments = [segment for document in documents for segment in document]
        for segment in segments:
            if segment.ids.size and not np.issubdtype(segment.ids.dtype, np.integer):
                raise VocabularyError(
                    "ids", segment.ids.dtype, "ids must be whole numbers", "convert them before encoding"
                )
        empty = np.zeros(0, np.int64)
        return cls(
            np.concatenate([empty, *(s.spaces for s in segments)]).astype(np.int32),
            np.concatenate([empty, *(s.ids.astype(np.int64) for s in segments)]),
            np.array([s.ids.size for s in segments], np.int64),
            np.array([s.marker for s in segments], np.int64),
            np.array([len(d) for d in documents], np.int64),
        )

    def to_list(self) -> list[list[Segment]]:
        """The documents one by one."""
        item_ends = np.cumsum(self.segment_items)
        segments = [
            Segment(int(marker), self.spaces[end - count : end], self.ids[end - count : end])
            for marker, count, end in zip(self.segment_markers, self.segment_items, item_ends, strict=True)
        ]
        segment_ends = np.cumsum(self.document_segments)
        return [segments[end - n : end] for n, end in zip(self.document_segments, segment_ends, strict=True)]
