"""The split that runs are measured on, and what judges it."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Int

from omnijax.config import Config, HeldOut
from omnijax.data.corpus import Corpus, fields_of, read_split
from omnijax.data.fitting import fitted
from omnijax.data.prepare import prepare
from omnijax.errors import DataError
from omnijax.modalities.base import Items, Modality
from omnijax.sample.generate import Generated, items_of
from omnijax.source import Judge, Record, read, signals_of


class EvaluatedSplit:
    """`eval.split` of a data set; each part is read, or fitted, when a task first asks for it, and kept.

    Attributes:
        config: of a run.
    """

    def __init__(self, config: Config) -> None:
        self.config = config

    @functools.cached_property
    def corpus(self) -> Corpus:
        """The records that are measured, and perhaps some more, in items without views."""
        routes = [name for route in self.config.eval.routes for name in route.through]
        names = dict.fromkeys([*fields_of(self.config), *routes, *(one.field for one in self.config.eval.completions)])
        return read_split(self.config, self.config.eval.split, tuple(names)).first(self.config.eval.examples)

    @functools.cached_property
    def records(self) -> list[Record]:
        """The records that are measured, in signals."""
        every = self.config.data.records(self.config.eval.split)
        return read(every, range(min(self.config.eval.examples, len(every))))

    @functools.cached_property
    def labels(self) -> Int[np.ndarray, " n"] | None:
        """The class of each record of the split; None without classes."""
        return self.config.data.labels(self.config.eval.split)

    @functools.cached_property
    def modalities(self) -> Mapping[str, Modality]:
        """What turns items into signals, by field."""
        return fitted(self.config.data)

    @functools.cached_property
    def judges(self) -> Mapping[str, Judge]:
        """Classifiers of generated signals, by field."""
        return self.config.data.judges()

    def sibling(self, kind: HeldOut) -> EvaluatedSplit:
        """All records of the split of a kind of group, on the same side."""
        name = f"{self.config.eval.split.partition('/')[0]}/{kind.kind}"
        count = len(self.config.data.records(name))
        evaluation = dataclasses.replace(self.config.eval, split=name, routes=kind.routes, examples=count)
        found = EvaluatedSplit(dataclasses.replace(self.config, eval=evaluation))
        found.judges, found.modalities = self.judges, self.modalities  # type: ignore[misc]
        return found

    def signals(self, field: str, places: Sequence[int] | Int[np.ndarray, " n"]) -> list[Any]:
        """For each of some records the first signal of a field, or None if the record lacks the field."""
        return [next(iter(signals_of(self.records[int(place)], field)), None) for place in places]

    def items(self, field: str, places: Sequence[int] | Int[np.ndarray, " n"]) -> list[Items]:
        """The items of the first signal of a field of some records, as the corpus has them."""
        modality = self.config.data.fields[field]
        numbers = range(max(1, len(modality.parts)))
        return [
            Items.chained(*(items_of(self.config.vocabulary, modality, number, document[number]) for number in numbers))
            for document in self.corpus.columns[field].take(np.asarray(places)).to_list()
        ]

    def places(self, fields: Sequence[str]) -> Int[np.ndarray, " n"]:
        """Places of the measured records that have all of some fields."""
        found = [place for place, row in enumerate(self.records) if all(signals_of(row, field) for field in fields)]
        return np.array(found, np.int64)

    def having(self, fields: Sequence[str]) -> Int[np.ndarray, " n"]:
        """`places` of a direction or a completion; raises a `DataError` if no record has all of these fields."""
        places = self.places(fields)
        if not len(places):
            rule = f"none of the first {len(self.records)} records of {self.config.eval.split} has all of these fields"
            raise DataError("eval.routes", tuple(fields), rule, "raise eval.examples, or drop the route")
        return places


def decoded(modality: Modality, generated: Generated) -> list[Any]:
    """Signals of what was generated; None where it can't be decoded."""
    pairs = zip(generated.items, generated.decodable, strict=True)
    return [modality.decode(items) if good else None for items, good in pairs]


_KEPT: list[tuple[Any, EvaluatedSplit]] = []  # at most one; a source needn't be hashable


def split_of(config: Config) -> EvaluatedSplit:
    """The data that a run is measured on, checked, and built where it is missing.

    What was read stays for the next run of the same data and vocabulary. Raises a `DataError` if it is damaged.
    """
    prepare(config)
    key = (config.data, config.vocabulary, config.batch, config.eval)
    if not _KEPT or _KEPT[0][0] != key:
        _KEPT[:] = [(key, EvaluatedSplit(config))]
    return _KEPT[0][1]
