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
from omnijax.vocab.encode import encode
from omnijax.vocab.grammar import Grammar
from omnijax.vocab.likelihood import token_bits
from omnijax.vocab.vocabulary import Space, Vocabulary

TOKENS = 40
item_bits = jax.jit(likelihood.item_bits, static_argnums=0)

some_vocabularies = pytest.mark.parametrize(
    "name",
    [
        "plain grouped after minimal",
        "typed grouped after fixed",
        "typed inline before minimal",
        "typed inline none fixed",
        "large, small base",
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
    found = item_bits(v, jnp.asarray(streams), jnp.asarray(bits))
    assert found.places.shape == (*streams.shape, v.most_digits)
    for row, (tokens, values) in enumerate(zip(streams.tolist(), bits.tolist())):
        expected = reference.item_bits(v, tokens, values)
        np.testing.assert_allclose(found.content[row], [item.content for item in expected], rtol=1e-5)
        np.testing.assert_allclose(found.position[row], [item.position for item in expected], rtol=1e-6)
        np.testing.assert_allclose(found.places[row], [item.places for item in expected], rtol=1e-6)


@some_vocabularies
def test_bits_by_place_sum_to_the_bits_of_the_digits(name: str) -> None:
    v, source = VOCABULARIES[name], np.random.default_rng(12)
    streams = some_streams(v, 64)
    bits = source.gamma(2.0, 3.0, streams.shape).astype(np.float32)
    found = item_bits(v, jnp.asarray(streams), jnp.asarray(bits))
    general = (streams >= 1) & (streams < v.position_start)
    np.testing.assert_allclose(found.content[~general], found.places.sum(axis=-1)[~general], rtol=1e-5)
    np.testing.assert_array_equal(found.content[general], bits[general])
    assert not np.asarray(found.places)[general].any()
    # All bits but those of aos, the markers, eos and padding.
    items = (streams >= 1) & (streams < v.aos)
    np.testing.assert_allclose(
        found.content.sum(axis=-1) + found.position.sum(axis=-1), np.where(items, bits, 0).sum(axis=-1), rtol=1e-5
    )


def test_one_stream_alone() -> None:
    v = VOCABULARIES["typed grouped after fixed"]
    streams = some_streams(v, 4)
    bits = np.random.default_rng(13).random(streams.shape).astype(np.float32)
    together = item_bits(v, jnp.asarray(streams), jnp.asarray(bits))
    alone = item_bits(v, jnp.asarray(streams[2]), jnp.asarray(bits[2]))
    for whole, one in zip(together, alone):
        np.testing.assert_array_equal(whole[2], one)


def test_token_bits() -> None:
    logits = jnp.log(jnp.array([[0.5, 0.25, 0.125, 0.125], [0.1, 0.2, 0.3, 0.4]]))
    legal = jnp.array([[True, False, False, True], [True] * 4])
    raw, renormalised = token_bits(logits + 7, jnp.array([3, 1]), legal)
    np.testing.assert_allclose(raw, [3, -math.log2(0.2)], rtol=1e-5)
    np.testing.assert_allclose(renormalised, [-math.log2(0.2), -math.log2(0.2)], rtol=1e-5)
    assert raw.dtype == renormalised.dtype == jnp.float32
    low = token_bits(logits.astype(jnp.bfloat16), jnp.array([3, 1]), legal)
    assert low.raw.dtype == jnp.float32


@pytest.mark.parametrize("name", ["typed grouped after fixed", "typed inline before minimal"])
def test_renormalised_is_at_most_raw(name: str) -> None:
    """Never more, less where an illegal token has a share, and the same where all the mass is on legal ones."""
    v = VOCABULARIES[name]
    tokens = jnp.asarray(some_streams(v, 32))
    logits = jnp.asarray(np.random.default_rng(14).normal(0, 3, (*tokens.shape, v.size)), jnp.float32)
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


@pytest.mark.parametrize(
    "position, width, bases",
    [("before", "fixed", (2, 10)), ("none", "fixed", (7,)), ("after", "minimal", (3,))],
)
def test_bits_do_not_depend_on_the_radix(position: Any, width: Any, bases: tuple[int, ...]) -> None:
    """The same distribution over ids, as a model would express it in each radix."""
    probabilities = np.random.default_rng(15).dirichlet(np.full(SIZE, 0.3))
    probabilities = 0.99 * probabilities + 0.01 / SIZE
    for base in bases:
        v = Vocabulary(
            general=0,
            positions=2,
            digits=base + 1,
            base=base,
            spaces=(Space("a", SIZE),),
            control=("a",),
            layout="inline",
            position=position,
            width=width,
        )
        documents = [[(0, [(0, number)])] for number in range(SIZE)]
        streams = np.zeros((SIZE, 9), np.int32)
        for row, tokens in zip(streams, encode(v, reference.to_library(documents)).split()):
            row[: tokens.size] = tokens
        logits = jnp.asarray(conditional_logits(v, streams, probabilities), jnp.float32)
        legal = np.ones(logits.shape, bool)
        legal[..., v.digit_start + v.digits - 1] = False
        raw, renormalised = token_bits(logits, jnp.asarray(streams), jnp.asarray(legal))

        found = item_bits(v, jnp.asarray(streams), renormalised)
        whole = (found.content + found.position).sum(axis=-1)
        np.testing.assert_allclose(whole, -np.log2(probabilities), rtol=1e-5, atol=1e-5)
        if width == "fixed":  # otherwise the position token says that the digits have ended
            np.testing.assert_allclose(found.content.sum(axis=-1), -np.log2(probabilities), rtol=1e-5, atol=1e-5)
        leak = item_bits(v, jnp.asarray(streams), raw - renormalised)
        tokens_of_item = (streams > 0).sum(axis=-1) - 1
        np.testing.assert_allclose((leak.content + leak.position).sum(axis=-1), tokens_of_item, rtol=1e-5)


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
    grammar = Grammar.of(v, items, ("eos",))
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
    legal = jax.jit(grammar.masks)(jnp.asarray(streams))
    bits = token_bits(jnp.asarray(logits), jnp.asarray(streams), legal).renormalised
    probabilities = np.exp2(-np.asarray(bits, np.float64)[:, 1:].sum(axis=-1))
    assert len(documents) > 100
    for marker in reference.markers(v):
        opened = streams[:, 0] == v.control_start + marker
        np.testing.assert_allclose(probabilities[opened].sum(), 1, rtol=1e-5)
