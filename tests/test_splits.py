"""Splits by groups: no group on two sides, and no record moves when others come."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from omnijax.data.splits import Shares, assign
from omnijax.errors import ConfigError, DataError

KINDS = ("speaker", "word")
shares_of = st.builds(Shares, st.sampled_from([0.0, 0.2, 0.5]), st.sampled_from([0.0, 0.1, 0.3]))


@st.composite
def groups_of(draw: st.DrawFn) -> dict[str, list[object]]:
    """Keys of up to three kinds for up to 60 records."""
    kinds, count = draw(st.integers(1, 3)), draw(st.integers(1, 60))
    key = st.one_of(st.integers(0, 9), st.text("abc", max_size=2), st.binary(max_size=1))
    return {f"kind{k}": draw(st.lists(key, min_size=count, max_size=count)) for k in range(kinds)}


@settings(max_examples=200)
@given(groups_of(), shares_of, st.integers(0, 3))
def test_no_group_is_in_two_splits_and_every_record_is_counted(groups, shares: Shares, seed: int) -> None:
    places, mixed = assign(groups, shares, seed)
    assert set(places) == set(shares.names)
    for keys in groups.values():
        for one, other in itertools.combinations(places.values(), 2):
            assert not {keys[k] for k in one} & {keys[k] for k in other}
    taken = np.concatenate(list(places.values()))
    assert len(set(taken.tolist())) == len(taken)
    assert len(taken) + mixed == len(next(iter(groups.values())))
    assert all((np.diff(those) > 0).all() for those in places.values())
    if len(groups) == 1:
        assert mixed == 0


@settings(max_examples=200)
@given(groups_of(), groups_of(), shares_of, st.integers(0, 3), st.randoms())
def test_records_stay_where_they_are_when_others_come(groups, more, shares: Shares, seed: int, random) -> None:
    count = len(groups["kind0"])
    total = count + len(more["kind0"])
    longer = {kind: [*keys, *more.get(kind, more["kind0"])][:total] for kind, keys in groups.items()}
    order = list(range(len(longer["kind0"])))
    random.shuffle(order)
    shuffled = {kind: [keys[k] for k in order] for kind, keys in longer.items()}
    before, after = assign(groups, shares, seed).places, assign(shuffled, shares, seed).places
    for split, places in before.items():
        assert {order[k] for k in after[split]} & set(range(count)) == set(places.tolist())


def test_shares_are_those_of_the_groups() -> None:
    keys = {"speaker": np.repeat(np.arange(20_000), 2)}
    places, _ = assign(keys, Shares(0.2, 0.05), 0)
    found = {name: len(those) / 40_000 for name, those in places.items()}
    assert found == pytest.approx({"train": 0.75, "validation": 0.2, "test": 0.05}, abs=0.01)
    assert np.array_equal(assign(keys, Shares(0.5, 0.05), 0).places["test"], places["test"])
    other = assign(keys, Shares(0.2, 0.05), 1).places["test"]
    assert 0.02 < np.isin(other, places["test"]).mean() < 0.1


def test_the_assignment_is_the_same_on_every_machine_and_for_every_kind_of_number() -> None:
    """Written down: it must never change, since runs and publications rely on it."""
    keys = [3, 1, 4, 1, 5, 9, 2, 6]
    for same in (keys, np.array(keys), np.array(keys, np.uint8)):
        assert assign({"speaker": same}, Shares(0.3, 0.3), 0).places["test"].tolist() == EXPECTED
    assert assign({"word": keys}, Shares(0.3, 0.3), 0).places["test"].tolist() != EXPECTED


EXPECTED = [0, 1, 3, 4, 6]


def test_one_kind_alone_can_be_held_out() -> None:
    random = np.random.default_rng(0)
    groups = {"speaker": random.integers(0, 40, 4000), "word": random.integers(0, 30, 4000)}
    places, mixed = assign(groups, Shares(0.2, 0.2, kinds=KINDS), 0)
    assert set(places) == {"train", "validation", "test", "test/speaker", "test/word"}
    train = {kind: set(keys[places["train"]]) for kind, keys in groups.items()}
    test = {kind: set(keys[places["test"]]) for kind, keys in groups.items()}
    for held, other in (KINDS, KINDS[::-1]):
        alone = places[f"test/{held}"]
        assert len(alone) > 100
        assert set(groups[held][alone]) <= test[held]
        assert set(groups[other][alone]) <= train[other]
    assert sum(map(len, places.values())) + mixed == 4000
    assert mixed > 0


@pytest.mark.parametrize(
    "shares, kinds, field",
    [
        (Shares(validation=-0.1), (), "validation"),
        (Shares(test=1.0), (), "test"),
        (Shares(0.5, 0.5), (), "validation"),
        (Shares(kinds=("speaker",)), (), "kinds"),
        (Shares(kinds=("speaker",)), ("speaker",), "kinds"),
        (Shares(kinds=("speaker",), test=0.0), KINDS, "kinds"),
        (Shares(kinds=("clip",)), KINDS, "kinds"),
    ],
)
def test_impossible_shares_are_refused(shares: Shares, kinds: tuple[str, ...], field: str) -> None:
    with pytest.raises(ConfigError) as caught:
        shares.check("data.shares", kinds)
    assert caught.value.field == f"data.shares.{field}"


def test_a_record_without_a_group_is_refused() -> None:
    with pytest.raises(DataError, match="record 1: speaker"):
        assign({"speaker": ["a", None]}, Shares(), 0)
