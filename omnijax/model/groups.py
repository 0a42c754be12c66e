"""Finds the items of token sequences by token ids alone, for models that step once for each item."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Int


class Items(NamedTuple):
    """The items of sequences. A token outside of items of several tokens is an item by itself.

    Attributes:
        ends: whether each token is the last of its item.
        item: number of each token's item in its sequence.
        place: place of each token in its item.
        tokens: tokens of each item, by place.
        there: whether the item has a token at a place.
        positions: place of each item in its document.
        documents: number of each item's document; -1 for padding.
    """

    ends: Bool[Array, "b t"]
    item: Int[Array, "b t"]
    place: Int[Array, "b t"]
    tokens: Int[Array, "b s p"]
    there: Bool[Array, "b s p"]
    positions: Int[Array, "b s"]
    documents: Int[Array, "b s"]


@dataclasses.dataclass(frozen=True)
class Grouping:
    """Cuts runs of tokens into items; the last marker before a token says how long items are. Hashable.

    Attributes:
        first: first id of the tokens that make items; the last one is `marker - 2`.
        marker: first id of the markers.
        lengths: tokens of an item: before any marker, then behind each marker.
    """

    first: int
    marker: int
    lengths: tuple[int, ...]

    @property
    def longest(self) -> int:
        """Tokens of the longest item."""
        return max(self.lengths)

    def is_part(self, tokens: Int[Array, "..."]) -> Bool[Array, "..."]:
        """Which tokens belong to items of several tokens; any other token is an item by itself."""
        return (tokens >= self.first) & (tokens < self.marker - 1)

    def context(self, tokens: Int[Array, "..."], before: Int[Array, "..."]) -> Int[Array, "..."]:
        """Index in `lengths` that applies behind each token, from the index that applied before it."""
        known = jnp.clip(tokens - self.marker + 1, 0, len(self.lengths) - 1)
        return jnp.where(tokens >= self.marker, known, before)

    def length(self, context: Int[Array, "..."]) -> Int[Array, "..."]:
        """Tokens of an item, by the index in `lengths`."""
        return jnp.asarray(self.lengths, jnp.int32)[context]

    def ends(self, tokens_bt: Int[Array, "b t"]) -> Bool[Array, "b t"]:
        """Whether each token is the last of its item."""
        at = jnp.broadcast_to(jnp.arange(tokens_bt.shape[1]), tokens_bt.shape)
        part = self.is_part(tokens_bt)
        opened = lax.cummax(jnp.where(tokens_bt >= self.marker, at, -1), axis=1)
        opener = jnp.take_along_axis(tokens_bt, jnp.maximum(opened, 0), axis=1)
        length = self.length(self.context(opener, jnp.zeros_like(opener)))
        place = at - lax.cummax(jnp.where(part, -1, at), axis=1) - 1
        return ~part | (place % length == length - 1)

    def items(
        self, tokens_bt: Int[Array, "b t"], positions_bt: Int[Array, "b t"], documents_bt: Int[Array, "b t"], steps: int
    ) -> Items:
        """The items of sequences; padding counts as one more item.

        Args:
            tokens_bt: primary ids.
            positions_bt: place of each token in its document.
            documents_bt: number of each token's document; -1 for padding.
            steps: most items of a sequence; later ones are dropped.
        """
        b, t = tokens_bt.shape
        at = jnp.broadcast_to(jnp.arange(t), (b, t))
        ends = self.ends(tokens_bt) & (documents_bt >= 0)
        item = jnp.cumsum(ends, axis=1) - ends
        rows = jnp.arange(b)[:, None]
        start = jnp.full((b, steps), t).at[rows, item].min(at, mode="drop")
        place = at - jnp.take_along_axis(start, jnp.minimum(item, steps - 1), axis=1)
        index = start[:, :, None] + jnp.arange(self.longest)[None, None, :]
        inside = jnp.minimum(index, t - 1).reshape(b, -1)
        of_item = jnp.take_along_axis(item, inside, axis=1).reshape(index.shape)
        there = (index < t) & (of_item == jnp.arange(steps)[None, :, None])
        tokens = jnp.take_along_axis(tokens_bt, inside, axis=1).reshape(index.shape)
        first = jnp.minimum(start, t - 1)
        step = jnp.broadcast_to(jnp.arange(steps), (b, steps))
        opens = jnp.take_along_axis(positions_bt, first, axis=1) == 0
        positions = step - lax.cummax(jnp.where(opens & (start < t), step, 0), axis=1)
        documents = jnp.where(start < t, jnp.take_along_axis(documents_bt, first, axis=1), -1)
        return Items(ends, item, place, tokens, there, positions, documents)
