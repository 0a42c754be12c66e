"""How many items a segment may have, and the position tokens that lead to the next one."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int, UInt32

from omnijax.vocab.grammar_rules import LARGEST, SegmentRows, last_position
from omnijax.vocab.vocabulary import Vocabulary

RULE = -1
"""Stands for the bound of the rule."""
Bounds = Int[Array, "b s"] | None


def bound_columns(batch: int, least_bs: Bounds, most_bs: Bounds) -> tuple[Array, Array]:
    """The bounds as a state keeps them, int32[batch, 1 + segments]; int32[batch, 0] if there are none.

    Column 0 is for a segment without a marker.
    """
    given = [bounds for bounds in (least_bs, most_bs) if bounds is not None]
    if not given:
        return (jnp.zeros((batch, 0), jnp.int32),) * 2

    def column(bounds: Bounds) -> Array:
        bounds = jnp.full(given[0].shape, RULE) if bounds is None else jnp.asarray(bounds)
        return jnp.pad(bounds.astype(jnp.int32), ((0, 0), (1, 0)), constant_values=RULE)

    return column(least_bs), column(most_bs)


def bounds_from(bounds: Int[Array, "b n"], number: Int[Array, "b 1"], first_b: Int[Array, " b"]) -> Array:
    """The bounds of the segments behind segment `number`, with `first_b` in front of them; at least one column."""
    columns = number + 1 + jnp.arange(max(bounds.shape[1] - 1, 0), dtype=jnp.int32)[None, :]
    later = jnp.take_along_axis(bounds, columns, axis=1, mode="fill", fill_value=RULE)
    return jnp.concatenate([first_b[:, None].astype(jnp.int32), later], axis=1)


def bounded(
    vocabulary: Vocabulary,
    segment: SegmentRows,
    number: Int[Array, "b 1"],
    least: Int[Array, "b n"],
    most: Int[Array, "b n"],
    items: Int[Array, " b"],
) -> SegmentRows:
    """Puts the bounds of each document into the rules of its open segment, clipped to what it can still reach.

    Args:
        vocabulary: of the documents.
        segment: the rule of the open segment of each document.
        number: index of the open segment in its document.
        least: smallest number of items of each segment of a document; `RULE` keeps the bound of the rule.
        most: largest number of items, in the same form.
        items: number of items that the open segment already has, or its last position.
    """
    here = jnp.arange(least.shape[1], dtype=jnp.int32)[None, :] == number
    own_least, own_most = (jnp.max(jnp.where(here, bounds, RULE), axis=1) for bounds in (least, most))
    highest = jnp.where(own_most >= 0, jnp.minimum(jnp.maximum(own_most, items), segment.most), segment.most)
    reach = jnp.where(segment.general > 0, highest, jnp.minimum(highest, last_position(vocabulary)))
    reach = jnp.where(segment.general + segment.fragments > 0, reach, 0)
    lowest = jnp.minimum(jnp.where(own_least >= 0, own_least, segment.least), reach)
    return segment._replace(least=lowest, most=highest)


def between(
    vocabulary: Vocabulary, first: Int[Array, " b"], last: Int[Array, " b"], place: Int[Array, " b"], prefix: Array
) -> Bool[Array, "b p"]:
    """The tokens that lead to a position in `first … last`, after `place` tokens that make the number `prefix`."""
    v = vocabulary
    if v.position_places > 1:
        # The `step` positions that share their digits up to this place are neighbours.
        powers = [min(v.positions**k, LARGEST) for k in reversed(range(v.position_places))]
        step = jnp.take(jnp.asarray(np.array(powers, np.int32)), place, mode="clip")
        first, last = first // step - prefix * v.positions, last // step - prefix * v.positions
    column = jnp.arange(v.positions, dtype=jnp.int32)[None, :]
    return (column >= first[:, None]) & (column <= last[:, None])


def unused(
    vocabulary: Vocabulary, used: UInt32[Array, "b w"], last: Int[Array, " b"], place: Int[Array, " b"], prefix: Array
) -> Bool[Array, "b p"]:
    """The position tokens that lead to an unused position in `1 … last`, after tokens that make the number `prefix`."""
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
        if at:  # a prefix is free if one of its completions is free
            free = jnp.pad(free, ((0, 0), (0, -free.shape[1] % v.positions)))
            free = free.reshape(free.shape[0], -1, v.positions).any(axis=2)
    return allowed


def with_position(used: UInt32[Array, "b w"], position: Int[Array, " b"]) -> UInt32[Array, "b w"]:
    """The sets of used positions, with another position for each document."""
    bit = jnp.left_shift(jnp.uint32(1), (position % 32).astype(jnp.uint32))
    here = jnp.arange(used.shape[1], dtype=jnp.int32)[None, :] == (position // 32)[:, None]
    return used | jnp.where(here, bit[:, None], jnp.uint32(0))
