"""Epochs in blocks: every record once an epoch, whatever the blocks, the processes, and where a run goes on."""

from __future__ import annotations

import collections
import itertools

import numpy as np
import pytest
import random_data
from hypothesis import given, settings
from hypothesis import strategies as st

from omnijax.config import BatchConfig, Config, Task
from omnijax.data import blocks, corpus, pipeline
from omnijax.data.corpus import Rows, Split
from omnijax.data.pipeline import Batches, most_tokens
from omnijax.errors import DataError
from omnijax.modalities import Text
from omnijax.source import Source

FIELDS = {"name": Text(least=1, most=9), "place": Text(least=1, most=9)}
TASKS = (Task(("name", "place"), (1.0, 1.0)), Task(("place",), (1.0,), repeats=2))
BATCH = BatchConfig(TASKS, size=4, sequence_length=64)


class Named(Source):
    """`name` is the number of the record; one record in three lacks `place`."""

    fields = FIELDS


CONFIG = Config(Named(), BATCH)


def split_of(count: int) -> Split:
    rows = [{"name": str(place), "place": None if place % 3 == 0 else f"p{place}"} for place in range(count)]
    present = collections.Counter(tuple(name for name in FIELDS if row[name]) for row in rows)
    return Split(CONFIG.vocabulary, FIELDS, tuple(FIELDS), Rows(rows, tuple(FIELDS), FIELDS, 0, present))


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(corpus, "AT_ONCE", 7)
    monkeypatch.setattr(blocks, "BLOCK_RECORDS", 30)


def epochs_of(batches: Batches, epochs: int) -> list[list[tuple[int, int]]]:
    """The task and record of each document, by epoch, of the first epochs."""
    found: dict[int, list[tuple[int, int]]] = collections.defaultdict(list)
    for step in itertools.count():
        for epoch, documents in random_data.contents(batches, step):
            found[epoch] += documents
        if epochs in found:
            return [found[epoch] for epoch in range(epochs)]
    raise AssertionError


@settings(max_examples=25)
@given(st.integers(1, 200), st.integers(1, 60), st.integers(1, 12))
def test_every_record_is_in_every_epoch_in_every_form(count: int, records: int, chunk: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(corpus, "AT_ONCE", chunk)
        patch.setattr(blocks, "BLOCK_RECORDS", records)
        split = split_of(count + 1)
        expected = collections.Counter(
            (number, place)
            for number, task in enumerate(TASKS)
            for place in range(count + 1)
            if place % 3
            for _ in range(task.repeats)
        )
        batches = Batches([split], BATCH)
        first, second = epochs_of(batches, 2)
        assert collections.Counter(first) == collections.Counter(second) == expected
        if count > 60:
            assert first != second


def test_blocks_are_other_records_in_each_epoch_and_never_larger_than_they_may() -> None:
    made = blocks.Blocks(split_of(400), BATCH)
    cuts = []
    for epoch in (0, 1):
        of_block = [made.documents(epoch, number).places for number in range(made.count(epoch))]
        assert sorted(np.concatenate(of_block).tolist()) == list(range(400))
        assert all(len(places) <= 30 for places in of_block)
        cuts.append({tuple(places) for places in of_block})
    assert not cuts[0] & cuts[1]


def test_a_block_ends_by_its_bytes() -> None:
    split = split_of(70)
    split.rows.bytes = np.full(10, 100)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blocks, "BLOCK_BYTES", 250)
        assert blocks.Blocks(split, BATCH).count(0) == 5


@pytest.mark.parametrize("processes", [1, 2, 4])
def test_processes_see_what_one_sees_and_go_on_from_a_position(processes: int) -> None:
    """The run is stopped every few steps, and goes on with a position alone, on another number of processes."""
    whole, split = Batches([split_of(400)], BATCH), split_of(400)
    rows = np.array_split(np.arange(BATCH.size), processes)
    position = whole.position(0)
    for start in range(0, 60, 7):
        parts = [Batches([split], BATCH, part) for part in rows]
        for part in parts:
            part.begin(start, [list(one) for one in position])  # as JSON gives it back
        for step in range(start, start + 7):
            expected = whole[step]
            for name, array in expected.items():
                np.testing.assert_array_equal(np.concatenate([part[step][name] for part in parts]), array)
        position = parts[-1].position(start + 7)
        assert position == whole.position(start + 7)
        assert parts[0].position(start + 7) == position
    assert position[0].epoch > 0


def test_a_position_costs_no_reading_of_what_is_before(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = Batches([split_of(400)], BATCH)
    position, expected = whole.position(50), random_data.contents(whole, 50)
    read, plain = [], Rows.read
    monkeypatch.setattr(Rows, "read", lambda self, chunks: (read.append(chunks), plain(self, chunks))[1])
    later = Batches([split_of(400)], BATCH)
    later.begin(50, position)
    assert random_data.contents(later, 50) == expected
    assert len(read) <= 2


def test_old_positions_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline, "_KEPT_POSITIONS", 5)
    batches, again = Batches([split_of(100)], BATCH), Batches([split_of(100)], BATCH)
    for step in range(40):
        batches.rows(step)
    assert len(batches._positions) <= 7
    assert random_data.contents(batches, 3) == random_data.contents(again, 3)


def test_steps_that_are_read_again_from_the_start_are_walked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline, "_KEPT_POSITIONS", 5)
    batches, walked, take = Batches([split_of(100)], BATCH), [], Batches._take
    for step in range(40):
        batches.rows(step)
    monkeypatch.setattr(Batches, "_take", lambda self, at: (walked.append(at), take(self, at))[1])
    for step in range(40):
        batches.rows(step)
    assert len(walked) == 40


def test_documents_that_are_too_long_are_found_before_training() -> None:
    """In the last block, too; unless the limits of the modalities say that there are none."""
    split = split_of(101)
    assert most_tokens(split, BATCH) == 1 + 2 * 11  # `eos`, and for each field a marker, 9 bytes and `aos`
    seeds = (BatchConfig(TASKS, size=4, sequence_length=11, seed=seed) for seed in itertools.count())
    short = next(one for one in seeds if 100 not in blocks.Blocks(split, one).documents(0, 0).places)
    with pytest.raises(DataError, match=r"set batch\.sequence_length to 12"):
        Batches([split], short).check(1)
    read, plain = [], Rows.read
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Rows, "read", lambda self, chunks: (read.append(chunks), plain(self, chunks))[1])
        Batches([split_of(101)], BATCH).check(1)
    assert len(read) == 1


def test_fields_that_no_record_has_are_refused() -> None:
    split = split_of(1)
    with pytest.raises(DataError, match=r"batch\.tasks\.0"):
        Batches([split], BATCH)
