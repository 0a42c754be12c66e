"""What every arm must have in common: fragments, held-out split, and which documents each step trains on."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np

from omnijax.config import BatchConfig
from omnijax.data.corpus import Corpus
from omnijax.data.pipeline import LENGTHS_AT_ONCE, Batches
from omnijax.errors import DataError
from omnijax.vocab.encode import encode


class Seen(NamedTuple):
    """What a model has been trained on after some steps, padding not counted."""

    step: int
    items: int
    tokens: int
    documents: int


class Ledger:
    """What stands in the steps of a run, without making its batches.

    Args:
        corpus: the training split.
        config: how it becomes rows; how long these are doesn't matter.
    """

    def __init__(self, corpus: Corpus, config: BatchConfig):
        sizes = [_sizes(corpus, task.segments) for task in config.tasks]
        self._items, self._tokens = np.stack(sizes, axis=1)
        self.batches = Batches(corpus, config)
        self._totals = [np.zeros(3, np.int64)]

    @property
    def longest_document(self) -> int:
        """In tokens."""
        return int(self._tokens.max())

    def seen(self, step: int) -> Seen:
        """After so many steps."""
        while len(self._totals) <= step:
            rows = self._rows(len(self._totals) - 1)
            tasks, records = rows[:, 0], rows[:, 1]
            more = [self._items[tasks, records].sum(), self._tokens[tasks, records].sum(), len(rows)]
            self._totals.append(self._totals[-1] + np.array(more, np.int64))
        items, tokens, documents = (int(total) for total in self._totals[step])
        return Seen(step, items, tokens, documents)

    def steps_for(self, items: float) -> int:
        """How many steps it takes to see so many items."""
        step = 1
        while self.seen(step).items < items:
            step += 1
        return step

    def order(self, steps: int) -> str:
        """SHA-256 of the documents of the first steps: of each its task, record, epoch and row."""
        digest = hashlib.sha256()
        for step in range(steps):
            digest.update(self._rows(step).astype("<i8").tobytes())
        return digest.hexdigest()

    def _rows(self, step: int) -> np.ndarray:
        found = [
            (task, record, epoch, row)
            for row, (epoch, documents) in enumerate(self.batches.documents(step))
            for task, record in documents
        ]
        return np.array(found, np.int64).reshape(-1, 4)


def _sizes(corpus: Corpus, names: tuple[str, ...]) -> np.ndarray:
    """Items and tokens, int64[2, records], of each record as a document of these segments."""
    found = []
    for start in range(0, len(corpus), LENGTHS_AT_ONCE):
        documents = corpus.documents(range(start, min(start + LENGTHS_AT_ONCE, len(corpus))), names)
        items = documents.segment_items.reshape(-1, len(names)).sum(axis=1)
        found.append(np.stack([items, encode(corpus.vocabulary, documents).document_tokens]))
    return np.concatenate(found, axis=1)


def tokens_per_item(corpus: Corpus, names: Iterable[str]) -> dict[str, float]:
    """Tokens that an item of each modality takes in a split."""
    v = corpus.vocabulary
    around = 1 + (v.layout == "grouped") + (v.end is not None)
    found = {}
    for name in sorted(set(names)):
        items, tokens = _sizes(corpus, (name,))
        found[name] = float((tokens.sum() - around * len(corpus)) / items.sum())
    return found


def fragments_hash(corpus: Corpus, names: Iterable[str]) -> str:
    """SHA-256 of the ids of these modalities, before any vocabulary writes them."""
    digest = hashlib.sha256()
    for name in sorted(set(names)):
        view = corpus.fragments[name]
        digest.update(f"{name} {len(view)} ".encode())
        for start in range(0, len(view), LENGTHS_AT_ONCE):
            ids = [np.asarray(view[record]) for record in range(start, min(start + LENGTHS_AT_ONCE, len(view)))]
            digest.update(np.array([len(one) for one in ids], "<i8").tobytes())
            digest.update(np.concatenate(ids).tobytes())
    return digest.hexdigest()


SAYS = {
    "fragments": "the fragments of the training split",
    "heldout": "the held-out split",
    "order": "which documents stand in which step",
}


def check_same(hashes: Mapping[str, Mapping[str, str]]) -> None:
    """Holds the arms of one seed against each other.

    Args:
        hashes: of each arm.

    Raises:
        DataError: two arms would be trained or measured on different data; names them, and what differs.
    """
    first, *others = hashes
    for other in others:
        for part, said in SAYS.items():
            if hashes[first][part] != hashes[other][part]:
                rule = f"{said} must be the same in every arm, and differ between {first!r} and {other!r}"
                fix = "let the arms differ in how documents are written or learned alone, or make two sweeps"
                raise DataError(f"sweep.{part}", hashes[other][part][:16], rule, fix)
