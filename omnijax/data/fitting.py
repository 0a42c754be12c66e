"""What modalities learn from the training split: fitted once, saved with the data, read back."""

from __future__ import annotations

import functools
import io
import pathlib
import zipfile
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from omnijax.errors import DataError
from omnijax.files import write_atomically
from omnijax.modalities.base import Modality, PartsOf, Progress
from omnijax.paths import as_path
from omnijax.source import TRAIN, Record, Source, modalities_of, read, signals_of

FOLDER = "fitted"
AT_ONCE = 1024
"""Records that are read at a time, and encoded where no items are stored."""


def fit(source: Source, modality: Modality, progress: Progress) -> dict[str, np.ndarray]:
    """What a modality learns from the training signals of all its fields."""
    fields = [field for field, one in source.fields.items() if one == modality]
    return modality.fit(_signals(source.records(TRAIN), fields), source.seed, progress)


def save(directory: pathlib.Path, modality: Modality, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes what a modality learned below the directory of a data set."""
    (directory / FOLDER).mkdir(exist_ok=True)
    buffer = io.BytesIO()
    np.savez(buffer, **dict(arrays))  # type: ignore[arg-type]
    write_atomically(path_of(directory, modality), buffer.getvalue())


def path_of(directory: pathlib.Path, modality: Modality) -> pathlib.Path:
    """The file that holds what a modality learned."""
    return directory / FOLDER / f"{modality.name}.npz"


def fitted(source: Source) -> dict[str, Modality]:
    """The modality of each field, with what it has learned: read from the data set, or learned now if it has no files.

    Raises a `DataError` if a file is missing or damaged, or if there are too few signals.
    """
    learned = functools.partial(load, as_path(source.directory)) if source.directory else None
    return bound(source, learned or functools.partial(_fit_in_memory, source))


def bound(source: Source, learned: Callable[[Modality], Mapping[str, np.ndarray]]) -> dict[str, Modality]:
    """The modality of each field, with what `learned` gives for it."""
    parts = modalities_of(source.fields)
    modalities = {name: one.bound(learned(one)) if one.learned else one for name, one in parts.items()}
    return {field: modalities[modality.name] for field, modality in source.fields.items()}


def load(directory: pathlib.Path, modality: Modality) -> Mapping[str, np.ndarray]:
    """What `save` wrote; raises a `DataError` if the file is missing or damaged."""
    path = path_of(directory, modality)
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            return dict(arrays)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        rule = f"it must hold what the modality {modality.name!r} learned ({error})"
        raise DataError("data file", str(path), rule, "build the data set again: omnijax prepare") from error


@functools.lru_cache(maxsize=8)
def _fit_in_memory(source: Source, modality: Modality) -> Mapping[str, np.ndarray]:
    return fit(source, modality, lambda share: None)


def _signals(records: Sequence[Record], fields: Sequence[str]) -> Sequence[Any]:
    """All signals of some fields of some records; records are read many at a time."""
    starts = range(0, len(records), AT_ONCE)

    @functools.lru_cache(maxsize=2)
    def chunk(number: int) -> list[Any]:
        rows = read(records, range(starts[number], min(starts[number] + AT_ONCE, len(records))))
        return [signal for row in rows for field in fields for signal in signals_of(row, field)]

    return PartsOf(chunk, len(starts))
