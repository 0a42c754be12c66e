"""From records to batches: order, encode, pack, batch, and shard by process. The state is one number, the step.

Batch i is a pure function of the corpus, the configuration and i, the order in which fragments are written included. A
run resumes by starting at its step, on any number of processes; nothing is buffered that a kill could lose. grain reads
ahead in threads.
"""

from __future__ import annotations

import bisect
import functools
from collections.abc import Iterator, Sequence
from typing import Any

import grain
import numpy as np
from jaxtyping import Int64

from omnijax.config import BatchConfig
from omnijax.data.columns import end_to_end, items_of_documents, reordered
from omnijax.data.corpus import Corpus, views_of
from omnijax.data.packing import Batch, check_lengths, pack
from omnijax.errors import DataError
from omnijax.modalities.base import within
from omnijax.vocab.documents import Documents
from omnijax.vocab.encode import count_tokens, encode
from omnijax.vocab.kinds import PAD_KIND

COUNTED_AT_ONCE = 8192


class Batches:
    """The batches of a run, by step: a random-access source.

    An epoch is every record in the form of every task that it has the fields of, as often as the task says, in an order
    of its own.

    Args:
        corpus: of all records.
        config: how they become sequences.
        rows: numbers of the sequences of a batch that this process makes; all by default.

    Attributes:
        taken: for each task, places of the records that it takes.
        task_of: int64[documents], number of the task of each document of an epoch.
        record_of: int64[documents], place of its record.
        lengths: int64[documents], its tokens.
        items: int64[documents], its items.
        sizes: int64[documents], its size in units of `BatchConfig.sequence_items`.

    Raises:
        DataError: a task that no record has the fields of, or a document that is longer than a sequence.
    """

    def __init__(self, corpus: Corpus, config: BatchConfig, rows: Sequence[int] | None = None):
        self._corpus, self._config = corpus, config
        self._rows = range(config.size) if rows is None else rows
        self.taken = [corpus.having(task.fields) for task in config.tasks]
        for number, (task, records) in enumerate(zip(config.tasks, self.taken, strict=True)):
            if not len(records):
                rule = "no record of the training split has all of these fields"
                raise DataError(f"batch.tasks.{number}", task.fields, rule, "leave the task out, or mend the data")
        forms = np.repeat(np.arange(len(config.tasks)), [task.repeats for task in config.tasks])
        self.task_of = np.repeat(forms, [len(self.taken[number]) for number in forms])
        self.record_of = np.concatenate([self.taken[number] for number in forms])
        self.lengths, self.items, self.sizes = self._counts()
        check_lengths(self.lengths, config.sequence_length)
        if config.sequence_items:
            check_lengths(self.sizes, config.sequence_items, "sequence_items", "items and more")
        self._epoch_ends = [0]

    def __len__(self) -> int:
        """Practically infinite; `train.steps` ends a run."""
        return 2**31 - 1

    def __getitem__(self, step: int) -> Batch:
        """The sequences of this process in the batch of a step."""
        first = step * self._config.size
        return self._batch([self._row(first + row) for row in self._rows])

    def incomplete(self) -> list[str]:
        """A line for each task whose fields some records lack: how many records it takes."""
        count = len(self._corpus)
        counts = [(task, len(taken)) for task, taken in zip(self._config.tasks, self.taken, strict=True)]
        return [
            f"{'->'.join(task.fields)}: {n} of {count} records have all of its fields"
            for task, n in counts
            if n < count
        ]

    def longest_sequence(self, steps: int) -> int:
        """Tokens of the longest sequence of the first `steps` batches, of all processes."""
        rows = (self._row(row)[1] for row in range(steps * self._config.size))
        return max((int(self.lengths[row].sum()) for row in rows), default=0)

    def check(self, steps: int) -> None:
        """Checks that every sequence of the first `steps` batches fits; packed by tokens they always do.

        Raises:
            DataError: a sequence that is packed by items has more tokens than `batch.sequence_length`.
        """
        longest = self.longest_sequence(steps) if self._config.sequence_items else 0
        if longest > self._config.sequence_length:
            items = self._config.sequence_items
            rule = f"the longest sequence of {items} items has {longest} tokens, and nothing is cut"
            fix = f"set it to {longest} or more, or lower batch.sequence_items"
            raise DataError("batch.sequence_length", self._config.sequence_length, rule, fix)

    def documents(self, step: int) -> list[tuple[int, list[tuple[int, int]]]]:
        """What stands in each sequence of a step: its epoch, and each document's task and record by their numbers."""
        rows = [self._row(step * self._config.size + row) for row in self._rows]
        return [(epoch, [(int(self.task_of[i]), int(self.record_of[i])) for i in row]) for epoch, row in rows]

    def _counts(self) -> list[Int64[np.ndarray, " documents"]]:
        """Of every document of an epoch: its tokens, its items, and its size by `BatchConfig.sequence_items`.

        Segments are written by themselves, so that a document has the tokens of its fields, and `eos`.
        """
        closed = int(self._corpus.vocabulary.end is not None)
        counts = {}
        for name in views_of(self._config.tasks):
            column = self._corpus.columns[name]
            tokens, there = np.zeros(len(column), np.int64), np.flatnonzero(column.segments)
            for start in range(0, len(there), COUNTED_AT_ONCE):
                part = there[start : start + COUNTED_AT_ONCE]
                tokens[part] = count_tokens(self._corpus.vocabulary, column.take(part))[1] - closed
            counts[name] = np.stack([tokens, column.items, column.items + 2 * column.segments])
        around = np.array([[closed], [0], [1]])
        found = [
            np.tile(sum(counts[name][:, records] for name in task.fields) + around, task.repeats)
            for task, records in zip(self._config.tasks, self.taken, strict=True)
        ]
        return list(np.concatenate(found, axis=1))

    @functools.lru_cache(maxsize=4)  # noqa: B019 (one source a run)
    def _epoch(self, epoch: int) -> list[Int64[np.ndarray, " documents"]]:
        """Sequences of an epoch, each as indices of documents."""
        order = np.random.default_rng([self._config.seed, epoch]).permutation(self.lengths.size)
        by_items = self._config.sequence_items
        sizes, room = (self.sizes, by_items) if by_items else (self.lengths, self._config.sequence_length)
        return [order[row] for row in pack(sizes[order], room)]

    def _row(self, row: int) -> tuple[int, Int64[np.ndarray, " documents"]]:
        """The epoch that a sequence belongs to, and its documents."""
        while row >= self._epoch_ends[-1]:
            self._epoch_ends.append(self._epoch_ends[-1] + len(self._epoch(len(self._epoch_ends) - 1)))
        epoch = bisect.bisect_right(self._epoch_ends, row) - 1
        return epoch, self._epoch(epoch)[row - self._epoch_ends[epoch]]

    def _batch(self, rows: list[tuple[int, Int64[np.ndarray, " documents"]]]) -> Batch:
        """Lays documents, in order, into sequences, and shifts targets by one within each document."""
        sizes = np.array([row.size for _, row in rows])
        epochs = np.repeat([epoch for epoch, _ in rows], sizes)
        chosen = np.concatenate([row for _, row in rows])
        tasks = self.task_of[chosen]
        documents, fields = self._documents(tasks, self.record_of[chosen])
        order = self._writing_order(documents, fields, tasks, epochs, chosen)
        encoded = encode(self._corpus.vocabulary, documents, order)
        task_of_segment = np.repeat(tasks, documents.document_segments)
        most = max(len(task.fields) for task in self._config.tasks)
        weights = np.array([[*task.weights, *[0.0] * (most - len(task.weights))] for task in self._config.tasks])
        token_weights = np.repeat(weights.astype(np.float32)[task_of_segment, fields], encoded.segment_tokens)
        row_of, counts = np.repeat(np.arange(len(rows)), sizes), encoded.document_tokens
        starts, firsts = np.cumsum(counts) - counts, np.cumsum(sizes) - sizes
        row, document_of = np.repeat(row_of, counts), np.repeat(np.arange(counts.size), counts)
        place = np.arange(row.size)

        def grid(values: np.ndarray, fill: int, dtype: Any) -> np.ndarray:
            filled: np.ndarray = np.full((len(rows), self._config.sequence_length), fill, dtype)
            filled[row, place - starts[firsts[row]]] = values
            return filled

        tokens = grid(encoded.tokens.array, 0, np.int32)
        number = grid(document_of - firsts[row], -1, np.int32)  # the same on whatever process
        follows = (number[:, 1:] == number[:, :-1]) & (number[:, 1:] >= 0)
        return {
            "tokens": tokens[:, :-1],
            "targets": np.where(follows, tokens[:, 1:], 0),
            "weights": np.where(follows, grid(token_weights, 0, np.float32)[:, 1:], np.float32(0)),
            "kinds": grid(encoded.kinds, PAD_KIND, encoded.kinds.dtype)[:, 1:],
            "positions": grid(place - starts[document_of], 0, np.int32)[:, :-1],
            "documents": number[:, :-1],
            "items": np.bincount(row_of, items_of_documents(documents), len(rows)).astype(np.int32),
        }

    def _documents(
        self, tasks: Int64[np.ndarray, " n"], records: Int64[np.ndarray, " n"]
    ) -> tuple[Documents, Int64[np.ndarray, " segments"]]:
        """Documents of some records, each in the form of its task; and the number of each segment's field in it."""
        parts, fields = [], []
        for number in np.unique(tasks):
            those, names = records[tasks == number], self._config.tasks[number].fields
            parts.append(self._corpus.documents(those, names))
            counts = np.stack([self._corpus.columns[name].segments[those] for name in names], axis=1)
            fields.append(np.repeat(np.tile(np.arange(len(names)), len(those)), counts.ravel()))
        order, whole = np.argsort(np.argsort(tasks, kind="stable")), end_to_end(parts)
        counts = whole.document_segments
        return reordered(whole, order), np.concatenate(fields)[within(np.cumsum(counts) - counts, counts, order)]

    def _writing_order(
        self,
        documents: Documents,
        fields: Int64[np.ndarray, " segments"],
        tasks: Int64[np.ndarray, " documents"],
        epochs: Int64[np.ndarray, " documents"],
        chosen: Int64[np.ndarray, " documents"],
    ) -> Int64[np.ndarray, " items"] | None:
        """Order in which the items of documents are written; None if no document is written in a random order.

        For each document it depends on the seed, the epoch and the document's index alone, not on its neighbours.
        """
        shuffled = np.flatnonzero(np.array([any(task.random_order) for task in self._config.tasks])[tasks])
        if not len(shuffled):
            return None
        order = np.arange(documents.spaces.size)
        segments = np.split(order, np.cumsum(documents.segment_items)[:-1])  # views
        last = np.cumsum(documents.document_segments)
        for one in shuffled:
            random = np.random.default_rng([self._config.seed, epochs[one], chosen[one]])
            shares = self._config.tasks[tasks[one]].random_orders
            for segment in range(last[one] - documents.document_segments[one], last[one]):
                permuted = random.permutation(segments[segment])
                if random.random() < shares[fields[segment]]:
                    segments[segment][:] = permuted
        return order


def read_ahead(batches: Batches, start: int, stop: int, ahead: int) -> Iterator[Batch]:
    """The batches of steps `start … stop - 1`, made by a grain thread up to `ahead` before they are asked for."""
    options = grain.ReadOptions(num_threads=1, prefetch_buffer_size=max(ahead, 1))
    steps = grain.MapDataset.range(start, stop)
    return iter(steps.map(batches.__getitem__).to_iter_dataset(options))
