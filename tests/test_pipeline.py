import collections
import dataclasses
import itertools
import pathlib

import numpy as np
import pytest
import random_data
import reference
from hypothesis import given, settings
from hypothesis import strategies as st

from omnijax import testing
from omnijax.config import BatchConfig, Completion, Config, Task
from omnijax.data import packing
from omnijax.data.corpus import Corpus
from omnijax.data.packing import pack
from omnijax.data.pipeline import Batch, Batches, read_ahead
from omnijax.errors import ConfigError, DataError
from omnijax.experiment import load_experiment
from omnijax.vocab.encode import encode
from omnijax.vocab.kinds import kind_names
from omnijax.vocab.vocabulary import PAD

DIGITS = pathlib.Path(__file__).parents[1] / "experiments" / "digits.py"
RECORDS, ROW_LENGTH = 12, 72
CONFIG = BatchConfig(random_data.mixed_tasks(), size=4, sequence_length=ROW_LENGTH)
FORMS = [task for task in CONFIG.tasks for _ in range(task.repeats)]


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    return random_data.random_corpus(random_data.small_vocabulary(), RECORDS, most_items=7)


@pytest.fixture(scope="module")
def batches(corpus: Corpus) -> Batches:
    return random_data.batches_of(corpus, CONFIG)


def documents_of(batch: Batch) -> list[list[tuple[int, ...]]]:
    """The whole documents of each row: what is read, and the last target."""
    rows = []
    for row in range(len(batch["tokens"])):
        found = []
        for number in dict.fromkeys(batch["documents"][row].tolist()):
            where = np.flatnonzero(batch["documents"][row] == number)
            if number >= 0:
                assert (np.diff(where) == 1).all()
                tokens = [*batch["tokens"][row, where], batch["targets"][row, where[-1]]]
                # A document that ends the row: its last token is a target only.
                found.append(tuple(int(token) for token in tokens if token != PAD))
        rows.append(found)
    return rows


def encoded(corpus: Corpus, record: int, task: Task) -> tuple[tuple[int, ...], list[float]]:
    """A record as a task shows it, segment by segment: tokens, and what each weighs."""
    tokens: list[int] = []
    weights: list[float] = []
    for name, weight in zip(task.fields, task.weights, strict=True):
        alone = corpus.documents([record], [name])
        more = encode(corpus.vocabulary, alone).tokens.array.tolist()[:-1]  # without its eos
        tokens += more
        weights += [weight] * len(more)
    return (*tokens, corpus.vocabulary.end), [*weights, task.weights[-1]]


def same(left: Batch, right: Batch) -> bool:
    return all(np.array_equal(left[key], right[key]) for key in left) and left.keys() == right.keys()


@settings(max_examples=300)
@given(st.lists(st.integers(1, 20)), st.integers(20, 50), st.integers(1, 6))
def test_packing_never_drops_cuts_or_repeats_a_document(
    lengths: list[int], sequence_length: int, open_rows: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packing, "OPEN_SEQUENCES", open_rows)
        rows = pack(np.array(lengths, np.int64), sequence_length)
    assert sorted(itertools.chain(*rows)) == list(range(len(lengths)))
    assert all(row and sum(lengths[document] for document in row) <= sequence_length for row in rows)
    assert all(row == sorted(row) for row in rows)


def test_packing_fills_sequences() -> None:
    assert pack(np.array([6, 5, 4, 5, 3, 7]), 10) == [[0, 2], [1, 3], [4, 5]]
    many = np.random.default_rng(0).integers(10, 90, 5000)
    assert many.sum() / (len(pack(many, 256)) * 256) > 0.97


def test_a_document_longer_than_a_row_is_an_error_before_any_batch(corpus: Corpus) -> None:
    with pytest.raises(DataError, match="21 tokens.* a sequence has 20"):
        pack(np.array([3, 21]), 20)
    with pytest.raises(DataError, match=r"batch\.sequence_length"):
        random_data.batches_of(corpus, dataclasses.replace(CONFIG, sequence_length=40)).check(1)


def test_each_epoch_has_every_record_in_every_form_as_often_as_the_task_says(corpus: Corpus, batches: Batches) -> None:
    expected = collections.Counter(encoded(corpus, record, task)[0] for record in range(RECORDS) for task in FORMS)
    rows = list(itertools.chain(*(documents_of(batches[step]) for step in range(40))))
    orders = []
    for _ in range(3):
        epoch: list[tuple[int, ...]] = []
        while len(epoch) < len(FORMS) * RECORDS:
            epoch += rows.pop(0)
        assert collections.Counter(epoch) == expected
        orders.append(epoch)
    assert orders[0] != orders[1] != orders[2] != orders[0]


def test_batches_are_a_pure_function_of_the_step(corpus: Corpus, batches: Batches) -> None:
    forward = [batches[step] for step in range(12)]
    fresh = random_data.batches_of(corpus, CONFIG)
    for step in (11, 3, 7, 0, 11):  # another source, asked in another order
        assert same(fresh[step], forward[step])
    assert not any(same(one, other) for one, other in itertools.combinations(forward, 2))


def test_another_seed_is_another_order(corpus: Corpus, batches: Batches) -> None:
    assert not same(random_data.batches_of(corpus, dataclasses.replace(CONFIG, seed=1))[0], batches[0])


@pytest.mark.parametrize("start", [0, 1, 7])
def test_reading_ahead_from_any_step_gives_the_tail(batches: Batches, start: int) -> None:
    found = list(read_ahead(batches, start, 9, ahead=2))
    assert len(found) == 9 - start
    assert all(same(one, batches[step]) for step, one in enumerate(found, start))


@pytest.mark.parametrize("processes", [2, 4])
def test_the_rows_of_all_processes_together_are_those_of_one(corpus: Corpus, batches: Batches, processes: int) -> None:
    every = np.arange(CONFIG.size)
    for shares in (np.array_split(every, processes), [every[start::processes] for start in range(processes)]):
        parts = [random_data.batches_of(corpus, CONFIG, share) for share in shares]
        for step in (0, 5):
            for share, part in zip(shares, parts, strict=True):
                assert same(part[step], {key: rows[share] for key, rows in batches[step].items()})


def test_targets_weights_positions_and_items_are_those_of_the_documents(corpus: Corpus, batches: Batches) -> None:
    """Token by token in plain Python, from the documents that a row turns out to hold."""
    forms = {}
    for record, task in itertools.product(range(RECORDS), FORMS):
        tokens, weights = encoded(corpus, record, task)
        forms[tokens] = (weights, sum(corpus.columns[name].items[record] for name in task.fields))
    for step in range(3):
        batch = batches[step]
        assert {key: array.dtype for key, array in batch.items()} == {
            key: np.dtype({"weights": "f4", "kinds": "u1"}.get(key, "i4")) for key in batch
        }
        for row, documents in enumerate(documents_of(batch)):
            flat = [
                (token, place, number) for number, tokens in enumerate(documents) for place, token in enumerate(tokens)
            ]
            assert len(flat) <= ROW_LENGTH
            weights = list(itertools.chain(*(forms[tokens][0] for tokens in documents)))
            kinds = reference.slow_kinds(corpus.vocabulary, [token for token, _, _ in flat])
            kinds += ["pad"] * (ROW_LENGTH - len(flat))
            assert [kind_names(corpus.vocabulary)[kind] for kind in batch["kinds"][row]] == kinds[1:]
            numbers: dict[int, int] = {}
            for column in range(ROW_LENGTH - 1):
                here = flat[column] if column < len(flat) else (PAD, 0, None)
                follows = column + 1 < len(flat) and flat[column + 1][2] == here[2]
                assert batch["tokens"][row, column] == here[0]
                assert batch["positions"][row, column] == here[1]
                assert batch["targets"][row, column] == (flat[column + 1][0] if follows else PAD)
                assert batch["weights"][row, column] == np.float32(weights[column + 1] if follows else 0)
                number = batch["documents"][row, column]
                assert number == (-1 if here[2] is None else numbers.setdefault(here[2], number))
            assert len(set(numbers.values())) == len(numbers)
            assert batch["items"][row] == sum(forms[tokens][1] for tokens in documents)


# ---------------------------------------------------------------------- rows packed by items

BY_ITEMS = dataclasses.replace(CONFIG, sequence_items=30, sequence_length=400)


def test_rows_packed_by_items_hold_the_same_documents_in_every_vocabulary(corpus: Corpus) -> None:
    wide = dataclasses.replace(corpus.vocabulary, base=2, digits=2, position="after", width="minimal", layout="inline")
    one, other = (
        random_data.batches_of(corpus, BY_ITEMS),
        random_data.batches_of(dataclasses.replace(corpus, vocabulary=wide), BY_ITEMS),
    )
    for step in range(12):
        assert random_data.contents(one, step) == random_data.contents(other, step)
        assert np.array_equal(one[step]["items"], other[step]["items"])
        for row, (_, documents) in enumerate(random_data.contents(one, step)):
            tasks = [BY_ITEMS.tasks[task] for task, _ in documents]
            sizes = [
                sum(corpus.columns[name].items[record] + 2 for name in task.fields) + 1
                for task, (_, record) in zip(tasks, documents, strict=True)
            ]
            assert sum(sizes) <= BY_ITEMS.sequence_items
            expected = [encoded(corpus, record, task)[0] for task, (_, record) in zip(tasks, documents, strict=True)]
            assert documents_of(one[step])[row] == expected


def test_rows_packed_by_items_are_held_against_the_tokens_of_a_row(corpus: Corpus) -> None:
    batches = random_data.batches_of(corpus, BY_ITEMS)
    longest = batches.longest_sequence(12)
    assert longest == max((batches[step]["documents"] >= 0).sum(axis=1).max() + 0 for step in range(12))
    random_data.batches_of(corpus, dataclasses.replace(BY_ITEMS, sequence_length=longest)).check(12)
    with pytest.raises(DataError, match=f"batch.sequence_length = {longest - 1}.*set it to {longest} or more"):
        random_data.batches_of(corpus, dataclasses.replace(BY_ITEMS, sequence_length=longest - 1)).check(12)
    with pytest.raises(DataError, match=r"set batch\.sequence_items to"):
        random_data.batches_of(corpus, dataclasses.replace(BY_ITEMS, sequence_items=8)).check(1)


# ---------------------------------------------------------------------- random orders

# The share is far from 0, ½ and 1, and differs between the segments of one task.
IN_SOME_ORDER = (
    Task(("image", "text"), weights=(1.0, 5.0), random_order=(0.25, 0.0)),
    Task(("text", "speech"), weights=(0.0, 1.0), repeats=2, random_order=(0.0, 1.0)),
    Task(("speech", "image", "text"), weights=(0.5, 1.0, 1.0)),
)
PERMUTED = dataclasses.replace(CONFIG, tasks=IN_SOME_ORDER)


def sorted_fragments(corpus: Corpus, tokens: tuple[int, ...]) -> tuple[tuple[int, ...], list[list[int]]]:
    """A document with the fragments of each segment sorted by their positions; and these positions as they stood."""
    v = corpus.vocabulary
    segments: list[list[int]] = []
    for token in tokens:
        if token >= v.control_start:
            segments.append([])
        segments[-1].append(token)
    found: list[int] = []
    orders = []
    for part in segments:
        starts = [i for i, token in enumerate(part) if v.position_start <= token < v.digit_start]
        if not starts:
            found += part
            continue
        pieces = [part[a:b] for a, b in zip(starts, [*starts[1:], len(part)], strict=True)]
        orders.append([piece[0] - v.position_start for piece in pieces])
        found += [*part[: starts[0]], *itertools.chain(*sorted(pieces))]
    return tuple(found), orders


@pytest.fixture(scope="module")
def permuted(corpus: Corpus) -> Batches:
    return random_data.batches_of(corpus, PERMUTED)


def test_random_orders_change_the_order_of_fragments_and_nothing_else(
    corpus: Corpus, batches: Batches, permuted: Batches
) -> None:
    """The same documents stand at the same places; sorted by position, they are those without random orders."""
    for step in range(6):
        one, other = documents_of(permuted[step]), documents_of(batches[step])
        assert [[sorted_fragments(corpus, tokens)[0] for tokens in row] for row in one] == other
        for key in ("weights", "kinds", "positions", "documents", "items"):
            np.testing.assert_array_equal(permuted[step][key], batches[step][key])


def test_the_share_of_random_orders_is_that_of_the_task() -> None:
    """Over many documents of 7 items, of which one in 7! is in order by chance."""
    vocabulary = random_data.small_vocabulary()
    random = np.random.default_rng(0)
    rows = [random.integers(0, 20, 7) for _ in range(1000)]
    columns = {name: random_data.column_of(vocabulary, name, rows) for name in ("image", "speech")}
    corpus = Corpus(vocabulary, columns)
    task = Task(("image", "speech"), weights=(1.0, 1.0), random_order=(0.25, 0.6))
    batch = random_data.batches_of(corpus, BatchConfig((task,), size=1000, sequence_length=60))[0]
    orders = [sorted_fragments(corpus, tokens)[1] for row in documents_of(batch) for tokens in row]
    assert len(orders) == 1000
    shuffled = np.array([[list(order) != sorted(order) for order in segments] for segments in orders])
    np.testing.assert_allclose(shuffled.mean(axis=0), [0.25, 0.6], atol=0.06)
    assert abs(np.corrcoef(shuffled.T)[0, 1]) < 0.1
    # Each position is as often the first as any other, among those that are shuffled.
    first = np.bincount([segments[1][0] for segments in orders if segments[1] != sorted(segments[1])], minlength=8)
    assert first[1:].min() > 0.6 * first.sum() / 7


def test_random_orders_are_a_pure_function_of_the_step_and_new_in_each_epoch(corpus: Corpus, permuted: Batches) -> None:
    forward = [permuted[step] for step in range(24)]
    fresh = random_data.batches_of(corpus, PERMUTED)
    for step in (11, 3, 23, 0, 11):
        assert same(fresh[step], forward[step])
    by_document: dict[tuple[int, ...], set[tuple[int, ...]]] = {}
    for tokens in itertools.chain(*(row for batch in forward for row in documents_of(batch))):
        by_document.setdefault(sorted_fragments(corpus, tokens)[0], set()).add(tokens)
    assert max(len(orders) for orders in by_document.values()) > 2


def test_another_seed_draws_other_orders(corpus: Corpus, permuted: Batches) -> None:
    def first_epoch(batches: Batches) -> collections.Counter[tuple[int, ...]]:
        documents: list[tuple[int, ...]] = []
        for row in itertools.chain.from_iterable(documents_of(batches[step]) for step in itertools.count()):
            documents += row
            if len(documents) == len(FORMS) * RECORDS:
                return collections.Counter(documents)
        raise AssertionError

    other = random_data.batches_of(corpus, dataclasses.replace(PERMUTED, seed=1))
    assert first_epoch(permuted) == first_epoch(random_data.batches_of(corpus, PERMUTED)) != first_epoch(other)


@pytest.mark.parametrize("processes", [2, 4])
def test_random_orders_are_those_of_one_process_on_any_number(
    corpus: Corpus, permuted: Batches, processes: int
) -> None:
    parts = [
        random_data.batches_of(corpus, PERMUTED, rows) for rows in np.array_split(np.arange(PERMUTED.size), processes)
    ]
    for step in (0, 7):
        tokens = np.concatenate([part[step]["tokens"] for part in parts])
        np.testing.assert_array_equal(tokens, permuted[step]["tokens"])


@pytest.mark.parametrize(
    "position, fields, shares, rule",
    [
        ("before", ("image", "text"), (0.5,), "one share"),
        ("before", ("image", "text"), (0.5, 0.0, 0.0), "one share"),
        ("before", ("image", "text"), (1.5, 0.0), "one share"),
        ("before", ("image", "text"), (-0.1, 0.0), "one share"),
        ("before", ("image/moved", "text"), (0.5, 0.5), "'text' is written in general tokens"),
        ("after", ("image/moved", "text"), (0.5, 0.0), "position is 'after'"),
        ("none", ("image/moved", "text"), (0.5, 0.0), "position is 'none'"),
    ],
)
def test_random_orders_that_can_not_be_are_refused(position, fields, shares, rule: str) -> None:
    config = load_experiment(DIGITS)
    writing = dataclasses.replace(config.writing, position=position)
    evaluated = dataclasses.replace(config.eval, completions=(), targets=(), routes=())

    def with_task(task: Task) -> Config:
        batch = dataclasses.replace(config.batch, tasks=(task,))
        return dataclasses.replace(config, writing=writing, batch=batch, eval=evaluated)

    task = Task(fields, weights=(1.0, 1.0))
    with_task(task)
    with pytest.raises(ConfigError, match=rule) as caught:
        with_task(dataclasses.replace(task, random_order=shares))
    assert caught.value.field == "batch.tasks.0.random_order"


def test_completions_need_pictures_that_were_learned_in_random_order() -> None:
    config = load_experiment(DIGITS)
    evaluated = dataclasses.replace(config.eval, completions=(Completion("image", "left"),))
    raster = [dataclasses.replace(task, random_order=()) for task in config.batch.tasks]
    behind = Task(("text", "image"), weights=(1.0, 1.0), random_order=(0.0, 0.5))
    first = Task(("image/moved",), weights=(1.0,), random_order=(0.5,))
    for task in (raster[0], behind):
        with pytest.raises(ConfigError) as caught:
            dataclasses.replace(config, eval=evaluated, batch=dataclasses.replace(config.batch, tasks=(*raster, task)))
        assert caught.value.field == "eval.completions"
    dataclasses.replace(config, eval=evaluated, batch=dataclasses.replace(config.batch, tasks=(*raster, first)))


def test_the_small_data_set_fits_the_vocabulary_of_the_small_experiment(tmp_path) -> None:
    """What `omnijax.testing` changes, the vocabulary follows."""
    config = load_experiment(DIGITS)
    small = testing.shrink(config, tmp_path)
    spaces = {space.name: space.size for space in small.vocabulary.spaces}
    assert spaces["speech"] == small.data.speech.codes < config.data.speech.codes
