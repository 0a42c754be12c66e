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
from omnijax.source import Source, modalities_of

MANIFEST, EXPERIMENT_FILE, PAGE = "manifest.json", "experiment.py", "data.html"
BEGUN = "unfinished.json"
"""Lies in the directory of a data set while it is built."""
_REBUILD = "delete the directory and build the data set again: `omnijax prepare`"


def shaping(source: Source) -> dict[str, Any]:
    """The knobs that shape the files: those of the source and of its modalities that `fit` or `encode` depend on.

    A knob is left out if its dataclass field has `metadata={"shapes_data": False}`.
    """
    shaping = {name: one for name, one in modalities_of(source.fields).items() if one.learned or source.reads_files}
    modalities = {name: _knobs(one) for name, one in shaping.items()}
    fields = {field: modality.name for field, modality in source.fields.items()}
    of_modalities = {name for name, value in vars(source).items() if isinstance(value, Modality) or name == "fields"}
    knobs = {name: value for name, value in _knobs(source).items() if name not in {"directory", *of_modalities}}
    return dict(json.loads(json.dumps({"source": knobs, "fields": fields, "modalities": modalities})))


def _knobs(value: Any) -> dict[str, Any]:
    shaping = {one.name for one in dataclasses.fields(value) if one.init and one.metadata.get("shapes_data", True)}
    return {name: part for name, part in dataclasses.asdict(value).items() if name in shaping}


def describe(directory: pathlib.Path) -> dict[str, dict[str, int | str]]:
    """Size and SHA-256 of every file below a directory but the manifest, by relative POSIX path."""
    return {
        path.relative_to(directory).as_posix(): {"bytes": path.stat().st_size, "sha256": digest_of_file(path)}
        for path in sorted(directory.rglob("*"))
        if path.is_file() and path.name not in (MANIFEST, EXPERIMENT_FILE, BEGUN, PAGE)
    }


def verify(source: Source) -> None:
    """Checks a prepared data set: it is there, complete, unaltered, and built with this configuration.

    A process hashes the files once, and again only after one of them has changed. A source that stores nothing has
    nothing to check.

    Raises:
        DataError: which of these fails, with the file or the knob.
    """
    if not source.directory:
        return
    directory = pathlib.Path(source.directory)
    if directory.exists() and not directory.is_dir():
        raise DataError("data.directory", source.directory, "it must be a directory", "choose another directory")
    if not directory.exists() or not any(directory.iterdir()):
        rule = "the data set must be there"
        raise DataError("data.directory", source.directory, rule, "build it: `omnijax prepare`")
    _compare("data", read_manifest(directory)["config"], shaping(source), source.directory)
    files = sorted(path for path in directory.rglob("*") if path.is_file())
    _verify_files(directory, tuple((str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in files))


@functools.lru_cache(maxsize=8)
def _verify_files(directory: pathlib.Path, stamps: tuple[tuple[str, int, int], ...]) -> None:
    """Checks the files. `stamps` are their names, sizes and times of modification, so that a change is a new call."""
    for name, expected in read_manifest(directory)["files"].items():
        path, rule = directory / name, ""
        if not path.is_file():
            rule = "it is missing"
        elif path.stat().st_size != expected["bytes"]:
            rule = f"it is damaged: {path.stat().st_size} bytes, and the manifest says {expected['bytes']}"
        elif digest_of_file(path) != expected["sha256"]:
            rule = "it was altered: its SHA-256 isn't that of the manifest"
        if rule:
            raise DataError("data file", str(path), rule, _REBUILD)


def read_manifest(directory: str | pathlib.Path) -> dict[str, Any]:
    """The manifest of the data set in a directory.

    Raises:
        DataError: there is none, or it can't be read.
    """
    path = pathlib.Path(directory) / MANIFEST
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
