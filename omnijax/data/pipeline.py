"""From records to batches: order, encode, pack, batch, and shard by process. The state is one number, the step.

What stands in batch i is a pure function of the corpus, the configuration and i, the order in which fragments are
written included. A run resumes by starting at its step, on any number of processes; nothing is buffered that a kill
could lose. grain reads ahead in threads.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from typing import TypedDict

import grain
import numpy as np
from jaxtyping import Float32, Int32, Int64

from omnijax.config import BatchConfig, Task
from omnijax.data.corpus import Corpus
from omnijax.data.packing import check_lengths, pack
from omnijax.errors import DataError
from omnijax.vocab.documents import Documents
from omnijax.vocab.encode import Encoded, encode

LENGTHS_AT_ONCE = 8192


class Batch(TypedDict):
    """Rows of packed documents, as the model reads them; `t` is one less than the tokens of a row.

    Attributes:
        tokens: primary ids to read.
        targets: the ids that follow them in the same document.
        weights: of each target in the loss; 0 where none follows.
        positions: place of each token in its document.
        documents: which document of its row it belongs to, from 0; -1 for padding.
        items: items of the whole rows, one number a row, for the throughput.
    """

    tokens: Int32[np.ndarray, "b t"]
    targets: Int32[np.ndarray, "b t"]
    weights: Float32[np.ndarray, "b t"]
    positions: Int32[np.ndarray, "b t"]
    documents: Int32[np.ndarray, "b t"]
    items: Int32[np.ndarray, " b"]


class Batches:
    """The batches of a run, by step: a random-access source.

    An epoch is every record in the form of every task, as often as the task says, in an order of its own.

    Args:
        corpus: the records.
        config: how they become rows.
        rows: those of a batch that this process makes, by their number in it; all of them by default.
    """

    def __init__(self, corpus: Corpus, config: BatchConfig, rows: Sequence[int] | None = None):
        self._corpus, self._config = corpus, config
        self._rows = range(config.size) if rows is None else rows
        self._forms = [task for task in config.tasks for _ in range(task.repeats)]
        counts = [np.tile(self._counts(task.segments), task.repeats) for task in config.tasks]
        self._lengths, self._sizes = np.concatenate(counts, axis=1)
        check_lengths(self._lengths, config.sequence_length)
        if config.sequence_items:
            check_lengths(self._sizes, config.sequence_items, "sequence_items", "items and more")
        self._epoch_ends = [0]

    def __len__(self) -> int:
        """As long as any run; the steps of a run end it."""
        return 2**31 - 1

    def __getitem__(self, step: int) -> Batch:
        """The rows of this process in the batch of a step."""
        first = step * self._config.size
        return self._batch([self._row(first + row) for row in self._rows])

    def longest_row(self, steps: int) -> int:
        """Tokens of the longest row of the first `steps` batches, of all processes."""
        rows, longest, epoch = steps * self._config.size, 0, 0
        while rows > 0:
            packed = self._epoch(epoch)[:rows]
            longest = max([longest, *(int(self._lengths[row].sum()) for row in packed)])
            rows, epoch = rows - len(packed), epoch + 1
        return longest

    def check(self, steps: int) -> None:
        """Checks that every row of the first `steps` batches fits; where rows are packed by tokens they always do.

        Raises:
            DataError: the tokens of a row that is packed by items are more than `batch.sequence_length`.
        """
        longest = self.longest_row(steps) if self._config.sequence_items else 0
        if longest > self._config.sequence_length:
            rule = f"the longest row of {self._config.sequence_items} items has {longest} tokens, and nothing is cut"
            fix = f"set it to {longest} or more, or lower batch.sequence_items"
            raise DataError("batch.sequence_length", self._config.sequence_length, rule, fix)

    def documents(self, step: int) -> list[tuple[int, list[tuple[int, int]]]]:
        """What stands in each row of a step: its epoch, and of each document the number of its task and its record."""
        records = len(self._corpus)
        tasks = [number for number, task in enumerate(self._config.tasks) for _ in range(task.repeats)]
        rows = [self._row(step * self._config.size + row) for row in self._rows]
        return [(epoch, [(tasks[int(i) // records], int(i) % records) for i in row]) for epoch, row in rows]

    def _counts(self, names: tuple[str, ...]) -> Int64[np.ndarray, "2 n"]:
        """Of each record as a document of these segments: its tokens, and its size by `BatchConfig.sequence_items`."""
        counts = []
        for start in range(0, len(self._corpus), LENGTHS_AT_ONCE):
            records = range(start, min(start + LENGTHS_AT_ONCE, len(self._corpus)))
            documents = self._corpus.documents(records, names)
            tokens = encode(self._corpus.vocabulary, documents).document_tokens
            counts.append(np.stack([tokens, _document_items(documents) + 2 * len(names) + 1]))
        return np.concatenate(counts, axis=1)

    @functools.lru_cache(maxsize=4)  # noqa: B019 (one source a run)
    def _epoch(self, epoch: int) -> list[Int64[np.ndarray, " documents"]]:
        """Rows of an epoch, each as indices of documents."""
        order = np.random.default_rng([self._config.seed, epoch]).permutation(self._lengths.size)
        by_items = self._config.sequence_items
        sizes, room = (self._sizes, by_items) if by_items else (self._lengths, self._config.sequence_length)
        return [order[row] for row in pack(sizes[order], room)]

    def _row(self, row: int) -> tuple[int, Int64[np.ndarray, " documents"]]:
        """The epoch that a row belongs to, and its documents."""
        epoch = int(np.searchsorted(self._epoch_ends, row, side="right")) - 1
        while row >= self._epoch_ends[-1]:
            epoch = len(self._epoch_ends) - 1
            self._epoch_ends.append(self._epoch_ends[-1] + len(self._epoch(epoch)))
        return epoch, self._epoch(epoch)[row - self._epoch_ends[epoch]]

    def _batch(self, rows: list[tuple[int, Int64[np.ndarray, " documents"]]]) -> Batch:
        sizes = [row.size for _, row in rows]
        epochs = np.repeat([epoch for epoch, _ in rows], sizes)
        chosen = np.concatenate([row for _, row in rows])
        tasks = [self._forms[i] for i in chosen // len(self._corpus)]
        records = chosen % len(self._corpus)
        documents = Documents.of(
            self._corpus.document(int(record), task.segments) for record, task in zip(records, tasks, strict=True)
        )
        encoded = encode(self._corpus.vocabulary, documents, self._writing_order(documents, tasks, epochs, chosen))
        token_weights = np.repeat(
            np.array([weight for task in tasks for weight in task.weights], np.float32), encoded.segment_tokens
        )
        row_of = np.repeat(np.arange(len(rows)), sizes)
        items = np.bincount(row_of, _document_items(documents), len(rows)).astype(np.int32)
        return lay_out(encoded, token_weights, row_of, len(rows), self._config.sequence_length, items)

    def _writing_order(
        self,
        documents: Documents,
        tasks: list[Task],
        epochs: Int64[np.ndarray, " documents"],
        chosen: Int64[np.ndarray, " documents"],
    ) -> Int64[np.ndarray, " items"] | None:
        """Order in which the items of documents are written; None where all of them stand as they are.

        Of each document it depends on the seed, the epoch and the document's index alone, not on its neighbours.
        """
        if not any(any(task.random_order) for task in tasks):
            return None
        order = np.arange(documents.spaces.size)
        ends = np.cumsum(documents.segment_items)
        segment = 0
        for task, epoch, index in zip(tasks, epochs, chosen, strict=True):
            random = np.random.default_rng([self._config.seed, epoch, index])
            for share in task.random_orders:
                start, end = ends[segment] - documents.segment_items[segment], ends[segment]
                permuted = start + random.permutation(end - start)
                if random.random() < share:
                    order[start:end] = permuted
                segment += 1
        return order


def lay_out(
    encoded: Encoded,
    token_weights: Float32[np.ndarray, " tokens"],
    row_of: Int64[np.ndarray, " documents"],
    rows: int,
    sequence_length: int,
    items: Int32[np.ndarray, " b"],
) -> Batch:
    """Lays documents, in order, into rows, and shifts targets by one within each document."""
    counts = encoded.document_tokens
    starts = np.cumsum(counts) - counts
    firsts = np.searchsorted(row_of, np.arange(rows))
    row_starts = starts[firsts]
    document_of = np.repeat(np.arange(counts.size), counts)
    place = np.arange(document_of.size) - starts[document_of]
    column = np.arange(document_of.size) - row_starts[row_of[document_of]]

    def grid(values: np.ndarray, fill: int, dtype: type) -> np.ndarray:
        filled: np.ndarray = np.full((rows, sequence_length), fill, dtype)
        filled[row_of[document_of], column] = values
        return filled

    tokens = grid(encoded.tokens.array, 0, np.int32)
    documents = grid(document_of - firsts[row_of[document_of]], -1, np.int32)  # the same on whatever process
    weights = grid(token_weights, 0, np.float32)
    follows = (documents[:, 1:] == documents[:, :-1]) & (documents[:, 1:] >= 0)
    return {
        "tokens": tokens[:, :-1],
        "targets": np.where(follows, tokens[:, 1:], 0),
        "weights": np.where(follows, weights[:, 1:], np.float32(0)),
        "positions": grid(place, 0, np.int32)[:, :-1],
        "documents": documents[:, :-1],
        "items": items,
    }


def _document_items(documents: Documents) -> Int64[np.ndarray, " documents"]:
    ends = np.cumsum(documents.document_segments)
    return np.diff(np.concatenate([[0], np.cumsum(documents.segment_items)])[ends], prepend=0)


def read_ahead(batches: Batches, start: int, stop: int, ahead: int) -> Iterator[Batch]:
    """The batches of steps `start … stop - 1`, made by a grain thread up to `ahead` before they are asked for."""
    options = grain.ReadOptions(num_threads=1, prefetch_buffer_size=max(ahead, 1))
    steps = grain.MapDataset.range(start, stop)
    return iter(steps.map(batches.__getitem__).to_iter_dataset(options))
