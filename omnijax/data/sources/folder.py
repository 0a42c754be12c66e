"""Files of your own, prepared once: each record as the signals that its modalities read from its files."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import io
import json
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, Self, cast

import numpy as np
from array_record.python.array_record_data_source import ArrayRecordDataSource
from array_record.python.array_record_module import ArrayRecordWriter
from flax import serialization
from jaxtyping import Int

from omnijax.data.folder.index import Entry, Problem, index_folder, opened, shown
from omnijax.data.manifest import MANIFEST, read_manifest
from omnijax.data.reading import Failed, Reader
from omnijax.data.splits import Shares, assign
from omnijax.errors import ConfigError, DataError
from omnijax.files import read_object, write_atomically, write_object
from omnijax.modalities.base import Modality, Progress
from omnijax.source import Record, Source

SIGNALS, STATE = "signals", "state"
"""Folders: of the signals, and of splits, classes and problems, one for each time that something was stored."""
PROBLEMS = "problems.jsonl"
SHARD = 1024
"""Records in a file of signals. A build that was killed repeats at most one of them."""
_NO_FIELDS = cast("Mapping[str, Modality]", ())  # a default that is immutable


@dataclasses.dataclass(frozen=True, kw_only=True)
class Folder(Source):
    """The records of a folder of files, as `omnijax.data.folder.index` finds them.

    The signals are stored as the modalities read them, so that training needs the files no more. When files are added
    to the folder, `omnijax prepare` stores the new records behind the old ones, which stay in their splits.
    """

    folder: str = dataclasses.field(default="", metadata={"shapes_data": False})
    """Where the files lie."""
    fields: Mapping[str, Modality] = _NO_FIELDS  # type: ignore[assignment]
    """The modality of each field."""
    label: str = ""  # type: ignore[misc]
    """The field that holds the class of a record; "" without classes."""
    group: str = ""
    """The field whose texts are groups, none of which is in two splits; by default the same files are a group."""
    window_seconds: float = 0.0
    """Films and sounds are cut into windows of so many seconds, a record each; 0 keeps them whole."""
    shares: Shares = Shares()
    """Shares of the groups that validation and test get."""
    skip_bad: float = dataclasses.field(default=0.0, metadata={"shapes_data": False})
    """Largest share of files that may be left out because they can't be read."""

    reads_files: ClassVar[bool] = True
    resumable: ClassVar[bool] = True

    def __hash__(self) -> int:
        return hash((self.directory, self.folder, tuple(self.fields.items()), self.label, self.group))

    def check(self) -> None:
        """Raises a `ConfigError` for no fields, impossible shares, or a field that isn't there."""
        if not self.fields:
            raise ConfigError("data.fields", {}, "a source has at least one field", "name it")
        if not self.directory:
            raise ConfigError("data.directory", "", "the prepared data lie in a directory", "name one")
        for field, modality in self.fields.items():
            modality.check(f"data.fields.{field}")
        self.shares.check("data.shares", ("record",))
        for name in ("label", "group"):
            if getattr(self, name) and getattr(self, name) not in self.fields:
                rule = f"must be one of the fields {', '.join(self.fields)}"
                raise ConfigError(f"data.{name}", getattr(self, name), rule, "use one of these")

    @property
    def splits(self) -> tuple[str, ...]:
        """`train`, and the splits that have a share."""
        return self.shares.names

    def small(self, directory: str) -> Self:
        """The same data: they are prepared already."""
        return self

    def new_entries(self, directory: pathlib.Path) -> tuple[list[Entry], list[Problem]]:
        """The records of the folder that aren't stored yet, by key, and what is in no record."""
        index = index_folder(pathlib.Path(self.folder))
        stored = {key for shard in _shards(directory) for key in shard["keys"]}
        return [entry for entry in index.entries if entry.key not in stored], list(index.problems)

    def grown(self) -> bool:
        """Whether files of new records lie in the folder."""
        directory = pathlib.Path(self.directory)
        bad = {key for shard in _shards(directory) for key, _ in shard["bad"]}
        return any(entry.key not in bad for entry in self.new_entries(directory)[0])

    def build(self, directory: pathlib.Path, progress: Progress, beam: Any = None) -> None:
        """Reads the files of all records that aren't stored yet, and assigns the records to splits.

        Raises:
            DataError: more files than `skip_bad` can't be read, or none can.
        """
        (directory / SIGNALS).mkdir(parents=True, exist_ok=True)
        entries, problems = self.new_entries(directory)
        bad = {key for shard in _shards(directory) for key, _ in shard["bad"]}
        todo = [entry for entry in entries if entry.key not in bad]
        number, done = len(_shards(directory)), len(bad)
        with Reader(functools.partial(read_entry, self), classes=map(type, self.fields.values())) as reader:
            for start in range(0, len(todo), SHARD):
                part = todo[start : start + SHARD]
                found = []
                for entry, result in zip(part, reader.read(part), strict=True):
                    found.append((entry, result))
                    done += 1
                    progress(done / max(1, len(entries)))
                _write_shard(directory, number, found)
                number += 1
        problems += [Problem(key, reason) for shard in _shards(directory) for key, reason in shard["bad"]]
        self._finish(directory, problems)

    def _finish(self, directory: pathlib.Path, problems: Sequence[Problem]) -> None:
        shards = _shards(directory)
        state = directory / STATE / f"{len(shards):05d}"
        state.mkdir(parents=True, exist_ok=True)
        lines = [json.dumps(dataclasses.asdict(one), ensure_ascii=False) + "\n" for one in problems]
        write_atomically(state / PROBLEMS, "".join(lines))
        count = sum(len(shard["groups"]) for shard in shards)
        if not count or len(problems) > self.skip_bad * (count + len(problems)):
            first = "; ".join(f"{one.file}: {one.reason}" for one in problems[:3])
            rule = f"{len(problems)} files can't be used ({first}{' …' * (len(problems) > 3)})"
            fix = f"mend or remove them (all are in {state / PROBLEMS}), or allow a share with --skip-bad 0.1"
            raise DataError("folder", self.folder, rule, fix)
        groups = [group for shard in shards for group in shard["groups"]]
        assigned = assign({"record": groups}, self.shares, self.seed)
        for split, places in assigned.places.items():
            buffer = io.BytesIO()
            np.save(buffer, places)
            write_atomically(state / f"{split.replace('/', '.')}.npy", buffer.getvalue())
        classes = sorted({label for shard in shards for label in shard["labels"]})
        write_object(state / "classes.json", {"classes": classes, "label": self.label})

    def records(self, split: str) -> Sequence[Record]:
        """The records of a split, in the order in which they were stored."""
        return _Records(pathlib.Path(self.directory), split)

    def problems(self) -> Sequence[Mapping[str, str]]:
        """The files that are in no record, or can't be read."""
        path = _state(pathlib.Path(self.directory)) / PROBLEMS
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]

    @functools.cached_property
    def classes(self) -> tuple[str, ...]:  # type: ignore[override]
        """The different classes in the order of the alphabet."""
        if not self.label:
            return ()
        fix = "build the data set again: `omnijax prepare`"
        return tuple(read_object(_state(pathlib.Path(self.directory)) / "classes.json", ("classes",), fix)["classes"])

    def labels(self, split: str) -> Int[np.ndarray, " n"] | None:
        """The class of each record of a split, as an index into `classes`."""
        if not self.label:
            return None
        number = {name: index for index, name in enumerate(self.classes)}
        return np.array([number[record[self.label]] for record in self.records(split)], np.int64)


def read_entry(source: Folder, entry: Entry) -> tuple[list[bytes], str, str]:
    """The signals of a record in MessagePack, its group, and its class; several records where it is cut into windows.

    All windows have the texts and pictures of the record, and are one group. Records with the same picture, sound, or
    whatever comes first, are one group, unless the source names a field.

    Raises:
        DataError: a file can't be read.
    """
    signals: dict[str, Any] = {}
    cut: dict[str, list[Any]] = {}
    digests: dict[bool, str] = {}
    for field, modality in source.fields.items():
        if field in entry.files:
            with opened(pathlib.Path(source.folder), entry.files[field]) as stream:
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
                raise DataError(field, shown(entry.files[field]), rule, error.fix) from error
        elif field in entry.texts:
            signals[field] = modality.parse(entry.texts[field])
    if not signals and not cut:
        raise DataError("record", "file", f"it has none of the fields {', '.join(source.fields)}", "add one")
    for name in filter(None, (source.label, source.group)):
        if name not in signals:
            raise DataError(name, entry.key, "each record has its class and its group", "add it")
    group = str(signals[source.group]) if source.group else digests.get(False, digests.get(True, entry.key))
    count = min((len(windows) for windows in cut.values()), default=1)
    records = [signals | {field: windows[place] for field, windows in cut.items()} for place in range(count)]
    return (
        list(map(serialization.msgpack_serialize, records)),
        group,
        str(signals[source.label]) if source.label else "",
    )


def _write_shard(directory: pathlib.Path, number: int, found: Sequence[tuple[Entry, Any]]) -> None:
    """Writes the signals of some records, and then what says that they are complete."""
    path = directory / SIGNALS / f"{number:05d}.array_record"
    good = [(entry, result) for entry, result in found if not isinstance(result, Failed)]
    temporary = path.with_name(f".{path.name}.tmp")
    writer = ArrayRecordWriter(str(temporary), "group_size:1")
    for _, (records, _, _) in good:
        for signals in records:
            writer.write(signals)
    writer.close()
    temporary.replace(path)
    described = {
        "keys": [entry.key for entry, _ in good],
        "groups": [group for _, (records, group, _) in good for _ in records],
        "labels": sorted({label for _, (_, _, label) in good} - {""}),
        "bad": [[entry.key, result.reason] for entry, result in found if isinstance(result, Failed)],
    }
    write_object(path.with_suffix(".json"), described)


def _shards(directory: pathlib.Path) -> list[dict[str, Any]]:
    """What is said of each file of signals that is complete."""
    fix = "delete the directory and build the data set again: `omnijax prepare`"
    paths = sorted((directory / SIGNALS).glob("[0-9]*.json"))
    return [read_object(path, ("keys", "groups", "bad"), fix) for path in paths]


def _state(directory: pathlib.Path) -> pathlib.Path:
    """The folder of the newest state that the manifest lists; while there is no manifest, the newest one."""
    names = [path.name for path in (directory / STATE).iterdir()]
    if (directory / MANIFEST).exists():
        listed = read_manifest(directory)["files"]
        names = [name.split("/")[1] for name in listed if name.startswith(f"{STATE}/")]
    return directory / STATE / max(names)


class _Records(Sequence[Record]):
    def __init__(self, directory: pathlib.Path, split: str):
        self._places = np.load(_state(directory) / f"{split.replace('/', '.')}.npy", mmap_mode="r")
        self._files = ArrayRecordDataSource(
            [str(path) for path in sorted((directory / SIGNALS).glob("*.array_record"))]
        )

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, place: Any) -> Any:
        if not 0 <= place < len(self):
            raise IndexError(place)
        return self.__getitems__([place])[0]

    def __getitems__(self, places: Sequence[int]) -> list[Record]:
        rows = self._files.__getitems__([int(self._places[place]) for place in places])
        return [serialization.msgpack_restore(row) for row in rows]

    def __iter__(self) -> Iterator[Record]:
        return (self[place] for place in range(len(self)))
