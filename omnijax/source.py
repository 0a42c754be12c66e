"""What a source is: a data set as records. It knows files, and no fragments."""

from __future__ import annotations

import dataclasses
import pathlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Self

import numpy as np
from jaxtyping import Int

from omnijax.errors import ConfigError
from omnijax.modalities.base import Modality, Progress

SEQUENCE = "sequence"
"""Reserved field of a record: an interleaved document, [(field, signal), …]."""
TRAIN, VALIDATION, TEST = "train", "validation", "test"

Record = Mapping[str, Any]
"""One example: for each field a signal, a list of signals, or None where the record lacks the field."""
Judge = Callable[[Sequence[Any]], Int[np.ndarray, " n"]]
"""Classifies signals of one field: the index of each one's class, -1 for none."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Source:
    """A data set. Subclasses are frozen dataclasses, and so their own configuration.

    Attributes:
        directory: where the prepared data lie, or are to be built; "" where nothing is stored.
        seed: draws what the source draws, and what its modalities learn.
    """

    directory: str = ""
    seed: int = 0

    label: ClassVar[str] = ""
    """What a class of this data set is called, as in "digit"; "" where records have no classes."""
    classes: ClassVar[tuple[str, ...]] = ()
    """Names of the classes."""
    reads_files: ClassVar[bool] = False
    """Whether the records are what the modalities read from files, so that all their knobs shape the stored data."""
    resumable: ClassVar[bool] = False
    """Whether `build` goes on in a directory where it was killed, and stores what was added since."""
    unit: ClassVar[str] = "tokens"
    """What `part_weights` hold in: tokens or records."""
    in_memory: ClassVar[bool] = False
    """Whether the data can't be made again from the configuration, so that a run needs its experiment file."""

    @property
    def fields(self) -> Mapping[str, Modality]:
        """The modality of each field. Several fields may share a modality; each gets a marker of its own."""
        raise ConfigError("data", type(self).__name__, "a source has `fields`", "define them in the class")

    @property
    def parts(self) -> Mapping[str, Source]:
        """The sources that this one mixes, by name; itself by default."""
        return {"": self}

    @property
    def part_weights(self) -> tuple[float, ...]:
        """What each of `parts` weighs in training."""
        return (1.0,)

    @property
    def stores(self) -> bool:
        """Whether it stores data in a directory."""
        return type(self).build is not Source.build

    @property
    def several(self) -> tuple[str, ...]:
        """Fields of which a record may have several signals, as a list."""
        return ()

    @property
    def splits(self) -> tuple[str, ...]:
        """Names of the splits: `train`, `validation`, `test` or `test/KIND`."""
        return (TRAIN, VALIDATION, TEST)

    def check(self) -> None:
        """Raises a `ConfigError` for a value that can't work."""

    def check_build(self) -> None:
        """Checks what a build needs, before anything is written.

        Raises:
            ConfigError: a value that no data set can be built with.
            PlatformError: something that the source needs is missing here.
        """

    def build(self, directory: pathlib.Path, progress: Progress, beam: Any = None) -> None:
        """Writes the records into a new directory, where the data set is to be stored; does nothing otherwise.

        Args:
            directory: to be filled; it takes the name `self.directory` when all is done.
            progress: told the share that is done.
            beam: builds on Apache Beam's workers (`data.beam.Beam`); None for this process.
        """

    def grown(self) -> bool:
        """Whether there is something that `build` would store behind what is stored."""
        return False

    def records(self, split: str) -> Sequence[Record]:
        """The records of a split, by random access, always in the same order.

        It may have a method `__getitems__(places)` that reads several at once.
        """
        raise ConfigError("data", type(self).__name__, "a source has `records`", "define them in the class")

    def origins(self, split: str) -> Sequence[str]:
        """Name in `parts` of the source of each record of a split; [] where there is only one source."""
        return ()

    def small(self, directory: str) -> Self:
        """The same kind of data in small, stored there if it is: for tests, and for a sweep that only tries itself."""
        return dataclasses.replace(self, directory=directory if self.directory else "")

    def labels(self, split: str) -> Int[np.ndarray, " n"] | None:
        """The class of each record of a split, as an index into `classes`; None without classes."""
        return None

    def judges(self) -> Mapping[str, Judge]:
        """Classifiers of real and generated signals, by field, fitted on the training split; {} without classes."""
        return {}

    def answers(self, field: str) -> Sequence[Any]:
        """A signal of a field for each class, in their order, for answers to be ranked among; [] where there are none.

        None stands for a class that has no such signal.
        """
        return ()

    def anchors(self, split: str, route: str) -> Mapping[str, float]:
        """Accuracy of baselines, such as nearest neighbours, on a split along a route (`FIRST->LAST`), by name."""
        return {}

    def credit(self, record: Record) -> str:
        """Author and licence of a record, for the credits of a page that shows it; "" if they aren't known."""
        return ""

    def nearest(self, field: str, signals: Sequence[Any]) -> Sequence[Record]:
        """For each signal of a field the most similar training record, so that copies are seen; [] without a search."""
        return ()

    def present(self, split: str) -> Mapping[tuple[str, ...], int]:
        """Numbers of records by the fields that they have. By default it reads all records."""
        records = self.records(split)
        parts = (range(len(records))[start : start + 1024] for start in range(0, len(records), 1024))
        return Counter(fields_present((row for part in parts for row in read(records, part)), self.fields))

    def problems(self) -> Sequence[Mapping[str, str]]:
        """What is in no record, and why: `file` and `reason` of each."""
        return ()

    def excluded(self) -> Mapping[str, int]:
        """Numbers of records that are in no split, by reason."""
        return {}


def modalities_of(fields: Mapping[str, Modality]) -> dict[str, Modality]:
    """The different modalities of some fields, by name, in the order in which they first occur.

    Raises a `ConfigError` if two different modalities have the same name.
    """
    found: dict[str, Modality] = {}
    for field, modality in fields.items():
        if found.setdefault(modality.name, modality) != modality:
            rule = f"the modality {modality.name!r} of another field has another configuration"
            raise ConfigError(f"data.fields.{field}", modality, rule, "give it a name of its own, or the same knobs")
    return found


def read(records: Sequence[Record], places: Sequence[int]) -> list[Record]:
    """Some records, read at once where the source can."""
    if hasattr(records, "__getitems__"):
        return list(records.__getitems__(places))
    return [records[place] for place in places]


def fields_present(rows: Iterable[Record], fields: Iterable[str]) -> Iterator[tuple[str, ...]]:
    """For each record the fields that it has, with `SEQUENCE` where it has an interleaved document."""
    names = (*fields, SEQUENCE)
    return (tuple(name for name in names if signals_of(row, name)) for row in rows)


def signals_of(record: Record, field: str) -> list[Any]:
    """The signals of a field of a record: none, one, or those of a list."""
    value = record.get(field)
    return [] if value is None else value if isinstance(value, list) else [value]
