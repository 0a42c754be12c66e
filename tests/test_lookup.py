"""Data to be looked up: what its knobs say it is, from the configuration alone, and at its known entropy."""

import collections
import dataclasses
import functools
import itertools
import math
import pathlib

import jax.numpy as jnp
import numpy as np
import pytest

from omnijax import testing
from omnijax.cli import main
from omnijax.config import BatchConfig, Config, Task, Writing, from_dict, to_dict
from omnijax.data.beam import Beam
from omnijax.data.columns import Column
from omnijax.data.corpus import Corpus, read_split
from omnijax.data.prepare import prepare
from omnijax.data.sources import lookup
from omnijax.data.sources.lookup import Lookup
from omnijax.errors import ConfigError
from omnijax.evaluate.likelihoods import bits_per_item
from omnijax.experiment import load_experiment, override
from omnijax.model.build import model_of
from omnijax.source import VALIDATION, read
from omnijax.train import load_splits, train
from omnijax.vocab.assemble import assemble
from omnijax.vocab.assignment import Random
from omnijax.vocab.decode import decode
from omnijax.vocab.encode import encode
from omnijax.vocab.ids import PrimaryIds
from omnijax.vocab.numbers import from_ints, to_digits, to_ints
from omnijax.vocab.radix import radices_of, width_of
from omnijax.vocab.vocabulary import Vocabulary

LOOKUP = pathlib.Path(__file__).parents[1] / "experiments" / "lookup.py"
BOTH = ("text", "item")
RANDOM = Lookup(keys=50, space=1000, items=3, choices=4, copies=5)
COMPOSED = Lookup(keys=200, space=420, items=2, rule="composed", attributes=(5, 7, 12), heldout=0.2)
HUGE = dataclasses.replace(RANDOM, space=2**64)


def optimum(config: Lookup) -> float:
    """Bits per item of the best possible model on the validation split: the entropy of the choices.

    That model knows which fragments belong to a key. It can know those of new keys only where they are composed.
    """
    return math.log2(config.choices)


def optimum_of_digits(config: Lookup, vocabulary: Vocabulary, keys: int = lookup._KEYS_AT_ONCE) -> float:
    """Bits per item of the best model that predicts each digit of a fragment independently, given the key.

    Parallel heads can reach it. It is the sum over digit places of the entropy of that digit among the choices, as the
    vocabulary writes them, and the mean over the first validation keys.
    """
    table = lookup.alternatives(config, lookup._keys_of(config, VALIDATION)[:keys]).reshape(-1)
    space = vocabulary.spaces[vocabulary.space_index(lookup.ITEM)]
    radices = radices_of(vocabulary.base, width_of(space.size - 1, vocabulary.base))
    numbers = space.assignment.forward(lookup._numbers(table), space.size, radices)
    digits = to_digits(numbers, radices).reshape(-1, config.choices, len(radices))
    like = sum(np.log2((digits == digits[:, [one]]).sum(axis=1)).sum() for one in range(config.choices))
    return len(radices) * math.log2(config.choices) - float(like) / (len(digits) * config.choices)


def config_of(source: Lookup, base: int = 10, **writing: object) -> Config:
    how = Writing(base=base, width="minimal", position="after", t_pad=False)
    tasks = (Task(BOTH, weights=(0.0, 1.0)),)
    return Config(source, BatchConfig(tasks), writing=dataclasses.replace(how, **writing))


@functools.lru_cache(maxsize=64)
def corpus_of(source: Lookup, split: str = "train") -> Corpus:
    return read_split(config_of(source), split, BOTH).corpus()


@functools.lru_cache(maxsize=64)
def listed(corpus: Corpus, name: str) -> list[tuple[int, ...]]:
    """Ids of each record."""
    column = corpus.columns[name]
    documents = column.take(np.arange(len(column)))
    assert (documents.segment_items == documents.segment_items[0]).all()
    ids = to_ints(documents.ids)
    return list(zip(*(ids[place :: documents.segment_items[0]] for place in range(documents.segment_items[0]))))


@pytest.mark.parametrize(
    "config",
    [RANDOM, dataclasses.replace(RANDOM, choices=1), COMPOSED, HUGE],
    ids=["random", "one", "composed", "huge"],
)
def test_the_same_knobs_make_the_same_records_and_another_seed_others(config: Lookup) -> None:
    for split in ("train", "validation"):
        first, again = corpus_of(config, split), read_split(config_of(config), split, BOTH).corpus()
        other = corpus_of(dataclasses.replace(config, seed=1), split)
        assert all(listed(first, name) == listed(again, name) for name in BOTH)
        assert listed(first, "item") != listed(other, "item")
    keys = np.arange(config.keys)
    assert (lookup.alternatives(config, keys) != lookup.alternatives(dataclasses.replace(config, seed=1), keys)).any()


def test_held_out_choices_are_drawn_anew() -> None:
    config, drawn = dataclasses.replace(RANDOM, keys=90, copies=1), {}
    for split in ("train", "validation"):
        corpus = corpus_of(config, split)
        numbers = np.array([int(bytes(key)) for key in listed(corpus, "text")])
        ids = np.array(listed(corpus, "item"))[..., None]
        drawn[split] = numbers, np.argmax(lookup.alternatives(config, numbers) == ids, axis=-1)
    (_, train), (keys, heldout) = drawn["train"], drawn["validation"]
    # By chance a fourth is the same, of the same key as of records of the same number.
    assert 0.15 < np.mean(train[keys] == heldout) < 0.35
    assert 0.15 < np.mean(train == heldout) < 0.35


@pytest.mark.parametrize("space", [2, 256, 257, 2**31, 2**32, 2**32 + 1, 2**63, 2**63 + 1, 2**64])
def test_fragments_are_spread_over_their_whole_space(space: int) -> None:
    config = Lookup(keys=300, space=space, items=2, choices=2)
    corpus = corpus_of(config)
    ids = np.array(listed(corpus, "item"), object)
    assert 0 <= ids.min() < space / 50 + 1
    assert space - space / 50 - 1 < ids.max() < space
    some = corpus.columns["item"].take([3]).ids
    assert (some.dtype, some.shape) == ((np.int64, (2,)) if space <= 2**63 else (np.uint32, (2, 2)))


@pytest.mark.parametrize("config", [RANDOM, HUGE, dataclasses.replace(COMPOSED, choices=4, copies=20)])
def test_each_fragment_is_evenly_one_of_the_choices_of_its_key_and_place(config: Lookup) -> None:
    corpus = corpus_of(dataclasses.replace(config, copies=100))
    found: dict[object, collections.Counter[int]] = collections.defaultdict(collections.Counter)
    for key, ids in zip(listed(corpus, "text"), listed(corpus, "item"), strict=True):
        for place, number in enumerate(ids):
            found[key, place][number] += 1
    assert all(len(counts) == config.choices for counts in found.values())
    counts = np.array([sorted(counts.values()) for counts in found.values()])
    # A fourth of a hundred, 25 ± 4.3: neither all alike nor any far off.
    assert 5 < counts.min() < 20 < 30 < counts.max() < 48
    held = round(config.heldout * config.keys) if config.rule == "composed" else 0
    table = lookup.alternatives(config, np.arange(held, config.keys)).reshape(-1, config.choices)
    assert [set(counts) for counts in found.values()] == [set(row) for row in table.tolist()]
    assert (table[:: config.items] != table[1 :: config.items]).any(axis=1).all()
    heldout = corpus_of(config, "validation")
    if config.rule == "random":
        for key, ids in zip(listed(heldout, "text"), listed(heldout, "item"), strict=True):
            assert all(number in found[key, place] for place, number in enumerate(ids))


def test_small_spaces_leave_no_choice_out() -> None:
    config = dataclasses.replace(RANDOM, space=4)
    table = lookup.alternatives(config, np.arange(config.keys))
    assert (np.sort(table, axis=-1) == np.arange(4)).all()
    three = lookup.alternatives(dataclasses.replace(config, choices=3, keys=4000), np.arange(4000))
    left_out = 6 - three.astype(int).sum(axis=-1)
    assert np.bincount(left_out.ravel(), minlength=4) / left_out.size == pytest.approx(np.full(4, 0.25), abs=0.02)


def test_keys_are_written_in_decimals_or_as_a_token_for_each_attribute() -> None:
    train, heldout = corpus_of(RANDOM), corpus_of(RANDOM, "validation")
    assert [bytes(key).decode() for key in listed(train, "text")] == [f"{n:02d}" for n in range(50) for _ in range(5)]
    names = [bytes(key).decode() for key in listed(heldout, "text")]
    assert sorted(names) == [f"{n:02d}" for n in range(50)] != names
    with_attributes = dataclasses.replace(RANDOM, attributes=(2, 256, 3))
    keys = listed(corpus_of(with_attributes), "text")
    assert len(set(keys)) == 50
    assert (np.max(keys, axis=0) < [2, 256, 3]).all()
    assert np.max(keys, axis=0)[1] > 200


def test_all_combinations_of_attributes_are_keys_where_there_are_as_many() -> None:
    config = dataclasses.replace(COMPOSED, keys=420)
    keys = listed(corpus_of(config), "text") + listed(corpus_of(config, "validation"), "text")
    assert sorted(keys) == list(itertools.product(range(5), range(7), range(12)))
    many = dataclasses.replace(COMPOSED, space=2**64, attributes=(256,) * 8)
    keys = listed(corpus_of(many), "text")
    assert len(set(keys)) == 160
    assert (np.ptp(keys, axis=0) > 200).all()


def digit_maps(config: Lookup, split: str, assignment: object | None = None) -> list[tuple[tuple[int, ...], int]]:
    """Of a split, every (item, place, attribute there) and the digit there, one by one."""
    corpus, found = corpus_of(config, split), []
    for key, ids in zip(listed(corpus, "text"), listed(corpus, "item"), strict=True):
        for item, number in enumerate(ids):
            if isinstance(assignment, Random):
                (number,) = assignment.forward(np.array([number]), config.space, config.attributes).tolist()
            for place in reversed(range(len(config.attributes))):
                number, digit = divmod(number, config.attributes[place])
                found.append(((item, place, key[place]), digit))
    return found


@pytest.mark.parametrize(
    "config",
    [COMPOSED, dataclasses.replace(COMPOSED, keys=3000, space=2**64, attributes=(16,) * 16)],
    ids=["small", "huge"],
)
def test_composed_fragments_of_new_keys_follow_from_those_of_old_ones(config: Lookup) -> None:
    learned = dict(digit_maps(config, "train"))
    assert all(learned[where] == digit for where, digit in digit_maps(config, "train"))
    assert all(learned[where] == digit for where, digit in digit_maps(config, "validation"))
    assert len(set(learned.values())) == max(config.attributes)
    for item, place in itertools.product(range(config.items), range(len(config.attributes))):
        digits = [digit for (i, p, _), digit in learned.items() if (i, p) == (item, place)]
        assert sorted(digits) == list(range(config.attributes[place]))


def test_shuffled_ids_of_composed_fragments_follow_from_nothing() -> None:
    learned = dict(digit_maps(COMPOSED, "train", Random()))
    right = [learned[where] == digit for where, digit in digit_maps(COMPOSED, "validation", Random())]
    assert np.mean(right) < 0.25  # a guess is right in (1/5 + 1/7 + 1/12) / 3 of the cases


def test_held_out_keys_of_composed_fragments_are_new_ones() -> None:
    train, heldout = (set(listed(corpus_of(COMPOSED, split), "text")) for split in ("train", "validation"))
    assert not train & heldout
    assert (len(train), len(heldout)) == (160, 40)
    assert len(corpus_of(dataclasses.replace(COMPOSED, copies=3))) == 480
    assert len(corpus_of(dataclasses.replace(COMPOSED, copies=3), "validation")) == 40


@pytest.mark.parametrize("assignment", [None, Random(key=3)])
@pytest.mark.parametrize("config", [RANDOM, HUGE, dataclasses.replace(COMPOSED, choices=3)])
def test_the_optimum_of_digits_is_that_of_a_plain_sum(config: Lookup, assignment: object) -> None:
    vocabulary = config_of(config, assignments=(("item", assignment),) if assignment else ()).vocabulary
    (space,) = vocabulary.spaces
    keys = np.arange(40) if config.rule == "composed" else np.arange(config.keys)
    entropies = []
    for choices in lookup.alternatives(config, keys).reshape(-1, config.choices).tolist():
        ids = from_ints(choices, 2) if config.space > 2**63 else np.array(choices, np.int64)
        written = space.assignment.forward(ids, config.space, (10,) * 20)
        places = zip(*(f"{number:020d}" for number in to_ints(written)), strict=True)
        counts = [list(collections.Counter(place).values()) for place in places]
        entropies.append(sum(-n / len(choices) * math.log2(n / len(choices)) for count in counts for n in count))
    found = optimum_of_digits(config, vocabulary)
    assert found == pytest.approx(np.mean(entropies), rel=1e-9)
    assert found > optimum(config) + 0.4


def test_the_optimum_is_that_of_the_choices_and_of_one_digit_too() -> None:
    assert optimum(RANDOM) == 2
    assert optimum(COMPOSED) == 0
    assert optimum_of_digits(RANDOM, config_of(RANDOM, base=1000).vocabulary) == pytest.approx(2)
    assert optimum_of_digits(COMPOSED, config_of(COMPOSED).vocabulary) == 0


@pytest.mark.parametrize("source", [RANDOM, COMPOSED, HUGE], ids=["random", "composed", "huge"])
def test_records_read_at_once_are_those_read_one_by_one(source: Lookup) -> None:
    records = source.records("train")
    at_once = read(records, [7, 3, 3, 149])
    for place, found in zip([7, 3, 3, 149], at_once, strict=True):
        assert found["text"] == records[place]["text"]
        np.testing.assert_array_equal(found["item"], records[place]["item"])
    alone = read_split(config_of(source), "train", ("item",)).corpus().documents([7, 3, 3, 149], ("item",))
    np.testing.assert_array_equal(alone.ids, corpus_of(source).documents([7, 3, 3, 149], ("item",)).ids)


def arrays_of(column: Column) -> list[np.ndarray]:
    return [column.segments, *column._starts, *vars(column._whole).values()]


def test_a_million_records_are_encoded_in_flat_arrays(monkeypatch: pytest.MonkeyPatch) -> None:
    """What stays in memory is a few bytes for an item, and no object for a record."""
    source = Lookup(keys=2**12, space=2**14, items=4, choices=2, copies=16)
    corpus = read_split(config_of(source), "train", BOTH).corpus()
    held = {id(array): array for column in corpus.columns.values() for array in arrays_of(column)}
    arrays = list(held.values())
    assert all(isinstance(array, np.ndarray) and array.dtype != object for array in arrays)
    items = sum(int(column.items.sum()) for column in corpus.columns.values())
    assert sum(array.nbytes for array in arrays) < 16 * items


@pytest.mark.parametrize("space", [2**31 + 5, 2**32, 2**64])
def test_documents_of_large_spaces_can_be_read_back(space: int) -> None:
    source = dataclasses.replace(RANDOM, space=space)
    vocabulary = config_of(source, base=256, width="fixed", position="none", positions=1).vocabulary
    documents = corpus_of(source).documents(range(6), BOTH)
    rows = np.stack([row.array for row in encode(vocabulary, documents).split()])
    read_back = assemble(vocabulary, decode(vocabulary, PrimaryIds(jnp.asarray(rows))))
    assert [document[:2] for (document,) in read_back] == documents.to_list()
    assert vocabulary.limbs == (2 if space > 2**32 else 1)


def test_a_run_needs_no_files_and_its_validation_bits_can_be_measured(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    small = testing.shrink(load_experiment(LOOKUP), tmp_path / "nowhere")
    config = dataclasses.replace(
        small,
        data=dataclasses.replace(HUGE, items=4),
        train=dataclasses.replace(small.train, steps=6, checkpoint_every=6),
        model=dataclasses.replace(small.model, depth=1),
    )
    assert from_dict(to_dict(config)) == config
    prepare(config)
    outcome = train(config, tmp_path / "run")
    assert outcome.step == 6
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    assert sum(map(len, load_splits(config))) == 250
    bits = bits_per_item(
        config, model_of(config), outcome.state.params, read_split(config, "validation", BOTH).corpus(), 20
    )
    assert list(bits) == ["item|text"], "keys have no weight"
    assert bits["item|text"]["items"] == 4
    assert optimum(config.data) < bits["item|text"]["renormalised"] < 100


@pytest.mark.parametrize(
    "changes, field",
    [
        ({"keys": 0}, "keys"),
        ({"keys": 2**20 + 1}, "keys"),
        ({"keys": 65, "attributes": (8, 8)}, "keys"),
        ({"space": 1}, "space"),
        ({"space": 2**64 + 1}, "space"),
        ({"items": 0}, "items"),
        ({"choices": 0}, "choices"),
        ({"choices": 257}, "choices"),
        ({"choices": 5, "space": 4}, "choices"),
        ({"keys": 2**20, "items": 4, "choices": 17}, "choices"),
        ({"copies": 0}, "copies"),
        ({"keys": 2**20, "items": 4, "copies": 17}, "copies"),
        ({"seed": -1}, "seed"),
        ({"heldout": 1.0}, "heldout"),
        ({"attributes": (8, 1)}, "attributes"),
        ({"attributes": (257,)}, "attributes"),
        ({"attributes": (256,) * 9}, "attributes"),
        ({"rule": "composed"}, "attributes"),
        ({"rule": "composed", "attributes": (10, 10)}, "attributes"),
        ({"rule": "composed", "attributes": (3, 333), "space": 999, "choices": 4}, "attributes"),
        ({"rule": "composed", "attributes": (4, 250), "choices": 5}, "choices"),
        ({"rule": "composed", "attributes": (4, 250), "heldout": 0.001}, "heldout"),
        ({"rule": "composed", "attributes": (4, 250), "heldout": 0.999}, "heldout"),
    ],
)
def test_knobs_that_make_no_data_are_refused_by_their_name(changes: dict, field: str) -> None:
    config = load_experiment(LOOKUP)
    wrong = dataclasses.replace(dataclasses.replace(RANDOM, choices=1), **changes)
    with pytest.raises(ConfigError) as caught:
        dataclasses.replace(config, data=wrong)
    assert (caught.value.field, caught.value.value) == (f"data.{field}", getattr(wrong, field))


def test_there_is_nothing_for_beam_to_build() -> None:
    with pytest.raises(ConfigError, match="nothing to build"):
        prepare(config_of(RANDOM), Beam.__new__(Beam))  # which needs no Apache Beam here


def test_knobs_can_be_set_from_the_command_line() -> None:
    arguments = ["--data.rule", "composed", "--data.attributes", "64", "64", "64"]
    config: Config = override(load_experiment(LOOKUP), arguments)
    assert config.data.attributes == (64, 64, 64)
    assert to_digits(np.array([63]), config.data.attributes).tolist() == [[0, 0, 63]]


def test_there_is_nothing_to_prepare(capsys) -> None:
    assert main(["prepare", str(LOOKUP)]) == 0
    assert "stores nothing" in capsys.readouterr().out
