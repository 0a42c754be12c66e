"""The manifest of a prepared data set: what it was built with, and the hash of each of its files."""

from __future__ import annotations

import dataclasses
import functools
import json
import pathlib
from typing import Any

from omnijax.errors import DataError
from omnijax.files import digest_of_file, read_object
from omnijax.modalities.base import Modality
from omnijax.paths import as_path, files_below
from omnijax.source import Source, modalities_of

MANIFEST, EXPERIMENT_FILE, PAGE = "manifest.json", "experiment.py", "data.html"
BEGUN = "unfinished.json"
"""Lies in the directory of a data set while it is built."""
HASHED_BYTES = 2**30
"""Every process hashes a data set up to this size when it starts. In a larger one it looks at the sizes of the files,
and their readers check what they read."""
_REBUILD = "delete the directory and build the data set again: `omnijax prepare`"


def shaping(source: Source) -> dict[str, Any]:
    """The knobs that shape the files: those of the source and of its modalities that `fit` or `encode` depend on.

    A knob is left out if its dataclass field has `metadata={"shapes_data": False}`.
    """
    learned = {name: one for name, one in modalities_of(source.fields).items() if one.learned or source.reads_files}
    modalities = {name: knobs_of(one) for name, one in learned.items()}
    fields = {field: modality.name for field, modality in source.fields.items()}
    apart = {name for name, value in vars(source).items() if isinstance(value, Modality)}
    apart |= {"directory", "fields", "sources"}
    knobs = {name: value for name, value in knobs_of(source).items() if name not in apart}
    said = {"source": knobs, "fields": fields, "modalities": modalities}
    said |= {f"sources.{name}": shaping(part) for name, part in source.parts.items() if part is not source}
    return dict(json.loads(json.dumps(said)))


def knobs_of(value: Any) -> dict[str, Any]:
    """The knobs of a source or modality that shape data; those of the modalities in it, too."""
    shaping = {one.name for one in dataclasses.fields(value) if one.init and one.metadata.get("shapes_data", True)}
    return {name: part for name, part in dataclasses.asdict(value).items() if name in shaping}


def describe(directory: pathlib.Path) -> dict[str, dict[str, int | str]]:
    """Size and SHA-256 of every file below a directory, by relative POSIX path.

    Left out are the manifest, what a data set needn't have, and half-written files (`.NAME.tmp`) that a kill left.
    """
    return {
        name: {"bytes": size, "sha256": digest_of_file(directory / name)}
        for name, (size, _) in files_below(directory).items()
        if (base := name.rpartition("/")[2]) not in (MANIFEST, EXPERIMENT_FILE, BEGUN, PAGE)
        and not (base.startswith(".") and base.endswith(".tmp"))
    }


def verify(source: Source) -> None:
    """Checks a prepared data set: it is there, complete, unaltered, and built with this configuration.

    A process hashes the files once (see `HASHED_BYTES`), and again only after one of them has changed. A source that
    stores nothing has nothing to check. Raises a `DataError` that says which of these fails, with the file or the knob.
    """
    if not source.directory:
        return
    directory = as_path(source.directory)
    if directory.exists() and not directory.is_dir():
        raise DataError("data.directory", source.directory, "it must be a directory", "choose another directory")
    if not directory.exists() or not any(directory.iterdir()):
        rule = "the data set must be there"
        raise DataError("data.directory", source.directory, rule, "build it: `omnijax prepare`")
    _compare("data", read_manifest(directory)["config"], shaping(source), source.directory)
    _verify_files(directory, tuple(files_below(directory).items()))


@functools.lru_cache(maxsize=8)
def _verify_files(directory: pathlib.Path, there: tuple[tuple[str, tuple[int, str]], ...]) -> None:
    """Checks the files. `there` are those of `files_below`, so that a change is a new call."""
    sizes = {name: size for name, (size, _) in there}
    files = read_manifest(directory)["files"]
    hashed = sum(one["bytes"] for one in files.values()) <= HASHED_BYTES
    for name, expected in files.items():
        path, rule = directory / name, ""
        if name not in sizes:
            rule = "it is missing"
        elif sizes[name] != expected["bytes"]:
            rule = f"it is damaged: {sizes[name]} bytes, and the manifest says {expected['bytes']}"
        elif hashed and digest_of_file(path) != expected["sha256"]:
            rule = "it was altered: its SHA-256 isn't that of the manifest"
        if rule:
            raise DataError("data file", str(path), rule, _REBUILD)


def read_manifest(directory: str | pathlib.Path) -> dict[str, Any]:
    """The manifest of the data set in a directory; raises a `DataError` if there is none, or if it can't be read."""
    path = as_path(directory) / MANIFEST
    if not path.exists():
        rule = "a directory of data must have a manifest; this one holds something else, or is damaged"
        if path.with_name(BEGUN).exists():
            raise DataError("data manifest", str(path), "the data set isn't complete", "build it: `omnijax prepare`")
        raise DataError("data manifest", str(path), rule, f"choose another directory, or {_REBUILD}")
    return read_object(path, ("config", "files"), _REBUILD)


def _compare(field: str, built: Any, wanted: Any, directory: str) -> None:
    if isinstance(wanted, dict) and isinstance(built, dict):
        for name in sorted(built.keys() | wanted.keys()):
            where = f"{field}.{name}".replace("data.source.", "data.").replace("data.modalities.", "data.")
            _compare(where, built.get(name), wanted.get(name), directory)
    elif built != wanted:
        rule = f"the data set in {directory} was built with {built!r}"
        raise DataError(field, wanted, rule, "use that value, or another --data.directory for a new data set")
