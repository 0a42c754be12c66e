"""The items of a data set, stored: each record as what its modalities make of it.

A data set that fits into memory needs none of this: `corpus` encodes it in seconds when it is loaded. A larger one is
encoded once, by Apache Beam's workers, and read record by record as training asks for it.
"""

from __future__ import annotations

import contextlib
import functools
import io
import operator
import pathlib
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from etils import epy
from jaxtyping import Int

from omnijax.config import Config
from omnijax.data.beam import Beam
from omnijax.data.columns import Column, Encoded, places_of, segments_of
from omnijax.data.encoding import ARRAYS, RECORDS_AT_ONCE, encode_rows, feature
from omnijax.data.fitting import fitted
from omnijax.data.manifest import read_manifest
from omnijax.errors import DataError
from omnijax.modalities.base import Items
from omnijax.source import Source, read
from omnijax.vocab.documents import Documents

with epy.lazy_imports():  # it takes a second
    import tensorflow_datasets as tfds

FOLDER, STORED = "items", "stored"


def there(source: Source) -> bool:
    """Whether items are stored with a data set."""
    return bool(source.directory) and STORED in read_manifest(source)


def check(config: Config) -> None:
    """Checks that the stored items are those that a run needs.

    Raises:
        DataError: views were drawn with another seed.
    """
    stored = read_manifest(config.data)[STORED]
    if stored["seed"] != config.batch.seed:
        rule = f"the items stored in {config.data.directory} were drawn with {stored['seed']}"
        fix = "use that value, or another --data.directory for new ones"
        raise DataError("batch.seed", config.batch.seed, rule, fix)


def write(config: Config, source: Source, directory: pathlib.Path, workers: Beam) -> dict[str, Any]:
    """Stores the items of every view that the tasks name, and says in the manifest what they are.

    Args:
        config: of the run.
        source: the data, whose records are there already.
        directory: of the data set.
        workers: where the work is done.

    Raises:
        DataError: a worker has lost records.
    """
    names = list(dict.fromkeys(name for task in config.batch.tasks for name in task.fields))
    names += [name.split("/")[0] for name in names if name.split("/")[0] not in names]
    from omnijax.data.tfds_builders import StoredItems

    make = functools.partial(encoded_records, source=source, names=names, seed=config.batch.seed)
    counts = {split: len(source.records(split)) for split in source.splits}
    builder = functools.partial(StoredItems, names=names, counts=counts, make=make)
    write_records(directory, FOLDER, builder, counts, workers)
    return {"seed": config.batch.seed, "views": names}


def write_records(
    directory: pathlib.Path,
    name: str,
    make_builder: Callable[..., Any],
    counts: Mapping[str, int],
    workers: Beam | None,
) -> None:
    """Lets a TFDS builder write its records into the folder of this name.

    Raises:
        DataError: a split has another number of records than it must have.
    """
    tfds.disable_progress_bar()
    tfds_directory = directory / "tfds"
    with contextlib.redirect_stdout(io.StringIO()):  # TFDS prints notices about downloads; there are none
        builder = make_builder(beam=workers is not None, data_dir=tfds_directory, file_format="array_record")
        builder.download_and_prepare(download_config=None if workers is None else workers.download_config())
    written = {split: info.num_examples for split, info in builder.info.splits.items()}
    expected = {split.replace("/", "."): count for split, count in counts.items()}
    if written != expected:
        rule = f"there must be {expected}: a worker has lost some"
        raise DataError(name, written, rule, "build again, with another runner if it happens again")
    # TFDS nests name and version, and makes a folder of downloads; here there is only ever one data set.
    pathlib.Path(builder.data_path).rename(directory / name)
    shutil.rmtree(tfds_directory)


def encoded_records(
    start: int, split: str, count: int, source: Source, names: Sequence[str], seed: int
) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
    """The next `RECORDS_AT_ONCE` records from `start` on: for each its place, and its views as arrays."""
    places = range(start, min(start + RECORDS_AT_ONCE, count))
    rows, modalities, fields = read(source.records(split), places), fitted(source), list(source.fields)
    found: list[dict[str, np.ndarray]] = [{} for _ in places]
    for name in names:
        signals: list[list[tuple[int, int, Items]]] = [[] for _ in places]
        for one in encode_rows(name, rows, start, count, modalities, seed):
            for record, place, items in zip(one.record, one.place, one.items.split(), strict=True):
                signals[record - start].append((int(place), fields.index(one.field), items))
        for arrays, those in zip(found, signals, strict=True):
            those.sort(key=operator.itemgetter(0))
            whole = Items.joined([items for _, _, items in those])
            number = np.array([field for _, field, _ in those])
            for key, array in zip(ARRAYS, (number, whole.counts, whole.part, whole.digits), strict=True):
                arrays[feature(name, key)] = np.ascontiguousarray(array.ravel(), ARRAYS[key])
    yield from zip(places, found, strict=True)


def load(config: Config, split: str, names: Sequence[str]) -> dict[str, StoredColumn]:
    """The stored items of a split, read from disk when they are asked for.

    Raises:
        DataError: they were drawn with another seed, or a view isn't stored.
    """
    check(config)
    stored = read_manifest(config.data)[STORED]["views"]
    for name in names:
        if name not in stored:
            rule = f"the views stored in {config.data.directory} are {', '.join(stored)}"
            raise DataError("batch.tasks", name, rule, "build the data set again, in another directory")
    folder = pathlib.Path(config.data.directory) / FOLDER
    rows = tfds.builder_from_directory(folder).as_data_source(split.replace("/", "."))
    row = functools.lru_cache(RECORDS_AT_ONCE)(rows.__getitem__)
    return {name: StoredColumn(config, name, row, len(rows)) for name in names}


class StoredColumn:
    """One view of every record of a split; those of a record share one read. It offers what a `Column` does."""

    def __init__(self, config: Config, name: str, row: Callable[[int], Mapping[str, np.ndarray]], count: int):
        self._config, self._name, self._row, self._count = config, name, row, count
        self._fields = list(config.data.fields.items())

    def __len__(self) -> int:
        return self._count

    @functools.cached_property
    def segments(self) -> Int[np.ndarray, " records"]:
        """int64[records], segments of each record."""
        return self._whole[0]

    @functools.cached_property
    def items(self) -> Int[np.ndarray, " records"]:
        """int64[records], items of each record."""
        return self._whole[1]

    @functools.cached_property
    def _whole(self) -> tuple[np.ndarray, np.ndarray]:
        """Counts of all records, which takes one pass over them."""
        found = np.zeros((2, self._count), np.int64)
        for start in range(0, self._count, RECORDS_AT_ONCE):
            places = range(start, min(start + RECORDS_AT_ONCE, self._count))
            column = self._column(places)
            found[:, start : start + len(places)] = column.segments, column.items
        return found[0], found[1]

    def take(self, records: Sequence[int] | Int[np.ndarray, " n"]) -> Documents:
        """Some records as documents.

        Raises:
            IndexError: a place outside the split.
        """
        return self._column(places_of(records, self._count)).take(np.arange(len(records)))

    def _column(self, records: Sequence[int] | Int[np.ndarray, " n"]) -> Column:
        rows = [[self._row(int(record))[feature(self._name, key)] for key in ARRAYS] for record in records]
        several = [
            Items(part, digits.reshape(len(part), -1) if len(part) else np.zeros((0, 1), np.uint32), counts)
            for _, counts, part, digits in rows
        ]
        whole, signals = Items.joined(several), np.array([len(fields) for fields, *_ in rows], np.int64)
        field_of_signal = np.concatenate([np.zeros(0, np.int64), *(fields for fields, *_ in rows)])
        record = np.repeat(np.arange(len(rows)), signals)
        place = np.arange(len(record)) - np.repeat(np.cumsum(signals) - signals, signals)
        parts = []
        for number in np.unique(field_of_signal):
            name, modality = self._fields[number]
            chosen = field_of_signal == number
            items = np.repeat(chosen, whole.counts)
            those = Items(whole.part[items], whole.digits[items], whole.counts[chosen])
            encoded = Encoded(name, those, record[chosen], place[chosen])
            parts.append(segments_of(self._config.vocabulary, modality, encoded))
        return Column(parts, len(records))
