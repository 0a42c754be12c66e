"""From records to batches: order, encode, pack, batch, and shard by process. The state is one number, the step.

Batch i is a pure function of the corpus, the configuration and i, the order in which fragments are written included. A
run resumes by starting at its step, on any number of processes; nothing is buffered that a kill could lose. grain reads
ahead in threads.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import grain
import numpy as np
from jaxtyping import Int64

from omnijax.config import BatchConfig
from omnijax.data.blocks import Block, Blocks
from omnijax.data.columns import end_to_end, items_of_documents, reordered
from omnijax.data.corpus import Split
from omnijax.data.packing import Batch
from omnijax.errors import DataError
from omnijax.modalities.base import within
from omnijax.vocab.documents import Documents
from omnijax.vocab.encode import encode
from omnijax.vocab.kinds import PAD_KIND

_KEPT_POSITIONS = 64


class Position(NamedTuple):
    """The next sequence of a source, and what was taken from it before.

    Attributes:
        epoch: number of times that the source was read.
        block: number of the block in the epoch.
        sequence: number of the sequence in the block.
        amount: tokens, or records, of all sequences before: what `unit` says.
    """

    epoch: int
    block: int
    sequence: int
    amount: int


Positions = tuple[Position, ...]
"""Of each source: the state of a run's data."""


class Row(NamedTuple):
    """A sequence of a batch: number of its source, its block, and indices of its documents in the block."""

    source: int
    block: Block
    documents: Int64[np.ndarray, " n"]


class Batches:
    """The batches of a run, by step: a random-access source.

    An epoch is every record in the form of every task whose fields it has, as often as the task says, in its own order.
    Raises a `DataError` for a task that no record has the fields of, or a document that is longer than a sequence.

    Args:
        splits: of each source.
        config: how records become sequences.
        rows: numbers of the sequences of a batch that this process makes; all by default.
        weights: of the sources.
        unit: what the weights hold in: tokens or records.

    Attributes:
        config: how records become sequences.
        sources: the blocks of each source.
    """

    def __init__(
        self,
        splits: Sequence[Split],
        config: BatchConfig,
        rows: Sequence[int] | None = None,
        weights: Sequence[float] = (1.0,),
        unit: str = "tokens",
    ):
        self.config, self._weights, self._unit = config, weights, unit
        self.sources = [Blocks(split, config) for split in splits]
        self._rows = range(config.size) if rows is None else rows
        for number, task in enumerate(config.tasks):
            if not sum(split.count(task.fields) for split in splits):
                rule = "no record of the training split has all of these fields"
                raise DataError(f"batch.tasks.{number}", task.fields, rule, "leave the task out, or mend the data")
        for split in splits:
            if not any(split.count(task.fields) for task in config.tasks):
                rule, fix = "no task takes records with these fields", "add a task, or leave the source out"
                raise DataError("batch.tasks", split.names, rule, fix)
        self._lock = threading.Lock()
        self._positions: dict[int, Positions] = {0: tuple(Position(0, 0, 0, 0) for _ in splits)}

    def __len__(self) -> int:
        """Practically infinite; `train.steps` ends a run."""
        return 2**31 - 1

    def __getitem__(self, step: int) -> Batch:
        """The sequences of this process in the batch of a step."""
        rows = self.rows(step)
        return self._batch([rows[row] for row in self._rows])

    def position(self, step: int) -> Positions:
        """Where a step begins."""
        with self._lock:
            return self._walk(step)

    def begin(self, step: int, position: Sequence[Sequence[int]]) -> None:
        """Begins at a step, whose `position` is known, without reading what is before."""
        self._positions = {step: tuple(Position(*one) for one in position)}

    def epochs(self, step: int) -> list[float]:
        """How often each source has been read when a step begins."""
        found = []
        for at, blocks in zip(self.position(step), self.sources, strict=True):
            part = at.sequence / max(1, len(blocks.block(at.epoch, at.block).sequences))
            found.append(at.epoch + (at.block + part) / blocks.count(at.epoch))
        return found

    def rows(self, step: int) -> list[Row]:
        """All sequences of the batch of a step, of all processes."""
        with self._lock:
            rows, position = self._take(self._walk(step))
            self._positions.pop(step + 1, None)
            self._positions[step + 1] = position  # the last one in the order of a dict
            for old in list(self._positions)[1:-_KEPT_POSITIONS]:
                del self._positions[old]
        return rows

    def _walk(self, step: int) -> Positions:
        known = max(one for one in self._positions if one <= step)
        position = self._positions[known]
        for _ in range(known, step):
            position = self._take(position)[1]
        return position

    def _take(self, positions: Positions) -> tuple[list[Row], Positions]:
        """The sequences of a batch from a position on, and the position behind them.

        Each sequence is of the source that has had the least of its share.
        """
        state, rows = list(positions), []
        for _ in range(self.config.size):
            source = min(range(len(state)), key=lambda one: state[one].amount / self._weights[one])
            at, blocks = state[source], self.sources[source]
            while at.sequence >= len(blocks.block(at.epoch, at.block).sequences):
                last = at.block + 1 >= blocks.count(at.epoch)
                at = Position(at.epoch + last, 0 if last else at.block + 1, 0, at.amount)
            block = blocks.block(at.epoch, at.block)
            documents = block.sequences[at.sequence]
            more = block.tokens[at.sequence] if self._unit == "tokens" else len(documents)
            state[source] = Position(at.epoch, at.block, at.sequence + 1, at.amount + more)
            rows.append(Row(source, block, documents))
        return rows, tuple(state)

    def incomplete(self) -> list[str]:
        """A line for each task whose fields some records lack: how many records it takes."""
        splits = [blocks.split for blocks in self.sources]
        count = sum(map(len, splits))
        counts = [(task, sum(split.count(task.fields) for split in splits)) for task in self.config.tasks]
        few = [("->".join(task.fields), n) for task, n in counts if n < count]
        return [f"{fields}: {n} of {count} records have all of its fields" for fields, n in few]

    def longest_sequence(self, steps: int) -> int:
        """Tokens of the longest sequence of the first `steps` batches, of all processes."""
        rows = (row for step in range(steps) for row in self.rows(step))
        return max((int(row.block.documents.lengths[row.documents].sum()) for row in rows), default=0)

    def check(self, steps: int) -> None:
        """Checks that every document fits into a sequence, and that every sequence of the first `steps` batches does.

        Blocks are read for this only where the limits of the modalities allow documents that don't fit. Raises a
        `DataError` if a document, or a sequence that is packed by items, has more tokens than `batch.sequence_length`.
        """
        by_items, room = self.config.sequence_items, self.config.sequence_length
        for blocks in self.sources:
            fits = not by_items and most_tokens(blocks.split, self.config) <= room
            for number in range(1 if fits else blocks.count(0)):
                blocks.documents(0, number)
        longest = self.longest_sequence(steps) if by_items else 0
        if longest > room:
            rule = f"the longest sequence of {by_items} items has {longest} tokens, and nothing is cut"
            fix = f"set it to {longest} or more, or lower batch.sequence_items"
            raise DataError("batch.sequence_length", room, rule, fix)

    def _batch(self, rows: list[Row]) -> Batch:
        """Lays documents, in order, into sequences, and shifts targets by one within each document."""
        sizes = np.array([row.documents.size for row in rows])
        documents, fields, tasks = self._documents(rows, sizes)
        order = self._writing_order(documents, fields, tasks, rows, sizes)
        encoded = encode(self.sources[0].split.vocabulary, documents, order)
        task_of_segment = np.repeat(tasks, documents.document_segments)
        most = max(len(task.fields) for task in self.config.tasks)
        weights = np.array([[*task.weights, *[0.0] * (most - len(task.weights))] for task in self.config.tasks])
        token_weights = np.repeat(weights.astype(np.float32)[task_of_segment, fields], encoded.segment_tokens)
        row_of, counts = np.repeat(np.arange(len(rows)), sizes), encoded.document_tokens
        last = np.cumsum(counts)
        numbers = np.arange(len(counts)) - (np.cumsum(sizes) - sizes)[row_of]  # the same on whatever process
        ends = last[np.cumsum(sizes) - 1].tolist()

        def grid(values: np.ndarray, fill: int, dtype: Any) -> np.ndarray:
            filled: np.ndarray = np.empty((len(rows), self.config.sequence_length), dtype)
            for row, (start, end) in enumerate(itertools.pairwise([0, *ends])):
                filled[row, : end - start] = values[start:end]
                filled[row, end - start :] = fill
            return filled

        def following(values: np.ndarray) -> np.ndarray:
            """The value of the next token in the same document; 0 behind the last one."""
            shifted = np.empty_like(values)
            shifted[:-1] = values[1:]
            shifted[last - 1] = 0
            return shifted

        positions = np.arange(ends[-1], dtype=np.int32) - np.repeat((last - counts).astype(np.int32), counts)
        batch: Batch = {
            "tokens": grid(encoded.tokens.array, 0, np.int32)[:, :-1],
            "targets": grid(following(encoded.tokens.array), 0, np.int32)[:, :-1],
            "weights": grid(following(token_weights), 0, np.float32)[:, :-1],
            "kinds": grid(encoded.kinds, PAD_KIND, encoded.kinds.dtype)[:, 1:],
            "positions": grid(positions, 0, np.int32)[:, :-1],
            "documents": grid(np.repeat(numbers.astype(np.int32), counts), -1, np.int32)[:, :-1],
            "items": np.bincount(row_of, items_of_documents(documents), len(rows)).astype(np.int32),
        }
        if len(self.sources) > 1:
            batch["source"] = np.array([row.source for row in rows], np.int32)
        return batch

    def _documents(
        self, rows: list[Row], sizes: Int64[np.ndarray, " rows"]
    ) -> tuple[Documents, Int64[np.ndarray, " segments"], Int64[np.ndarray, " documents"]]:
        """The documents of all rows, in order; the number of each segment's field in its document; their tasks."""
        of_block: dict[int, list[int]] = {}
        for number, row in enumerate(rows):
            of_block.setdefault(id(row.block.documents), []).append(number)
        found = []
        for some in of_block.values():
            source, block, _ = rows[some[0]]
            chosen = np.concatenate([rows[number].documents for number in some])
            found.append((*self.sources[source].gather(block.documents, chosen), block.documents.task_of[chosen]))
        if len(found) == 1:
            return found[0]
        place = within(np.cumsum(sizes) - sizes, sizes, np.concatenate([*of_block.values()]))
        order, whole = np.argsort(place), end_to_end([documents for documents, *_ in found])
        fields, tasks = (np.concatenate([one[part] for one in found]) for part in (1, 2))
        counts = whole.document_segments
        return reordered(whole, order), fields[within(np.cumsum(counts) - counts, counts, order)], tasks[order]

    def _writing_order(
        self,
        documents: Documents,
        fields: Int64[np.ndarray, " segments"],
        tasks: Int64[np.ndarray, " documents"],
        rows: list[Row],
        sizes: Int64[np.ndarray, " rows"],
    ) -> Int64[np.ndarray, " items"] | None:
        """Order in which the items of documents are written; None if no document is written in a random order.

        It depends on the seed, the epoch, the block and each document's index in it alone, not on neighbours.
        """
        shuffled = np.flatnonzero(np.array([any(task.random_order) for task in self.config.tasks])[tasks])
        if not len(shuffled):
            return None
        order = np.arange(documents.spaces.size)
        segments = np.split(order, np.cumsum(documents.segment_items)[:-1])  # views
        last = np.cumsum(documents.document_segments)
        row_of, chosen = np.repeat(np.arange(len(rows)), sizes), np.concatenate([row.documents for row in rows])
        for one in shuffled:
            row = rows[row_of[one]]
            block = row.block.number * len(self.sources) + row.source
            random = np.random.default_rng([self.config.seed, row.block.epoch, chosen[one], block])
            shares = self.config.tasks[tasks[one]].random_orders
            for segment in range(last[one] - documents.document_segments[one], last[one]):
                permuted = random.permutation(segments[segment])
                if random.random() < shares[fields[segment]]:
                    segments[segment][:] = permuted
        return order


def most_tokens(split: Split, config: BatchConfig) -> float:
    """The most tokens that a document can have by the limits of its modalities; infinite where a field has lists."""
    end = int(split.vocabulary.end is not None)
    return max(end + sum(split.most_tokens(name) for name in task.fields) for task in config.tasks)


def read_ahead(batches: Batches, start: int, stop: int, ahead: int) -> Iterator[Batch]:
    """The batches of steps `start … stop - 1`, made by a grain thread up to `ahead` before they are asked for."""
    options = grain.ReadOptions(num_threads=1, prefetch_buffer_size=max(ahead, 1))
    return iter(grain.MapDataset.range(start, stop).map(batches.__getitem__).to_iter_dataset(options))
