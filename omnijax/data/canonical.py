"""The same bytes for the same records, in every process and on every worker."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import tensorflow_datasets as tfds
from etils import epath
from tensorflow_datasets.core import writer
from tensorflow_datasets.proto import tf_example_pb2


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
