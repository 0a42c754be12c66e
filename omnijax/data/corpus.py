"""A split in items: every field and view that the tasks name, as it is stored, or encoded when it is asked for."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Int

from omnijax.config import Config, field_of
from omnijax.data.columns import Column, Encoded, encode_rows, most_tokens, segments_of, side_by_side
from omnijax.data.fitting import AT_ONCE, fitted
from omnijax.data.manifest import verify
from omnijax.data.store import StoredRows, Views, usable
from omnijax.errors import DataError
from omnijax.modalities.base import Modality, within
from omnijax.source import SEQUENCE, Record, read
from omnijax.vocab.documents import Documents
from omnijax.vocab.vocabulary import Vocabulary


@dataclasses.dataclass(frozen=True, eq=False)
class Corpus:
    """Some records, in items.

    Attributes:
        vocabulary: that the documents are for.
        columns: the segments of each field, or of each view (`FIELD/VIEW`).
    """

    vocabulary: Vocabulary
    columns: Mapping[str, Column]

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))

    def having(self, names: Sequence[str]) -> Int[np.ndarray, " n"]:
        """Places of the records that have all of some fields."""
        if not set(names) <= set(self.columns):
            return np.zeros(0, np.int64)
        return np.flatnonzero(np.all([self.columns[name].segments > 0 for name in names], axis=0))

    def documents(self, records: Sequence[int] | Int[np.ndarray, " n"], names: Sequence[str]) -> Documents:
        """These fields of some records: a document for each record."""
        return side_by_side([self.columns[name].take(records) for name in names])

    def gather(self, columns: Int[np.ndarray, " n"], records: Int[np.ndarray, " n"]) -> Documents:
        """A document for each pair of the number of a column and the place of a record."""
        return self._joined.take(columns * len(self) + records)

    @functools.cached_property
    def _joined(self) -> Column:
        """The records of the first column, then those of the second, and so on."""
        return Column.joined(list(self.columns.values()))


@dataclasses.dataclass(eq=False)
class Split:
    """A split whose items are read in chunks of records, so that its size costs no memory.

    Attributes:
        vocabulary: that the documents are for.
        modalities: of each field.
        names: of fields and views.
        rows: where the items come from; its `records` and `bytes` are int64[chunks].
        several: fields of which a record may have several signals.
    """

    vocabulary: Vocabulary
    modalities: Mapping[str, Modality]
    names: Sequence[str]
    rows: StoredRows | Rows
    several: Sequence[str] = ()

    def __post_init__(self) -> None:
        self._starts = np.cumsum(self.rows.records) - self.rows.records
        self._corpus = functools.lru_cache(maxsize=2)(self._read)

    def __len__(self) -> int:
        return int(self.rows.records.sum())

    def count(self, names: Sequence[str]) -> int:
        """Number of records that have all of some fields or views."""
        needed = set(map(field_of, names))
        return sum(count for fields, count in self.rows.present.items() if needed <= set(fields))

    def most_tokens(self, name: str) -> float:
        """The most tokens of a field or view in a document, by the limits of its modality."""
        field = field_of(name)
        if field == SEQUENCE or field in self.several:
            return math.inf
        return most_tokens(self.vocabulary, field, self.modalities[field])

    def places(self, chunks: Sequence[int]) -> Int[np.ndarray, " n"]:
        """Places in the split of the records of some chunks."""
        return within(self._starts, self.rows.records, np.asarray(chunks, np.int64))

    def corpus(self, chunks: Sequence[int] | None = None) -> Corpus:
        """The records of some chunks, in order; all by default. The last two answers are kept."""
        return self._corpus(tuple(range(len(self.rows.records)) if chunks is None else map(int, chunks)))

    def first(self, records: int) -> Corpus:
        """The chunks that hold the first records of the split."""
        return self.corpus(np.flatnonzero(self._starts < records).tolist())

    def _read(self, chunks: tuple[int, ...]) -> Corpus:
        found, count = self.rows.read(chunks), int(self.rows.records[list(chunks)].sum())
        columns = {
            name: Column([segments_of(self.vocabulary, self.modalities[one.field], one) for one in found[name]], count)
            for name in self.names
        }
        return Corpus(self.vocabulary, columns)


@dataclasses.dataclass(eq=False)
class Rows:
    """Records whose items are made when they are asked for.

    Attributes:
        all: the records of a split.
        names: of fields and views.
        modalities: of each field.
        seed: draws the views.
        present: numbers of records by the fields that they have.
    """

    all: Sequence[Record]
    names: Sequence[str]
    modalities: Mapping[str, Modality]
    seed: int
    present: Mapping[tuple[str, ...], int]

    def __post_init__(self) -> None:
        self.records = np.diff([*range(0, len(self.all), AT_ONCE), len(self.all)])
        self.bytes = np.zeros_like(self.records)

    def read(self, chunks: Sequence[int]) -> Views:
        """The items of some chunks, in order; their records are numbered from 0."""
        found, first = {name: list[Encoded]() for name in self.names}, 0
        for chunk in chunks:
            start = chunk * AT_ONCE
            rows = read(self.all, range(start, start + int(self.records[chunk])))
            for name in self.names:
                for one in encode_rows(name, rows, start, len(self.all), self.modalities, self.seed):
                    found[name].append(one._replace(record=one.record + first - start))
            first += len(rows)
        return found


def fields_of(config: Config) -> tuple[str, ...]:
    """The fields that the tasks of a configuration name, without their views, as evaluation reads them."""
    return tuple(dict.fromkeys(field_of(name) for name in config.batch.views))


def read_split(config: Config, split: str, names: Sequence[str]) -> Split:
    """A split in items: those stored with the data set where they fit, otherwise encoded when they are asked for.

    `names` are those of fields and views. The split of a mixture has the records of all sources. Raises a `DataError`
    if the data set is missing or damaged, or has no record.
    """
    verify(config.data)
    return _split(config, "", split, names)


def read_parts(config: Config, split: str, names: Sequence[str]) -> list[Split]:
    """A split of each source of a mixture, or that of the one source; as `read_split`."""
    verify(config.data)
    return [_split(config, name, split, names) for name in config.data.parts]


def _split(config: Config, name: str, split: str, names: Sequence[str]) -> Split:
    source, modalities = config.data, fitted(config.data)
    part = source.parts[name] if name else source
    names = [one for one in names if field_of(one) in {*part.fields, SEQUENCE}]
    if usable(config, part, names):
        rows: StoredRows | Rows = StoredRows(source, name, split, names)
    else:
        rows = Rows(part.records(split), names, modalities, config.batch.seed, part.present(split))
    if not rows.records.sum():
        raise DataError("records", 0, "a split has at least one record", f"check the source {name}".rstrip())
    return Split(config.vocabulary, modalities, names, rows, part.several)


def encode_records(
    config: Config, records: Sequence[Record], names: Sequence[str], modalities: Mapping[str, Modality]
) -> Corpus:
    """Some records in items, by the fitted modality of each field; `batch.seed` draws the views.

    Raises a `DataError` if there is no record, or if a signal can't be written.
    """
    if not len(records):
        raise DataError("records", 0, "a split has at least one record", "check the source")
    rows = Rows(records, names, modalities, config.batch.seed, {})
    return Split(config.vocabulary, modalities, names, rows).corpus()
