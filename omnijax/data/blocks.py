"""From a split to sequences: an epoch is cut into blocks of records, and the documents of a block are packed together.

An epoch permutes the chunks of the split, takes as many as make a block, and permutes the documents of the block. So
memory holds a block or two, however large the split is. A split that makes one block is permuted as a whole.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Int64

from omnijax.config import BatchConfig
from omnijax.data.corpus import Corpus, Split
from omnijax.data.packing import check_lengths, pack
from omnijax.vocab.documents import Documents
from omnijax.vocab.encode import count_tokens

BLOCK_RECORDS, BLOCK_BYTES = 2**14, 2**25
"""A block ends when it has so many records, or bytes of stored items."""


class Contents(NamedTuple):
    """The documents of a block: its records in the form of every task that they have the fields of.

    Attributes:
        draw_of: int64[documents], number of the draw of each document's views.
        corpus: the records.
        places: int64[records], place of each record in the split.
        task_of: int64[documents], number of the task of each document.
        record_of: int64[documents], place of its record in the corpus.
        lengths: int64[documents], its tokens.
        items: int64[documents], its items.
        sizes: int64[documents], its size in units of `BatchConfig.sequence_items`.
    """

    draw_of: Int64[np.ndarray, " documents"]
    corpus: Corpus
    places: Int64[np.ndarray, " records"]
    task_of: Int64[np.ndarray, " documents"]
    record_of: Int64[np.ndarray, " documents"]
    lengths: Int64[np.ndarray, " documents"]
    items: Int64[np.ndarray, " documents"]
    sizes: Int64[np.ndarray, " documents"]


class Block(NamedTuple):
    """A block in an epoch.

    Attributes:
        epoch: its number.
        number: of the block in the epoch.
        documents: in an order that doesn't depend on the epoch.
        sequences: indices of the documents of each sequence.
        tokens: of each sequence.
    """

    epoch: int
    number: int
    documents: Contents
    sequences: list[Int64[np.ndarray, " n"]]
    tokens: list[int]


class Blocks:
    """The blocks of a split, by epoch and number. The last ones that were asked for are kept.

    Args:
        split: of the records.
        config: how they become sequences.
    """

    def __init__(self, split: Split, config: BatchConfig):
        self.split, self._config = split, config
        most, names = max(len(task.fields) for task in config.tasks), list(split.names)
        number = {name: place for place, name in enumerate(names)}
        self._draws = math.lcm(*(task.draws for task in config.tasks))
        self._columns = np.full((max(task.draws for task in config.tasks), len(config.tasks), most), -1)
        for draw, task in np.ndindex(self._columns.shape[:2]):
            for place, name in enumerate(config.tasks[task].drawn(draw)):
                self._columns[draw, task, place] = number.get(name, -1)
        self._fields = np.array([len(task.fields) for task in config.tasks])
        self._chunks = functools.lru_cache(maxsize=2)(self._cut)
        self._documents = functools.lru_cache(maxsize=2)(self._read)
        self._block = functools.lru_cache(maxsize=2)(self._pack)

    def count(self, epoch: int) -> int:
        """Number of blocks of an epoch."""
        return len(self._chunks(epoch))

    def documents(self, epoch: int, number: int) -> Contents:
        """The documents of a block; raises a `DataError` if one is longer than a sequence."""
        return self._documents(self._chunks(epoch)[number], epoch % self._draws)

    def block(self, epoch: int, number: int) -> Block:
        """A block; its errors are those of `documents`."""
        return self._block(epoch, number)

    def gather(
        self, block: Contents, chosen: Int64[np.ndarray, " n"]
    ) -> tuple[Documents, Int64[np.ndarray, " segments"]]:
        """Some documents of a block, and the number of each segment's field in its document."""
        tasks = block.task_of[chosen]
        counts = self._fields[tasks]
        document_of, starts = np.repeat(np.arange(len(chosen)), counts), np.cumsum(counts) - counts
        field = np.arange(len(document_of)) - starts[document_of]
        columns = self._columns[block.draw_of[chosen][document_of], tasks[document_of], field]
        found = block.corpus.gather(columns, block.record_of[chosen][document_of])
        segments = found.document_segments
        whole = dataclasses.replace(found, document_segments=np.add.reduceat(segments, starts))
        return whole, np.repeat(field, segments)

    def _cut(self, epoch: int) -> list[tuple[int, ...]]:
        """The chunks of each block, ascending."""
        rows, blocks, records, size = self.split.rows, list[list[int]](), 0, 0
        order = np.random.default_rng([self._config.seed, epoch, 0, 0, 1]).permutation(len(rows.records))
        for chunk, more, weight in zip(
            order.tolist(), rows.records[order].tolist(), rows.bytes[order].tolist(), strict=True
        ):
            records, size = records + more, size + weight
            if not blocks or records > BLOCK_RECORDS or size > BLOCK_BYTES:
                blocks.append([])
                records, size = more, weight
            blocks[-1].append(chunk)
        return [tuple(sorted(block)) for block in blocks]

    def _read(self, chunks: tuple[int, ...], draw: int) -> Contents:
        corpus, config = self.split.corpus(chunks), self._config
        copies = [
            (n, (draw * t.repeats + one) % t.draws) for n, t in enumerate(config.tasks) for one in range(t.repeats)
        ]
        names = [config.tasks[number].drawn(one) for number, one in copies]
        taken = [corpus.having(some) for some in names]
        task_of, draw_of = (np.repeat(column, list(map(len, taken))) for column in np.transpose(copies))
        counts = self._counts(corpus, taken, names)
        found = Contents(draw_of, corpus, self.split.places(chunks), task_of, np.concatenate(taken), *counts)
        check_lengths(found.lengths, config.sequence_length)
        if config.sequence_items:
            check_lengths(found.sizes, config.sequence_items, "sequence_items", "items and more")
        return found

    def _counts(
        self, corpus: Corpus, taken: list[Int64[np.ndarray, " n"]], names: list[tuple[str, ...]]
    ) -> list[Int64[np.ndarray, " documents"]]:
        """Of every document: its tokens, its items, and its size by `BatchConfig.sequence_items`.

        Segments are written by themselves, so that a document has the tokens of its fields, and `eos`.
        """
        closed = int(corpus.vocabulary.end is not None)
        counts = {}
        for name, column in corpus.columns.items():
            tokens, there = np.zeros(len(column), np.int64), np.flatnonzero(column.segments)
            if len(there):
                tokens[there] = count_tokens(corpus.vocabulary, column.take(there))[1] - closed
            counts[name] = np.stack([tokens, column.items, column.items + 2 * column.segments])
        around = np.array([[closed], [0], [1]])
        found = [
            sum(counts[name][:, records] for name in some) + around
            for records, some in zip(taken, names, strict=True)
            if len(records)
        ]
        return list(np.concatenate([np.zeros((3, 0), np.int64), *found], axis=1))

    def _pack(self, epoch: int, number: int) -> Block:
        found, config = self.documents(epoch, number), self._config
        order = np.random.default_rng([config.seed, epoch, number]).permutation(found.lengths.size)
        by_items = config.sequence_items
        sizes, room = (found.sizes, by_items) if by_items else (found.lengths, config.sequence_length)
        sequences = [order[row] for row in pack(sizes[order], room)]
        return Block(epoch, number, found, sequences, [int(found.lengths[one].sum()) for one in sequences])
