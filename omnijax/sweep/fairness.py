"""What all arms must have in common, proven by hashes: fragments, held-out split, and the documents of each step."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from omnijax.config import Config
from omnijax.data.corpus import Corpus, Split, fields_of
from omnijax.data.pipeline import Batches
from omnijax.errors import DataError

HASHED_AT_ONCE, ANY_LENGTH = 8192, 2**30
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

    def __init__(self, config: Config, splits: Sequence[Split]):
        batch = dataclasses.replace(config.batch, sequence_length=ANY_LENGTH)
        self.batches = Batches(splits, batch, None, config.data.part_weights, config.data.unit)
        self._totals = [np.zeros(3, np.int64)]

    def after(self, step: int) -> Progress:
        """What the first `step` steps contain."""
        while len(self._totals) <= step:
            rows = [(row.block.documents, row.documents) for row in self.batches.rows(len(self._totals) - 1)]
            counts = [(found.items[one].sum(), found.lengths[one].sum(), len(one)) for found, one in rows]
            self._totals.append(self._totals[-1] + np.sum(counts, axis=0))
        return Progress(step, *map(int, self._totals[step]))

    def steps_for(self, items: float) -> int:
        """The fewest steps that contain this many items."""
        return next(step for step in itertools.count(1) if self.after(step).items >= items)

    def order(self) -> str:
        """SHA-256 of all that the documents of each step follow from: the seed, room, and documents of an epoch."""
        config = self.batches.config
        digest = hashlib.sha256(f"{config.seed} {config.size} {config.sequence_items}".encode())
        blocks = [source.documents(0, number) for source in self.batches.sources for number in range(source.count(0))]
        for found in blocks:
            for part in (found.task_of, found.places[found.record_of], found.sizes):
                digest.update(part.astype("<i8").tobytes())
        return digest.hexdigest()


def data_hashes(config: Config, train: Sequence[Corpus], evaluated: Corpus) -> dict[str, str]:
    """SHA-256 of the ids, before any vocabulary writes them as tokens: of `fragments` and `heldout`, see `HASHED`."""
    found = {}
    pairs = {"fragments": (train, config.batch.views), "heldout": ([evaluated], fields_of(config))}
    for part, (corpora, names) in pairs.items():
        digest = hashlib.sha256()
        for name, corpus in itertools.product(sorted(set(names)), corpora):
            if name not in corpus.columns:
                continue
            column = corpus.columns[name]
            digest.update(f"{name} {len(column)} ".encode())
            for start in range(0, len(column), HASHED_AT_ONCE):
                documents = column.take(range(start, min(start + HASHED_AT_ONCE, len(column))))
                for counts in (documents.document_segments, documents.segment_items):
                    digest.update(counts.astype("<i8").tobytes())
                digest.update(np.ascontiguousarray(documents.ids).tobytes())
        found[part] = digest.hexdigest()
    return found


def check_same(hashes: Mapping[str, Mapping[str, str]]) -> None:
    """Compares the arms of one seed: arm -> part of the data -> SHA-256.

    Raises a `DataError` that names two arms and the part if they would be trained or measured on different data.
    """
    first, *others = hashes
    for other, (part, said) in itertools.product(others, HASHED.items()):
        if hashes[first][part] != hashes[other][part]:
            rule = f"{said} must be the same in every arm, and differ between {first!r} and {other!r}"
            fix = "let arms differ only in how documents are written or learned, or make two sweeps"
            raise DataError(f"sweep.{part}", hashes[other][part][:16], rule, fix)
