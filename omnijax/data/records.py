"""Records in ArrayRecord files, each in MessagePack, by random access."""

from __future__ import annotations

import bisect
import functools
import itertools
import pathlib
from collections.abc import Iterable, Sequence
from typing import Any

from array_record.python.array_record_module import ArrayRecordReader, ArrayRecordWriter
from flax import serialization
from jaxtyping import Int

from omnijax.paths import local_copy, writing
from omnijax.source import Record

OPEN_FILES = 64
packed, unpacked = serialization.msgpack_serialize, serialization.msgpack_restore


def write_messages(path: pathlib.Path, messages: Iterable[bytes]) -> None:
    """Writes a file of `packed` records. The same records give the same bytes, and a kill leaves no such file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with writing(path) as temporary:
        writer = ArrayRecordWriter(str(temporary), "group_size:1")
        for message in messages:
            writer.write(message)
        writer.close()


def open_messages(path: pathlib.Path) -> ArrayRecordReader:
    """A file of `write_messages`."""
    return ArrayRecordReader(str(local_copy(path)))


class StoredRecords(Sequence[Record]):
    """The records of some files, one file after another. A file is opened when it is first needed.

    Args:
        paths: of the files.
        counts: number of records of each file; by default all files are opened to count them.
        places: those of the records that count, in order; all by default.
    """

    def __init__(
        self,
        paths: Sequence[pathlib.Path],
        counts: Sequence[int] | None = None,
        places: Int[Any, " records"] | None = None,
    ):
        self._file = functools.lru_cache(OPEN_FILES)(lambda number: open_messages(paths[number]))
        counts = [self._file(number).num_records() for number in range(len(paths))] if counts is None else counts
        self._ends = list(itertools.accumulate(counts))
        self._places = range(sum(counts)) if places is None else places

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, place: Any) -> Any:
        if not 0 <= place < len(self):
            raise IndexError(place)  # ends an iteration
        return self.__getitems__([place])[0]

    def __getitems__(self, places: Sequence[int]) -> list[Record]:
        wanted, rows = (int(self._places[place]) for place in places), list[Record]()
        for number, group in itertools.groupby(wanted, lambda one: bisect.bisect(self._ends, one)):
            start = self._ends[number - 1] if number else 0
            rows += map(unpacked, self._file(number).read([place - start for place in group]))
        return rows
