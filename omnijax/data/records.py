"""Reads the prepared data set, and refuses one that is damaged or was built with another configuration."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import pathlib
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import tensorflow_datasets as tfds
from jaxtyping import Int16, Int32, Int64, UInt8

from omnijax import errors
from omnijax.config import DataConfig
from omnijax.modalities.codebook import Codebook

WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
MANIFEST, CODEBOOK, RECORDS = "manifest.json", "codebook.npz", "records"
_REBUILD = "delete the directory and build the data set again: `omnijax prepare`"


@dataclasses.dataclass(frozen=True, eq=False)
class Records:
    """A split in memory; entry `i` of each field belongs to record `i`.

    Attributes:
        images: grey levels 0 to 16.
        labels: the digit, 0 to 9.
        words: its English name.
        speech: waveforms of different lengths, at the sample rate of the configuration.
        voices: espeak-ng's voice variant.
        image_index: which of scikit-learn's images; several records share one.
    """

    images: UInt8[np.ndarray, "n 8 8"]
    labels: Int32[np.ndarray, " n"]
    words: list[str]
    speech: list[Int16[np.ndarray, " samples"]]
    voices: list[str]
    image_index: Int64[np.ndarray, " n"]

    def __len__(self) -> int:
        return len(self.labels)


def load_records(config: DataConfig, split: Literal["train", "heldout"]) -> Records:
    """Reads a split after checking every file of the data set against its manifest.

    The order is that of the image index; the records of one image follow one another.

    Raises:
        DataError: see `verify`.
    """
    verify(config)
    return read(pathlib.Path(config.directory), split)


def read(directory: pathlib.Path, split: Literal["train", "heldout"], places: Sequence[int] | None = None) -> Records:
    """Reads a split, or those of its records at some places, without checking anything; use `load_records`."""
    source = tfds.builder_from_directory(directory / RECORDS).as_data_source(split)
    rows = source.__getitems__(range(len(source)) if places is None else places)
    return Records(
        images=np.stack([row["image"] for row in rows]),
        labels=np.array([row["label"] for row in rows], np.int32),
        words=[row["word"].decode() for row in rows],
        speech=[row["speech"] for row in rows],
        voices=[row["voice"].decode() for row in rows],
        image_index=np.array([row["image_index"] for row in rows], np.int64),
    )


def load_codebook(config: DataConfig) -> Codebook:
    """Reads the speech codebook of the data set.

    Raises:
        DataError: see `verify`.
    """
    verify(config)
    return Codebook.load(pathlib.Path(config.directory) / CODEBOOK)


def fragments_seed(config: DataConfig) -> int | None:
    """Returns the seed of the fragments that are stored with the data set; None where none are."""
    manifest = _read_manifest(pathlib.Path(config.directory) / MANIFEST)
    return int(manifest["fragments"]["seed"]) if "fragments" in manifest else None


def check_fragments_seed(config: DataConfig, seed: int) -> None:
    """Holds the seed of a run against that of the stored fragments.

    Raises:
        DataError: they differ.
    """
    stored = fragments_seed(config)
    if stored not in (None, seed):
        rule = f"the fragments stored in {config.directory} were drawn with {stored}"
        raise errors.DataError("batch.seed", seed, rule, "use that value, or another --data.directory for new ones")


def shaping(config: DataConfig) -> dict[str, Any]:
    """Returns the fields that shape the files: not where they lie, other data, and how speech is made audible again."""
    fields = dataclasses.asdict(config)
    del fields["directory"], fields["source"], fields["lookup"], fields["speech"]["griffin_lim_iterations"]
    return fields


def describe(directory: pathlib.Path) -> dict[str, dict[str, int | str]]:
    """Returns size and SHA-256 of every file below a directory but the manifest, by relative POSIX path."""
    paths = sorted(path for path in directory.rglob("*") if path.is_file() and path.name != MANIFEST)
    return {
        path.relative_to(directory).as_posix(): {"bytes": path.stat().st_size, "sha256": _sha256(path)}
        for path in paths
    }


def verify(config: DataConfig) -> None:
    """Checks the whole data set: there, complete, unaltered, and built with this configuration.

    Raises:
        DataError: which of these fails, with the file or the field; or the configuration is one of other data.
    """
    if config.source != "spoken_digits":
        rule = "only spoken digits have pictures, words and speech that are judged or made"
        fix = "measure its bits (--tasks bits), or use source='spoken_digits'"
        raise errors.DataError("data.source", config.source, rule, fix)
    directory = pathlib.Path(config.directory)
    if directory.exists() and not directory.is_dir():
        rule, fix = "it must be a directory", "choose another directory"
        raise errors.DataError("data.directory", config.directory, rule, fix)
    if not directory.exists() or not any(directory.iterdir()):
        fix = "build it: `omnijax prepare`"
        raise errors.DataError("data.directory", config.directory, "the data set must be there", fix)
    manifest = _read_manifest(directory / MANIFEST)
    _compare("data", manifest["config"], shaping(config), config.directory)
    for name, expected in manifest["files"].items():
        path = directory / name
        if not path.is_file():
            raise errors.DataError("data file", str(path), "it is missing", _REBUILD)
        size = path.stat().st_size
        if size != expected["bytes"]:
            rule = f"it is damaged: {size} bytes, and the manifest says {expected['bytes']}"
            raise errors.DataError("data file", str(path), rule, _REBUILD)
        if _sha256(path) != expected["sha256"]:
            rule = "it was altered: its SHA-256 isn't that of the manifest"
            raise errors.DataError("data file", str(path), rule, _REBUILD)


def _read_manifest(path: pathlib.Path) -> dict[str, Any]:
    try:
        manifest = json.loads(path.read_text())
        if isinstance(manifest["config"], dict) and isinstance(manifest["files"], dict):
            return dict(manifest)
    except FileNotFoundError as error:
        rule = "a directory of data must have a manifest; this one holds something else, or is damaged"
        raise errors.DataError("data manifest", str(path), rule, f"choose another directory, or {_REBUILD}") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise errors.DataError("data manifest", str(path), f"it can't be read ({error})", _REBUILD) from error
    raise errors.DataError("data manifest", str(path), "it must hold `config` and `files`", _REBUILD)


def _compare(field: str, built: Any, wanted: Any, directory: str) -> None:
    if isinstance(wanted, dict) and isinstance(built, dict):
        for name in sorted(built.keys() | wanted.keys()):
            _compare(f"{field}.{name}", built.get(name), wanted.get(name), directory)
    elif built != wanted:
        rule = f"the data set in {directory} was built with {built!r}"
        raise errors.DataError(field, wanted, rule, "use that value, or another --data.directory for a new data set")


def _sha256(path: pathlib.Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
