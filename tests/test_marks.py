"""Marks on tokens, 32 to a word: each scan against a plain loop over the tokens."""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from omnijax.vocab import marks

ROWS = 2


def marked(share: float, tokens: int, source: np.random.Generator) -> np.ndarray:
    return source.random((ROWS, tokens)) < share


def words(where: np.ndarray) -> marks.Words:
    (packed,) = marks.pack(marks.into_blocks(jnp.asarray(where), False))
    return packed


@jax.jit
def scans(on: marks.Words, off: marks.Words, counted: marks.Words) -> dict[str, jax.Array]:
    shifts = {f"later {by}": marks.unpack(marks.later(on, by)) for by in (0, 1, 31, 32, 70)}
    shifts["earlier"] = marks.unpack(marks.earlier(on, 2**32 - 1))
    found = shifts | {
        "unpack": marks.unpack(on),
        "settle": marks.unpack(marks.settle(on)[0]),
        "hold": marks.unpack(marks.hold(on, off)),
        "count": marks.count(on),
        "last": marks.last(on),
        "count_at_last": marks.count_at_last(counted, on),
        "count_at_next": marks.count_at_next(counted, on),
        "number": marks.number([on, off]),
        "token_index": marks.token_index(on),
    }
    return {name: marks.out_of_blocks(field) for name, field in found.items()}


def loops(on: list[bool], off: list[bool], counted: list[bool]) -> dict[str, list[int]]:
    """The same of one stream, token by token."""
    tokens = len(on)
    found = {f"later {by}": [i >= by and on[i - by] for i in range(tokens)] for by in (0, 1, 31, 32, 70)}
    found["earlier"] = [i + 1 == tokens or on[i + 1] for i in range(tokens)]
    found |= {name: [] for name in ("hold", "count", "last", "count_at_last", "count_at_next")}
    held, last, at_last = False, -1, 0
    sums = list(itertools.accumulate(map(int, counted)))
    for i in range(tokens):
        held = on[i] or (held and not off[i])
        if on[i]:
            last, at_last = i, sums[i]
        following = next((j for j in range(i + 1, tokens) if on[j]), tokens)
        values = (held, sum(on[: i + 1]), last, at_last, sums[min(following, tokens - 1)])
        for name, value in zip(("hold", "count", "last", "count_at_last", "count_at_next"), values):
            found[name].append(value)
    number = [a + 2 * b for a, b in zip(on, off)]
    return found | {"unpack": on, "settle": on, "number": number, "token_index": list(range(tokens))}


@pytest.mark.parametrize("tokens", [32, 64, 32 * 34])
def test_scans_are_those_of_a_loop(tokens: int) -> None:
    """No marks, few and many, and nothing but marks; more words than a word has bits."""
    source = np.random.default_rng(22)
    for share in (0.0, 0.003, 0.1, 0.5, 1.0):
        on = marked(share, tokens, source)
        off, counted = marked(share, tokens, source) & ~on, marked(0.3, tokens, source)
        found = scans(words(on), words(off), words(counted))
        for row in range(ROWS):
            wanted = loops(on[row].tolist(), off[row].tolist(), counted[row].tolist())
            for name, field in found.items():
                np.testing.assert_array_equal(field[row], wanted[name], err_msg=f"{name}, share {share}")


@pytest.mark.parametrize("tokens", [0, 1, 31, 33])
def test_streams_are_filled_up_to_whole_words(tokens: int) -> None:
    blocks = marks.into_blocks(jnp.arange(ROWS * tokens).reshape(ROWS, tokens), -1)
    assert blocks.shape == (ROWS, max(1, -(-tokens // 32)), 32)
    np.testing.assert_array_equal(
        marks.out_of_blocks(blocks)[:, :tokens], np.arange(ROWS * tokens).reshape(ROWS, tokens)
    )
    assert (np.asarray(marks.out_of_blocks(blocks))[:, tokens:] == -1).all()
