"""Bit masks over tokens ("marks"), 32 tokens in a word. They make the scans of the decoder 32 times as cheap.

The decoder needs scans over tokens: which marker came last, how many items came before. Each bit of a word says whether
a property holds at one token. Shifts, counts, and the search for the last set bit are single instructions. So the
decoder scans words instead of tokens, and there are 32 times fewer words.

`words` is uint32[..., blocks]. Bit k of word i is token 32 i + k. Streams have a multiple of 32 tokens. Results for
tokens are [..., blocks, 32].
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Mapping, Sequence
from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Int, UInt32

BLOCK = 32
PLACES = np.arange(BLOCK, dtype=np.uint32)

Words = UInt32[Array, "*b n"]
Tree = TypeVar("Tree")


def pack(*where: Bool[Array, "*b n 32"]) -> tuple[Words, ...]:
    """Packs booleans into words of marks, all in one pass."""
    return _either(*(jnp.where(one, np.uint32(1) << _places(one.ndim), np.uint32(0)) for one in where))


def settle(*words: Words) -> tuple[Words, ...]:
    """Returns the same words, and makes XLA compute them once.

    XLA repeats a chain of cheap operations wherever the result is used, which would be for each token of a word. It
    doesn't repeat reductions. So this is a reduction, over the even and the odd bits.
    """
    halves = np.array([0x55555555, 0xAAAAAAAA], np.uint32)
    return _either(*(one[..., None] & halves.reshape((1,) * one.ndim + (2,)) for one in words))


def settled(tree: Tree) -> Tree:
    """The same for all words of a pytree."""
    return jax.tree.unflatten(jax.tree.structure(tree), settle(*jax.tree.leaves(tree)))


def _settled(numbers: Int[Array, "*b n"]) -> Int[Array, "*b n"]:
    (bits,) = settle(numbers.astype(jnp.uint32))
    return bits.astype(jnp.int32)


def _either(*bits: UInt32[Array, "*b n k"]) -> tuple[Words, ...]:
    """Combines the last axis into one word by `or`."""

    def either(one: tuple[Array, ...], other: tuple[Array, ...]) -> tuple[Array, ...]:
        return tuple(a | b for a, b in zip(one, other, strict=True))

    return tuple(lax.reduce(bits, (np.uint32(0),) * len(bits), either, (bits[0].ndim - 1,)))


def unpack(words: Words) -> Bool[Array, "*b n 32"]:
    """Whether each token is marked."""
    return (words[..., None] >> _places(words.ndim + 1)) & np.uint32(1) > 0


def bits_of(numbers: Mapping[int, Words], bits: int) -> tuple[Words, ...]:
    """Bits, lowest first, of the number whose marks a token has; 0 without a mark."""
    return tuple(
        functools.reduce(operator.or_, (words for number, words in numbers.items() if number >> bit & 1))
        for bit in range(bits)
    )


def number(bits: Sequence[Words]) -> Int[Array, "*b n 32"]:
    """The number of each token, from its bits."""
    return sum((unpack(words).astype(jnp.int32) << bit for bit, words in enumerate(bits)), jnp.int32(0))


def later(words: Words, by: int = 1) -> Words:
    """Shifts bit masks by `by` tokens towards the end of the stream. Zeros come in at the start."""
    for _ in range(by // BLOCK):
        words = _shift(words, 1, 0)
    by %= BLOCK
    if by == 0:
        return words
    before = _shift(words, 1, 0)
    return (words << np.uint32(by)) | (before >> np.uint32(BLOCK - by))


def earlier(words: Words, fill: int = 0) -> Words:
    """Shifts bit masks by one token towards the start. At the end comes in `fill`, 0 or 2^32 - 1."""
    return (words >> np.uint32(1)) | (_shift(words, -1, fill) << np.uint32(BLOCK - 1))


def hold(on: Words, off: Words) -> Words:
    """Marks the tokens that follow an `on` mark with no `off` mark in between. No token may have both.

    Within a word the carry of an addition runs through the unmarked tokens behind an `on`.
    """
    still = ~(on | off)
    held = on | (still & ~(still + (still & (on << np.uint32(1)))))
    blocks = on.shape[-1]
    if blocks == 1:
        return held
    # The tokens before the first mark of a word have the state at the end of the word before.
    first = still & ~(still + (still & np.uint32(1)))
    ends, silent = held >> np.uint32(BLOCK - 1) > 0, (on | off) == 0
    set_words, off_words = pack(*(into_blocks(one, False) for one in (ends, ~ends & ~silent)))
    (before,) = settle(later(hold(set_words, off_words)))  # the state at the end of the word before
    carried = out_of_blocks(unpack(before))[..., :blocks]
    return held | jnp.where(carried, first, np.uint32(0))


def count(words: Words) -> Int[Array, "*b n 32"]:
    """Number of marks up to and with each token."""
    return count_before(words)[..., None] + _ones(words[..., None] & _up_to(_places(words.ndim + 1)))


def count_before(words: Words) -> Int[Array, "*b n"]:
    """Number of marks in the words before each word."""
    ones = _ones(words)
    return _settled(jnp.cumsum(ones, axis=-1) - ones)


def last(words: Words) -> Int[Array, "*b n 32"]:
    """Index of the last mark up to and with each token; -1 without a mark."""
    return count_at_last(words | ~words, words) - 1


def count_at_last(counted: Words, words: Words) -> Int[Array, "*b n 32"]:
    """Number of `counted` tokens up to the last mark of `words` at or before each token; 0 without a mark."""
    before = count_before(counted)
    inside = words[..., None] & _up_to(_places(words.ndim + 1))
    here = before[..., None] + _ones(counted[..., None] & _up_to(_highest(inside)))
    ends = jnp.where(words > 0, before + _ones(counted & _up_to(_highest(words))), 0)
    carried = _settled(_shift(lax.cummax(ends, axis=ends.ndim - 1), 1, 0))
    return jnp.where(inside > 0, here, carried[..., None])


def count_at_next(counted: Words, words: Words) -> Int[Array, "*b n 32"]:
    """Number of `counted` tokens up to the next mark of `words` behind each token; the total without a mark."""
    before = count_before(counted)
    inside = words[..., None] & ~_up_to(_places(words.ndim + 1))
    here = before[..., None] + _ones(counted[..., None] & _up_to(_lowest(inside)))
    total = before[..., -1:] + _ones(counted[..., -1:])
    starts = jnp.where(words > 0, before + _ones(counted & _up_to(_lowest(words))), total)
    carried = lax.cummin(starts, axis=starts.ndim - 1, reverse=True)
    carried = _settled(jnp.concatenate([carried[..., 1:], total], axis=-1))
    return jnp.where(inside > 0, here, carried[..., None])


def into_blocks(array: Array, fill: int | bool) -> Array:
    """`array[..., tokens]` as [..., blocks, 32], at least one block. `fill` stands behind the tokens."""
    missing = -array.shape[-1] % BLOCK if array.shape[-1] else BLOCK
    array = jnp.pad(array, [(0, 0)] * (array.ndim - 1) + [(0, missing)], constant_values=fill)
    return array.reshape(*array.shape[:-1], array.shape[-1] // BLOCK, BLOCK)


def out_of_blocks(array: Array) -> Array:
    """`array[..., blocks, 32]` as [..., tokens]."""
    return array.reshape(*array.shape[:-2], array.shape[-2] * BLOCK)


def token_index(words: Words) -> Int[Array, "*b n 32"]:
    """Index of each token in its stream."""
    first = lax.broadcasted_iota(jnp.int32, words.shape, words.ndim - 1) * BLOCK
    return first[..., None] + _places(words.ndim + 1).astype(np.int32)


def _places(ndim: int) -> np.ndarray:
    """Place of each token in its word, in an array of `ndim` dimensions."""
    return PLACES.reshape((1,) * (ndim - 1) + (BLOCK,))


def _ones(words: Array) -> Array:
    return lax.population_count(words).astype(jnp.int32)


def _up_to(place: Array | np.ndarray) -> Array | np.ndarray:
    """Marks on all places up to and with this one."""
    return (np.uint32(2) << place.astype(np.uint32)) - np.uint32(1)


def _highest(words: Array) -> Array:
    return (BLOCK - 1 - lax.clz(words | np.uint32(1))).astype(jnp.int32)


def _lowest(words: Array) -> Array:
    return _ones((words - np.uint32(1)) & ~words) & (BLOCK - 1)


def _shift(array: Array, by: int, fill: int | bool) -> Array:
    """Moves an array by one along its last axis."""
    missing = jnp.full_like(array[..., :1], fill)
    return jnp.concatenate([missing, array[..., :-1]] if by > 0 else [array[..., 1:], missing], axis=-1)
