"""Which position tokens can follow: those that begin, or go on with, a position where the next fragment may belong."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int, UInt32

from omnijax.vocab.grammar_rules import LARGEST
from omnijax.vocab.vocabulary import Vocabulary


def between(
    vocabulary: Vocabulary, first: Int[Array, " b"], last: Int[Array, " b"], place: Int[Array, " b"], prefix: Array
) -> Bool[Array, "b p"]:
    """The position tokens that lead to a position in `first … last`, behind `place` tokens that make `prefix`."""
    v = vocabulary
    if v.position_places > 1:
        # Positions that share the digits up to this one lie next to each other: `step` of them.
        powers = [min(v.positions**k, LARGEST) for k in reversed(range(v.position_places))]
        step = jnp.take(jnp.asarray(np.array(powers, np.int32)), place, mode="clip")
        first, last = first // step - prefix * v.positions, last // step - prefix * v.positions
    column = jnp.arange(v.positions, dtype=jnp.int32)[None, :]
    return (column >= first[:, None]) & (column <= last[:, None])


def unused(
    vocabulary: Vocabulary, used: UInt32[Array, "b w"], last: Int[Array, " b"], place: Int[Array, " b"], prefix: Array
) -> Bool[Array, "b p"]:
    """The position tokens that lead to a position in `1 … last` that isn't used, behind those that make `prefix`."""
    v = vocabulary
    bits = used[:, :, None] >> jnp.arange(32, dtype=jnp.uint32)[None, None, :] & 1
    free = (bits == 0).reshape(used.shape[0], -1)
    number = jnp.arange(free.shape[1])[None, :]
    free &= (number >= 1) & (number <= last[:, None])
    allowed = jnp.zeros((used.shape[0], v.positions), bool)
    column = prefix[:, None] * v.positions + jnp.arange(v.positions, dtype=jnp.int32)[None, :]
    for at in reversed(range(v.position_places)):
        inside = column < free.shape[1]
        here = jnp.take_along_axis(free, jnp.minimum(column, free.shape[1] - 1), axis=1) & inside
        allowed = jnp.where((place == at)[:, None], here, allowed)
        if at:  # a position less the last of its tokens is free if one of its completions is
            free = jnp.pad(free, ((0, 0), (0, -free.shape[1] % v.positions)))
            free = free.reshape(free.shape[0], -1, v.positions).any(axis=2)
    return allowed


def words(places: int) -> int:
    """32-bit words with a bit for each of the positions 0 … places."""
    return places // 32 + 1


def with_position(used: UInt32[Array, "b w"], position: Int[Array, " b"]) -> UInt32[Array, "b w"]:
    """The set with one more position in each row."""
    bit = jnp.left_shift(jnp.uint32(1), (position % 32).astype(jnp.uint32))
    here = jnp.arange(used.shape[1], dtype=jnp.int32)[None, :] == (position // 32)[:, None]
    return used | jnp.where(here, bit[:, None], jnp.uint32(0))
