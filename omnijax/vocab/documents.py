"""What the encoder writes: documents of segments of items, as flat arrays."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from omnijax.errors import VocabularyError
from omnijax.vocab.ids import GeneralIds, Numbers, SecondaryIds, expect
from omnijax.vocab.numbers import check_form, to_ints, to_limbs
from omnijax.vocab.vocabulary import Vocabulary

GENERAL = -1
UNMARKED = -1


@dataclasses.dataclass(frozen=True)
class Segment:
    """Items that are encoded together. Positions count from 1 in each segment.

    Attributes:
        marker: index of the control token that opens the segment, or `UNMARKED`.
        spaces: int32[items], index of the space of each item; `GENERAL` for a general token.
        ids: int64[items] or uint32[items, limbs], id within the space, or number of the general token.
    """

    marker: int
    spaces: NDArray[np.int32]
    ids: Numbers

    @classmethod
    def of(cls, vocabulary: Vocabulary, marker: str | None, *parts: SecondaryIds | GeneralIds) -> Segment:
        """A segment of items, one part after another.

        Args:
            vocabulary: gives marker and spaces their numbers.
            marker: name of the control token that opens the segment; None for an unmarked segment.
            *parts: the items in order. Each part is general tokens, or fragments of one space.

        Raises:
            VocabularyError: the marker or a space doesn't exist, or a part is another type.
        """
        opener = UNMARKED if marker is None else vocabulary.token(marker) - vocabulary.control_start
        spaces: list[int] = []
        ids: list[Any] = []
        for part in parts:
            general = isinstance(part, GeneralIds)
            spaces.append(GENERAL if general else vocabulary.space_index(expect(SecondaryIds, part, "ids").space))
            ids.append(np.asanyarray(part.array if isinstance(part, GeneralIds) else part.numbers))
        numbers = _concatenate(ids)
        return cls(opener, np.repeat(np.array(spaces, np.int32), np.array(list(map(len, ids)), np.int64)), numbers)

    def __eq__(self, other: object) -> bool:
        """Whether marker and items are the same. The form of the ids makes no difference."""
        if not isinstance(other, Segment):
            return NotImplemented
        return (
            self.marker == other.marker
            and np.array_equal(self.spaces, other.spaces)
            and to_ints(self.ids) == to_ints(other.ids)
        )


Document = Sequence[Segment]


@dataclasses.dataclass(frozen=True)
class Documents:
    """Many documents of different lengths as flat arrays: items in segments in documents.

    Attributes:
        spaces: int32[items], as in `Segment`.
        ids: int64[items] or uint32[items, limbs], as in `Segment`.
        segment_items: int64[segments], number of items in each segment.
        segment_markers: int64[segments], index of the control token that opens each segment, or `UNMARKED`.
        document_segments: int64[documents], number of segments in each document.
    """

    spaces: NDArray[np.int32]
    ids: Numbers
    segment_items: NDArray[np.int64]
    segment_markers: NDArray[np.int64]
    document_segments: NDArray[np.int64]

    @classmethod
    def of(cls, documents: Iterable[Document]) -> Documents:
        """The flat form of a list of documents. If one segment has ids in limbs, all segments get limbs.

        Raises a `VocabularyError` if a document is not a list of segments, if ids are not whole numbers, or if some ids
        are negative and others are in limbs.
        """
        documents = list(documents)
        for part in documents:
            if not isinstance(part, Sequence) or not all(isinstance(segment, Segment) for segment in part):
                rule = "must be a list of segments"
                raise VocabularyError("document", type(part).__name__, rule, "give a list of documents: [[segment, …]]")
        segments = [segment for document in documents for segment in document]
        empty = np.zeros(0, np.int64)
        return cls(
            np.concatenate([empty, *(s.spaces for s in segments)]).astype(np.int32),
            _concatenate([s.ids for s in segments]),
            np.array([len(s.ids) for s in segments], np.int64),
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


def _concatenate(parts: list[Numbers]) -> Numbers:
    """The ids of all segments in one form, which is limbs if any segment has limbs."""
    for part in parts:
        plain = part.ndim == 1 and (np.issubdtype(part.dtype, np.integer) or part.size == 0)
        if not plain or isinstance(part, np.ma.MaskedArray):
            check_form(part, "ids")
        if plain and part.dtype == np.uint64 and (part >= 2**63).any():
            fix = "give ids of large spaces as uint32[items, limbs]"
            raise VocabularyError("ids", int(part.max()), "an id in one number must be below 2^63", fix)
    most = max((part.shape[1] for part in parts if part.ndim == 2), default=0)
    if most == 0:
        return np.concatenate([np.zeros(0, np.int64), *(part.astype(np.int64, copy=False) for part in parts)])
    for part in parts:
        if part.ndim == 1 and (part < 0).any():
            raise VocabularyError("ids", int(part.min()), "ids are 0 or more", "check the modality that made it")
    return np.concatenate([to_limbs(part, max(2, most)) for part in parts])
