"""Which number a fragment is written as: every kind is a bijection, and has the property that it is there for."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from omnijax.errors import VocabularyError
from omnijax.vocab.assignment import (
    KINDS,
    Assignment,
    Frequency,
    Gray,
    Hilbert,
    Random,
    Transposed,
    Tree,
    assignment_from_dict,
)
from omnijax.vocab.assignment import random as random_module
from omnijax.vocab.assignment.curves import LARGEST_BOX
from omnijax.vocab.assignment.table import LARGEST_TABLE, packed
from omnijax.vocab.numbers import from_digits, from_ints, to_ints
from omnijax.vocab.radix import Base, radices_of, to_digits, width_of
from omnijax.vocab.vocabulary import Space, Vocabulary

BASES: tuple[Base, ...] = (2, 3, 9, (5, 2, 3, 4, 7, 6))


def factors(size: int) -> tuple[int, ...]:
    """Prime factors, so that any size has its box."""
    found, divisor = [], 2
    while size > 1:
        while size % divisor == 0:
            found.append(divisor)
            size //= divisor
        divisor += 1
    return tuple(found)


def embeddings(size: int) -> np.ndarray:
    return np.random.default_rng(size).standard_normal((size, 3)).astype(np.float32)


def transposed(sides: tuple[int, ...]) -> Transposed:
    axes = np.random.default_rng(len(sides)).permutation(len(sides))
    return Transposed(sides=sides, axes=tuple(axes.tolist()))


MAKE: dict[str, Callable[[int, Base], Assignment | None]] = {
    "identity": lambda size, base: KINDS["identity"](),
    "random": lambda size, base: Random(key=size % 5),
    "frequency": lambda size, base: Frequency.of(np.random.default_rng(size).integers(0, 9, size)),
    "gray": lambda size, base: Gray(),
    "hilbert": lambda size, base: Hilbert(sides=factors(size)) if size > 1 else None,
    "tree": lambda size, base: Tree.of(embeddings(size), base),
    "transposed": lambda size, base: transposed(factors(size)) if size > 1 else None,
}
WIDE = ("identity", "random", "gray", "hilbert", "transposed")


def radices_for(size: int, base: Base) -> tuple[int, ...]:
    return radices_of(base, width_of(size - 1, base))


def test_no_kind_is_left_out() -> None:
    assert set(MAKE) == set(KINDS)
    assert all(KINDS[name].kind == name for name in KINDS)


@pytest.mark.parametrize("kind", KINDS)
def test_a_bijection_of_every_small_space(kind: str) -> None:
    for size, base in [*itertools.product(range(1, 71), BASES), (1000, 10), (4096, 64), (4099, 17), (5040, BASES[3])]:
        assignment = MAKE[kind](size, base)
        if assignment is None:
            continue
        ids, radices = np.arange(size), radices_for(size, base)
        assignment.check(size, radices)
        numbers = assignment.forward(ids, size, radices)
        assert numbers.dtype == np.int64
        assert sorted(numbers.tolist()) == ids.tolist()
        assert assignment.inverse(numbers, size, radices).tolist() == ids.tolist()
        limbs = np.pad(ids[:, None], ((0, 0), (0, 1))).astype(np.uint32)  # the same in the other form
        assert to_ints(assignment.forward(limbs, size, radices)) == numbers.tolist()
        assert to_ints(assignment.inverse(limbs, size, radices)) == to_ints(assignment.inverse(ids, size, radices))


def wide_sizes(kind: str) -> st.SearchStrategy[tuple[int, tuple[int, ...]]]:
    """A size, and the sides of a box of that size."""
    if kind not in ("hilbert", "transposed"):
        return st.integers(1, 2**256).map(lambda size: (size, ()))
    boxes = st.tuples(st.integers(1, 16), st.integers(1, 24)).filter(lambda box: math.prod(box) <= 256)
    return boxes.map(lambda box: (2 ** math.prod(box), (2 ** box[0],) * box[1]))


@pytest.mark.parametrize("kind", WIDE)
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_wide_spaces_and_back(kind: str, data: Any) -> None:
    size, sides = data.draw(wide_sizes(kind))
    base = data.draw(st.sampled_from([2, 3, 64, 1000, 65536]))
    ids = data.draw(st.lists(st.integers(0, size - 1), max_size=5)) + [0, size - 1]
    boxes: dict[str, Callable[[tuple[int, ...]], Assignment]] = {"hilbert": lambda sides: Hilbert(sides=sides)}
    boxes["transposed"] = transposed
    assignment = boxes[kind](sides) if sides else MAKE[kind](size, base)
    assert assignment is not None
    radices = radices_for(size, base)
    assignment.check(size, radices)
    given = from_ints(ids, -(-max(1, size.bit_length()) // 32))
    numbers = assignment.forward(given, size, radices)
    assert (numbers.dtype, numbers.shape) == (given.dtype, given.shape)
    assert max(to_ints(numbers)) < size
    assert to_ints(assignment.inverse(numbers, size, radices)) == ids
    assert to_ints(assignment.forward(assignment.inverse(given, size, radices), size, radices)) == ids
    if size <= 2**62:
        assert assignment.forward(np.array(ids), size, radices).tolist() == to_ints(numbers)


@pytest.mark.parametrize("kind", KINDS)
def test_text_form_hash_and_fingerprint(kind: str) -> None:
    def vocabulary(assignment: Assignment) -> Vocabulary:
        return Vocabulary(8, 64, 5, spaces=(Space("x", 24, assignment=assignment), Space("y", 3)))

    one, other = MAKE[kind](24, 5), MAKE[kind](24, 5)
    assert one is not None
    again = assignment_from_dict(json.loads(json.dumps(dataclasses.asdict(one))))
    assert one == other == again
    assert hash(one) == hash(other) == hash(again)
    assert again.kind == kind
    made = vocabulary(one)
    assert Vocabulary.from_dict(json.loads(made.to_json())) == made
    assert vocabulary(again).fingerprint == made.fingerprint
    others = {name: vocabulary(make(24, 5)).fingerprint for name, make in MAKE.items()}  # type: ignore[arg-type]
    assert len(set(others.values())) == len(KINDS)


@pytest.mark.parametrize("kind", sorted(set(KINDS) - {"identity"}))
def test_what_the_space_has_not_is_refused(kind: str) -> None:
    assignment = MAKE[kind](24, 5)
    assert assignment is not None
    for wrong in (np.array([0, 24]), np.array([-1]), np.array([[3, 1]], np.uint32), np.array([1.0])):
        for way in (assignment.forward, assignment.inverse):
            with pytest.raises(VocabularyError, match="must be"):
                way(wrong, 24, (5, 5))


@pytest.mark.parametrize(
    "parts, field",
    [
        ({"kind": "magic"}, "assignment"),
        ({}, "assignment"),
        (None, "assignment"),
        ({"kind": "gray", "speed": 3}, "assignment.speed"),
        ({"kind": "random", "key": -1}, "assignment.key"),
        ({"kind": "random", "key": 1.0}, "assignment.key"),
        ({"kind": "hilbert"}, "assignment.sides"),
        ({"kind": "hilbert", "sides": [1, 24]}, "assignment.sides"),
        ({"kind": "hilbert", "sides": [5, 5]}, "assignment.sides"),
        ({"kind": "transposed"}, "assignment.sides"),
        ({"kind": "transposed", "sides": [1, 24], "axes": [0, 1]}, "assignment.sides"),
        ({"kind": "transposed", "sides": [5, 5], "axes": [0, 1]}, "assignment.sides"),
        ({"kind": "transposed", "sides": [4, 6], "axes": [0, 0]}, "assignment.axes"),
        ({"kind": "transposed", "sides": [4, 6], "axes": [0]}, "assignment.axes"),
        ({"kind": "transposed", "sides": [4, 6], "axes": [1.0, 0]}, "assignment.axes"),
        ({"kind": "frequency", "entries": 0, "table": ""}, "assignment.entries"),
        ({"kind": "frequency", "entries": LARGEST_TABLE + 1, "table": ""}, "assignment.entries"),
        ({"kind": "frequency", "entries": 24, "table": "?"}, "assignment.table"),
        ({"kind": "frequency", "entries": 24, "table": "AAAA"}, "assignment.table"),
        ({"kind": "frequency", "entries": 3, "table": packed(np.arange(3))}, "assignment.table"),
        ({"kind": "frequency", "entries": 2, "table": "AA=="}, "assignment.table"),
        ({"kind": "frequency", "entries": 3, "table": "BA=="}, "assignment.table"),
    ],
)
def test_what_can_be_no_bijection_of_the_space_is_refused(parts: Any, field: str) -> None:
    space = {"name": "x", "size": 24, "assignment": parts}
    with pytest.raises(VocabularyError) as caught:
        Vocabulary.from_dict({"positions": 4, "digits": 5, "base": 5, "spaces": [space]})
    assert caught.value.field.endswith(field)


def test_a_space_with_something_else_as_its_assignment_is_refused() -> None:
    with pytest.raises(VocabularyError, match=r"spaces\.x\.assignment") as caught:
        Vocabulary(4, 5, 5, spaces=(Space("x", 24, assignment="gray"),))  # type: ignore[arg-type]
    assert "Gray" in caught.value.rule


# ---------------------------------------------------------------------------------------------------- random


def feistel(key: int, size: int, number: int) -> int:
    """The keyed shuffle once more, in plain integers."""

    def mix(z: int) -> int:
        z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 % 2**64
        z = (z ^ z >> 27) * 0x94D049BB133111EB % 2**64
        return z ^ z >> 31

    bits = (size - 1).bit_length()
    lengths = bits // 2, bits - bits // 2
    while True:
        halves = [number % 2 ** lengths[0], number >> lengths[0]]
        for turn, round_key in enumerate(Random(key=key)._round_keys):
            source, target = 1 - turn % 2, turn % 2
            state = round_key
            for start in range(0, lengths[source], 32):
                state = mix(state ^ halves[source] >> start & 0xFFFFFFFF)
            mask = 0
            for pair in range(-(-lengths[target] // 64)):
                word = mix((state + pair * 0x9E3779B97F4A7C15) % 2**64) if pair else state
                mask |= (word >> 32 | word % 2**32 << 32) << 64 * pair
            halves[target] ^= mask % 2 ** lengths[target]
        number = halves[0] | halves[1] << lengths[0]
        if number < size:
            return number


@settings(max_examples=100, deadline=None)
@given(size=st.integers(1, 2**256), key=st.integers(0, 2**70), data=st.data())
def test_random_agrees_with_plain_integers(size: int, key: int, data: Any) -> None:
    numbers = data.draw(st.lists(st.integers(0, size - 1), min_size=1, max_size=4))
    expected = [feistel(key, size, number) for number in numbers]
    assert to_ints(Random(key=key).forward(from_ints(numbers, 9), size, ())) == expected


def test_random_shuffles_evenly() -> None:
    size, keys = 6, 2000
    counts = np.zeros((size, size), int)
    for key in range(keys):
        counts[np.arange(size), Random(key=key).forward(np.arange(size), size, ())] += 1
    spread = np.abs(counts - keys / size) / np.sqrt(keys / size)
    assert spread.max() < 4.5


@pytest.mark.parametrize("bits", [16, 31, 50, 96, 256])
def test_a_bit_of_the_id_flips_half_of_the_number(bits: int) -> None:
    random = np.random.default_rng(bits)
    ids = [int(random.integers(0, 2**62)) ** 5 % 2**bits for _ in range(400)]
    limbs = -(-bits // 32)
    before = to_ints(Random(key=7).forward(from_ints(ids, limbs), 2**bits, ()))
    for bit in (0, 1, bits // 2, bits - 1):
        flipped = from_ints([number ^ 1 << bit for number in ids], limbs)
        after = to_ints(Random(key=7).forward(flipped, 2**bits, ()))
        share = np.array([[(a ^ b) >> k & 1 for k in range(bits)] for a, b in zip(before, after)]).mean(axis=0)
        assert np.abs(share - 0.5).max() < 0.14, bit


def test_keys_differ() -> None:
    ids = np.arange(1000)
    shuffles = [tuple(Random(key=key).forward(ids, 1000, ())) for key in (0, 1, 2**64, 2**64 + 1)]
    assert len(set(shuffles)) == 4


def test_random_keeps_no_table(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    network = random_module._network

    def watched(keys: Any, bits: int, rounds: Any, numbers: Any) -> Any:
        sizes.append(len(numbers))
        return network(keys, bits, rounds, numbers)

    monkeypatch.setattr(random_module, "_network", watched)
    assignment = Random(key=1)
    assignment.forward(from_ints([5] * 100, 8), 2**255 + 1, ())
    assert max(sizes) == 100  # nothing but the items themselves
    assert sum(sizes) < 500  # less than two passes on average
    assert len(json.dumps(dataclasses.asdict(assignment))) < 40


# ---------------------------------------------------------------------------------------------------- gray


def gray_sequence(size: int, radices: tuple[int, ...]) -> Iterator[list[int]]:
    """Digits of all numbers below `size`, sweep by sweep, as the docstring says it."""
    if not radices:
        yield []
        return
    block = math.prod(radices[1:])
    for digit in range(-(-size // block)):
        sweep = list(gray_sequence(min(block, size - digit * block), radices[1:]))
        for rest in reversed(sweep) if digit % 2 else sweep:
            yield [digit, *rest]


@pytest.mark.parametrize("base", BASES, ids=str)
def test_gray_goes_through_the_numbers_sweep_by_sweep(base: Base) -> None:
    for size in [*range(1, 130), 720]:
        radices = radices_for(size, base)
        expected = from_digits(np.array(list(gray_sequence(size, radices))), radices).tolist()
        assert Gray().forward(np.arange(size), size, radices).tolist() == expected


@pytest.mark.parametrize("base", BASES, ids=str)
def test_neighbours_differ_in_one_digit_by_one(base: Base) -> None:
    for size in range(2, 400):
        radices = radices_for(size, base)
        numbers = Gray().forward(np.arange(size), size, radices)
        digits = np.array([to_digits(int(number), radices) for number in numbers])
        wrong = (np.abs(np.diff(digits, axis=0)).sum(axis=1) != 1).sum()
        assert wrong <= (0 if size % math.prod(radices[1:]) == 0 else len(radices) - 1)


def test_neighbours_differ_in_one_digit_in_a_wide_space() -> None:
    size, radices = 2**96, (64,) * 16
    start = from_ints([2**95 + 64 * 64 * 1000 - 50 + k for k in range(100)], 3)
    numbers = to_ints(Gray().forward(start, size, radices))
    digits = np.array([to_digits(number, radices) for number in numbers])
    assert (np.abs(np.diff(digits, axis=0)).sum(axis=1) == 1).all()


# ---------------------------------------------------------------------------------------------------- hilbert


def coordinates(ids: list[int], sides: tuple[int, ...]) -> np.ndarray:
    return np.array([to_digits(number, sides) for number in ids])


@pytest.mark.parametrize("sides", [(2,) * 7, (8,) * 3, (32, 32), (4,) * 5, (64,)], ids=str)
def test_the_curve_goes_from_neighbour_to_neighbour_cube_by_cube(sides: tuple[int, ...]) -> None:
    size, count = math.prod(sides), len(sides)
    points = coordinates(Hilbert(sides=sides).inverse(np.arange(size), size, ()).tolist(), sides)
    assert not points[0].any()
    assert (np.abs(np.diff(points, axis=0)).sum(axis=1) == 1).all()
    for side in (2**bit for bit in range(1, sides[0].bit_length() - 1)):
        cubes = points.reshape(-1, side**count, count) // side
        assert (cubes == cubes[:, :1]).all()


def test_the_curve_through_a_wide_cube() -> None:
    sides = (256,) * 12  # a 2×2 patch of RGB
    numbers = from_ints([3**60 - 200 + k for k in range(400)], 3)
    points = coordinates(to_ints(Hilbert(sides=sides).inverse(numbers, 2**96, ())), sides)
    assert (np.abs(np.diff(points, axis=0)).sum(axis=1) == 1).all()


@pytest.mark.parametrize("sides", [(17,) * 4, (3, 5, 2), (7,), (24, 24)], ids=str)
def test_a_box_is_gone_through_in_the_order_of_its_cube(sides: tuple[int, ...]) -> None:
    size, side = math.prod(sides), 2 ** (max(sides) - 1).bit_length()
    cube = (side,) * len(sides)
    order = Hilbert(sides=sides).inverse(np.arange(size), size, ())
    places = order[:, None] // np.array([math.prod(sides[k + 1 :]) for k in range(len(sides))]) % np.array(sides)
    inside = places @ side ** np.arange(len(sides))[::-1]
    assert (np.diff(Hilbert(sides=cube).forward(inside, side ** len(sides), ())) > 0).all()
    steps = np.abs(np.diff(places, axis=0)).sum(axis=1)
    assert steps.mean() < 1.2  # in order of the ids it is 1 + something for each coordinate


def test_boxes_too_large_for_a_table_are_refused() -> None:
    sides = (17,) * 6
    with pytest.raises(VocabularyError, match="equal powers of two") as caught:
        Hilbert(sides=sides).check(17**6, ())
    assert str(LARGEST_BOX) in caught.value.rule
    Hilbert(sides=(16,) * 64).check(2**256, ())


# ---------------------------------------------------------------------------------------------------- tables


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 3), min_size=1, max_size=40))
def test_the_commonest_fragment_is_number_0(counts: list[int]) -> None:
    expected = sorted(range(len(counts)), key=lambda id_: (-counts[id_], id_))
    assert Frequency.of(counts).ids.tolist() == expected


@pytest.mark.parametrize("counts", [[], [-1, 2], [[1]], ["a"], [np.nan]])
def test_counts_that_are_none_are_refused(counts: Any) -> None:
    with pytest.raises(VocabularyError, match="counts"):
        Frequency.of(counts)


def test_a_table_is_as_short_as_can_be() -> None:
    numbers = np.random.default_rng(0).permutation(2**15)
    table = packed(numbers)
    assert len(table) == 2**15 * 15 // 8 * 4 // 3
    assert len(repr(Frequency(entries=2**15, table=table))) < 80
    assert Frequency(entries=2**15, table=table).numbers.tolist() == numbers.tolist()


@pytest.mark.parametrize("numbers", [[0, 0], [1, 2], [-1, 0], [0, 2]])
def test_what_is_no_permutation_is_refused(numbers: list[int]) -> None:
    with pytest.raises(VocabularyError, match="two ids with the same number"):
        packed(np.array(numbers))


def test_equal_tables_are_equal_texts() -> None:
    assert packed(np.arange(3)) == "GA=="
    with pytest.raises(VocabularyError, match="filled up with zeros"):
        Frequency(entries=3, table="Gw==")  # the same numbers, and ones behind them


@pytest.mark.parametrize("base, size", [(8, 512), (2, 500), ((7, 3, 30), 600)], ids=str)
def test_fragments_that_share_digits_are_near(base: Base, size: int) -> None:
    points = embeddings(size).astype(np.float64)
    tree, radices = Tree.of(points, base), radices_for(size, base)
    distance = np.square(points[:, None] - points).sum(axis=-1)
    before = distance.mean()
    for place in range(1, len(radices)):
        prefix = tree.numbers // math.prod(radices[place:])
        same = (prefix[:, None] == prefix) & ~np.eye(size, dtype=bool)
        within = distance[same].mean()
        assert within < 0.95 * before  # each digit more says more
        before = within
    assert before < 0.3 * distance.mean()


def halved(points: np.ndarray, ids: np.ndarray) -> list[int]:
    """Balanced 2-means from the first principal axis on, half by half, until nothing is left to cut."""
    if len(ids) == 1:
        return [int(ids[0])]
    x = points[ids] - points[ids].mean(axis=0)
    direction = np.linalg.eigh(x.T @ x)[1][:, -1]
    for _ in range(30):
        order = np.argsort(x @ direction)
        direction = x[order[len(ids) // 2 :]].mean(axis=0)
    return halved(points, ids[order[: len(ids) // 2]]) + halved(points, ids[order[len(ids) // 2 :]])


def test_a_tree_is_as_tight_as_one_that_is_made_slowly() -> None:
    random = np.random.default_rng(0)
    points = 3 * random.standard_normal((64, 16))[random.integers(0, 64, 2048)] + random.standard_normal((2048, 16)) / 3

    def spread(order: np.ndarray) -> float:
        clusters = points[order].reshape(-1, 32, 16)
        return float(np.square(clusters - clusters.mean(axis=1, keepdims=True)).sum(axis=-1).mean())

    slow = spread(np.array(halved(points, np.arange(2048))))
    fast = [spread(Tree.of(points, 2, seed).ids) for seed in range(4)]
    assert np.mean(fast) < 1.15 * slow
    assert slow < 0.2 * spread(np.arange(2048))


def test_clusters_that_are_there_become_the_first_digit() -> None:
    random = np.random.default_rng(0)
    centres = np.array([[0.0, 0], [30, 0], [0, 30], [33, 34]])
    which = random.permutation(np.repeat(np.arange(4), 16))
    tree = Tree.of(centres[which] + random.standard_normal((64, 2)), 4)
    digit = tree.numbers // 16
    assert len({(int(cluster), int(first)) for cluster, first in zip(which, digit)}) == 4


def test_a_tree_is_made_from_its_seed_alone() -> None:
    points = embeddings(300)
    assert Tree.of(points, 8, seed=1) == Tree.of(points.copy(), 8, seed=1)
    assert Tree.of(np.ones((300, 2)), 8).entries == 300  # no direction to cut along: any tree will do


def test_a_tree_for_other_digits_is_refused() -> None:
    with pytest.raises(VocabularyError, match="radices") as caught:
        Vocabulary(8, 16, 8, spaces=(Space("x", 24, assignment=Tree.of(embeddings(24), 5)),))
    assert "(5, 5)" in caught.value.rule


@pytest.mark.parametrize("points", [np.zeros(3), np.zeros((0, 2)), np.full((3, 1), np.inf), np.array([["a"]])])
def test_embeddings_that_are_none_are_refused(points: Any) -> None:
    with pytest.raises(VocabularyError, match="embeddings"):
        Tree.of(points, 4)


# ---------------------------------------------------------------------------------------------------- borders


def test_importing_needs_no_training_library() -> None:
    code = (
        "import sys, omnijax.vocab.assignment, omnijax.vocab.growth\n"
        "print({'flax', 'grain', 'tensorflow_datasets', 'sklearn', 'orbax', 'optax'} & set(sys.modules))"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said.strip() == "set()"


# ------------------------------------------------------------------------------------------------ transposed


@given(st.lists(st.integers(2, 7), min_size=1, max_size=5), st.randoms(use_true_random=False))
def test_transposed_is_numpys_transpose(sides: list[int], random: Any) -> None:
    axes = random.sample(range(len(sides)), len(sides))
    size = math.prod(sides)
    order = np.arange(size).reshape(sides).transpose(axes).ravel()  # the id of each number
    found = Transposed(sides=tuple(sides), axes=tuple(axes)).inverse(np.arange(size), size, ())
    assert found.tolist() == order.tolist()


def test_transposed_reorders_the_bytes_of_a_wide_id() -> None:
    axes = (3, 0, 11, 5, 1, 2, 4, 6, 10, 8, 9, 7)
    content = bytes(range(100, 112))
    given = from_ints([int.from_bytes(content)], 3)
    (number,) = to_ints(Transposed(sides=(256,) * 12, axes=axes).forward(given, 2**96, ()))
    assert number.to_bytes(12) == bytes(content[axis] for axis in axes)
