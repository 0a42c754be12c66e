"""The items of a data set, stored: what its modalities make of each record, in the order of the splits.

A file holds up to `FILE_RECORDS` records of a split, in chunks. A chunk is read as a whole; it holds the items of all
views of some records. So training starts at once, whatever the modalities cost, and reads no signals.
"""

from __future__ import annotations

import functools
import io
import itertools
import json
import pathlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from omnijax.config import Config, field_of
from omnijax.data.beam import Beam
from omnijax.data.columns import Encoded, encode_rows
from omnijax.data.fitting import fitted
from omnijax.data.manifest import knobs_of, read_manifest
from omnijax.data.records import OPEN_FILES, open_messages, packed, unpacked, write_messages
from omnijax.errors import DataError
from omnijax.files import digest, read_object, write_atomically, write_object
from omnijax.modalities.base import Items, Progress
from omnijax.paths import as_path, local_copy
from omnijax.source import SEQUENCE, Source, fields_present, modalities_of, read

FOLDER, MADE = "items", "made.json"
FILE_RECORDS = 2**14
"""Number of records in a file. A killed build repeats at most this many."""
CHUNK_RECORDS, CHUNK_BYTES = 2**8, 2**16
"""Number of records and approximate number of bytes at which a chunk ends, whichever comes first."""
_FIX = "build the data set again, in another directory: `omnijax prepare`"

Views = Mapping[str, Sequence[Encoded]]
"""For each view of some records, the items of each of its fields."""


def usable(config: Config, part: Source, names: Sequence[str]) -> bool:
    """Whether the items of these views are stored for one source, as this configuration makes them."""
    path = as_path(part.directory) / FOLDER / MADE
    if not part.directory or not path.exists():
        return False
    made, drawn = _read_made(path.parent), any(field_of(name) != name for name in names)
    seed = made["seed"] == config.batch.seed or not drawn
    return seed and made["modalities"] == _modalities(part) and set(names) <= set(made["views"])


def write(config: Config, source: Source, progress: Progress, beam: Beam | None = None) -> dict[str, Any]:
    """Stores the items of the records that have none yet; gives what the manifest says of the items.

    Args:
        config: its tasks name views, and its `batch.seed` draws them. What was stored first says them from then on.
        source: the data set, where it is built.
        progress: told the share that is done.
        beam: where the files are written; None for this process.

    Raises:
        DataError: a signal can't be written, or a worker has lost records.
    """
    parts = {name: part for name, part in source.parts.items() if part.stores}
    counts, work = dict[tuple[str, str], int](), list[tuple[str, str, int, int]]()
    for name, part in parts.items():
        folder = as_path(part.directory) / FOLDER
        folder.mkdir(exist_ok=True)
        if not (folder / MADE).exists():
            every = dict.fromkeys([*part.fields, *config.batch.views])
            views = [view for view in every if field_of(view) in {*part.fields, SEQUENCE}]
            write_object(folder / MADE, {"seed": config.batch.seed, "views": views, "modalities": _modalities(part)})
        for split in part.splits:
            counts[name, split] = count = len(part.records(split))
            starts = range(_complete(folder, split), count, FILE_RECORDS)
            work += [(name, split, start, min(start + FILE_RECORDS, count)) for start in starts]
    if beam is not None:
        beam.each(functools.partial(write_file, source), work)
    for done, piece in enumerate(work if beam is None else ()):
        write_file(source, piece, lambda share, done=done: progress((done + share) / len(work)))  # type: ignore[misc]
    found: dict[str, Any] = {name: {} for name in parts}
    for (name, split), count in counts.items():
        found[name][split] = _finish(as_path(parts[name].directory) / FOLDER, split, count)
    return found


def _finish(folder: pathlib.Path, split: str, count: int) -> dict[str, Any]:
    """Writes the index of a split: for each chunk the first record of its file, its place in it, records, bytes."""
    _path(folder, split, 0).parent.mkdir(exist_ok=True)
    paths, rows, present = sorted(_path(folder, split, 0).parent.glob("*.json")), [], Counter[str]()
    for path in paths:
        file = _read_file(path)
        sizes = zip(file["records"], file["bytes"], strict=True)
        rows += [(file["start"], number, *size) for number, size in enumerate(sizes)]
        present.update(file["present"])
    index = np.array(rows, np.int64).reshape(-1, 4)
    if index[:, 2].sum() != count:
        rule = f"the split has {count} records: a worker has lost some"
        raise DataError(f"items.{split}", int(index[:, 2].sum()), rule, "build again, with another runner")
    buffer = io.BytesIO()
    np.save(buffer, index)
    write_atomically(_path(folder, split, count, "npy"), buffer.getvalue())
    return {"records": count, "present": dict(sorted(present.items()))}


def write_file(source: Source, piece: tuple[str, str, int, int], progress: Progress = lambda share: None) -> None:
    """Stores the items of records `start … stop - 1` of a split; a JSON file, written last, says that all are there."""
    (name, split, start, stop), modalities = piece, fitted(source)
    part = source.parts[name]
    folder, records = as_path(part.directory) / FOLDER, part.records(split)
    made = _read_made(folder)
    sizes, present = list[tuple[int, int]](), Counter[str]()

    def chunks() -> Iterator[bytes]:
        for first in range(start, stop, CHUNK_RECORDS):
            places = range(first, min(first + CHUNK_RECORDS, stop))
            rows = read(records, places)
            present.update(json.dumps(names) for names in fields_present(rows, part.fields))
            given = (rows, first, len(records), modalities, made["seed"])
            views = {name: encode_rows(name, *given) for name in made["views"]}
            for least, most in itertools.pairwise(_cuts(views, places)):
                message = packed({name: _stored(found, least, most) for name, found in views.items()})
                sizes.append((most - least, len(message)))
                yield message
            progress((places.stop - start) / (stop - start))

    path = _path(folder, split, start)
    write_messages(path, chunks())
    described = {"start": start, "records": [n for n, _ in sizes], "bytes": [n for _, n in sizes]}
    write_object(path.with_suffix(".json"), described | {"present": dict(sorted(present.items()))})


def _cuts(views: Views, places: range) -> list[int]:
    """Places between which records stand in one chunk."""
    size = np.zeros(len(places), np.int64)
    for one in itertools.chain.from_iterable(views.values()):
        np.add.at(size, one.record - places.start, one.items.counts * (1 + one.items.digits.shape[1]))
    cuts, filled = [places.start], 0
    for place, more in zip(places, size.tolist(), strict=True):
        if filled and filled + more > CHUNK_BYTES:
            cuts.append(place)
            filled = 0
        filled += more
    return [*cuts, places.stop]


def _stored(found: Sequence[Encoded], least: int, most: int) -> dict[str, dict[str, np.ndarray]]:
    """The items of records `least … most - 1`, by field, in the smallest integer types; records are counted from 0."""
    stored = {}
    for field, all_items, records, places in found:
        begin, end = np.searchsorted(records, (least, most))
        items = all_items.reordered(np.arange(begin, end))
        digits = items.digits.astype(np.min_scalar_type(items.digits.max(initial=0)))
        record, place = (records[begin:end] - least).astype(np.int16), places[begin:end].astype(np.int32)
        arrays = {"part": items.part, "digits": digits, "counts": items.counts}
        stored[field] = arrays | {"record": record, "place": place}
    return stored


def _modalities(source: Source) -> str:
    """A digest of all that the items of a record depend on beside the record."""
    knobs = {name: [type(one).__name__, knobs_of(one)] for name, one in modalities_of(source.fields).items()}
    return digest({"knobs": knobs, "fields": {field: one.name for field, one in source.fields.items()}})


def _read_made(folder: pathlib.Path) -> dict[str, Any]:
    return read_object(folder / MADE, ("seed", "views", "modalities"), _FIX)


def _path(folder: pathlib.Path, split: str, number: int, ending: str = "array_record") -> pathlib.Path:
    """The file of items from the record of this number on, or the index of so many records."""
    return folder / split.replace("/", ".") / f"{number:012d}.{ending}"


def _complete(folder: pathlib.Path, split: str) -> int:
    """Number of the first records of a split whose items are stored."""
    end = 0
    for path in sorted(_path(folder, split, 0).parent.glob("*.json")):
        file = _read_file(path)
        if file["start"] != end:
            break
        end += sum(file["records"])
    return end


def _read_file(path: pathlib.Path) -> dict[str, Any]:
    """What is said of a file of items that is complete."""
    return read_object(path, ("start", "records", "bytes", "present"), _FIX)


class StoredRows:
    """The stored items of one split of one source.

    Attributes:
        records: int64[chunks], records of each chunk.
        bytes: int64[chunks], its size.
        present: numbers of records by the fields that they have.
    """

    def __init__(self, source: Source, name: str, split: str, names: Sequence[str]):
        folder = as_path(source.parts[name].directory) / FOLDER
        said = read_manifest(source.directory)["items"][name][split]
        index = np.load(local_copy(_path(folder, split, said["records"], "npy")))
        self.present = {tuple(json.loads(fields)): count for fields, count in said["present"].items()}
        self._names, self._start, self._place = names, index[:, 0], index[:, 1]
        self.records, self.bytes = index[:, 2], index[:, 3]
        self._file = functools.lru_cache(OPEN_FILES)(lambda start: open_messages(_path(folder, split, start)))

    def read(self, chunks: Sequence[int]) -> Views:
        """The items of some chunks, in order; their records are numbered from 0."""
        found: dict[str, dict[str, list[Encoded]]] = {name: {} for name in self._names}
        groups = itertools.groupby(chunks, key=lambda chunk: int(self._start[chunk]))
        read = (self._file(start).read([int(self._place[chunk]) for chunk in group]) for start, group in groups)
        first = 0
        for chunk, content in zip(chunks, map(unpacked, itertools.chain.from_iterable(read)), strict=True):
            for name in self._names:
                for field, arrays in content[name].items():
                    items = Items(arrays["part"], arrays["digits"], arrays["counts"])
                    one = Encoded(field, items, arrays["record"].astype(np.int64) + first, arrays["place"])
                    found[name].setdefault(field, []).append(one)
            first += int(self.records[chunk])
        return {name: [_joined(parts) for parts in fields.values()] for name, fields in found.items()}


def _joined(parts: Sequence[Encoded]) -> Encoded:
    items = Items.joined([one.items for one in parts])
    record, place = (np.concatenate([one[key] for one in parts]).astype(np.int64) for key in (2, 3))
    return Encoded(parts[0].field, items, record, place)
