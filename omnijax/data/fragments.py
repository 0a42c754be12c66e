"""A data set's fragments, stored: each record as the ids that its modalities make of it.

A data set that fits into memory needs none of this: `corpus` makes the fragments when it is loaded, in seconds. One
that doesn't is turned into fragments once, by Apache Beam's workers, and read record by record as training asks for
them.
"""

from __future__ import annotations

import functools
import itertools
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import tensorflow_datasets as tfds
from etils import epy
from jaxtyping import Int64

from omnijax.data import records
from omnijax.data.canonical import Canonical

with epy.lazy_imports():  # an extra: pip install 'omnijax[beam]'
    import apache_beam as beam

FRAGMENTS = "fragments"
RECORDS_AT_ONCE = 512
"""Records that a worker takes at a time."""

Views = Mapping[str, Sequence[Int64[np.ndarray, " items"]]]
MakeViews = Callable[[records.Records, int, int], Views]
"""Fragments of records that follow one another: from these, the place of the first, and how many the split has."""


class Fragments(Canonical, tfds.core.GeneratorBasedBuilder):
    """TFDS builder of the fragments of a data set."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "First release."}

    def __init__(
        self,
        *,
        source: pathlib.Path,
        names: Sequence[str],
        make: MakeViews,
        beam: bool = False,
        **tfds_options: Any,
    ) -> None:
        """Makes the builder.

        Args:
            source: directory of the data set; every worker sees it.
            names: of the views that `make` gives.
            make: makes them; picklable under Beam.
            beam: build with Apache Beam, on the workers that `download_and_prepare` is given.
            **tfds_options: those of `tfds.core.DatasetBuilder`.
        """
        self.source, self.names, self.make, self.beam = source, tuple(names), make, beam
        super().__init__(**tfds_options)

    def _info(self) -> tfds.core.DatasetInfo:
        # A slash would be taken for nesting.
        ids = {_stored(name): tfds.features.Tensor(shape=(None,), dtype=np.int64) for name in self.names}
        features = tfds.features.FeaturesDict(ids)
        return tfds.core.DatasetInfo(builder=self, features=features, disable_shuffling=True)

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
        counts = tfds.builder_from_directory(self.source / records.RECORDS).info.splits
        return {split: self._generate_examples(split, counts[split].num_examples) for split in counts}

    def _generate_examples(self, split: Literal["train", "heldout"], count: int) -> Any:
        starts = range(0, count, RECORDS_AT_ONCE)
        chunk = functools.partial(fragments_from, split=split, count=count, source=self.source, make=self.make)
        if not self.beam:
            return itertools.chain.from_iterable(map(chunk, starts))
        return beam.Create(starts) | "Spread" >> beam.Reshuffle() | "Fragments" >> beam.FlatMap(chunk)


def fragments_from(
    start: int, split: Literal["train", "heldout"], count: int, source: pathlib.Path, make: MakeViews
) -> Iterator[tuple[int, dict[str, Int64[np.ndarray, " items"]]]]:
    """The fragments of the records from `start` on, `RECORDS_AT_ONCE` of them, with their places as keys."""
    places = range(start, min(start + RECORDS_AT_ONCE, count))
    views = make(records.read(source, split, places), start, count)
    for number, place in enumerate(places):
        yield place, {_stored(name): np.asarray(view[number], np.int64) for name, view in views.items()}


def load(directory: pathlib.Path, split: Literal["train", "heldout"], names: Sequence[str]) -> Views:
    """The stored fragments of a split, read from disk when they are asked for."""
    source = tfds.builder_from_directory(directory / FRAGMENTS).as_data_source(split)
    row = functools.lru_cache(RECORDS_AT_ONCE)(source.__getitem__)
    return {name: _View(row, _stored(name), len(source)) for name in names}


def _stored(name: str) -> str:
    return name.replace("/", ".")


class _View(Sequence[Int64[np.ndarray, " items"]]):
    """One view of every record; those of a record share one read."""

    def __init__(self, row: Callable[[int], Mapping[str, np.ndarray]], name: str, count: int) -> None:
        self._row, self._name, self._count = row, name, count

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, record: Any) -> Any:
        if not 0 <= record < self._count:
            raise IndexError(record)
        return self._row(int(record))[self._name]
