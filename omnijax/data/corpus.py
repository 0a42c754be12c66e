"""A split in items: every field and view that the tasks name, encoded once."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from jaxtyping import Int

from omnijax.config import Config, Task, field_of
from omnijax.data import store
from omnijax.data.columns import Column, Segments, encode_rows, segments_of, side_by_side
from omnijax.data.fitting import fitted
from omnijax.data.manifest import verify
from omnijax.errors import DataError
from omnijax.modalities.base import Modality
from omnijax.source import Record, read
from omnijax.vocab.documents import Documents
from omnijax.vocab.vocabulary import Vocabulary

AT_ONCE = 4096
"""Records that are read and encoded at a time."""


@dataclasses.dataclass(frozen=True, eq=False)
class Corpus:
    """Every record of a split, in items.

    Attributes:
        vocabulary: that the documents are for.
        columns: the segments of each field, or of each view (`FIELD/VIEW`).
    """

    vocabulary: Vocabulary
    columns: Mapping[str, Column | store.StoredColumn]

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))

    def having(self, names: Sequence[str]) -> Int[np.ndarray, " n"]:
        """Places of the records that have all of some fields."""
        return np.flatnonzero(np.all([self.columns[name].segments > 0 for name in names], axis=0))

    def documents(self, records: Sequence[int] | Int[np.ndarray, " n"], names: Sequence[str]) -> Documents:
        """These fields of some records: a document for each record."""
        return side_by_side([self.columns[name].take(records) for name in names])


def views_of(tasks: Iterable[Task]) -> tuple[str, ...]:
    """The fields and views that some tasks name."""
    return tuple(dict.fromkeys(name for task in tasks for name in task.fields))


def fields_of(config: Config) -> tuple[str, ...]:
    """The fields that the tasks of a configuration name, without their views, as evaluation reads them."""
    return tuple(dict.fromkeys(field_of(name) for name in views_of(config.batch.tasks)))


def read_corpus(config: Config, split: str, names: Sequence[str]) -> Corpus:
    """A split in items: those stored with the data set where there are some, otherwise encoded now.

    `names` are those of fields and views.

    Raises:
        DataError: the data set is missing or damaged, or a signal can't be written.
    """
    verify(config.data)
    if store.there(config.data):
        return Corpus(config.vocabulary, store.load(config, split, names))
    return encode_records(config, config.data.records(split), names, fitted(config.data))


def encode_records(
    config: Config, records: Sequence[Record], names: Sequence[str], modalities: Mapping[str, Modality]
) -> Corpus:
    """All records of a split in items, by the fitted modality of each field; `batch.seed` draws the views.

    Raises:
        DataError: there is no record, or a signal can't be written.
    """
    if not len(records):
        raise DataError("records", 0, "a split has at least one record", "check the source")
    found: dict[str, list[Segments]] = {name: [] for name in names}
    for start in range(0, len(records), AT_ONCE):
        rows = read(records, range(start, min(start + AT_ONCE, len(records))))
        for name in names:
            for one in encode_rows(name, rows, start, len(records), modalities, config.batch.seed):
                found[name].append(segments_of(config.vocabulary, modalities[one.field], one))
    return Corpus(config.vocabulary, {name: Column(parts, len(records)) for name, parts in found.items()})
