"""Records to items, and to segments of items in flat arrays: what a split is once its modalities have encoded it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int, Integer

from omnijax.config import field_of
from omnijax.errors import DataError
from omnijax.modalities.base import GENERAL, Items, Modality, within
from omnijax.source import SEQUENCE, Record, signals_of
from omnijax.vocab.cost import Count, segment_tokens
from omnijax.vocab.documents import Documents
from omnijax.vocab.numbers import to_limbs
from omnijax.vocab.vocabulary import Vocabulary


class Segments(NamedTuple):
    """Segments of one field.

    Attributes:
        record: int64[segments], place of each segment's record in the split.
        place: int64[segments], place of its signal in the record.
        documents: a document for each segment. Spaces are int16, and ids the smallest integers that hold them.
    """

    record: Int[np.ndarray, " segments"]
    place: Int[np.ndarray, " segments"]
    documents: Documents


class Encoded(NamedTuple):
    """Items of signals of one field.

    Attributes:
        field: its name.
        items: a sequence for each signal.
        record: int64[signals], place of each signal's record in the split.
        place: int64[signals], place of each signal in its record.
    """

    field: str
    items: Items
    record: Int[np.ndarray, " signals"]
    place: Int[np.ndarray, " signals"]


def encode_rows(
    name: str, rows: Sequence[Record], start: int, total: int, modalities: Mapping[str, Modality], seed: int
) -> list[Encoded]:
    """One field or view of some records; several fields where it is the interleaved sequence.

    The rows are the records from place `start` on of a split that has `total`. The seed draws the view: the first time
    `FIELD/VIEW`, then `FIELD/VIEW/1`, and so on. Raises a `DataError` that names the first record if a signal can't be
    written.
    """
    found: dict[str, list[tuple[int, int, Any]]] = {}
    for record, row in enumerate(rows, start):
        for place, (field, signal) in enumerate(_entries(field_of(name), row, record, modalities)):
            found.setdefault(field, []).append((record, place, signal))
    encoded, (view, _, draw) = list[Encoded](), name.partition("/")[2].partition("/")
    seed = int(np.random.SeedSequence([seed, int(draw)]).generate_state(1)[0]) if draw else seed
    for field, entries in found.items():
        record_of, place_of = (np.array([entry[column] for entry in entries], np.int64) for column in (0, 1))
        signals: Sequence[Any] = [signal for *_, signal in entries]
        if view:
            signals = modalities[field].view(view, signals, seed, record_of, total)
        encoded.append(Encoded(field, _items(modalities[field], signals, field, record_of), record_of, place_of))
    return encoded


def _entries(field: str, row: Record, record: int, modalities: Mapping[str, Modality]) -> Sequence[tuple[str, Any]]:
    """The signals of a field of a record, or of its interleaved document, each with its field."""
    if field != SEQUENCE:
        return [(field, signal) for signal in signals_of(row, field)]
    for entry in row.get(SEQUENCE) or ():
        if not (isinstance(entry, tuple) and len(entry) == 2 and entry[0] in modalities):
            rule = f"an interleaved document is a list of (field, signal); the fields are {', '.join(modalities)}"
            raise DataError(f"record {record}: {SEQUENCE}", entry, rule, "give such pairs")
    return row.get(SEQUENCE) or ()


def _items(modality: Modality, signals: Sequence[Any], field: str, record: Int[np.ndarray, " n"]) -> Items:
    """The items of signals; an error names the first record that has a wrong one."""
    try:
        return modality.encode(signals)
    except DataError as error:
        for signal, place in zip(signals, record, strict=True):
            try:
                modality.encode([signal])
            except DataError as first:
                where = f"record {place}: {field}: {first.field}"
                raise DataError(where, first.value, first.rule, first.fix) from error
        raise


def segments_of(vocabulary: Vocabulary, modality: Modality, encoded: Encoded) -> Segments:
    """Segments of signals: one for each signal, or one for each part where the modality has several.

    The field's marker opens the first segment of a signal; each further part has a marker. Raises a `DataError` for a
    signal with too few or too many items.
    """
    field, items, record, place = encoded
    each = max(1, len(modality.parts))
    segment_of = np.repeat(each * np.arange(len(items)), items.counts)
    if each > 1:
        segment_of += np.maximum(items.part, 0)
    if (np.diff(segment_of) < 0).any():
        rule = f"the items of a signal stand in the order of the parts of {modality.name!r}"
        raise DataError(f"{field}: items", "another order", rule, "mend `encode`: all items of a part, then the next")
    counts = np.bincount(segment_of, minlength=each * len(items))
    _check_count(field, modality, counts.reshape(-1, each), record)
    openers = [vocabulary.token(name) - vocabulary.control_start for name in markers_of(field, modality)]
    space_of_part = np.array([*(vocabulary.space_index(part.name) for part in modality.parts), GENERAL], np.int16)
    markers = np.tile(np.array(openers, np.int64), len(items))
    documents = Documents(space_of_part[items.part], _ids(modality, items), counts, markers, np.ones_like(counts))
    return Segments(np.repeat(record, each), np.repeat(place, each), documents)


def markers_of(field: str, modality: Modality) -> list[str]:
    """Control tokens that open the segments of a signal."""
    return [field, *(part.name for part in modality.parts[1:])]


def most_tokens(vocabulary: Vocabulary, field: str, modality: Modality) -> int:
    """The most tokens of the segments of a signal, by the limits of its modality."""
    pairs = zip(markers_of(field, modality), modality.limits, strict=True)
    return sum(segment_tokens(vocabulary, marker, Count(most, most, most)).most for marker, (_, most) in pairs)


def _check_count(field: str, modality: Modality, counts: Int[np.ndarray, "n k"], record: Int[np.ndarray, " n"]) -> None:
    limits = np.array(modality.limits)
    wrong = ((counts < limits[:, 0]) | (counts > limits[:, 1])).any(axis=1)
    if wrong.any():
        first = int(np.argmax(wrong))
        rule = f"the modality {modality.name!r} allows {', '.join(f'{least} … {most}' for least, most in limits)} items"
        fix = "change its limits, or shorten the signal"
        raise DataError(f"record {record[first]}: {field}", f"{counts[first].tolist()} items", rule, fix)


def _ids(modality: Modality, items: Items) -> Integer[np.ndarray, "..."]:
    """Ids of all items, within their spaces."""
    general = items.digits[items.part == GENERAL, 0].astype(np.int64)
    of_parts = (part.numbers(items.digits[items.part == number]) for number, part in enumerate(modality.parts))
    by_part = _in_one_form([general, *of_parts])
    ids = np.empty_like(by_part)
    ids[np.argsort(items.part, kind="stable")] = by_part
    if ids.ndim == 2:
        return ids
    most = max(modality.general, 1, *(part.fragments for part in modality.parts)) - 1
    return ids.astype(np.min_scalar_type(most) if most < 2**32 else np.int64)


class Column:
    """One field, or one view of it, of every record of a split, from segments in any order.

    Attributes:
        segments: int64[records], segments of each record; 0 where it lacks the field.
    """

    def __init__(self, parts: Sequence[Segments], records: int):
        record, place = (np.concatenate([np.zeros(0, np.int64), *(one[key] for one in parts)]) for key in (0, 1))
        whole = reordered(end_to_end([one.documents for one in parts]), np.lexsort((place, record)))
        self._set(dataclasses.replace(whole, document_segments=np.bincount(record, minlength=records)))

    @classmethod
    def joined(cls, columns: Sequence[Column]) -> Column:
        """The records of the first column, then those of the second, and so on."""
        column = cls.__new__(cls)
        column._set(end_to_end([one._whole for one in columns]))
        return column

    def _set(self, whole: Documents) -> None:
        self._whole, self.segments, self._starts = whole, whole.document_segments, _starts(whole)

    def __len__(self) -> int:
        return len(self.segments)

    @property
    def items(self) -> Int[np.ndarray, " records"]:
        """Items of each record."""
        return items_of_documents(self._whole)

    def take(self, records: Sequence[int] | Int[np.ndarray, " n"]) -> Documents:
        """Some records as documents; raises an `IndexError` for a place outside the split."""
        found = reordered(self._whole, places_of(records, len(self)), self._starts)
        ids = found.ids if found.ids.ndim == 2 else found.ids.astype(np.int64)
        return dataclasses.replace(found, spaces=found.spaces.astype(np.int32), ids=ids)


def places_of(records: Sequence[int] | Int[np.ndarray, " n"], count: int) -> Int[np.ndarray, " n"]:
    """Places of records in a split; raises an `IndexError` if one of them is outside."""
    places = np.asarray(records, np.int64)
    if ((places < 0) | (places >= count)).any():
        raise IndexError(f"records {places.min()} … {places.max()} of {count}")
    return places


def _in_one_form(ids: Sequence[Integer[np.ndarray, "..."]]) -> Integer[np.ndarray, "..."]:
    """All ids in one array: in limbs if any of them is."""
    limbs = max((one.shape[1] for one in ids if one.ndim == 2), default=0)
    return np.concatenate([to_limbs(one, limbs) for one in ids] if limbs else [np.zeros(0, np.uint8), *ids])


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
        np.concatenate([np.zeros(0, np.int16), *(one.spaces for one in documents)]),
        _in_one_form([one.ids for one in documents]),
        np.concatenate([np.zeros(0, np.int64), *(one.segment_items for one in documents)]),
        np.concatenate([np.zeros(0, np.int64), *(one.segment_markers for one in documents)]),
        np.concatenate([np.zeros(0, np.int64), *(one.document_segments for one in documents)]),
    )


Starts = tuple[Int[np.ndarray, " documents"], Int[np.ndarray, " segments"]]


def _starts(documents: Documents) -> Starts:
    """Index of the first segment of each document, and of the first item of each segment."""
    counts, items = documents.document_segments, documents.segment_items
    return np.cumsum(counts) - counts, np.cumsum(items) - items


def reordered(documents: Documents, order: Int[np.ndarray, " n"], starts: Starts | None = None) -> Documents:
    """Some of the documents, in this order. `starts` are theirs, where they are known."""
    first_segment, first_item = starts or _starts(documents)
    segments = within(first_segment, documents.document_segments, order)
    items = within(first_item, documents.segment_items, segments)
    return Documents(
        documents.spaces[items],
        documents.ids[items],
        documents.segment_items[segments],
        documents.segment_markers[segments],
        documents.document_segments[order],
    )


def items_of_documents(documents: Documents) -> Int[np.ndarray, " documents"]:
    """Number of items of each document."""
    ends = np.concatenate([[0], np.cumsum(documents.segment_items)])
    return np.diff(ends[np.cumsum(documents.document_segments)], prepend=0)
