"""Several sources in one run, each with a share of what is trained on."""

from __future__ import annotations

import bisect
import dataclasses
import itertools
import math
import pathlib
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal, Self

import numpy as np

from omnijax.errors import ConfigError, check_known
from omnijax.files import write_atomically
from omnijax.modalities.base import Modality, Progress
from omnijax.paths import delete_tree
from omnijax.source import Record, Source, read

BUILT = "built"
"""Lies beside the records of a source that is built as a whole."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Mixture(Source):
    """Sources that share a vocabulary. A field that several have is of the same modality, and learned from all of them.

    Each sequence has documents of one source, the one that has had the least of its share so far. Sources that store
    data have a folder of their own in `directory`.
    """

    sources: Mapping[str, Source] = dataclasses.field(default_factory=dict)
    """Each source with a name of letters, digits, `-` and `_`."""
    weights: Mapping[str, float] = dataclasses.field(default_factory=dict, metadata={"shapes_data": False})
    """Shares of the sources in training, by name; they need not add up to 1. By default all are equal."""
    unit: Literal["tokens", "records"] = dataclasses.field(default="tokens", metadata={"shapes_data": False})  # type: ignore[misc]
    """What the shares hold in."""

    resumable: ClassVar[bool] = True

    def __hash__(self) -> int:
        return hash((self.directory, *self.sources))

    @property
    def parts(self) -> Mapping[str, Source]:
        """The sources. Those that store data have their folders."""
        return {
            name: dataclasses.replace(one, directory=f"{self.directory}/{name}") if one.stores else one
            for name, one in self.sources.items()
        }

    @property
    def part_weights(self) -> tuple[float, ...]:
        """The weight of each source."""
        return tuple(self.weights.get(name, 1.0) for name in self.sources)

    @property
    def stores(self) -> bool:
        """Whether any source stores data."""
        return any(one.stores for one in self.sources.values())

    @property
    def reads_files(self) -> bool:  # type: ignore[override]
        """Whether any source reads files."""
        return any(one.reads_files for one in self.sources.values())

    @property
    def fields(self) -> Mapping[str, Modality]:
        """The fields of all sources."""
        found: dict[str, Modality] = {}
        for name, source in self.sources.items():
            for field, modality in source.fields.items():
                if found.setdefault(field, modality) != modality:
                    rule = f"other sources have {found[field]!r}"
                    raise ConfigError(f"data.sources.{name}.fields.{field}", modality, rule, "give both the same knobs")
        return found

    @property
    def several(self) -> tuple[str, ...]:
        """Fields of which a record of some source may have several signals."""
        return tuple(dict.fromkeys(field for one in self.sources.values() for field in one.several))

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits of all sources."""
        return tuple(dict.fromkeys(split for one in self.sources.values() for split in one.splits))

    def check(self) -> None:
        """Raises a `ConfigError` for no sources, an odd name or weight, or what a source finds wrong."""
        if not self.sources:
            raise ConfigError("data.sources", {}, "a mixture has at least one source", "name it")
        if self.stores and not self.directory:
            raise ConfigError("data.directory", "", "the prepared data lie in a directory", "name one")
        for name, source in self.parts.items():
            if not re.fullmatch(r"[\w-]+", name):
                rule = "the name of a source has letters, digits, - and _"
                raise ConfigError("data.sources", name, rule, "give it another name")
            if source.in_memory:
                rule, fix = "sources that are held in memory can't be mixed", "write its records into a folder"
                raise ConfigError(f"data.sources.{name}", type(source).__name__, rule, fix)
            source.check()
        for name, weight in self.weights.items():
            check_known("data.weights", name, self.sources, "the sources are")
            if not (0 < weight < math.inf):
                raise ConfigError(f"data.weights.{name}", weight, "must be above 0", "leave the source out instead")

    def check_build(self) -> None:
        """Checks what the sources need for a build."""
        for source in self.parts.values():
            source.check_build()

    def build(self, directory: pathlib.Path, progress: Progress, beam: Any = None) -> None:
        """Builds the sources, one after another; those that can't go on begin again."""
        parts = dataclasses.replace(self, directory=str(directory)).parts
        for number, (name, source) in enumerate(parts.items()):
            folder = directory / name
            if not source.stores or (not source.resumable and (folder / BUILT).exists()):
                continue
            if not source.resumable:
                delete_tree(folder)
            folder.mkdir(exist_ok=True)
            source.build(folder, lambda share, number=number: progress((number + share) / len(parts)), beam)  # type: ignore[misc]
            if not source.resumable:
                write_atomically(folder / BUILT, "")

    def grown(self) -> bool:
        """Whether any source has grown."""
        return any(one.grown() for one in self.parts.values())

    def records(self, split: str) -> Sequence[Record]:
        """The records of all sources, spread evenly, so that the first ones are of every source."""
        return _Spread([one.records(split) for one in self.parts.values() if split in one.splits])

    def origins(self, split: str) -> Sequence[str]:
        """Name of the source of each record of a split."""
        parts = {name: one.records(split) for name, one in self.parts.items() if split in one.splits}
        return [list(parts)[number] for number in _Spread(list(parts.values())).numbers]

    def present(self, split: str) -> Mapping[tuple[str, ...], int]:
        """Numbers of records by the fields that they have, of all sources."""
        found = Counter[tuple[str, ...]]()
        for one in self.parts.values():
            found.update(one.present(split) if split in one.splits else {})
        return found

    def small(self, directory: str) -> Self:
        """Each source in small; the same data where a source stays as it is."""
        parts = self.parts
        sources = {name: one.small(f"{directory}/{name}") for name, one in parts.items()}
        if any(sources[name] is one for name, one in parts.items()):
            return self
        return dataclasses.replace(self, directory=directory if self.directory else "", sources=sources)

    def problems(self) -> Sequence[Mapping[str, str]]:
        """The problems of all sources."""
        return list(itertools.chain.from_iterable(one.problems() for one in self.parts.values()))

    def excluded(self) -> Mapping[str, int]:
        """Numbers of records that are in no split, by source and reason."""
        return {f"{name}: {why}": count for name, one in self.parts.items() for why, count in one.excluded().items()}


class _Spread(Sequence[Record]):
    """Records of several sources, each spread evenly over all places."""

    def __init__(self, parts: Sequence[Sequence[Record]]):
        self._parts, sizes = parts, [len(part) for part in parts]
        self._ends = np.cumsum(sizes).tolist()
        places = np.concatenate([np.zeros(0), *((np.arange(size) + 0.5) / size for size in sizes)])
        self._order = np.argsort(places, kind="stable")
        self.numbers = np.searchsorted(self._ends, self._order, side="right").tolist()  # of the part of each record

    def __len__(self) -> int:
        return len(self._order)

    def __getitem__(self, place: Any) -> Any:
        if not 0 <= place < len(self):
            raise IndexError(place)
        return self.__getitems__([place])[0]

    def __getitems__(self, places: Sequence[int]) -> list[Record]:
        found: dict[int, Record] = {}
        chosen = self._order[np.asarray(places, np.int64)].tolist()
        for number, group in itertools.groupby(sorted(set(chosen)), key=lambda one: bisect.bisect(self._ends, one)):
            those = list(group)
            first = self._ends[number] - len(self._parts[number])
            found |= zip(those, read(self._parts[number], [one - first for one in those]), strict=True)
        return [found[one] for one in chosen]
