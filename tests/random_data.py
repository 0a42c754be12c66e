"""Small vocabularies, and records of random items, as a corpus and as batches."""

from __future__ import annotations

import dataclasses
import itertools
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Int

from omnijax.config import BatchConfig, Config, Task, Writing, field_of
from omnijax.data.columns import Column, Segments
from omnijax.data.corpus import Corpus, Rows, Split
from omnijax.data.pipeline import Batches
from omnijax.modalities import GENERAL
from omnijax.testing import RandomRecords, shrink
from omnijax.vocab.documents import Documents
from omnijax.vocab.vocabulary import END, Vocabulary

SMALL_WRITING = Writing(base=5, t_pad=False)


def small_vocabulary() -> Vocabulary:
    """The vocabulary of `small_config`: 27 primary tokens, a space of three digits, one of two, 8 general tokens."""
    return Config(RandomRecords(), BatchConfig(mixed_tasks()), writing=SMALL_WRITING).vocabulary


def small_config(config: Config, directory: Path) -> Config:
    """`shrink`, with batches that hold documents of random records; a segment has at most 7 items."""
    small = shrink(config, directory)
    batch = BatchConfig(mixed_tasks(), size=8, sequence_length=73)
    known = tuple(target for target in small.eval.targets if target.name in ("text", "image", "speech"))
    evaluated = dataclasses.replace(small.eval, completions=(), targets=known)
    return dataclasses.replace(small, data=RandomRecords(), batch=batch, writing=SMALL_WRITING, eval=evaluated)


def mixed_tasks() -> tuple[Task, ...]:
    """Tasks over text, image and speech with different weights. One task repeats each record in an epoch."""
    return (
        Task(("image", "text"), weights=(1.0, 5.0)),
        Task(("text", "speech"), weights=(0.0, 1.0), repeats=2),
        Task(("speech", "image", "text"), weights=(0.5, 1.0, 1.0)),
    )


def random_corpus(vocabulary: Vocabulary, records: int, most_items: int, seed: int = 0) -> Corpus:
    """Records of random items: for each marker of the vocabulary a field, 1 to `most_items` items long."""
    random = np.random.default_rng(seed)
    sizes = {name: vocabulary.general for name in vocabulary.control if name != END}
    sizes |= {space.name: space.size for space in vocabulary.spaces if space.name in sizes}
    columns = {}
    for name, size in sizes.items():
        rows = [random.integers(0, size, random.integers(1, most_items + 1)) for _ in range(records)]
        columns[name] = column_of(vocabulary, name, rows)
    return Corpus(vocabulary, columns)


def column_of(vocabulary: Vocabulary, name: str, rows: Sequence[Int[np.ndarray, "..."]]) -> Column:
    """Ids of every record as the column of one field: one segment for each record, opened by the token of this name."""
    counts, count = np.array([len(row) for row in rows], np.int64), len(rows)
    spaces = [space.name for space in vocabulary.spaces]
    space = spaces.index(name) if name in spaces else GENERAL
    marker = np.full(count, vocabulary.control.index(name))
    of_items = np.full(counts.sum(), space, np.int32)
    segments = Documents(of_items, np.concatenate(rows), counts, marker, np.ones(count, np.int64))
    return Column([Segments(np.arange(count), np.zeros(count, np.int64), segments)], count)


class Held(Split):
    """A corpus as a split of one chunk."""

    def __init__(self, corpus: Corpus):
        of_record = zip(*(column.segments > 0 for column in corpus.columns.values()), strict=True)
        present = Counter(tuple(itertools.compress(map(field_of, corpus.columns), row)) for row in of_record)
        rows = Rows([{}] * len(corpus), tuple(corpus.columns), {}, 0, present)
        rows.records, rows.bytes = np.array([len(corpus)]), np.array([0])
        super().__init__(corpus.vocabulary, {}, tuple(corpus.columns), rows, tuple(corpus.columns))
        self._held = corpus

    def corpus(self, chunks: Sequence[int] | None = None) -> Corpus:
        """The whole corpus."""
        return self._held


def batches_of(corpus: Corpus, config: BatchConfig, rows: Sequence[int] | None = None) -> Batches:
    """The batches of a corpus that is held in memory."""
    return Batches([Held(corpus)], config, rows)


def contents(batches: Batches, step: int) -> list[tuple[int, list[tuple[int, int]]]]:
    """What stands in each sequence of a step: its epoch, and each document's task and record by their numbers."""
    found = []
    for _, block, documents in batches.rows(step):
        tasks, records = block.documents.task_of[documents], block.documents.record_of[documents]
        places = block.documents.places[records]
        found.append((block.epoch, list(zip(tasks.tolist(), places.tolist(), strict=True))))
    return found
