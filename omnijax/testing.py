"""For tests of this package, and of experiments built on it: small runs, and data that need no data set."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
from jaxtyping import Bool, Int

from omnijax.config import BatchConfig, Config, Task, Writing
from omnijax.data.columns import Column, Segments
from omnijax.data.corpus import Corpus
from omnijax.modalities import GENERAL, Codes, Items, Modality
from omnijax.source import Record, Source
from omnijax.vocab.documents import Documents
from omnijax.vocab.vocabulary import END, Vocabulary

LETTERS = 8
SMALL_WRITING = Writing(base=5, t_pad=False)


@dataclasses.dataclass(frozen=True)
class Letters(Modality):
    """A text of eight letters, each a general token; a signal is int[letters]."""

    name: str = "text"
    most: int = 7

    general: ClassVar[int] = LETTERS
    lossless: ClassVar[bool] = True

    @property
    def limits(self) -> tuple[tuple[int, int], ...]:
        """At least one letter."""
        return ((1, self.most),)

    def encode(self, signals: Sequence[Int[np.ndarray, " letters"]]) -> Items:
        """The letters."""
        return Items.joined([Items.one(GENERAL, np.asarray(signal)[:, None]) for signal in signals])

    def decode(self, items: Items, present: Bool[np.ndarray, " items"] | None = None) -> Int[np.ndarray, " letters"]:
        """The letters."""
        return items.digits[:, 0]


@dataclasses.dataclass(frozen=True)
class RandomRecords(Source):
    """Random text, pictures of three digits in base 5, and speech of two: 27 primary tokens in all."""

    count: int = 40
    """Records of each split."""
    most: int = 7
    """Items of a field, at most."""

    @property
    def fields(self) -> Mapping[str, Modality]:
        """Three fields of modalities with the same names."""
        return {
            "text": Letters(most=self.most),
            "image": Codes("image", radices=(100,), most=self.most),
            "speech": Codes("speech", radices=(20,), most=self.most),
        }

    def records(self, split: str) -> Sequence[Record]:
        """Random codes, from 1 to `most` in each field."""
        random = np.random.default_rng((self.seed, self.splits.index(split)))

        def codes(size: int) -> Int[np.ndarray, " items"]:
            return random.integers(0, size, random.integers(1, self.most + 1))

        return [
            {"text": codes(LETTERS), "image": codes(100)[:, None], "speech": codes(20)[:, None]}
            for _ in range(self.count)
        ]


def shrink(config: Config, directory: Path) -> Config:
    """An experiment's configuration, the same in kind and small in size: it trains for seconds.

    Axes of a mesh may have 1, 2 or (all but `tensor`) 4 or 8 devices. Any number of tests can share the directory of
    the small data set.
    """
    return dataclasses.replace(
        config,
        data=config.data.small(str(directory)),
        batch=dataclasses.replace(config.batch, size=8, prefetch=2),
        model=dataclasses.replace(
            config.model, depth=2, width=32, heads=4, kv_heads=2, head_size=8, mlp_width=64, unroll=1
        ),
        optim=dataclasses.replace(config.optim, warmup_steps=5),
        train=dataclasses.replace(config.train, steps=40, log_every=1, checkpoint_every=15),
        eval=dataclasses.replace(config.eval, examples=12, batch_size=12, show=4),
    )


def small_vocabulary() -> Vocabulary:
    """The vocabulary of `small_config`: 27 primary tokens, a space of three digits, one of two, 8 general tokens."""
    return Config(RandomRecords(), BatchConfig(mixed_tasks()), writing=SMALL_WRITING).vocabulary


def small_config(config: Config, directory: Path) -> Config:
    """`shrink`, and for documents of random records of up to 7 items a segment."""
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
