"""What all arms must have in common, proven by hashes: fragments, held-out split, and the documents of each step."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np

from omnijax.config import BatchConfig, Config
from omnijax.data.corpus import Corpus, fields_of, views_of
from omnijax.data.pipeline import COUNTED_AT_ONCE, Batches
from omnijax.errors import DataError
from omnijax.vocab.encode import count_tokens

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
        self.batches = Batches(corpus, dataclasses.replace(config, sequence_length=ANY_LENGTH))
        shape = len(config.tasks), len(corpus)
        self._tokens, self._items = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
        documents = self.batches.task_of, self.batches.record_of
        self._tokens[documents], self._items[documents] = self.batches.lengths, self.batches.items
        self._totals = [np.zeros(3, np.int64)]

    def after(self, step: int) -> Progress:
        """What the first `step` steps contain."""
        while len(self._totals) <= step:
            found = self._documents(len(self._totals) - 1)
            tasks, records = found[:, 0], found[:, 1]
            more = [self._items[tasks, records].sum(), self._tokens[tasks, records].sum(), len(found)]
            self._totals.append(self._totals[-1] + np.array(more, np.int64))
        items, tokens, documents = (int(total) for total in self._totals[step])
        return Progress(step, items, tokens, documents)

    def steps_for(self, items: float) -> int:
        """The fewest steps that contain this many items."""
        step = 1
        while self.after(step).items < items:
            step += 1
        return step

    def order(self, steps: int) -> str:
        """SHA-256 of the task, record, epoch and sequence of each document of the first steps."""
        digest = hashlib.sha256()
        for step in range(steps):
            digest.update(self._documents(step).astype("<i8").tobytes())
        return digest.hexdigest()

    def _documents(self, step: int) -> np.ndarray:
        found = [
            (task, record, epoch, sequence)
            for sequence, (epoch, documents) in enumerate(self.batches.documents(step))
            for task, record in documents
        ]
        return np.array(found, np.int64).reshape(-1, 4)


def data_hashes(config: Config, train: Corpus, evaluated: Corpus) -> dict[str, str]:
    """SHA-256 of the `fragments` that the tasks train on, and of those that are measured, `heldout`."""
    trained = fragments_hash(train, views_of(config.batch.tasks))
    return {"fragments": trained, "heldout": fragments_hash(evaluated, fields_of(config))}


def fragments_hash(corpus: Corpus, names: Iterable[str]) -> str:
    """SHA-256 of the ids of these fields and views, before any vocabulary writes them as tokens."""
    digest = hashlib.sha256()
    for name in sorted(set(names)):
        column = corpus.columns[name]
        digest.update(f"{name} {len(column)} ".encode())
        for start in range(0, len(column), COUNTED_AT_ONCE):
            documents = column.take(range(start, min(start + COUNTED_AT_ONCE, len(column))))
            for counts in (documents.document_segments, documents.segment_items):
                digest.update(counts.astype("<i8").tobytes())
            digest.update(np.ascontiguousarray(documents.ids).tobytes())
    return digest.hexdigest()


def check_same(hashes: Mapping[str, Mapping[str, str]]) -> None:
    """Compares the arms of one seed: arm -> part of the data -> SHA-256.

    Raises:
        DataError: two arms would be trained or measured on different data; the error names them and the part.
    """
    first, *others = hashes
    for other in others:
        for part, said in HASHED.items():
            if hashes[first][part] != hashes[other][part]:
                rule = f"{said} must be the same in every arm, and differ between {first!r} and {other!r}"
                fix = "let arms differ only in how documents are written or learned, or make two sweeps"
                raise DataError(f"sweep.{part}", hashes[other][part][:16], rule, fix)


def tokens_per_item(corpus: Corpus, config: Config) -> dict[str, float]:
    """Mean number of tokens of an item, for each field of the tasks."""
    v, found = corpus.vocabulary, {}
    for name in fields_of(config):
        items = tokens = 0
        for start in range(0, len(corpus), COUNTED_AT_ONCE):
            places = np.arange(start, min(start + COUNTED_AT_ONCE, len(corpus)))
            documents = corpus.documents(places[corpus.columns[name].segments[places] > 0], (name,))
            around = 1 + v.contexts.grouped[v.contexts.of_control[documents.segment_markers]]
            items += int(documents.segment_items.sum())
            tokens += int((count_tokens(v, documents)[0] - around).sum())
            tokens -= len(documents.document_segments) * (v.end is not None)
        found[name] = tokens / items
    return found
