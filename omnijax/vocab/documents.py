"""What is written: documents of segments of items, many at a time, as flat arrays."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from omnijax.errors import VocabularyError
from omnijax.vocab.ids import GeneralIds, Numbers, SecondaryIds, expect
from omnijax.vocab.numbers import to_limbs
from omnijax.vocab.vocabulary import Vocabulary

GENERAL = -1
UNMARKED = -1


@dataclasses.dataclass(frozen=True)
class Segment:
    """What is encoded by itself; positions count from 1 in each.

    Attributes:
        marker: index of the control token that opens it, or `UNMARKED`.
        spaces: int32[items], index of the space of each item, `GENERAL` for a general token.
        ids: int64[items] or uint32[items, limbs], id within its space, or of the general token.
    """

    marker: int
    spaces: NDArray[np.int32]
    ids: Numbers

    @classmethod
    def of(cls, vocabulary: Vocabulary, marker: str | None, ids: SecondaryIds | GeneralIds) -> Segment:
        """A segment opened by the control token of this name, or by none, of fragments of one space or general tokens.

        Raises:
            VocabularyError: there is no such control token or space, or the ids don't say what they are of.
        """
        opener = UNMARKED if marker is None else vocabulary.token(marker) - vocabulary.control_start
        if isinstance(ids, GeneralIds):
            space, numbers = GENERAL, np.asarray(ids.array)
        else:
            fragments = expect(SecondaryIds, ids, "ids")
            space, numbers = vocabulary.space_index(fragments.space), np.asarray(fragments.numbers)
        if numbers.ndim not in (1, 2):
            rule = "must be int64[items], or uint32[items, limbs]"
            raise VocabularyError("ids", f"{numbers.dtype}{list(numbers.shape)}", rule, "convert them")
        return cls(opener, np.full(len(numbers), space, np.int32), numbers)

    def __eq__(self, other: object) -> bool:
        """Same marker and items, whichever form their ids have."""
        if not isinstance(other, Segment):
            return NotImplemented
        limbs = max(part.ids.shape[1] if part.ids.ndim == 2 else 2 for part in (self, other))
        return (
            self.marker == other.marker
            and np.array_equal(self.spaces, other.spaces)
            and np.array_equal(to_limbs(self.ids, limbs), to_limbs(other.ids, limbs))
        )


Document = Sequence[Segment]


@dataclasses.dataclass(frozen=True)
class Documents:
    """Many documents, ragged, as flat arrays: items in segments in documents.

    Attributes:
        spaces: int32[items], as in `Segment`.
        ids: int64[items] or uint32[items, limbs], as in `Segment`.
        segment_items: int64[segments], items in each segment.
        segment_markers: int64[segments], control token that opens it, or `UNMARKED`.
        document_segments: int64[documents], segments in each document.
    """

    spaces: NDArray[np.int32]
    ids: Numbers
    segment_items: NDArray[np.int64]
    segment_markers: NDArray[np.int64]
    document_segments: NDArray[np.int64]

    @classmethod
    def of(cls, documents: Iterable[Document]) -> Documents:
        """The flat form of a list of documents. Where one segment has ids in limbs, all of them get limbs.

        Raises:
            VocabularyError: these are no documents; ids are not whole numbers, or negative among others in limbs.
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
    """The ids of all segments in one form, which is limbs if any of them has limbs."""
    for part in parts:
        whole = part.ndim == 1 and (np.issubdtype(part.dtype, np.integer) or part.size == 0)
        limbs = part.ndim == 2 and part.dtype == np.uint32 and part.shape[1] > 0
        if not (whole or limbs):
            rule = "ids must be whole numbers, in one dimension or as uint32[items, limbs]"
            raise VocabularyError("ids", f"{part.dtype}{list(part.shape)}", rule, "convert them before encoding")
    most = max((part.shape[1] for part in parts if part.ndim == 2), default=0)
    if most == 0:
        return np.concatenate([np.zeros(0, np.int64), *(part.astype(np.int64, copy=False) for part in parts)])
    for part in parts:
        if part.ndim == 1 and (part < 0).any():
            raise VocabularyError("ids", int(part.min()), "ids are 0 or more", "check the modality that made it")
    return np.concatenate([to_limbs(part, max(2, most)) for part in parts])
