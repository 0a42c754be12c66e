"""Records to items: finds the signals of a field, augments them where a view is asked for, and encodes them."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Int

from omnijax.config import field_of
from omnijax.data.columns import Encoded
from omnijax.errors import DataError
from omnijax.modalities.base import Items, Modality
from omnijax.source import SEQUENCE, Record, signals_of

RECORDS_AT_ONCE = 512
"""Records that a worker takes at a time."""
ARRAYS = {"field": "int64", "counts": "int64", "part": "int8", "digits": "uint32"}
"""What a view of a record is stored as: the field and the number of items of each signal, and all items."""


def encode_rows(
    name: str,
    rows: Sequence[Record],
    start: int,
    total: int,
    modalities: Mapping[str, Modality],
    seed: int,
) -> list[Encoded]:
    """One field or view of some records; several fields where it is the interleaved sequence.

    Args:
        name: of the field or view.
        rows: records that follow one another in a split.
        start: place of the first of them in the split.
        total: number of records in the split.
        modalities: fitted, by field.
        seed: draws the view.

    Raises:
        DataError: a signal can't be written; names the first record.
    """
    field = field_of(name)
    if field == SEQUENCE:
        return _encode_sequences(rows, start, modalities)
    each = [signals_of(row, field) for row in rows]
    signals, counts = list(itertools.chain.from_iterable(each)), np.array([len(one) for one in each], np.int64)
    record, modality = np.repeat(np.arange(start, start + len(rows)), counts), modalities[field]
    view = name.removeprefix(field).removeprefix("/")
    if view:
        signals = list(modality.view(view, signals, seed, record, total))
    place = np.arange(len(signals)) - np.repeat(np.cumsum(counts) - counts, counts)
    return [Encoded(field, _items(modality, signals, field, record), record, place)] if signals else []


def _encode_sequences(rows: Sequence[Record], start: int, modalities: Mapping[str, Modality]) -> list[Encoded]:
    """The signals of interleaved documents, field by field."""
    entries: dict[str, list[tuple[int, int, Any]]] = {}
    for record, row in enumerate(rows, start):
        for place, entry in enumerate(row.get(SEQUENCE) or ()):
            if not (isinstance(entry, tuple) and len(entry) == 2 and entry[0] in modalities):
                rule = f"an interleaved document is a list of (field, signal); the fields are {', '.join(modalities)}"
                raise DataError(f"record {record}: {SEQUENCE}", entry, rule, "give such pairs")
            entries.setdefault(entry[0], []).append((record, place, entry[1]))
    found = []
    for field, those in entries.items():
        record_of, place_of = (np.array([entry[column] for entry in those], np.int64) for column in (0, 1))
        items = _items(modalities[field], [entry[2] for entry in those], field, record_of)
        found.append(Encoded(field, items, record_of, place_of))
    return found


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


def feature(name: str, key: str) -> str:
    """Name of a feature; TFDS takes a slash for nesting."""
    return f"{name.replace('/', '.')}.{key}"
