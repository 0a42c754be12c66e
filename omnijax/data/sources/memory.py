"""Data of your own, in memory: from arrays, from a generator function, or from a Hugging Face data set."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import io
from collections.abc import Hashable, Mapping, Sequence
from typing import Annotated, Any, ClassVar, cast

import numpy as np
import tyro
from etils import epy
from jaxtyping import Int

from omnijax.data.splits import MIXED, Shares, assign, plain
from omnijax.errors import ConfigError, DataError, check_known
from omnijax.modalities.base import Modality
from omnijax.source import SEQUENCE, Record, Source

with epy.lazy_imports():  # an extra: only sounds need it
    import scipy.io.wavfile

CONTENT: Mapping[str, Any] = {"content": True}
"""Marks what a configuration doesn't store, but its fingerprint stands for."""
Content = Annotated[Any, tyro.conf.Fixed, tyro.conf.Suppress]
"""A field that is no knob of the command line."""
_NO_FIELDS = cast("Mapping[str, Modality]", ())  # a default that is immutable


@dataclasses.dataclass(frozen=True, eq=False)
class InMemory(Source):
    """Records that are held in memory, and divided into splits by their groups.

    Two sources are equal if they have the same content and the same knobs.
    """

    fields: Mapping[str, Modality] = _NO_FIELDS
    """The modality of each field. A field has the name of an entry of the records."""
    groups: tuple[str, ...] = dataclasses.field(default=(), kw_only=True)
    """Kinds of group: names of entries that hold the group of a record, for example `("speaker", "word")`. No group is
    in two splits. Without any, records of the same content are a group."""
    label: str = dataclasses.field(default="", kw_only=True)  # type: ignore[misc]
    """Name of the entry that holds the class of a record; "" where there are no classes."""
    shares: Shares = dataclasses.field(default=Shares(), kw_only=True)
    """Shares of the groups that validation and test get."""

    in_memory: ClassVar[bool] = True

    @property
    def entries(self) -> Sequence[Record]:
        """All records, of all splits."""
        raise ConfigError("data", type(self).__name__, "a source in memory has `entries`", "define them in the class")

    def check(self) -> None:
        """Checks that there are fields and records, and that splits can be made.

        Raises:
            ConfigError: no fields, impossible shares, or a directory.
            DataError: no record, or one without its group or class.
        """
        if not self.fields:
            raise ConfigError("data.fields", {}, "a source has at least one field", "name it")
        for field, modality in self.fields.items():  # records may be read by it
            modality.check(f"data.fields.{field}")
        if self.directory:
            raise ConfigError("data.directory", self.directory, "this source stores nothing", "leave it out")
        if not len(self.entries):
            raise DataError("data", 0, "a source has at least one record", "give it records")
        self.shares.check("data.shares", self.groups)
        for name in self._keys:
            self._column(name)

    @property
    def splits(self) -> tuple[str, ...]:
        """`train`, and the splits that have a share."""
        return self.shares.names

    def records(self, split: str) -> Sequence[Record]:
        """The records of a split, in the order in which they were given."""
        return [self.entries[place] for place in self._assigned.places[split].tolist()]

    def excluded(self) -> Mapping[str, int]:
        """The number of records whose groups are on different sides."""
        return {MIXED: self._assigned.mixed} if self._assigned.mixed else {}

    @functools.cached_property
    def classes(self) -> tuple[str, ...]:  # type: ignore[override]
        """The different classes in order: numbers by size, names by the alphabet."""
        return tuple(map(str, sorted(set(self._column(self.label))))) if self.label else ()

    def labels(self, split: str) -> Int[np.ndarray, " n"] | None:
        """The class of each record of a split, as an index into `classes`."""
        if not self.label:
            return None
        number = {name: index for index, name in enumerate(self.classes)}
        classes = np.array([number[str(name)] for name in self._column(self.label)], np.int64)
        return classes[self._assigned.places[split]]

    @functools.cached_property
    def fingerprint(self) -> str:
        """16 hexadecimal digits that change with the content of the records."""
        return hashlib.sha256(b"".join(self._digests)).hexdigest()[:16]

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and self._identity == other._identity

    def __hash__(self) -> int:
        return hash(self._identity)

    @property
    def _identity(self) -> tuple[Any, ...]:
        knobs = (one.name for one in dataclasses.fields(self) if "content" not in one.metadata and one.name != "fields")
        return (self.fingerprint, tuple(dict(self.fields).items()), *(getattr(self, name) for name in knobs))

    @functools.cached_property
    def _digests(self) -> list[bytes]:
        """A hash of each record."""
        names = sorted({*self.fields, SEQUENCE, *self.groups, self.label})
        contents = (b"".join(_content(record.get(name)) for name in names) for record in self.entries)
        return [hashlib.sha256(content).digest() for content in contents]

    @functools.cached_property
    def _assigned(self) -> Any:
        keys: Mapping[str, Sequence[Hashable]] = {kind: self._column(kind) for kind in self.groups}
        return assign(keys or {"record": self._digests}, self.shares, self.seed)

    @property
    def _keys(self) -> tuple[str, ...]:
        """Entries that each record has beside its signals."""
        return (*self.groups, *([self.label] if self.label else []))

    def _column(self, name: str) -> list[Any]:
        """An entry of every record; raises a `DataError` where one lacks it."""
        values = [plain(record.get(name)) for record in self.entries]
        if None in values:
            rule = "each record has its groups and its class"
            raise DataError(f"record {values.index(None)}: {name}", None, rule, "add it, or leave the record out")
        return values


@dataclasses.dataclass(frozen=True, eq=False)
class Arrays(InMemory):
    """Records that are given, as a list of records or as a column for each entry.

    For example `Arrays({"photo": Picture(...), "caption": Text()}, columns={"photo": photos, "caption": captions})`.
    """

    rows: Content = dataclasses.field(default=(), metadata=CONTENT, repr=False, kw_only=True)
    """A dictionary for each record: for each field a signal, a list of signals, or None."""
    columns: Content = dataclasses.field(default=None, metadata=CONTENT, repr=False, kw_only=True)
    """In place of `rows`: for each entry the values of all records, equally many; an array with one row for each."""

    def check(self) -> None:
        """Checks the columns, too."""
        columns = self.columns or {}
        if columns and len(self.rows):
            raise ConfigError("data.columns", list(columns), "rows are given, too", "give one of the two")
        lengths = {name: len(column) for name, column in columns.items()}
        if len(set(lengths.values())) > 1:
            raise ConfigError("data.columns", lengths, "all columns have one value for each record", "mend them")
        super().check()

    @functools.cached_property
    def entries(self) -> Sequence[Record]:  # type: ignore[override]
        """All records."""
        return self.rows if self.columns is None else _rows(self.columns)


@dataclasses.dataclass(frozen=True, eq=False)
class Generated(InMemory):
    """Records that a function yields. It is called once, and gives the same records each time."""

    function: Content = dataclasses.field(default=tuple, metadata=CONTENT, repr=False)
    """A function without arguments that yields all records, as dictionaries."""

    @functools.cached_property
    def entries(self) -> Sequence[Record]:  # type: ignore[override]
        """All records."""
        return list(self.function())


@dataclasses.dataclass(frozen=True, eq=False)
class HuggingFace(InMemory):
    """A data set of the package `datasets`, in memory. Fields have the names of its columns.

    Pictures, and sounds of `{"array", "sampling_rate"}`, become what their modality reads from a file: they are resized
    and resampled. Lists of numbers become arrays; all other lists are several signals. Classes become their names.
    """

    dataset: Content = dataclasses.field(default=None, metadata=CONTENT, repr=False)

    @functools.cached_property
    def entries(self) -> Sequence[Record]:  # type: ignore[override]
        """All records; raises a `ConfigError` if the data set lacks a column."""
        columns: dict[str, Sequence[Any]] = {}
        for name in dict.fromkeys([*self.fields, *self._keys]):
            check_known("data.fields", name, self.dataset.features, "the columns of the data set are")
            class_names = getattr(self.dataset.features[name], "names", None)
            values = self.dataset[name]
            if class_names:
                values = [class_names[value] for value in values]
            columns[name] = [_signal(value, self.fields[name]) for value in values] if name in self.fields else values
        return _rows(columns)


def _signal(value: Any, modality: Modality) -> Any:
    """A value of a Hugging Face data set as a signal."""
    if isinstance(value, list):
        array = np.asarray(value) if value and not isinstance(value[0], (str, dict)) else np.zeros(0, object)
        return array if array.dtype.kind in "iufb" else [_signal(one, modality) for one in value]
    file, parts = io.BytesIO(), value if isinstance(value, dict) else {}
    if "array" in parts:
        scipy.io.wavfile.write(file, int(parts["sampling_rate"]), np.asarray(parts["array"], np.float32))
    elif parts.get("bytes"):
        file.write(parts["bytes"])
    elif hasattr(value, "save"):
        value.save(file, format="PNG", compress_level=1)
    else:
        return value
    file.seek(0)
    return modality.read(file)


def _rows(columns: Mapping[str, Sequence[Any]]) -> list[Record]:
    """Columns as records."""
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def _content(value: Any) -> bytes:
    """What is hashed of a value: its type, its size and what it holds."""
    if isinstance(value, (list, tuple)):
        return f"{type(value).__name__}{len(value)}:".encode() + b"".join(map(_content, value))
    array = np.asarray(value) if hasattr(value, "__array__") else None
    if array is not None and array.dtype != object:
        return f"array {array.dtype.str} {array.shape}:".encode() + np.ascontiguousarray(array).tobytes()
    raw = value if isinstance(value, bytes) else str(value).encode()
    return f"{type(value).__name__} {len(raw)}:".encode() + raw
