"""The legal next tokens: exactly those that some document goes on with, of which small vocabularies have few."""

from __future__ import annotations

import functools
import itertools
import random
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
from jax import lax
from reference import UNMARKED, VOCABULARIES, WAYS

from omnijax.errors import VocabularyError
from omnijax.vocab.assemble import assemble
from omnijax.vocab.decode import Error, Reading, decode
from omnijax.vocab.documents import Documents
from omnijax.vocab.encode import encode
from omnijax.vocab.grammar import Grammar
from omnijax.vocab.vocabulary import PAD, Space, Vocabulary

ROWS, TOKENS = 64, 40
WALKED = [
    "typed grouped after minimal",
    "typed grouped before fixed",
    "typed grouped none fixed",
    "typed inline after fixed",
    "typed inline before minimal",
    "large, small base",
    "narrow",
]
walked = pytest.mark.parametrize("name", WALKED)


@functools.partial(jax.jit, static_argnums=0)
def follow(grammar: Grammar, forced: jax.Array, wished: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Walks under the mask, batched: the forced token, or where it is -1 the first legal one from the wished one on.

    Returns:
        int32[rows, tokens] what was taken, bool whether it was legal, bool whether anything was.
    """
    column = jnp.arange(grammar.vocabulary.size)

    def step(state: Any, now: tuple[jax.Array, jax.Array]) -> Any:
        forced_b, wished_b = now
        mask = grammar.mask(state)
        distance = jnp.where(mask, (column[None] - wished_b[:, None]) % column.size, column.size)
        token = jnp.where(forced_b < 0, jnp.argmin(distance, axis=-1).astype(jnp.int32), forced_b)
        legal = jnp.take_along_axis(mask, token[:, None], axis=-1)[:, 0]
        return grammar.advance(state, token), (token, legal, mask.any(axis=-1))

    walk = lax.scan(step, grammar.start(forced.shape[0]), (forced.T, wished.T))[1]
    tokens, legal, some = (part.T for part in walk)
    return tokens, legal, some


def accepted(grammar: Grammar, streams: np.ndarray) -> np.ndarray:
    """Which tokens are legal, each after those before it."""
    return np.asarray(follow(grammar, jnp.asarray(streams, jnp.int32), jnp.zeros(streams.shape, jnp.int32))[1])


def padded(streams: list[list[int]], tokens: int = TOKENS) -> np.ndarray:
    array = np.zeros((len(streams), tokens), np.int32)
    for row, stream in zip(array, streams):
        row[: len(stream)] = stream
    return array


@walked
def test_what_the_encoder_writes_is_legal(name: str) -> None:
    """Up to the padding behind it, and in every part."""
    v, source = VOCABULARIES[name], random.Random(6)
    documents = [reference.random_document(v, source, TOKENS) for _ in range(ROWS)]
    streams = padded([reference.encode(v, document) for document in documents])
    legal = accepted(Grammar(v), streams)
    assert legal.all(), streams[np.flatnonzero(~legal.all(axis=-1))[0]]


@walked
def test_random_walks_are_documents(name: str) -> None:
    v, source = VOCABULARIES[name], np.random.default_rng(7)
    wished = source.integers(0, v.size, (ROWS, TOKENS))
    edges = np.array(
        [1, v.position_start, v.digit_start, v.digit_start + v.base - 1, v.aos, v.control_start, v.size - 1]
    )
    wished = np.where(source.random(wished.shape) < 0.6, source.choice(edges, wished.shape), wished)
    forced = jnp.full((ROWS, TOKENS), -1, jnp.int32)
    tokens, legal, some = follow(Grammar(v), forced, jnp.asarray(wished, jnp.int32))
    assert legal.all()
    assert some.all()

    reading = decode(v, tokens)
    errors = np.asarray(reading.error)
    # Without `eos`, only padding closes a document.
    ended = np.asarray((tokens == (PAD if v.end is None else v.end)).any(axis=-1))
    assert ended.sum() >= ROWS // 8
    assert not errors[ended].any()
    assert set(np.unique(errors)) <= {Error.NONE, Error.CUT_OFF}
    assert not errors[:, :-1].any()
    for row in np.flatnonzero(ended):
        (document,) = assemble(v, Reading(*(field[row : row + 1] for field in reading)))[0]
        written = encode(v, Documents.of([document])).tokens
        np.testing.assert_array_equal(tokens[row, : written.size], written)
        assert not np.asarray(tokens)[row, written.size :].any()


def tiny(way: tuple[str, str, str], **changes: Any) -> Vocabulary:
    layout, position, width = way
    parts: dict[str, Any] = {
        "general": 1,
        "positions": 3,
        "digits": 3,
        "base": 2,
        "spaces": (Space("a", 3),),
        "control": ("a", "mixed", "eos"),
    }
    return Vocabulary(**{**parts, "layout": layout, "position": position, "width": width, **changes})


def check_legal_sets(grammar: Grammar, documents: list[list[int]], longest: int, least: int) -> None:
    """Holds the masks after all prefixes of up to `longest` tokens against the documents that begin with them."""
    follows = reference.legal_next(grammar.vocabulary, documents)
    prefixes = [list(prefix) for prefix in follows if len(prefix) <= longest]
    assert len(prefixes) >= least
    tokens = jnp.asarray(padded(prefixes, longest + 1))
    masks = np.asarray(jax.jit(grammar.masks)(tokens))
    symbols = grammar.vocabulary.symbols()
    for prefix, mask in zip(prefixes, masks):
        found = set(np.flatnonzero(mask[len(prefix)]).tolist())
        wanted = follows[tuple(prefix)]
        assert found == wanted, (
            f"after {[symbols[t] for t in prefix]}: too many {[symbols[t] for t in found - wanted]}, "
            f"missing {[symbols[t] for t in wanted - found]}"
        )


@pytest.mark.parametrize("way", WAYS, ids=" ".join)
def test_legal_is_what_some_document_goes_on_with(way: tuple[str, str, str]) -> None:
    """What can follow five tokens can be completed with two more, `eos` not counted."""
    v = tiny(way)
    documents = reference.all_documents(v, 7 if way == WAYS[9] else 8, {}, [UNMARKED, 0, 1])
    check_legal_sets(Grammar(v), documents, 5, 150)


@pytest.mark.parametrize("way", [WAYS[0], WAYS[8]], ids=" ".join)
def test_without_control_tokens(way: tuple[str, str, str]) -> None:
    """Padding closes a document then; and several spaces share the digits."""
    spaces = (Space("t", 1), Space("x", 2)) if way[2] == "minimal" else (Space("x", 3),)
    v = tiny(way, control=(), spaces=spaces)
    check_legal_sets(Grammar(v), reference.all_documents(v, 10, {}, [UNMARKED]), 7, 50)


@pytest.mark.parametrize("way", [WAYS[2], WAYS[8]], ids=" ".join)
def test_several_spaces(way: tuple[str, str, str]) -> None:
    """One of them can't be written with fixed width, for lack of a marker."""
    v = tiny(way, spaces=(Space("a", 2), Space("b", 5)), control=("mixed", "a", "eos"), general=0)
    check_legal_sets(Grammar(v), reference.all_documents(v, 9, {}, [UNMARKED, 0, 1]), 5, 30)


@pytest.mark.parametrize("way, most_tokens", [(WAYS[0], 12), (WAYS[8], 11)])
def test_numbers_of_items(way: tuple[str, str, str], most_tokens: int) -> None:
    v = tiny(way, positions=4, spaces=(Space("a", 2),))
    items = {"a": (2, 2), "mixed": (1, 3)}
    documents = reference.all_documents(v, most_tokens, items, [UNMARKED, 0, 1])
    check_legal_sets(Grammar.of(v, items), documents, 6, 200)


@pytest.mark.parametrize("way", [WAYS[7]], ids=" ".join)
def test_closers(way: tuple[str, str, str]) -> None:
    """`("eos",)` allows one segment, whichever marker opens it."""
    v = tiny(way)
    segments = [s for marker in (UNMARKED, 0, 1) for s in reference.all_segments(v, marker, 10, 0, 10)]
    documents = [reference.encode(v, [segment]) for segment in segments]
    documents = [tokens for tokens in documents if len(tokens) > 1]
    check_legal_sets(Grammar.of(v, {}, ("eos",)), documents, 7, 60)


def test_a_fixed_number_of_items_is_met() -> None:
    v = VOCABULARIES["typed inline before fixed"]
    grammar = Grammar.of(v, {"image": (3, 3)}, ("eos",))
    wished = np.random.default_rng(8).integers(0, v.size, (ROWS, TOKENS))
    forced = np.full((ROWS, TOKENS), -1, np.int32)
    forced[:, 0] = v.token("image")
    tokens, legal, _ = follow(grammar, jnp.asarray(forced), jnp.asarray(wished, jnp.int32))
    assert legal.all()
    for (document,) in assemble(v, decode(v, tokens)):
        assert [(segment.marker, segment.ids.size) for segment in document] == [(0, 3)]


SIZES = (1, 2, 3, 4, 5, 8, 9, 10, 14, 26, 27)


@pytest.mark.parametrize("position, width", [("before", "fixed"), ("after", "minimal")])
def test_a_number_is_legal_when_it_is_below_the_size(position: Any, width: Any) -> None:
    """All digit strings, for sizes that are powers of the base and for others."""
    spaces = tuple(Space(f"s{size}", size) for size in SIZES)
    v = Vocabulary(
        positions=2,
        digits=4,
        base=3,
        spaces=spaces,
        control=tuple(space.name for space in spaces),
        layout="inline",
        position=position,
        width=width,
    )
    streams, fine = [], []
    for index, size in enumerate(SIZES):
        places = reference.digit_places(v, index)
        for length in [places] if width == "fixed" else range(1, places + 2):
            for digits in itertools.product(range(4), repeat=length):
                written = [v.digit_start + digit for digit in digits]
                place = [v.position_start + 1]
                item = {"before": place + written, "none": written, "after": written + place}[position]
                streams.append([v.token(f"s{size}"), *item])
                number = functools.reduce(lambda value, digit: value * 3 + digit, digits)
                leading_zero = width == "minimal" and length > 1 and digits[0] == 0
                fine.append(max(digits) < 3 and number < size and not leading_zero)
    found = accepted(Grammar(v), padded(streams, 8)).all(axis=-1)
    assert found.tolist() == fine


def test_the_largest_id() -> None:
    v = VOCABULARIES["large, small base"]
    segment = (v.control.index("b"), [(1, v.spaces[1].size - 1)])
    last = padded([reference.encode(v, [segment])] * ROWS)
    digit = int(np.flatnonzero((last[0] >= v.digit_start) & (last[0] < v.aos))[-1])
    beyond = last.copy()
    beyond[:, digit] += 1
    assert accepted(Grammar(v), last).all()
    assert not accepted(Grammar(v), beyond)[:, digit].any()


def test_reading_in_parts() -> None:
    v, source = VOCABULARIES["typed grouped before minimal"], random.Random(9)
    grammar = Grammar(v)
    tokens = padded([reference.encode(v, reference.random_document(v, source, TOKENS)) for _ in range(4)])
    tokens = jnp.asarray(tokens)
    half = jax.jit(grammar.read)
    state, first = half(grammar.start(4), tokens[:, : TOKENS // 2])
    _, second = half(state, tokens[:, TOKENS // 2 :])
    whole = jax.jit(grammar.masks)(tokens)
    np.testing.assert_array_equal(jnp.concatenate([first, second], axis=1), whole)
    assert whole.shape == (4, TOKENS, v.size)
    assert whole.dtype == bool


@pytest.mark.parametrize(
    "items, closers, field, value",
    [
        ({"smell": (1, 1)}, None, "control", "smell"),
        ({"image": (3, 2)}, None, "items of image", (3, 2)),
        ({"image": (-1, 2)}, None, "items of image", (-1, 2)),
        ({"image": (5, 5)}, None, "items of image", 5),
        ({}, ("eos", "smell"), "control", "smell"),
        ({}, (), "closers", ()),
    ],
)
def test_what_can_not_be_asked_for(items: Any, closers: Any, field: str, value: Any) -> None:
    with pytest.raises(VocabularyError) as caught:
        Grammar.of(VOCABULARIES["typed grouped after fixed"], items, closers)
    assert caught.value.field == field
    assert caught.value.value == value


def test_items_where_none_can_stand() -> None:
    v = VOCABULARIES["narrow"]
    with pytest.raises(VocabularyError) as caught:
        Grammar.of(v, {"text": (1, 4)})
    assert caught.value.field == "items of text"
    assert Grammar.of(v, {"text": (0, 4), "image": (1, 3)}).items


def test_a_grammar_is_a_value() -> None:
    v = VOCABULARIES["narrow"]
    assert hash(Grammar.of(v, {"image": (1, 2)})) == hash(Grammar(v, (("image", 1, 2),)))
    assert Grammar.of(v, {"image": (1, 2)}) != Grammar(v)
