"""TFDS builders: the same bytes for the same records, in every process and on every worker."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import tensorflow_datasets as tfds
from etils import epath, epy
from tensorflow_datasets.core import writer
from tensorflow_datasets.proto import tf_example_pb2

with epy.lazy_imports():  # an extra: pip install 'omnijax[beam]'
    import apache_beam as beam


class RecordsBuilder(tfds.core.GeneratorBasedBuilder):
    """Writes the features of each record in the order of their names.

    TFDS leaves the order to protobuf's maps, which take it from memory addresses: other bytes in every process.
    """

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "First release."}

    def __init__(
        self,
        *,
        splits: Iterable[str],
        pieces: Callable[[str], Iterable[Any]],
        make: Callable[[Any], Iterable[tuple[int, Mapping[str, Any]]]],
        features: Mapping[str, Any] | None = None,
        beam: bool = False,
        **tfds_options: Any,
    ) -> None:
        """Makes the builder.

        Args:
            splits: their names.
            pieces: gives the pieces of work of a split, one after another on one worker.
            make: gives the places and records of a piece, on any worker. It and `pieces` are picklable under Beam.
            features: of a record, as TFDS describes them; None where a subclass has its own `_info`.
            beam: build with Apache Beam, on the workers that `download_and_prepare` is given.
            **tfds_options: those of `tfds.core.DatasetBuilder`.
        """
        self.features, self.splits, self.pieces, self.make, self.beam = features, tuple(splits), pieces, make, beam
        super().__init__(**tfds_options)

    def _info(self) -> tfds.core.DatasetInfo:
        features = tfds.features.FeaturesDict(self.features)
        return tfds.core.DatasetInfo(builder=self, features=features, disable_shuffling=True)

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
        return {split.replace("/", "."): self._generate_examples(split) for split in self.splits}

    def _generate_examples(self, split: str) -> Any:
        if not self.beam:
            return itertools.chain.from_iterable(map(self.make, self.pieces(split)))
        spread = beam.Create([split]) | "Pieces" >> beam.FlatMap(self.pieces) | "Spread" >> beam.Reshuffle()
        return spread | "Records" >> beam.FlatMap(self.make)

    def _example_writer(self) -> writer.ExampleWriter:
        return _CanonicalWriter(self.info.file_format)


class _CanonicalWriter(writer.ExampleWriter):
    def write(self, path: epath.PathLike, examples: Iterable[tuple[Any, bytes]]) -> Any:
        read = ((key, tf_example_pb2.Example.FromString(data)) for key, data in examples)
        return super().write(path, ((key, one.SerializeToString(deterministic=True)) for key, one in read))


class StoredItems(RecordsBuilder):
    """The items of a data set, a feature for each array of each view."""
