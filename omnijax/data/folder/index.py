"""The index of a folder: which files make a record, by one of three conventions.

1. A table `metadata.csv`, `.jsonl` or `.parquet` in the folder has a row for each record. A column `file_name`, or
   `NAME_file_name`, names a file; any other column is a text, in a field of its name. Hugging Face's folders have it.
2. Files with one stem in one place are one record: `cat.jpg`, `cat.wav` and `cat.txt`. The stem ends at the first dot.
   webdataset has it, in archives (`.tar`), which are read like folders.
3. Each file is a record, and the name of the folder that it lies in is its label.

A mixture of conventions is an error. Hidden files are left out. Everything else is in a record, or it is a problem.
"""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import io
import json
import os
import pathlib
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from typing import BinaryIO

from etils import epy

from omnijax.errors import ConfigError, DataError
from omnijax.modalities import FROM_FILES, Modality

IN = "::"
"""Between an archive, the place in it, and the name of a file in it."""
with epy.lazy_imports():
    from pyarrow import parquet

METADATA = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
FILE = "file_name"
LABEL = "label"


@dataclasses.dataclass(frozen=True)
class Problem:
    """A file that is in no record, or a record that isn't whole, and why."""

    file: str
    reason: str


@dataclasses.dataclass(frozen=True)
class Entry:
    """One record, before its files are read.

    Attributes:
        key: unique in the folder, and the same when files are added.
        files: path of the file of each field, relative to the folder, with `/`.
        texts: text of each field that isn't in a file.
    """

    key: str
    files: Mapping[str, str]
    texts: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def may_lack(self, field: str) -> bool:
        """Whether the file of a field has another field, too, so that it needn't have this one: the sound of a film."""
        return list(self.files.values()).index(self.files[field]) != list(self.files).index(field)


@dataclasses.dataclass(frozen=True)
class Index:
    """What lies in a folder.

    Attributes:
        entries: the records, by key.
        kinds: the kind of modality that reads the files, or has the texts, of each field.
        label: the field that holds the class of a record; "" without classes.
        problems: what is in no record.
    """

    entries: Sequence[Entry]
    kinds: Mapping[str, type[Modality]]
    label: str
    problems: Sequence[Problem]


def index_folder(folder: pathlib.Path) -> Index:
    """Finds the records of a folder.

    Raises:
        ConfigError: there is no such folder, it mixes conventions, or its table can't be read.
        DataError: it holds no record.
    """
    if not folder.is_dir():
        raise ConfigError("folder", str(folder), "there is no such folder", "give the path of one")
    problems: list[Problem] = []
    names = sorted(_files(folder, problems))
    tables = [name for name in names if name.rpartition("/")[2] in METADATA]
    if tables and tables != [name for name in METADATA if name in tables]:
        rule = f"one table of metadata lies in the folder itself, not {', '.join(tables)}"
        raise ConfigError("folder", str(folder), rule, "prepare these folders one by one")
    if len(tables) > 1:
        raise ConfigError("folder", str(folder), f"it has two tables: {', '.join(tables)}", "remove one of them")
    if tables:
        index = _by_table(folder, tables[0], [name for name in names if name not in tables], problems)
    else:
        index = _by_names(folder, names, problems)
    if not index.entries:
        why = "; ".join(f"{one.file}: {one.reason}" for one in problems[:3]) or "it has no files"
        raise DataError("folder", str(folder), f"no record was found ({why})", "see the documentation: Formats")
    return index


def kinds_of(name: str) -> list[type[Modality]]:
    """The kinds of modality that read a file of this name; a film has pictures and sound."""
    ending = f".{name.rpartition('.')[2].lower()}"
    return [first for first, *_ in FROM_FILES if ending in first.suffixes]


def _files(folder: pathlib.Path, problems: list[Problem]) -> Iterator[str]:
    """Every file that isn't hidden, relative to the folder. Links to folders are followed once."""
    seen: set[tuple[int, int]] = set()

    def blame(error: OSError) -> None:
        problems.append(Problem(_relative(folder, str(error.filename)), error.strerror or str(error)))

    for place, folders, files in os.walk(folder, onerror=blame, followlinks=True):
        status = os.stat(place)
        if (status.st_dev, status.st_ino) in seen:
            problems.append(Problem(_relative(folder, place), "this folder was reached before, through a link"))
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        folders[:] = sorted(one for one in folders if not one.startswith("."))
        for name in files:
            relative = _relative(folder, os.path.join(place, name))
            if name.startswith("."):
                continue
            try:
                relative.encode()
            except UnicodeEncodeError:
                problems.append(Problem(ascii(relative), "its name isn't UTF-8"))
                continue
            if name.lower().endswith(".tar"):
                yield from _members(folder, relative, problems)
            else:
                yield relative


def _members(folder: pathlib.Path, name: str, problems: list[Problem]) -> Iterator[str]:
    """The files in a tar archive, as `ARCHIVE::OFFSET+BYTES::NAME`, so that each can be read without the others."""
    seen: set[str] = set()
    try:
        with tarfile.open(folder / name, "r:") as archive:
            for member in archive:
                base = member.name.rpartition("/")[2]
                if member.isdir() or base.startswith("."):
                    continue
                if not member.isfile() or member.name in seen:
                    reason = "it is there twice" if member.name in seen else "it is no plain file"
                    problems.append(Problem(f"{name}::{member.name}", reason))
                    continue
                seen.add(member.name)
                yield f"{name}{IN}{member.offset_data}+{member.size}{IN}{member.name}"
    except (tarfile.TarError, OSError, EOFError) as error:
        problems.append(Problem(name, f"the archive can't be read to its end ({error})"))


@contextlib.contextmanager
def opened(folder: pathlib.Path, name: str) -> Iterator[BinaryIO]:
    """A file of a folder, or of an archive in it, for reading."""
    archive, inside, rest = name.partition(IN)
    with (folder / archive).open("rb") as stream:
        if not inside:
            yield stream
            return
        offset, _, size = rest.partition(IN)[0].partition("+")
        stream.seek(int(offset))
        yield io.BytesIO(stream.read(int(size)))


def shown(name: str) -> str:
    """A file for people: without its place in an archive."""
    archive, inside, rest = name.partition(IN)
    return f"{archive}{IN}{rest.partition(IN)[2]}" if inside else name


def _relative(folder: pathlib.Path, path: str) -> str:
    return pathlib.PurePath(os.path.relpath(path, folder)).as_posix()


def _by_names(folder: pathlib.Path, names: Sequence[str], problems: list[Problem]) -> Index:
    """The second convention if files share a stem, otherwise the third."""
    groups: dict[str, dict[str, str]] = {}
    kinds: dict[str, type[Modality]] = {}
    for name in names:
        if not kinds_of(name):
            problems.append(Problem(shown(name), "no modality reads files with this ending"))
            continue
        place, slash, base = shown(name).rpartition("/")
        if not slash:
            place, slash, base = base.rpartition(IN)
        files = groups.setdefault(f"{place}{slash}{base.partition('.')[0]}", {})
        if taken := [kind.field for kind in kinds_of(name) if kind.field in files]:
            reason = f"{shown(files[taken[0]])} has the same stem and is of the same kind"
            problems.append(Problem(shown(name), reason))
            continue
        for kind in kinds_of(name):
            files[kind.field] = name
            kinds[kind.field] = kind
    if any(len(files) > 1 for files in groups.values()):
        return Index([Entry(key, files) for key, files in sorted(groups.items())], kinds, "", problems)
    labels = {key: key.rpartition("/")[0].rpartition("/")[2] for key in groups}
    if not any(labels.values()):
        return Index([Entry(key, files) for key, files in sorted(groups.items())], kinds, "", problems)
    text = next(first for first, *_ in FROM_FILES if first.general)
    if text.field in kinds and len(kinds) > 1:
        rule = "some folders hold texts and others don't, so that names of folders can't be labels"
        raise ConfigError("folder", str(folder), rule, "give each text the stem of its file")
    entries = []
    for key, files in sorted(groups.items()):
        if labels[key]:
            entries.append(Entry(key, files, {LABEL: labels[key]}))
        else:
            problems.append(Problem(next(iter(files.values())), "it lies in no folder whose name is its label"))
    return Index(entries, {**kinds, LABEL: text}, LABEL, problems)


def _by_table(folder: pathlib.Path, table: str, names: Sequence[str], problems: list[Problem]) -> Index:
    """The first convention."""
    rows = _rows(folder / table)
    there, named, kinds, entries = set(names), dict[str, str](), dict[str, type[Modality]](), []
    text = next(first for first, *_ in FROM_FILES if first.general)
    for number, row in enumerate(rows, 1):
        files, texts, missing = dict[str, str](), dict[str, str](), ""
        for column, value in row.items():
            if value is None or value == "":
                continue
            if column != FILE and not column.endswith(f"_{FILE}"):
                texts[column] = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
                kinds.setdefault(column, text)
                continue
            own = column.removesuffix(FILE).removesuffix("_")
            found = {(own if first else "") or kind.field: kind for first, kind in _first(kinds_of(str(value)))}
            if str(value) not in there or any(
                kinds.setdefault(field, kind) is not kind for field, kind in found.items()
            ):
                field = own or next(iter(found), "")
                missing = missing or f"{value}: no such file, or of a kind that isn't that of {field!r}"
            elif str(value) in named:
                missing = missing or f"{value}: {named[str(value)]} names it, too"
            else:
                files |= dict.fromkeys(found, str(value))
        if missing or not files:
            problems.append(Problem(f"{table}:{number}", missing or "it names no file"))
            continue
        named |= dict.fromkeys(files.values(), f"{table}:{number}")
        entries.append(Entry(min(files.values()), files, texts))
    unnamed = sorted(there - set(named))
    if any(name.rpartition(".")[0] in {key.rpartition(".")[0] for key in named} for name in unnamed):
        rule = f"{table} names files that have sidecars, too, such as {unnamed[0]}"
        raise ConfigError("folder", str(folder), rule, "put the texts into the table, or remove the table")
    problems += [Problem(name, f"no row of {table} names it") for name in unnamed]
    label = LABEL if LABEL in kinds and all(LABEL in entry.texts for entry in entries) else ""
    return Index(sorted(entries, key=lambda entry: entry.key), kinds, label, problems)


def _first(kinds: Sequence[type[Modality]]) -> Iterator[tuple[bool, type[Modality]]]:
    """Kinds, and whether each is the first one."""
    return ((place == 0, kind) for place, kind in enumerate(kinds))


def _rows(path: pathlib.Path) -> list[dict[str, object]]:
    rows: list[dict[str, object]]
    try:
        if path.suffix == ".parquet":
            rows = parquet.read_table(path).to_pylist()
        else:
            with path.open(encoding="utf-8-sig", newline="") as file:
                if path.suffix == ".csv":
                    rows = [dict(row) for row in csv.DictReader(file, strict=True, restkey="", restval=None)]
                else:
                    rows = [json.loads(line) for line in file.read().split("\n") if line.strip()]
    except (OSError, UnicodeDecodeError, csv.Error, ValueError) as error:
        raise ConfigError("folder", str(path), f"the table can't be read ({error})", "mend it") from error
    for number, row in enumerate(rows, 1):
        if not isinstance(row, dict) or "" in row or not all(isinstance(name, str) and name for name in row):
            rule = "each row of the table has a value for each column, and each column a name"
            raise ConfigError(f"{path}:{number}", str(row)[:200], rule, "mend the row")
    return rows
