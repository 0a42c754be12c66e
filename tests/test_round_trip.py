"""What is written is what is read: every option with every other, every id of a space, and ids of any size.

Encoder and slow reference, in Python integers, go through the whole product of the options. The decoder, which takes
a second to compile for each vocabulary, goes through as many of them as it takes for every two options to meet in every
way, and in a proof every three.
"""

from __future__ import annotations

import functools
import itertools
import math
import random
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
from hypothesis import given, settings
from hypothesis import strategies as st
from test_numbers import BASES, MIXED

from omnijax.errors import VocabularyError
from omnijax.vocab import numbers
from omnijax.vocab.assemble import assemble
from omnijax.vocab.decode import Kind, Reading, decode
from omnijax.vocab.documents import Documents, Segment
from omnijax.vocab.encode import count_tokens, encode
from omnijax.vocab.ids import GeneralIds, PrimaryIds, SecondaryIds
from omnijax.vocab.vocabulary import Space, Vocabulary

ROWS, TOKENS = 8, 64
OPTIONS: dict[str, tuple[Any, ...]] = {
    "layout": ("grouped", "inline"),
    "position": ("after", "before", "none"),
    "width": ("minimal", "fixed"),
    "digit_order": ("big", "little"),
    "position_places": (1, 2),
    "check_digit": (False, True),
    "base": ("one", "mixed"),
    "ids": ("narrow", "wide"),
}


def vocabulary_of(base: str, ids: str, **options: Any) -> Vocabulary:
    """A vocabulary with these options, where untyped segments, typed ones and general tokens can meet."""
    radices: Any = {"one": {"narrow": 4, "wide": 1000}, "mixed": {"narrow": (5, 2, 3, 4), "wide": (40000, 30011) * 4}}
    sizes = {"narrow": (40, 33), "wide": (2**40 + 1, 2**96)}[ids]
    largest = radices[base][ids] if base == "one" else max(radices[base][ids])
    return Vocabulary(
        general=2,
        positions={1: 7, 2: 3}[options["position_places"]],
        digits=largest + (options["digit_order"] == "little"),  # a digit token that is no digit, in one half of them
        base=radices[base][ids],
        spaces=(Space("x", sizes[0]), Space("y", sizes[1])),
        control=("y", "mixed", "eos"),
        **options,
    )


def random_orders(v: Vocabulary, document: reference.Document, source: random.Random) -> list[list[int]]:
    """Of each segment, an order of writing in which general tokens keep theirs."""
    orders = []
    for _, items in document:
        order = list(range(len(items)))
        if v.position != "none":
            source.shuffle(order)
            generals = iter(sorted(number for number in order if items[number][0] == reference.GENERAL))
            order = [next(generals) if items[number][0] == reference.GENERAL else number for number in order]
        orders.append(order)
    return orders


def flat_order(orders: list[list[list[int]]]) -> np.ndarray:
    """The same orders as `encode` takes them."""
    segments = [order for document in orders for order in document]
    starts = np.cumsum([0, *map(len, segments)])
    return np.array([start + number for start, order in zip(starts, segments) for number in order], np.int64)


def check(v: Vocabulary, documents: list[reference.Document], seed: int, decoded: bool = True) -> None:
    """Two writers write the same, in order and in some other order; the readers read the documents again."""
    source = random.Random(seed)
    flat = reference.to_library(documents, v)
    streams = [reference.encode(v, document) for document in documents]
    encoded = encode(v, flat)
    assert [part.array.tolist() for part in encoded.split()] == streams
    for counted, written in zip(count_tokens(v, flat), (encoded.segment_tokens, encoded.document_tokens), strict=True):
        np.testing.assert_array_equal(counted, written)
        assert counted.dtype == np.int64
    for document, stream in zip(documents, streams):
        assert reference.document_of(v, reference.read(v, stream)) == document
    orders = [random_orders(v, document, source) for document in documents]
    permuted = [reference.encode(v, document, order) for document, order in zip(documents, orders)]
    if v.position != "none":
        assert [part.array.tolist() for part in encode(v, flat, flat_order(orders)).split()] == permuted
    if decoded:
        check_reader(v, streams + permuted, flat.to_list() * 2)


def check_reader(v: Vocabulary, streams: list[list[int]], documents: list[list[Segment]]) -> None:
    """The decoder sees no error in these streams, and gives these documents."""
    tokens = np.zeros((len(streams), max(map(len, streams))), np.int32)
    for row, stream in zip(tokens, streams):
        row[: len(stream)] = stream
    reading = decode(v, PrimaryIds(jnp.asarray(tokens)))
    assert not np.asarray(reading.error).any()
    assert [document for (document,) in assemble(v, reading)] == documents


def readable(options: dict[str, Any]) -> bool:
    """What can be read back: without positions only fixed width says where a fragment ends."""
    return options["position"] != "none" or (options["width"] == "fixed" and options["position_places"] == 1)


@functools.cache
def where_all_meet(count: int) -> list[tuple[Any, ...]]:
    """A few readable combinations. For any `count` options, each choice of their values occurs in one of them."""
    every = [values for values in itertools.product(*OPTIONS.values()) if readable(dict(zip(OPTIONS, values)))]
    parts = {values: set(itertools.combinations(enumerate(values), count)) for values in every}
    missing, chosen = set().union(*parts.values()), []
    while missing:
        chosen.append(max(every, key=lambda values: len(parts[values] & missing)))
        missing -= parts[chosen[-1]]
    return chosen


def check_options(options: dict[str, Any], decoded: bool) -> None:
    """Random documents in the vocabulary with these options."""
    v, source = vocabulary_of(**options), random.Random(str(options))
    check(v, [reference.random_document(v, source, TOKENS) for _ in range(ROWS)], seed=1, decoded=decoded)


@pytest.mark.parametrize("ids", OPTIONS["ids"])
@pytest.mark.parametrize("base", OPTIONS["base"])
@pytest.mark.parametrize("width", OPTIONS["width"])
@pytest.mark.parametrize("position", OPTIONS["position"])
def test_every_option_with_every_other(position: str, width: str, base: str, ids: str) -> None:
    """The whole product of the options; what a vocabulary refuses to be is what could not be read back."""
    given = {"position": (position,), "width": (width,), "base": (base,), "ids": (ids,)}
    for values in itertools.product(*(OPTIONS | given).values()):
        options = dict(zip(OPTIONS, values))
        if not readable(options):
            with pytest.raises(VocabularyError, match="nothing says where an id ends|no position is written"):
                vocabulary_of(**options)
            continue
        check_options(options, decoded=values in where_all_meet(2))


@pytest.mark.proof
def test_the_decoder_reads_every_three_options() -> None:
    for values in where_all_meet(3):
        check_options(dict(zip(OPTIONS, values)), decoded=True)


# Many digits and few, with and without room for larger ids, one radix and several.
SOME_BASES = (2, 10, 512, MIXED[1])


@pytest.mark.parametrize(
    "base",
    [pytest.param(base, marks=() if base in SOME_BASES else pytest.mark.proof) for base in (*BASES, *MIXED)],
    ids=str,
)
def test_every_id_of_a_space_comes_back(base: int | tuple[int, ...]) -> None:
    """All 2^18 ids, through the compiled decoder: 256 documents of 1,024 items."""
    items, radix = 1024, max(base) if isinstance(base, tuple) else base
    v = Vocabulary(
        positions=items + 1,
        digits=radix,
        base=base,
        spaces=(Space("image", 2**18),),
        control=("image",),
        width="fixed",
        layout="inline",
    )
    ids = np.arange(2**18)
    segments = [Segment.of(v, "image", SecondaryIds("image", part)) for part in ids.reshape(-1, items)]
    flat = Documents.of([segment] for segment in segments)
    tokens = encode(v, flat).tokens.array.reshape(len(segments), -1)
    reading = jax.device_get(decode(v, PrimaryIds(jnp.asarray(tokens))))
    fragment = reading.kind == Kind.FRAGMENT
    assert not reading.error.any()
    np.testing.assert_array_equal(reading.id[fragment], ids)
    np.testing.assert_array_equal(reading.position[fragment].reshape(-1, items)[7], np.arange(1, items + 1))
    few: Reading = jax.tree.map(lambda field: field[::100], reading)
    assert assemble(v, few) == [[[segment]] for segment in segments[::100]]


@st.composite
def vocabularies(draw: st.DrawFn) -> Vocabulary:
    """Any options, radices up to 2^16, up to three spaces of any sizes up to 2^256 in all."""
    sizes = draw(st.lists(st.integers(0, 254).flatmap(lambda bits: st.integers(1, 2**bits)), min_size=1, max_size=3))
    one = st.integers(2, 2**16) | st.sampled_from([2, 10, 64, 2**16 - 1, 2**16])
    base: Any = draw(one)
    if draw(st.booleans()):
        base = tuple(draw(st.lists(one, min_size=1, max_size=20)))
        while math.prod(base) < sum(sizes):
            base = (*base, draw(one))
    position = draw(st.sampled_from(OPTIONS["position"]))
    return Vocabulary(
        general=draw(st.integers(1, 3)),
        positions=draw(st.integers(2, 12)),
        digits=2**16,
        base=base,
        spaces=tuple(Space(name, size) for name, size in zip("abc", sizes)),
        control=tuple(draw(st.permutations(["eos", "a", "mixed"]))),
        layout=draw(st.sampled_from(OPTIONS["layout"])),
        position=position,
        width=draw(st.sampled_from(OPTIONS["width"])) if position != "none" else "fixed",
        digit_order=draw(st.sampled_from(OPTIONS["digit_order"])),
        position_places=draw(st.integers(1, 3)) if position != "none" else 1,
        check_digit=draw(st.booleans()),
    )


@pytest.mark.parametrize(
    "base, position",
    [
        (2**16 + 1, "none"),
        (2**22, "after"),
        *(pytest.param(base, "none", marks=pytest.mark.proof) for base in (17**4, 2**18, 2**22)),
        *(pytest.param(base, "after", marks=pytest.mark.proof) for base in (2**16 + 1, 17**4, 2**18)),
    ],
)
def test_one_token_an_item_comes_back(base: int, position: Any) -> None:
    """Radices beyond 16 bits, typed in one digit and untyped in two, up to ids of 31 bits."""
    for last in (3, 2**31 - 1 - base):
        v = Vocabulary(
            general=3,
            positions=9,
            digits=base,
            base=base,
            spaces=(Space("a", base), Space("b", last)),
            control=("eos", "a", "b", "mixed"),
            layout="inline",
            position=position,
            width="fixed",
        )
        source = random.Random(base)
        check(v, [reference.random_document(v, source, 24) for _ in range(20)], base)


@settings(max_examples=25)
@given(vocabularies(), st.integers(0, 2**32))
def test_any_vocabulary_comes_back(v: Vocabulary, seed: int) -> None:
    source = random.Random(seed)
    longest = v.most_digits + 1 + v.position_places
    check(v, [reference.random_document(v, source, 4 * longest + 8) for _ in range(4)], seed, decoded=seed % 5 == 0)


@pytest.mark.parametrize("block", [1, 7, 64])
def test_the_borders_of_blocks_leave_no_trace(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many items are written at a time, the tokens are the same."""
    for v in reference.VOCABULARIES.values():
        source = random.Random(1)
        documents = [reference.random_document(v, source, TOKENS) for _ in range(20)]
        flat = reference.to_library(documents, v)
        whole = encode(v, flat)
        monkeypatch.setattr(numbers, "BLOCK", block)
        again = encode(v, flat)
        np.testing.assert_array_equal(whole.tokens.array, again.tokens.array)
        for name in ("segment_tokens", "document_tokens", "kinds"):
            np.testing.assert_array_equal(getattr(whole, name), getattr(again, name), name)
        monkeypatch.undo()


@pytest.mark.parametrize(
    "order, value",
    [([0, 2, 1, 3], 2), ([0, 1, 2, 2], 2), ([0, 1, 2, 4], 4), ([-1, 1, 2, 3], -1), ([1, 0, 2, 3], 0), ([0, 1], None)],
)
def test_an_order_that_cannot_be_undone_is_refused(order: list[int], value: int | None) -> None:
    """Items 0 and 1 are general tokens of one segment, 2 and 3 fragments of the next."""
    v = vocabulary_of("one", "narrow", layout="inline", position="before", width="fixed", position_places=1,
                      digit_order="big", check_digit=False)  # fmt: skip
    text = Segment.of(v, "mixed", GeneralIds(np.array([0, 1])))
    image = Segment.of(v, "y", SecondaryIds("y", np.array([5, 6])))
    flat = Documents.of([[text, image]])
    assert encode(v, flat, np.array([0, 1, 3, 2])).tokens.array.size == encode(v, flat).tokens.array.size
    with pytest.raises(VocabularyError) as caught:
        encode(v, flat, np.array(order))
    assert caught.value.field == "order"
    if value is not None:
        assert caught.value.value == value


def test_an_order_needs_positions() -> None:
    v = vocabulary_of("one", "narrow", layout="inline", position="none", width="fixed", position_places=1,
                      digit_order="big", check_digit=False)  # fmt: skip
    flat = Documents.of([[Segment.of(v, "y", SecondaryIds("y", np.array([5, 6])))]])
    with pytest.raises(VocabularyError, match="nothing says where an item belongs"):
        encode(v, flat, np.array([1, 0]))


def test_ids_have_one_meaning_in_either_form() -> None:
    """int64 or limbs, in a narrow vocabulary and in a wide one, mixed in one document."""
    for width in ("narrow", "wide"):
        v = vocabulary_of("one", width, layout="grouped", position="after", width="minimal", position_places=1,
                          digit_order="big", check_digit=False)  # fmt: skip
        ids = np.array([0, 3, 32])
        flat = Documents.of([[Segment.of(v, "y", SecondaryIds("y", ids))] * 2])
        limbs = [Segment.of(v, "y", SecondaryIds("y", numbers.to_limbs(ids, count))) for count in (1, 3)]
        assert limbs[0] == limbs[1] == flat.to_list()[0][0]
        for mixed in (limbs, [limbs[1], flat.to_list()[0][0]]):
            np.testing.assert_array_equal(encode(v, Documents.of([mixed])).tokens.array, encode(v, flat).tokens.array)
        beyond = numbers.from_ints([0, 2**96], 4)
        with pytest.raises(VocabularyError) as caught:
            encode(v, Documents.of([[Segment.of(v, "y", SecondaryIds("y", beyond))]]))
        assert (caught.value.field, caught.value.value) == ("item 2 of segment 0: id in y", 2**96)
        with pytest.raises(VocabularyError, match="0 or more"):
            Documents.of([[limbs[0], Segment.of(v, "y", SecondaryIds("y", np.array([-1])))]])
