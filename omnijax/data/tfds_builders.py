"""TFDS builders: the same bytes for the same records, in every process and on every worker."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from etils import epath, epy
from tensorflow_datasets.core import writer
from tensorflow_datasets.proto import tf_example_pb2

from omnijax.data.encoding import ARRAYS, RECORDS_AT_ONCE, feature

with epy.lazy_imports():  # an extra: pip install 'omnijax[beam]'
    import apache_beam as beam


class Canonical:
    """Comes before the base class of a TFDS builder: features of each record are written in the order of their names.

    TFDS leaves the order to protobuf's maps, which take it from memory addresses: other bytes in every process.
    """

    info: tfds.core.DatasetInfo

    def _example_writer(self) -> writer.ExampleWriter:
        return _CanonicalWriter(self.info.file_format)


class _CanonicalWriter(writer.ExampleWriter):
    def write(self, path: epath.PathLike, examples: Iterable[tuple[Any, bytes]]) -> Any:
        return super().write(path, _in_order(examples))


def _in_order(examples: Iterable[tuple[Any, bytes]]) -> Iterator[tuple[Any, bytes]]:
    for key, data in examples:
        yield key, tf_example_pb2.Example.FromString(data).SerializeToString(deterministic=True)


class StoredItems(Canonical, tfds.core.GeneratorBasedBuilder):
    """The items of a data set, a feature for each array of each view."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "First release."}

    def __init__(
        self,
        *,
        names: Sequence[str],
        counts: Mapping[str, int],
        make: Callable[..., Any],
        beam: bool = False,
        **tfds_options: Any,
    ) -> None:
        """Makes the builder.

        Args:
            names: of the views.
            counts: records of each split.
            make: gives some records of a split from a place on; picklable under Beam.
            beam: build with Apache Beam, on the workers that `download_and_prepare` is given.
            **tfds_options: those of `tfds.core.DatasetBuilder`.
        """
        self.names, self.counts, self.make, self.beam = tuple(names), dict(counts), make, beam
        super().__init__(**tfds_options)

    def _info(self) -> tfds.core.DatasetInfo:
        arrays = {
            feature(name, key): tfds.features.Tensor(shape=(None,), dtype=np.dtype(dtype), encoding="bytes")
            for name in self.names
            for key, dtype in ARRAYS.items()
        }
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(arrays), disable_shuffling=True)

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
        return {split.replace("/", "."): self._generate_examples(split, count) for split, count in self.counts.items()}

    def _generate_examples(self, split: str, count: int) -> Any:
        starts = range(0, count, RECORDS_AT_ONCE)
        chunk = functools.partial(self.make, split=split, count=count)
        if not self.beam:
            return itertools.chain.from_iterable(map(chunk, starts))
        return beam.Create(starts) | "Spread" >> beam.Reshuffle() | "Items" >> beam.FlatMap(chunk)
