"""For tests of this package, and of experiments built on it: small runs, and data that need no data set."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
from jaxtyping import Bool, Int

from omnijax.config import Config
from omnijax.modalities import GENERAL, Codes, Items, Modality
from omnijax.source import Record, Source

LETTERS = 8


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
