"""Exact bits per item: against sums in plain floats, the same in every radix, and of distributions that sum to 1."""

from __future__ import annotations

import math
import random
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
from reference import VOCABULARIES

from omnijax.vocab import likelihood
from omnijax.vocab.grammar import Grammar, SegmentRule
from omnijax.vocab.ids import PrimaryIds
from omnijax.vocab.likelihood import token_bits
from omnijax.vocab.vocabulary import Space, Vocabulary

TOKENS = 40
item_bits = jax.jit(likelihood.item_bits, static_argnums=0)

some_vocabularies = pytest.mark.parametrize(
    "name",
    [
        "plain grouped after minimal",
        pytest.param("typed grouped after fixed", marks=pytest.mark.proof),
        pytest.param("typed inline before minimal", marks=pytest.mark.proof),
        "typed inline none fixed",
        pytest.param("large, small base", marks=pytest.mark.proof),
        "mixed radix, little, two position places",
        "mixed radix, check, room to grow",
        "little, check",
        "wide, two position places",
    ],
)


def some_streams(v: Vocabulary, rows: int) -> np.ndarray:
    source = random.Random(10)
    array = np.zeros((rows, TOKENS), np.int32)
    for row in array:
        tokens = reference.encode(v, reference.random_document(v, source, TOKENS))
        row[: len(tokens)] = tokens
    return array


@some_vocabularies
def test_item_bits_are_those_of_the_reference(name: str) -> None:
    """Of whole documents, and of streams with errors, where only what was read has bits."""
    v, source = VOCABULARIES[name], np.random.default_rng(11)
    streams = some_streams(v, 32)
    damaged = np.where(source.random(streams.shape) < 0.1, source.integers(0, v.size, streams.shape), streams)
    streams = np.concatenate([streams, damaged]).astype(np.int32)
    bits = source.gamma(2.0, 3.0, streams.shape).astype(np.float32)
    found = item_bits(v, PrimaryIds(jnp.asarray(streams)), jnp.asarray(bits))
    assert found.places.shape == (*streams.shape, v.most_digits)
    for row, (tokens, values) in enumerate(zip(streams.tolist(), bits.tolist())):
        expected = reference.item_bits(v, tokens, values)
        np.testing.assert_allclose(found.content[row], [item.content for item in expected], rtol=1e-5)
        np.testing.assert_allclose(found.position[row], [item.position for item in expected], rtol=1e-6)
        np.testing.assert_allclose(found.check[row], [item.check for item in expected], rtol=1e-6)
        np.testing.assert_allclose(found.places[row], [item.places for item in expected], rtol=1e-6)


@some_vocabularies
def test_bits_by_place_sum_to_the_bits_of_the_digits(name: str) -> None:
    v, source = VOCABULARIES[name], np.random.default_rng(12)
    streams = some_streams(v, 64)
    bits = source.gamma(2.0, 3.0, streams.shape).astype(np.float32)
    found = item_bits(v, PrimaryIds(jnp.asarray(streams)), jnp.asarray(bits))
    general = (streams >= 1) & (streams < v.position_start)
    np.testing.assert_allclose(found.content[~general], found.places.sum(axis=-1)[~general], rtol=1e-5)
    np.testing.assert_array_equal(found.content[general], bits[general])
    assert not np.asarray(found.places)[general].any()
    # All bits but those of aos, the markers, eos and padding.
    items = (streams >= 1) & (streams < v.aos)
    np.testing.assert_allclose(
        sum(part.sum(axis=-1) for part in found[:3]), np.where(items, bits, 0).sum(axis=-1), rtol=1e-5
    )


def test_one_stream_alone() -> None:
    v = VOCABULARIES["plain grouped after minimal"]
    streams = some_streams(v, 64)
    bits = np.random.default_rng(13).random(streams.shape).astype(np.float32)
    together = item_bits(v, PrimaryIds(jnp.asarray(streams)), jnp.asarray(bits))
    alone = item_bits(v, PrimaryIds(jnp.asarray(streams[2])), jnp.asarray(bits[2]))
    for whole, one in zip(together, alone):
        np.testing.assert_array_equal(whole[2], one)


def test_token_bits() -> None:
    logits = jnp.log(jnp.array([[0.5, 0.25, 0.125, 0.125], [0.1, 0.2, 0.3, 0.4]]))
    legal = jnp.array([[True, False, False, True], [True] * 4])
    raw, renormalised = token_bits(logits + 7, PrimaryIds(jnp.array([3, 1])), legal)
    np.testing.assert_allclose(raw, [3, -math.log2(0.2)], rtol=1e-5)
    np.testing.assert_allclose(renormalised, [-math.log2(0.2), -math.log2(0.2)], rtol=1e-5)
    assert raw.dtype == renormalised.dtype == jnp.float32
    low = token_bits(logits.astype(jnp.bfloat16), PrimaryIds(jnp.array([3, 1])), legal)
    assert low.raw.dtype == jnp.float32


@pytest.mark.parametrize("name", ["typed grouped after fixed", "typed inline before minimal"])
def test_renormalised_is_at_most_raw(name: str) -> None:
    """Never more, less where an illegal token has a share, and the same where all the mass is on legal ones."""
    v = VOCABULARIES[name]
    tokens = PrimaryIds(jnp.asarray(some_streams(v, 32)))
    logits = jnp.asarray(np.random.default_rng(14).normal(0, 3, (*tokens.array.shape, v.size)), jnp.float32)
    legal = jax.jit(Grammar(v).masks)(tokens)
    raw, renormalised = token_bits(logits, tokens, legal)
    assert np.isfinite(renormalised).all()
    assert (np.asarray(renormalised) >= -1e-5).all()
    assert (np.asarray(raw - renormalised) >= -1e-5).all()
    assert ((np.asarray(raw - renormalised) > 1e-4) | np.asarray(legal.all(axis=-1))).mean() > 0.9
    raw, renormalised = token_bits(jnp.where(legal, logits, -jnp.inf), tokens, legal)
    np.testing.assert_allclose(raw, renormalised, rtol=1e-6)


SIZE = 50


def conditional_logits(v: Vocabulary, streams: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Log probabilities of the next token, given those before it, of a model that draws ids from a distribution.

    It opens a segment of one item at position 1, and spends half of each token's probability on what can't follow, so
    that raw and renormalised bits differ by one bit a token.
    """
    documents = [reference.encode(v, [(0, [(0, number)])]) for number in range(SIZE)]
    logits = np.full((*streams.shape, v.size), -np.inf)
    for row, stream in enumerate(streams.tolist()):
        for place in range(len(stream)):
            following = np.zeros(v.size)
            for tokens, share in zip(documents, probabilities):
                tokens = [*tokens, *[0] * (len(stream) - len(tokens))]
                if tokens[:place] == stream[:place]:
                    following[tokens[place]] += share
            following /= following.sum()
            following[v.digits + v.digit_start - 1] += 1  # a digit not below the base
            with np.errstate(divide="ignore"):
                logits[row, place] = np.log(following / 2)
    return logits


WAYS = [
    {"position": "before", "base": 2},
    {"position": "before", "base": (4, 3, 5), "digit_order": "little"},
    {"position": "none", "base": (3, 17), "check_digit": True},
    {"position": "after", "base": 3, "width": "minimal"},
]
MORE_WAYS = [
    {"position": "before", "base": 10},
    {"position": "before", "base": (4, 3, 5)},
    {"position": "before", "base": 2, "digit_order": "little"},
    {"position": "before", "base": 10, "digit_order": "little"},
    {"position": "before", "base": 3, "check_digit": True},
    {"position": "none", "base": 7},
    {"position": "after", "base": (5, 11), "width": "minimal", "digit_order": "little"},
]


@pytest.mark.parametrize("way", [*WAYS, *(pytest.param(way, marks=pytest.mark.proof) for way in MORE_WAYS)], ids=str)
def test_bits_do_not_depend_on_the_way_of_writing(way: dict[str, Any]) -> None:
    """The same distribution over ids, as a model would express it in each radix, order and width."""
    probabilities = np.random.default_rng(15).dirichlet(np.full(SIZE, 0.3))
    probabilities = 0.99 * probabilities + 0.01 / SIZE
    largest = max(way["base"]) if isinstance(way["base"], tuple) else way["base"]
    v = Vocabulary(
        general=0, positions=2, digits=largest + 1, spaces=(Space("a", SIZE),), control=("a",), layout="inline",
        **{"width": "fixed", **way},
    )  # fmt: skip
    streams = np.zeros((SIZE, 9), np.int32)
    for number, row in enumerate(streams):
        tokens = reference.encode(v, [(0, [(0, number)])])
        row[: len(tokens)] = tokens
    logits = jnp.asarray(conditional_logits(v, streams, probabilities), jnp.float32)
    legal = np.ones(logits.shape, bool)
    legal[..., v.digit_start + v.digits - 1] = False
    raw, renormalised = token_bits(logits, PrimaryIds(jnp.asarray(streams)), jnp.asarray(legal))

    found = item_bits(v, PrimaryIds(jnp.asarray(streams)), renormalised)
    whole = (found.content + found.position + found.check).sum(axis=-1)
    np.testing.assert_allclose(whole, -np.log2(probabilities), rtol=1e-5, atol=1e-5)
    if v.width == "fixed":  # otherwise the position token says that the digits have ended
        np.testing.assert_allclose(found.content.sum(axis=-1), -np.log2(probabilities), rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(found.check.sum(axis=-1), 0, atol=1e-5)
    leak = item_bits(v, PrimaryIds(jnp.asarray(streams)), raw - renormalised)
    tokens_of_item = (streams > 0).sum(axis=-1) - 1
    np.testing.assert_allclose((leak.content + leak.position + leak.check).sum(axis=-1), tokens_of_item, rtol=1e-5)


@pytest.mark.parametrize(
    "base, order",
    [
        (2, "big"),
        ((2, 8), "little"),
        pytest.param(4, "little", marks=pytest.mark.proof),
        pytest.param(16, "big", marks=pytest.mark.proof),
    ],
    ids=str,
)
def test_bits_of_a_lossless_picture_are_bits_per_pixel(base: Any, order: Any) -> None:
    """Pictures of two levels a pixel, in fragments of 2x2 pixels that are drawn independently: known bits per pixel."""
    source = np.random.default_rng(20)
    share = source.dirichlet(np.full(16, 0.5))
    ids = source.choice(16, 6, p=share)
    per_pixel = -np.log2(share[ids]).sum() / (4 * len(ids))
    v = Vocabulary(
        general=0, positions=7, digits=16, base=base, spaces=(Space("patch", 16),), control=("patch",),
        layout="inline", position="before", width="fixed", digit_order=order,
    )  # fmt: skip
    stream = reference.encode(v, [(0, [(0, int(number)) for number in ids])])
    run = len(reference.encode(v, [(0, [(0, 0)])])) - 2
    runs = {number: reference.encode(v, [(0, [(0, number)])])[2:] for number in range(16)}
    logits = np.full((len(stream), v.size), -1e9)
    for item in range(len(ids)):
        start = 2 + item * (run + 1)
        logits[start - 1, stream[start - 1]] = 0  # the position is certain
        for place in range(run):
            before = stream[start : start + place]
            for number, digits in runs.items():
                if digits[:place] == before:
                    token = digits[place]
                    logits[start + place, token] = np.logaddexp(logits[start + place, token], np.log(share[number]))
    logits[0, stream[0]] = 0
    tokens = PrimaryIds(jnp.asarray(np.array(stream, np.int32)))
    raw, _ = token_bits(jnp.asarray(logits, jnp.float32), tokens, jnp.ones(logits.shape, bool))
    found = item_bits(v, tokens, raw)
    np.testing.assert_allclose(found.content.sum() / (4 * len(ids)), per_pixel, rtol=1e-5)
    np.testing.assert_allclose(found.position.sum(), 0, atol=1e-6)


@pytest.mark.parametrize(
    "name, items",
    [
        ("typed inline before fixed", {"image": (0, 2), "mixed": (0, 2), "audio": (1, 2)}),
        ("typed grouped after minimal", {"image": (1, 1), "mixed": (0, 2), "audio": (0, 2)}),
    ],
)
def test_the_probabilities_of_all_documents_sum_to_one(name: str, items: dict[str, tuple[int, int]]) -> None:
    """Of a model of any opinion, renormalised under the grammar: given each marker, over every segment it can open."""
    v = VOCABULARIES[name]
    rules = tuple(SegmentRule(marker, least, most, then=("eos",)) for marker, (least, most) in items.items())
    grammar = Grammar(v, rules)
    documents = []
    for marker in reference.markers(v):
        segments = reference.all_segments(v, marker, TOKENS, *items[v.control[marker]])
        documents += [reference.encode(v, [segment]) for segment in segments]
    longest = max(map(len, documents))
    streams = np.array([[*tokens, *[0] * (longest - len(tokens))] for tokens in documents], np.int32)
    source, opinions, logits = np.random.default_rng(16), {}, np.empty((*streams.shape, v.size), np.float32)
    for row, stream in enumerate(streams.tolist()):
        for place in range(longest):
            prefix = tuple(stream[:place])
            if prefix not in opinions:
                opinions[prefix] = source.normal(0, 2, v.size)
            logits[row, place] = opinions[prefix]
    legal = jax.jit(grammar.masks)(PrimaryIds(jnp.asarray(streams)))
    bits = token_bits(jnp.asarray(logits), PrimaryIds(jnp.asarray(streams)), legal).renormalised
    probabilities = np.exp2(-np.asarray(bits, np.float64)[:, 1:].sum(axis=-1))
    assert len(documents) > 100
    for marker in reference.markers(v):
        opened = streams[:, 0] == v.control_start + marker
        np.testing.assert_allclose(probabilities[opened].sum(), 1, rtol=1e-5)
