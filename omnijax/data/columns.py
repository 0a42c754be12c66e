"""Records as segments of items, in flat arrays: what a split is once its modalities have encoded it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Int, Integer

from omnijax.errors import DataError
from omnijax.modalities.base import GENERAL, Items, Modality, within
from omnijax.vocab.documents import Documents
from omnijax.vocab.ids import Numbers
from omnijax.vocab.numbers import to_limbs
from omnijax.vocab.vocabulary import Vocabulary


@dataclasses.dataclass(frozen=True, eq=False)
class Segments:
    """Segments of one field, each with the record that it belongs to.

    Attributes:
        record: int64[segments], place of the record in the split.
        place: int64[segments], place of the signal in its record.
        markers: int64[segments], index of the control token that opens the segment.
        counts: int64[segments], items of the segment.
        spaces: int16[items], index of the space of each item, -1 for a general token.
        ids: ids of the items within their spaces, in the smallest integers that hold them; uint32[items, limbs] beyond
            int64.
    """

    record: Int[np.ndarray, " segments"]
    place: Int[np.ndarray, " segments"]
    markers: Int[np.ndarray, " segments"]
    counts: Int[np.ndarray, " segments"]
    spaces: Int[np.ndarray, " items"]
    ids: Integer[np.ndarray, "..."]


class Encoded(NamedTuple):
    """Items of signals of one field.

    Attributes:
        field: name of the field.
        items: of the signals.
        record: int64[signals], place of each signal's record in the split.
        place: int64[signals], place of each signal in its record.
    """

    field: str
    items: Items
    record: Int[np.ndarray, " signals"]
    place: Int[np.ndarray, " signals"]


def segments_of(vocabulary: Vocabulary, modality: Modality, encoded: Encoded) -> Segments:
    """Segments of signals: one for each signal, or one for each part where the modality has several.

    Args:
        vocabulary: that they are for.
        modality: of the signals.
        encoded: their items. The field's marker opens the first segment of a signal; each further part has a marker.

    Raises:
        DataError: a signal with too few or too many items.
    """
    field, items, record, place = encoded
    each = max(1, len(modality.parts))
    signal_of = np.repeat(np.arange(len(items)), items.counts)
    segment_of = signal_of * each + np.maximum(items.part, 0) if each > 1 else signal_of
    if each > 1 and (np.diff(segment_of) < 0).any():
        rule = f"the items of a signal stand in the order of the parts of {modality.name!r}"
        raise DataError(f"{field}: items", "another order", rule, "mend `encode`: all items of a part, then the next")
    counts = np.bincount(segment_of, minlength=each * len(items))
    _check_counts(field, modality, counts.reshape(-1, each), record)
    openers = [vocabulary.token(name) - vocabulary.control_start for name in markers_of(field, modality)]
    spaces = np.full(len(items.part), GENERAL, np.int16)
    for number, part in enumerate(modality.parts):
        spaces[items.part == number] = vocabulary.space_index(part.name)
    return Segments(
        np.repeat(record, each),
        np.repeat(place, each),
        np.tile(np.array(openers, np.int64), len(items)),
        counts,
        spaces,
        _ids(modality, items),
    )


def markers_of(field: str, modality: Modality) -> list[str]:
    """Control tokens that open the segments of a signal."""
    return [field, *(part.name for part in modality.parts[1:])]


def _check_counts(
    field: str, modality: Modality, counts: Int[np.ndarray, "n k"], record: Int[np.ndarray, " n"]
) -> None:
    limits = np.array(modality.limits)
    wrong = ((counts < limits[:, 0]) | (counts > limits[:, 1])).any(axis=1)
    if wrong.any():
        first = int(np.argmax(wrong))
        rule = f"the modality {modality.name!r} allows {', '.join(f'{least} … {most}' for least, most in limits)} items"
        fix = "change its limits, or shorten the signal"
        raise DataError(f"record {record[first]}: {field}", f"{counts[first].tolist()} items", rule, fix)


def _ids(modality: Modality, items: Items) -> Integer[np.ndarray, "..."]:
    """Ids of all items, within their spaces."""
    numbers: dict[int, Numbers] = {GENERAL: items.digits[items.part == GENERAL, 0].astype(np.int64)}
    for number, part in enumerate(modality.parts):
        numbers[number] = part.numbers(items.digits[items.part == number])
    limbs = max(one.shape[1] if one.ndim == 2 else 0 for one in numbers.values())
    if limbs:
        wide = np.zeros((len(items.part), limbs), np.uint32)
        for number, one in numbers.items():
            wide[items.part == number] = to_limbs(one, limbs)
        return wide
    most = max([modality.general - 1, *(part.fragments - 1 for part in modality.parts), 0])
    narrow = np.zeros(len(items.part), np.min_scalar_type(most) if most < 2**32 else np.int64)
    for number, one in numbers.items():
        narrow[items.part == number] = one
    return narrow


class Column:
    """One field, or one view of it, of every record of a split.

    Args:
        parts: segments, those of each record in the order of their places once sorted.
        records: number of records in the split.
    """

    def __init__(self, parts: Sequence[Segments], records: int):
        names = ("record", "place", "markers", "counts")
        record, place, self._markers, self._counts = (
            np.concatenate([np.zeros(0, np.int64), *(getattr(one, name) for one in parts)]) for name in names
        )
        self._spaces = np.concatenate([np.zeros(0, np.int16), *(one.spaces for one in parts)])
        self._ids = _in_one_form([one.ids for one in parts])
        if len(parts) > 1 or np.any(np.diff(record) < 0):
            order = np.lexsort((np.arange(len(record)), place, record))
            items = within(np.cumsum(self._counts) - self._counts, self._counts, order)
            self._markers, self._counts = self._markers[order], self._counts[order]
            self._spaces, self._ids, record = self._spaces[items], self._ids[items], record[order]
        self.segments = np.bincount(record, minlength=records)
        """int64[records], segments of each record; 0 where it lacks the field."""
        self._first_segment = np.cumsum(self.segments) - self.segments
        self._first_item = np.cumsum(self._counts) - self._counts

    def __len__(self) -> int:
        return len(self.segments)

    @property
    def items(self) -> Int[np.ndarray, " records"]:
        """Items of each record."""
        ends = np.concatenate([[0], np.cumsum(self._counts)])
        return ends[self._first_segment + self.segments] - ends[self._first_segment]

    def take(self, records: Sequence[int] | Int[np.ndarray, " n"]) -> Documents:
        """Some records as documents.

        Raises:
            IndexError: a place outside the split.
        """
        chosen = places_of(records, len(self))
        segments = within(self._first_segment, self.segments, chosen)
        items = within(self._first_item, self._counts, segments)
        ids = self._ids[items]
        return Documents(
            self._spaces[items].astype(np.int32),
            ids if ids.ndim == 2 else ids.astype(np.int64),
            self._counts[segments],
            self._markers[segments].astype(np.int64),
            self.segments[chosen],
        )


def places_of(records: Sequence[int] | Int[np.ndarray, " n"], count: int) -> Int[np.ndarray, " n"]:
    """Places of records in a split.

    Raises:
        IndexError: one of them is outside.
    """
    places = np.asarray(records, np.int64)
    if ((places < 0) | (places >= count)).any():
        raise IndexError(f"records {places.min()} … {places.max()} of {count}")
    return places


def _in_one_form(ids: Sequence[Integer[np.ndarray, "..."]]) -> Integer[np.ndarray, "..."]:
    """All ids in one array: in limbs if any of them is."""
    limbs = max((one.shape[1] for one in ids if one.ndim == 2), default=0)
    if not limbs:
        return np.concatenate([np.zeros(0, np.uint8), *ids])
    wide = [to_limbs(one.astype(np.int64), limbs) if one.ndim == 1 else one for one in ids]
    return np.concatenate([np.pad(one, ((0, 0), (0, limbs - one.shape[1]))) for one in wide])


def side_by_side(columns: Sequence[Documents]) -> Documents:
    """One document for each place: the segments of the first, then those of the second, and so on."""
    if len(columns) == 1:
        return columns[0]
    count = len(columns[0].document_segments)
    # Document d of column c is piece c · count + d; the pieces of a document stand next to each other afterwards.
    order = np.arange(len(columns) * count).reshape(len(columns), count).T.ravel()
    whole = reordered(end_to_end(columns), order)
    segments = whole.document_segments.reshape(count, len(columns)).sum(axis=1)
    return dataclasses.replace(whole, document_segments=segments)


def end_to_end(documents: Sequence[Documents]) -> Documents:
    """The documents of the first, then those of the second, and so on."""
    return Documents(
        np.concatenate([one.spaces for one in documents]),
        _in_one_form([one.ids for one in documents]),
        np.concatenate([one.segment_items for one in documents]),
        np.concatenate([one.segment_markers for one in documents]),
        np.concatenate([one.document_segments for one in documents]),
    )


def reordered(documents: Documents, order: Int[np.ndarray, " n"]) -> Documents:
    """Some of the documents, in this order."""
    counts, items = documents.document_segments, documents.segment_items
    segments = within(np.cumsum(counts) - counts, counts, order)
    chosen = within(np.cumsum(items) - items, items, segments)
    return Documents(
        documents.spaces[chosen],
        documents.ids[chosen],
        items[segments],
        documents.segment_markers[segments],
        counts[order],
    )
