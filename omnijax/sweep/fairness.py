"""What all arms must have in common, proven by hashes: fragments, held-out split, and the documents of each step."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from omnijax.config import BatchConfig, Config
from omnijax.data.corpus import Corpus, fields_of, views_of
from omnijax.data.pipeline import COUNTED_AT_ONCE, Batches
from omnijax.errors import DataError

ANY_LENGTH = 2**30
"""Room of sequences that are counted and not made."""
HASHED = {
    "fragments": "the fragments of the training split",
    "heldout": "the fragments of the held-out split",
    "order": "the documents of each step",
}
"""What each hash covers."""


class Progress(NamedTuple):
    """What a model has been trained on after some steps; padding isn't counted."""

    step: int
    items: int
    tokens: int
    documents: int


class Ledger:
    """Counts what the steps of a run contain, without making batches.

    Attributes:
        batches: of the training split; their sequences have any length.
    """

    def __init__(self, corpus: Corpus, config: BatchConfig):
        self.batches = batches = Batches(corpus, dataclasses.replace(config, sequence_length=ANY_LENGTH))
        self._config, self._totals = config, [np.zeros(3, np.int64)]
        self._counts = np.zeros((len(config.tasks), len(corpus), 3), np.int64)
        counts = np.stack([batches.items, batches.lengths, np.ones_like(batches.items)], axis=1)
        self._counts[batches.task_of, batches.record_of] = counts

    def after(self, step: int) -> Progress:
        """What the first `step` steps contain."""
        while len(self._totals) <= step:
            rows = self.batches.documents(len(self._totals) - 1)
            tasks, records = np.array([pair for _, documents in rows for pair in documents]).T
            self._totals.append(self._totals[-1] + self._counts[tasks, records].sum(axis=0))
        return Progress(step, *map(int, self._totals[step]))

    def steps_for(self, items: float) -> int:
        """The fewest steps that contain this many items."""
        return next(step for step in itertools.count(1) if self.after(step).items >= items)

    def order(self) -> str:
        """SHA-256 of all that the documents of each step follow from: the seed, room, and documents of an epoch."""
        digest = hashlib.sha256(f"{self._config.seed} {self._config.size} {self._config.sequence_items}".encode())
        for part in (self.batches.task_of, self.batches.record_of, self.batches.sizes):
            digest.update(part.astype("<i8").tobytes())
        return digest.hexdigest()


def data_hashes(config: Config, train: Corpus, evaluated: Corpus) -> dict[str, str]:
    """SHA-256 of the ids, before any vocabulary writes them as tokens: of `fragments` and `heldout`, see `HASHED`."""
    found = {}
    pairs = {"fragments": (train, views_of(config.batch.tasks)), "heldout": (evaluated, fields_of(config))}
    for part, (corpus, names) in pairs.items():
        digest = hashlib.sha256()
        for name in sorted(set(names)):
            column = corpus.columns[name]
            digest.update(f"{name} {len(column)} ".encode())
            for start in range(0, len(column), COUNTED_AT_ONCE):
                documents = column.take(range(start, min(start + COUNTED_AT_ONCE, len(column))))
                for counts in (documents.document_segments, documents.segment_items):
                    digest.update(counts.astype("<i8").tobytes())
                digest.update(np.ascontiguousarray(documents.ids).tobytes())
        found[part] = digest.hexdigest()
    return found


def check_same(hashes: Mapping[str, Mapping[str, str]]) -> None:
    """Compares the arms of one seed: arm -> part of the data -> SHA-256.

    Raises:
        DataError: two arms would be trained or measured on different data; the error names them and the part.
    """
    first, *others = hashes
    for other, (part, said) in itertools.product(others, HASHED.items()):
        if hashes[first][part] != hashes[other][part]:
            rule = f"{said} must be the same in every arm, and differ between {first!r} and {other!r}"
            fix = "let arms differ only in how documents are written or learned, or make two sweeps"
            raise DataError(f"sweep.{part}", hashes[other][part][:16], rule, fix)
