"""The index of a folder: which files make a record, by one of three conventions.

1. A table `metadata.csv`, `.jsonl` or `.parquet` in the folder has a row for each record. A column `file_name`, or
   `NAME_file_name`, names a file; any other column is a text, in a field of its name. Hugging Face's folders have it.
   A table without a column for files has texts alone. If `split` says `train`, `validation` or another name in each
   row, it divides the records.
2. Files with one stem in one place are one record: `cat.jpg`, `cat.wav` and `cat.txt`. The stem ends at the first dot.
   webdataset has it, in archives (`.tar`), which are read like folders.
3. Each file is a record, and the name of the folder that it lies in is its label.

A mixture of conventions is an error. Hidden files are left out. Everything else is in a record, or it is a problem.
"""

from __future__ import annotations

import collections
import contextlib
import csv
import dataclasses
import hashlib
import io
import itertools
import json
import math
import os
import pathlib
import tarfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import BinaryIO

from etils import epy

from omnijax.data.sources.folder import catalogue
from omnijax.errors import ConfigError, DataError
from omnijax.modalities import FROM_FILES, Modality
from omnijax.paths import files_below, is_remote, translated
from omnijax.source import TRAIN, VALIDATION

IN = "::"
"""Between an archive, the place in it, and the name of a file in it."""
with epy.lazy_imports():
    from pyarrow import parquet

METADATA = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
FILE = "file_name"
LABEL, SPLIT = "label", "split"


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
        row: place of a record that is a row of texts, such as `metadata.csv:17`.
    """

    key: str
    files: Mapping[str, str]
    texts: Mapping[str, str] = dataclasses.field(default_factory=dict)
    row: str = ""

    @property
    def shown(self) -> str:
        """How messages name the record: by its row of the table, or by its key."""
        return self.row or self.key

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
        notes: lines about what is left out on purpose.
        splits: the splits that the table names; () where it names none.
    """

    entries: Sequence[Entry]
    kinds: Mapping[str, type[Modality]]
    label: str
    problems: Sequence[Problem]
    notes: Sequence[str] = ()
    splits: tuple[str, ...] = ()


def index_folder(folder: pathlib.Path) -> Index:
    """Finds the records of a folder, of an archive, or of a table of metadata.

    Raises:
        ConfigError: there is no such folder, it mixes conventions, or its table can't be read.
        DataError: it holds no record.
    """
    if trusted(folder):
        return _by_features(str(folder))
    place, problems = root_of(folder), list[Problem]()
    if not folder.exists() or folder.is_dir() == (place != folder):
        rule = f"it must be a folder, an archive (.tar), or a table ({', '.join(METADATA)})"
        raise ConfigError("folder", str(folder), rule, "give the path of one")
    archive = folder.suffix == ".tar"
    names = sorted(_members(place, folder.name, problems) if archive else _files(place, problems))
    tables = [name for name in names if not archive and name.rpartition("/")[2] in METADATA]
    if tables and tables != [name for name in METADATA if name in tables]:
        rule = f"one table of metadata lies in the folder itself, not {', '.join(tables)}"
        raise ConfigError("folder", str(folder), rule, "prepare these folders one by one")
    if len(tables) > 1:
        raise ConfigError("folder", str(folder), f"it has two tables: {', '.join(tables)}", "remove one of them")
    others = [name for name in names if name not in tables]
    index = _by_table(place, tables[0], others, problems) if tables else _by_names(place, others, problems)
    if not index.entries:
        why = "; ".join(f"{one.file}: {one.reason}" for one in index.problems[:3]) or "it has no files"
        endings = " ".join(sorted({suffix for first, *_ in FROM_FILES for suffix in first.suffixes}))
        raise DataError("folder", str(folder), f"no record was found ({why})", f"give files that end in {endings}")
    return index


def root_of(folder: pathlib.Path) -> pathlib.Path:
    """The folder that names of files are relative to: that of an archive or a table, or the folder itself."""
    return folder.parent if folder.suffix == ".tar" or folder.name in METADATA else folder


def too_many(folder: str, problems: Sequence[Problem], count: int, what: str) -> DataError:
    """The error for more files or records that can't be used than are allowed; it names the first, and the share."""
    first = "".join(f"\n  {one.file}: {one.reason}" for one in problems[:20])
    rule = f"{len(problems)} of {count} {what} can't be used{first}\n"
    share = math.ceil(1e3 * len(problems) / count) / 1e3
    return DataError("folder", folder, rule, f"mend or remove them, or leave them out with --skip-bad {share:g}")


def trusted(folder: pathlib.Path | str) -> bool:
    """Whether files can be read in this process: those that are made of a TFDS data set."""
    return str(folder).startswith(catalogue.PREFIX)


def kinds_of(name: str) -> list[type[Modality]]:
    """The kinds of modality that read a file of this name; a film has pictures and sound."""
    ending = f".{name.rpartition('.')[2].lower()}"
    return [first for first, *_ in FROM_FILES if ending in first.suffixes]


def _files(folder: pathlib.Path, problems: list[Problem]) -> Iterator[str]:
    """Every file that isn't hidden, relative to the folder, or in an archive."""
    for name in files_below(folder) if is_remote(folder) else _local_files(folder, problems):
        if any(one.startswith(".") for one in name.split("/")):
            continue
        if name.lower().endswith(".tar"):
            yield from _members(folder, name, problems)
        else:
            yield name


def _local_files(folder: pathlib.Path, problems: list[Problem]) -> Iterator[str]:
    """The files below a folder that aren't hidden. Links to folders are followed once."""
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
            yield relative


def _members(folder: pathlib.Path, name: str, problems: list[Problem]) -> Iterator[str]:
    """The files in a tar archive, as `ARCHIVE::OFFSET+BYTES::NAME`, so that each can be read without the others."""
    seen: set[str] = set()
    try:
        with (folder / name).open("rb") as stream, tarfile.open(fileobj=stream, mode="r:") as archive:
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
    """A file of a folder, of an archive in it, or of a TFDS data set, for reading."""
    if trusted(folder):
        yield catalogue.opened(str(folder), name)
        return
    archive, inside, rest = name.partition(IN)
    with translated(folder), (root_of(folder) / archive).open("rb") as stream:
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


def _by_features(name: str) -> Index:
    """The records of a TFDS data set."""
    count, endings, label, notes = catalogue.features(name)
    kinds = {feature: kinds_of(f"x.{ending}")[0] for feature, ending in endings.items()}
    files = [{one: f"{place}/{one}.{ending}" for one, ending in endings.items()} for place in range(count)]
    return Index([Entry(f"{place:09d}", found) for place, found in enumerate(files)], kinds, label, (), notes)


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
    labels = {key: key.rpartition("/")[0].rpartition("/")[2] for key in groups}
    if any(len(files) > 1 for files in groups.values()) or not any(labels.values()):
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
    of_texts, copies = not any(map(_names_files, itertools.chain(*rows))), collections.Counter[str]()
    if of_texts and (beside := next(filter(kinds_of, names), None)):
        rule = f"no column of {table} names files, and there are some, such as {beside}"
        raise ConfigError("folder", str(folder), rule, f"add a column {FILE} or NAME_{FILE}, or move the table")
    for number, row in enumerate(rows, 1):
        files, texts, missing = dict[str, str](), dict[str, str](), ""
        for column, value in row.items():
            if value is None or value == "":
                continue
            if not _names_files(column):
                texts[column] = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
                kinds.setdefault(column, text)
                continue
            own = column.removesuffix(FILE).removesuffix("_")
            found = {(own if not n else "") or kind.field: kind for n, kind in enumerate(kinds_of(str(value)))}
            alike = (kinds.setdefault(field, kind) is kind for field, kind in found.items())
            if str(value) not in there or not all(alike):
                field = own or next(iter(found), "")
                missing = missing or f"{value}: no such file, or of a kind that isn't that of {field!r}"
            elif str(value) in named:
                missing = missing or f"{value}: {named[str(value)]} names it, too"
            else:
                files |= dict.fromkeys(found, str(value))
        if missing or not (texts.keys() - {SPLIT} if of_texts else files):
            empty = "it has no text" if of_texts else "it names no file"
            problems.append(Problem(f"{table}:{number}", missing or empty))
            continue
        named |= dict.fromkeys(files.values(), f"{table}:{number}")
        if files:
            entries.append(Entry(min(files.values()), files, texts))
            continue
        key = digest_of(texts, texts.keys() - {SPLIT})
        copies[key] += 1
        entries.append(Entry(f"{key}-{copies[key]}", files, texts, f"{table}:{number}"))
    unnamed = sorted(there - set(named))
    if any(name.rpartition(".")[0] in {key.rpartition(".")[0] for key in named} for name in unnamed):
        rule = f"{table} names files that have sidecars, too, such as {unnamed[0]}"
        raise ConfigError("folder", str(folder), rule, "put the texts into the table, or remove the table")
    problems += [Problem(name, f"no row of {table} names it") for name in unnamed]
    label = LABEL if LABEL in kinds and all(LABEL in entry.texts for entry in entries) else ""
    splits = tuple(dict.fromkeys((TRAIN, VALIDATION, *sorted({entry.texts.get(SPLIT, "") for entry in entries}))))
    if SPLIT in kinds and all(any(entry.texts.get(SPLIT) == name for entry in entries) for name in splits):
        del kinds[SPLIT]
    else:
        splits = ()
    return Index(sorted(entries, key=lambda entry: entry.key), kinds, label, problems, splits=splits)


def digest_of(texts: Mapping[str, str], fields: Collection[str]) -> str:
    """SHA-256 of the texts of some fields, in any order."""
    chosen = {field: texts[field] for field in sorted(fields) if field in texts}
    return hashlib.sha256(json.dumps(chosen).encode()).hexdigest()


def _names_files(column: str) -> bool:
    return column == FILE or column.endswith(f"_{FILE}")


def _rows(path: pathlib.Path) -> list[dict[str, object]]:
    rows: list[dict[str, object]]
    try:
        if path.suffix == ".parquet":
            with path.open("rb") as table:
                rows = parquet.read_table(table).to_pylist()
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
