"""The items of a data set, stored: each record as what its modalities make of it.

A data set that fits into memory needs none of this: `corpus` encodes it in seconds when it is loaded. A larger one is
encoded once, by Apache Beam's workers, and read record by record as training asks for it.
"""

from __future__ import annotations

import contextlib
import functools
import io
import pathlib
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from etils import epy
from jaxtyping import Int

from omnijax.config import Config, field_of
from omnijax.data.beam import Beam
from omnijax.data.columns import Column, Encoded, encode_rows, places_of, segments_of
from omnijax.data.fitting import fitted
from omnijax.data.manifest import read_manifest
from omnijax.errors import DataError
from omnijax.modalities.base import Items
from omnijax.source import Source, read
from omnijax.vocab.documents import Documents

with epy.lazy_imports():  # it takes a second
    import tensorflow_datasets as tfds

FOLDER, STORED = "items", "stored"
RECORDS_AT_ONCE = 512
"""Records that a worker takes at a time."""
ARRAYS = {"field": "int64", "counts": "int64", "part": "int8", "digits": "uint32"}
"""What a view of a record is stored as: the field and the number of items of each signal, and all items."""


def there(source: Source) -> bool:
    """Whether items are stored with a data set."""
    return bool(source.directory) and STORED in read_manifest(source.directory)


def check(config: Config, names: Sequence[str] = ()) -> None:
    """Checks that the stored items are those that a run needs.

    Raises:
        DataError: they were drawn with another seed, or a view isn't stored.
    """
    stored, directory = read_manifest(config.data.directory)[STORED], config.data.directory
    if stored["seed"] != config.batch.seed:
        rule, fix = f"the items stored in {directory} were drawn with {stored['seed']}", "use that value"
        raise DataError("batch.seed", config.batch.seed, rule, f"{fix}, or another --data.directory for new ones")
    for name in names:
        if name not in stored["views"]:
            rule = f"the views stored in {directory} are {', '.join(stored['views'])}"
            raise DataError("batch.tasks", name, rule, "build the data set again, in another directory")


def write(config: Config, source: Source, directory: pathlib.Path, workers: Beam) -> dict[str, Any]:
    """Stores the items of every view that the tasks name, and gives what the manifest says of them.

    The records of the source are in the directory already.

    Raises:
        DataError: a worker has lost records.
    """
    from omnijax.data.tfds_builders import StoredItems

    names = [name for task in config.batch.tasks for name in task.fields]
    names = list(dict.fromkeys([*names, *map(field_of, names)]))
    counts = {split: len(source.records(split)) for split in source.splits}
    tensor = functools.partial(tfds.features.Tensor, shape=(None,), encoding="bytes")
    features = {feature(name, key): tensor(dtype=np.dtype(kind)) for name in names for key, kind in ARRAYS.items()}
    make = functools.partial(encoded_records, source=source, names=names, seed=config.batch.seed)
    pieces = functools.partial(_pieces, counts=counts)
    write_records(directory / FOLDER, StoredItems, counts, workers, features=features, pieces=pieces, make=make)
    return {"seed": config.batch.seed, "views": names}


def _pieces(split: str, counts: Mapping[str, int]) -> list[tuple[str, int]]:
    return [(split, start) for start in range(0, counts[split], RECORDS_AT_ONCE)]


def feature(name: str, key: str) -> str:
    """Name of the feature for an array of a view; TFDS takes a slash for nesting."""
    return f"{name.replace('/', '.')}.{key}"


def write_records(
    folder: pathlib.Path, kind: Callable[..., Any], counts: Mapping[str, int], workers: Beam | None, **options: Any
) -> None:
    """Lets a `RecordsBuilder` with these options write its records into a new folder.

    Raises:
        DataError: a split has another number of records than it must have.
    """
    tfds.disable_progress_bar()
    options |= {"splits": counts, "beam": workers is not None, "data_dir": folder.parent / "tfds"}
    with contextlib.redirect_stdout(io.StringIO()):  # TFDS prints notices about downloads; there are none
        builder = kind(file_format="array_record", **options)
        builder.download_and_prepare(download_config=None if workers is None else workers.download_config())
    written = {split: info.num_examples for split, info in builder.info.splits.items()}
    expected = {split.replace("/", "."): count for split, count in counts.items()}
    if written != expected:
        rule = f"there must be {expected}: a worker has lost some"
        raise DataError(folder.name, written, rule, "build again, with another runner if it happens again")
    # TFDS nests name and version, and makes a folder of downloads; here there is only ever one data set.
    pathlib.Path(builder.data_path).rename(folder)
    shutil.rmtree(folder.parent / "tfds")


def encoded_records(
    piece: tuple[str, int], source: Source, names: Sequence[str], seed: int
) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
    """`RECORDS_AT_ONCE` records of a split from a place on: for each its place, and its views as arrays."""
    (split, start), modalities, fields = piece, fitted(source), list(source.fields)
    records = source.records(split)
    places = range(start, min(start + RECORDS_AT_ONCE, len(records)))
    rows, found = read(records, places), {place: dict[str, np.ndarray]() for place in places}
    for name in names:
        signals: dict[int, dict[int, tuple[int, Items]]] = {place: {} for place in places}
        for one in encode_rows(name, rows, start, len(records), modalities, seed):
            for record, place, items in zip(one.record, one.place, one.items.split(), strict=True):
                signals[record][place] = fields.index(one.field), items
        for record, those in signals.items():
            in_order = [those[place] for place in sorted(those)]
            whole = Items.joined([items for _, items in in_order])
            number = np.array([field for field, _ in in_order])
            for key, array in zip(ARRAYS, (number, whole.counts, whole.part, whole.digits), strict=True):
                found[record][feature(name, key)] = np.ascontiguousarray(array.ravel(), ARRAYS[key])
    yield from found.items()


def load(config: Config, split: str, names: Sequence[str]) -> dict[str, StoredColumn]:
    """The stored items of a split, read from disk when they are asked for.

    Raises:
        DataError: they were drawn with another seed, or a view isn't stored.
    """
    check(config, names)
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

    @property
    def segments(self) -> Int[np.ndarray, " records"]:
        """int64[records], segments of each record."""
        return self._whole[0]

    @property
    def items(self) -> Int[np.ndarray, " records"]:
        """int64[records], items of each record."""
        return self._whole[1]

    @functools.cached_property
    def _whole(self) -> Int[np.ndarray, "2 records"]:
        """Counts of all records, which takes one pass over them."""
        starts = range(0, self._count, RECORDS_AT_ONCE)
        columns = (self._column(range(start, min(start + RECORDS_AT_ONCE, self._count))) for start in starts)
        return np.concatenate([np.stack([column.segments, column.items]) for column in columns], axis=1)

    def take(self, records: Sequence[int] | Int[np.ndarray, " n"]) -> Documents:
        """Some records as documents.

        Raises:
            IndexError: a place outside the split.
        """
        return self._column(places_of(records, self._count)).take(np.arange(len(records)))

    def _column(self, records: Sequence[int] | Int[np.ndarray, " n"]) -> Column:
        rows = [[self._row(int(record))[feature(self._name, key)] for key in ARRAYS] for record in records]
        several = [
            Items(part, digits.reshape(len(part), -1 if len(part) else 1), counts) for _, counts, part, digits in rows
        ]
        whole, field_of_signal = Items.joined(several), np.concatenate([np.zeros(0, int), *(row[0] for row in rows)])
        # Signals are in order, so that their place among all of them does for their place in the record.
        place = np.arange(len(field_of_signal))
        record = np.repeat(np.arange(len(rows)), np.array([len(fields) for fields, *_ in rows], np.int64))
        parts = []
        for number in np.unique(field_of_signal):
            name, modality = self._fields[number]
            those = place[field_of_signal == number]
            encoded = Encoded(name, whole.reordered(those), record[those], those)
            parts.append(segments_of(self._config.vocabulary, modality, encoded))
        return Column(parts, len(records))
