"""What a sampler needs of a model: it reads prompts at once, then further tokens of each row as they are written.

A row is one document that is being sampled. `Decoder` reads token by token, by means of a model's `empty_cache` and
`extend`. A model that keeps something else of what it has read overrides the methods from `empty_memory` on.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple, Protocol

import jax.numpy as jnp
from jax import lax
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int


class TokenMemory(NamedTuple):
    """What a decoder has read of each row.

    Attributes:
        cache: what `extend` keeps, as arrays [rows, heads, slots, ...].
        length: number of tokens read.
    """

    cache: Any
    length: Int[Array, " b"]


class Decoder(Protocol):
    """A model that reads token by token, with a slot of a cache for each token.

    Attributes:
        tokens: number of primary tokens; logits have one entry for each.
        reads_ahead: one pass over several tokens of a row is cheaper than one pass for each token.
    """

    tokens: int
    reads_ahead: bool = True

    def unstacked(self, params: Any) -> Any:
        """Parameters in the form that all methods below take."""

    def empty_cache(self, rows: int, room: int) -> Any:
        """A cache for `rows` documents of at most `room` tokens: arrays [rows, heads, slots, ...]."""

    def extend(
        self,
        params: Any,
        cache: Any,
        tokens_bt: Int[Array, "b t"],
        positions_bt: Int[Array, "b t"],
        only_b: Int[Array, " b"] | None = None,
        mesh: Mesh | None = None,
    ) -> tuple[Float[Array, "b t v"], Any]:
        """Reads more tokens of each row, and gives the logits behind them (of one token if `only_b` says which)."""

    def empty_memory(self, rows: int, room: int) -> Any:
        """The memory of `rows` documents before anything is read, with slots for at most `room` tokens."""
        return TokenMemory(self.empty_cache(rows, room), jnp.zeros(rows, jnp.int32))

    def slots_needed(self, memory: Any, tokens: int) -> Int[Array, " b"]:
        """Slots that each row occupies after it has read `tokens` more tokens."""
        return jnp.asarray(memory.length + tokens)

    def begin(
        self,
        params: Any,
        memory: Any,
        tokens_bt: Int[Array, "b t"],
        lengths_b: Int[Array, " b"],
        mesh: Mesh | None = None,
    ) -> tuple[Float[Array, "b v"], Any]:
        """Reads the prompts.

        Args:
            params: from `unstacked`.
            memory: from `empty_memory`.
            tokens_bt: primary ids, padded on the right.
            lengths_b: tokens of each prompt, at least one; the last token ends an item.
            mesh: that the parameters are split over; None for one device.

        Returns:
            The logits behind each prompt, and the memory.
        """
        places_bt = jnp.broadcast_to(jnp.arange(tokens_bt.shape[1]), tokens_bt.shape)
        logits_b1v, cache = self.extend(params, memory.cache, tokens_bt, places_bt, lengths_b - 1, mesh)
        return logits_b1v[:, 0], TokenMemory(cache, lengths_b)

    def read(
        self,
        params: Any,
        memory: Any,
        logits_bv: Float[Array, "b v"],
        tokens_bt: Int[Array, "b t"],
        waiting_b: Int[Array, " b"],
        mesh: Mesh | None = None,
    ) -> tuple[Float[Array, "b v"], Any, Int[Array, " b"]]:
        """Reads the next tokens of rows, as many as it pays to read at once.

        This takes one token of each row, or all t where at least half of the rows have more than one.

        Args:
            params: from `unstacked`.
            memory: from `begin`, or from an earlier call.
            logits_bv: behind the last token that was read of each row.
            tokens_bt: the next tokens of each row; t = 1 unless the model `reads_ahead`.
            waiting_b: how many tokens of each row haven't been read; may be more than t, and is 0 for a row that rests.
            mesh: see `begin`.

        Returns:
            The logits behind the last token that has now been read of each row, the memory, and how many tokens of
            each row were read.
        """
        most = tokens_bt.shape[1]

        def extend(width: int, _: Any, carry: tuple[Array, Any]) -> tuple[Array, Any]:
            places_bt = memory.length[:, None] + jnp.arange(width)[None, :]
            last_b = jnp.clip(waiting_b, 1, width) - 1  # padding behind it is overwritten before it is seen
            logits_b1v, cache = self.extend(params, carry[1], tokens_bt[:, :width], places_bt, last_b, mesh)
            return logits_b1v[:, 0].astype(carry[0].dtype), cache

        active_b = waiting_b > 0
        # More tokens of all rows cost more, so that half of the rows have to have some.
        wide = (most > 1) & active_b.any() & (2 * (waiting_b > 1).sum() >= active_b.sum())
        carry = (logits_bv, memory.cache)
        for width in sorted({1, most}):  # loops of one round or none: unlike branches they write the cache in place
            runs = wide if width > 1 else active_b.any() & ~wide
            carry = lax.fori_loop(0, jnp.where(runs, 1, 0), functools.partial(extend, width), carry)
        read_b = jnp.clip(waiting_b, 0, jnp.where(wide, most, 1))
        logits_bv = jnp.where(active_b[:, None], carry[0], logits_bv)
        return logits_bv, TokenMemory(carry[1], memory.length + read_b), read_b
