"""Files of your own, prepared once: each record as the signals that its modalities read from its files."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import io
import itertools
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

import numpy as np
from jaxtyping import Int

from omnijax.data.manifest import BEGUN, MANIFEST, read_manifest
from omnijax.data.reading import Failed, Reader
from omnijax.data.records import StoredRecords, packed, write_messages
from omnijax.data.sources.folder import index
from omnijax.data.sources.folder.index import IN, SPLIT, Entry, Problem, trusted
from omnijax.data.splits import Shares, assign
from omnijax.errors import ConfigError, DataError
from omnijax.files import read_object, write_atomically, write_object
from omnijax.modalities.base import Modality, Progress
from omnijax.paths import as_path, local_copy
from omnijax.source import TRAIN, Record, Source

SIGNALS, STATE = "signals", "state"
"""Folders: of the signals, and of splits, classes and problems, one for each time that something was stored."""
PROBLEMS, CLASSES = "problems.jsonl", "classes.json"
"""Files of a state. That of the classes is written last."""
FEW = 10
"""Where there are fewer different files, each window of a film or sound is a group of its own."""
SHARD = 1024
"""Records in a file of signals. A build that was killed repeats at most one of them."""
_FIX = "delete the directory and build the data set again: `omnijax prepare`"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Folder(Source):
    """The records of a folder of files, as `omnijax.data.sources.folder.index` finds them.

    The signals are stored as the modalities read them, so that training needs the files no more. When files are added
    to the folder, `omnijax prepare` stores the new records behind the old ones, which stay in their splits.
    """

    folder: str = dataclasses.field(default="", metadata={"shapes_data": False})
    """Where the files lie; or `tfds:NAME`, a data set of TensorFlow Datasets."""
    fields: Mapping[str, Modality] = ()  # type: ignore[assignment]
    """The modality of each field."""
    label: str = ""  # type: ignore[misc]
    """The field that holds the class of a record; "" without classes."""
    group: str = ""
    """The field whose texts are groups, none of which is in two splits; by default the same files are a group."""
    window_seconds: float = 0.0
    """Films and sounds are cut into windows of so many seconds, a record each; 0 keeps them whole."""
    shares: Shares = Shares()
    """Shares of the groups that validation and test get."""
    own_splits: tuple[str, ...] = ()
    """Names of the splits, where a column `split` of the table says the split of each record; () makes splits."""
    skip_bad: float = dataclasses.field(default=0.0, metadata={"shapes_data": False})
    """Largest share of files that may be left out because they can't be read."""

    reads_files: ClassVar[bool] = True
    resumable: ClassVar[bool] = True

    def check(self) -> None:
        """Raises a `ConfigError` for no fields, impossible shares, or a field that isn't there."""
        if not self.fields:
            raise ConfigError("data.fields", {}, "a source has at least one field", "name it")
        if not self.directory:
            raise ConfigError("data.directory", "", "the prepared data lie in a directory", "name one")
        for field, modality in self.fields.items():
            modality.check(f"data.fields.{field}")
        self.shares.check("data.shares", ("record",))
        if self.own_splits and TRAIN not in self.own_splits:
            raise ConfigError("data.own_splits", self.own_splits, f"there must be a split {TRAIN!r}", "name it")
        for name in ("label", "group"):
            if getattr(self, name) and getattr(self, name) not in self.fields:
                rule = f"must be one of the fields {', '.join(self.fields)}"
                raise ConfigError(f"data.{name}", getattr(self, name), rule, "use one of these")

    @property
    def splits(self) -> tuple[str, ...]:
        """The names in `own_splits`; if there are none, `train` and the splits that `shares` gives a share."""
        return self.own_splits or self.shares.names

    def small(self, directory: str) -> Self:
        """The same data: they are prepared already."""
        return self

    def new_entries(self, directory: pathlib.Path) -> tuple[list[Entry], list[Problem]]:
        """The records of the folder that weren't read yet, by key, and what is in no record."""
        found, shards = index.index_folder(as_path(self.folder)), _shards(directory)
        stored = {key for shard in shards for key in shard["keys"]}
        left = {entry.key: entry for entry in found.entries if entry.key not in stored}
        # What was mended or removed since is no problem any more.
        tried = {key: (reason, stamp) for shard in shards for key, reason, stamp in shard["bad"] if key in left}
        bad = [key for key, (_, stamp) in tried.items() if stamp == _stamp(self, left[key])]
        problems = [*found.problems, *(Problem(left[key].shown, tried[key][0]) for key in bad)]
        return [entry for key, entry in left.items() if key not in bad], problems

    def grown(self) -> bool:
        """Whether files of new records lie in the folder."""
        return bool(self.new_entries(as_path(self.directory))[0])

    def build(self, directory: pathlib.Path, progress: Progress, beam: Any = None) -> None:
        """Reads the files of all records that aren't stored yet, and assigns the records to splits.

        Raises a `DataError` if more files than `skip_bad` can't be read, or if none can.
        """
        (directory / SIGNALS).mkdir(parents=True, exist_ok=True)
        todo, first, done = self.new_entries(directory)[0], len(_shards(directory)), itertools.count(1)
        work = [(first + n, todo[start : start + SHARD]) for n, start in enumerate(range(0, len(todo), SHARD))]
        if beam is not None:
            beam.each(functools.partial(_read_shard, self, directory), work)
        with _reader_of(self) as reader:
            for number, part in work if beam is None else ():
                found = []
                for entry, result in zip(part, reader.read(part), strict=True):
                    found.append((entry, result))
                    progress(next(done) / len(todo))
                _write_shard(self, directory, number, found)
        self._finish(directory, self.new_entries(directory)[1])

    def _finish(self, directory: pathlib.Path, problems: Sequence[Problem]) -> None:
        shards = _shards(directory)
        state = directory / STATE / f"{len(shards):05d}"
        state.mkdir(parents=True, exist_ok=True)
        lines = [json.dumps(dataclasses.asdict(one), ensure_ascii=False) + "\n" for one in problems]
        write_atomically(state / PROBLEMS, "".join(lines))
        count = sum(len(shard["groups"]) for shard in shards)
        if not count or len(problems) > self.skip_bad * (count + len(problems)):
            raise index.too_many(self.folder, problems, count + len(problems), "records")
        places_of, how = self._assign(directory, [group for shard in shards for group in shard["groups"]])
        for split, places in places_of.items():
            buffer = io.BytesIO()
            np.save(buffer, places)
            write_atomically(state / f"{split.replace('/', '.')}.npy", buffer.getvalue())
        classes = sorted({label for shard in shards for label in shard["labels"]})
        counts = [len(shard["groups"]) for shard in shards]
        write_object(state / CLASSES, {"classes": classes, "label": self.label, "counts": counts} | how)

    def _assign(self, directory: pathlib.Path, groups: list[str]) -> tuple[Mapping[str, np.ndarray], dict[str, Any]]:
        """Assigns records to splits so that none is empty, and says how: files that are added change no split."""
        if self.own_splits:
            return {split: np.flatnonzero(np.array(groups) == split) for split in self.own_splits}, {}
        first = min((directory / STATE).glob(f"*/{CLASSES}"), default=None)
        few = self.window_seconds > 0 and len(set(groups)) < FEW
        how = read_object(first, ("apart", "seed"), _FIX) if first else {"apart": few}
        keys = [f"{group}/{place}" for place, group in enumerate(groups)] if how["apart"] else groups
        seeds = [how["seed"]] if first else range(self.seed, self.seed + (100 if len(keys) < 1000 else 1))
        found = {seed: assign({"record": keys}, self.shares, seed) for seed in seeds}
        sizes = {seed: {split: len(places) for split, places in one.places.items()} for seed, one in found.items()}
        best = max(sizes, key=lambda seed: (sizes[seed][TRAIN] > 0, sum(map(bool, sizes[seed].values()))))
        return found[best].places, {"apart": how["apart"], "seed": best}

    def records(self, split: str) -> Sequence[Record]:
        """The records of a split, in the order in which they were stored."""
        directory = as_path(self.directory)
        places = np.load(local_copy(_state(directory) / f"{split.replace('/', '.')}.npy"), mmap_mode="r")
        counts = read_object(_state(directory) / CLASSES, ("counts",), _FIX)["counts"]
        return StoredRecords([_path(directory, number) for number in range(len(counts))], counts, places)

    def problems(self) -> Sequence[Mapping[str, str]]:
        """The files that are in no record, or can't be read."""
        path = _state(as_path(self.directory)) / PROBLEMS
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]

    @functools.cached_property
    def classes(self) -> tuple[str, ...]:  # type: ignore[override]
        """The different classes in the order of the alphabet."""
        if not self.label:
            return ()
        return tuple(read_object(_state(as_path(self.directory)) / CLASSES, ("classes",), _FIX)["classes"])

    def labels(self, split: str) -> Int[np.ndarray, " n"] | None:
        """The class of each record of a split, as an index into `classes`."""
        if not self.label:
            return None
        number = {name: place for place, name in enumerate(self.classes)}
        return np.array([number[record[self.label]] for record in self.records(split)], np.int64)


def read_entry(source: Folder, entry: Entry) -> tuple[list[bytes], str, str]:
    """The signals of a record in MessagePack, its group, and its class; several records where it is cut into windows.

    All windows have the texts and pictures of the record, and are one group. Records with the same picture, sound, or
    whatever comes first, are one group, and so are rows of texts that are equal but for the class, unless the source
    names a field. With `own_splits`, the group is the split.
    Raises a `DataError` if a file can't be read.
    """
    signals: dict[str, Any] = {}
    cut: dict[str, list[Any]] = {}
    digests = {} if entry.files else {True: index.digest_of(entry.texts, source.fields.keys() - {source.label})}
    for field, modality in source.fields.items():
        if field in entry.files:
            with index.opened(as_path(source.folder), entry.files[field]) as stream:
                content = stream.read()
            digests.setdefault(bool(modality.general), hashlib.sha256(content).hexdigest())
            try:
                if source.window_seconds and modality.seconds:
                    cut[field] = modality.windows(io.BytesIO(content), source.window_seconds)
                else:
                    signals[field] = modality.read(io.BytesIO(content))
            except DataError as error:
                if entry.may_lack(field):
                    continue
                rule = error.rule if error.value == "file" else f"{error.value}: {error.rule}"
                raise DataError(field, index.shown(entry.files[field]), rule, error.fix) from error
        elif field in entry.texts:
            signals[field] = modality.parse(entry.texts[field])
        if field in signals and modality.general and not modality.learned:  # a text that was added may be too long
            items, (least, most) = len(modality.encode([signals[field]]).part), modality.limits[0]
            if not least <= items <= most:
                rule, fix = f"the data set was made for {least} … {most} items", "shorten it, or use another --out"
                raise DataError(field, f"{items} items", rule, fix)
    if not signals and not cut:
        raise DataError("record", "file", f"it has none of the fields {', '.join(source.fields)}", "add one")
    for name in filter(None, (source.label, source.group)):
        if name not in signals:
            raise DataError(name, entry.shown, "each record has its class and its group", "add it")
    if source.own_splits and entry.texts.get(SPLIT) not in source.own_splits:
        rule = f"each record has its split in the table's column {SPLIT!r}: {', '.join(source.own_splits)}"
        raise DataError(SPLIT, entry.texts.get(SPLIT), rule, "mend the table, or data.own_splits")
    group = str(signals[source.group]) if source.group else digests.get(False, digests.get(True, entry.key))
    group = entry.texts[SPLIT] if source.own_splits else group
    count = min((len(windows) for windows in cut.values()), default=1)
    records = [signals | {field: windows[place] for field, windows in cut.items()} for place in range(count)]
    return list(map(packed, records)), group, str(signals[source.label]) if source.label else ""


def _stamp(source: Folder, entry: Entry) -> list[list[int]]:
    """Size and time of change of the files of a record, or of the archives that they are in."""
    root, names = index.root_of(as_path(source.folder)), sorted(set(entry.files.values()))
    paths = [root / name.partition(IN)[0] for name in names]
    return [[path.stat().st_size, path.stat().st_mtime_ns] if path.exists() else [] for path in paths]


def _reader_of(source: Folder) -> Reader[Entry, Any]:
    kinds = (type(source), *map(type, source.fields.values()))
    return Reader(functools.partial(read_entry, source), classes=kinds, here=trusted(source.folder))


def _read_shard(source: Folder, directory: pathlib.Path, piece: tuple[int, Sequence[Entry]]) -> None:
    """Reads and writes a shard, by its number and its records, on any worker."""
    with _reader_of(source) as reader:
        _write_shard(source, directory, piece[0], list(zip(piece[1], reader.read(piece[1]), strict=True)))


def _write_shard(source: Folder, directory: pathlib.Path, number: int, found: Sequence[tuple[Entry, Any]]) -> None:
    """Writes the signals of some records, then the file that marks them as complete."""
    path = _path(directory, number)
    good = [(entry, result) for entry, result in found if not isinstance(result, Failed)]
    write_messages(path, (signals for _, (records, _, _) in good for signals in records))
    described = {
        "keys": [entry.key for entry, _ in good],
        "groups": [group for _, (records, group, _) in good for _ in records],
        "labels": sorted({label for _, (_, _, label) in good} - {""}),
        "bad": [[entry.key, one.reason, _stamp(source, entry)] for entry, one in found if isinstance(one, Failed)],
    }
    write_object(path.with_suffix(".json"), described)


def _path(directory: pathlib.Path, number: int) -> pathlib.Path:
    """The file of signals with a number."""
    return directory / SIGNALS / f"{number:05d}.array_record"


def _shards(directory: pathlib.Path) -> list[dict[str, Any]]:
    """What is said of each file of signals that is complete."""
    paths = sorted((directory / SIGNALS).glob("[0-9]*.json"))
    return [read_object(path, ("keys", "groups", "bad"), _FIX) for path in paths]


def _state(directory: pathlib.Path) -> pathlib.Path:
    """The folder of the newest state that the manifest lists; while the data set is built, the newest one."""
    names = [path.parent.name for path in (directory / STATE).glob(f"*/{CLASSES}")]
    if (directory / MANIFEST).exists() and not (directory / BEGUN).exists():
        names = [name.split("/")[1] for name in read_manifest(directory)["files"] if name.startswith(f"{STATE}/")]
    return directory / STATE / max(names)
