"""What sampling does on the device: documents begin, in place of others that are done, and steps go on with them."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from omnijax.config import SampleConfig
from omnijax.model import cache as caches
from omnijax.model.cache import Cache
from omnijax.model.items import ItemTransformer, Memory
from omnijax.model.transformer import Transformer
from omnijax.sample.pick_token import pick
from omnijax.sample.row_buffers import Pen, Rows, where
from omnijax.step.sharding import parameter_shardings
from omnijax.vocab.grammar import Grammar, GrammarState

ROWS = ("data", "fsdp")
"""Axes of a mesh that rows are split over."""


class Loop(NamedTuple):
    """What a step goes on from.

    Attributes:
        rows: written behind the prompts.
        lengths: of the prompts.
        keys: draw the tokens of each row.
        read: how many tokens of each row the model has read, behind the prompt.
        logits: behind the last of these.
        cache: of the model: what it has read.
    """

    rows: Rows
    lengths: Int[Array, " b"]
    keys: PRNGKeyArray
    read: Int[Array, " b"]
    logits: Float[Array, "b v"]
    cache: Cache | Memory | Any


class Seen(NamedTuple):
    """What the host looks at between chunks, the same on every process.

    Attributes:
        done: nothing more is to be written.
        written: tokens behind each prompt.
        needed: slots that the next step of each row takes.
        tokens: of each row, padded behind its end.
        rejected: how many fragments of each row were drawn again.
    """

    done: Bool[Array, " b"]
    written: Int[Array, " b"]
    needed: Int[Array, " b"]
    tokens: Int[Array, "b m"]
    rejected: Int[Array, " b"]


@dataclasses.dataclass(frozen=True)
class Steps:
    """The programs of a sampler. Hashable: static for `jit`, so that each is compiled once for its shapes.

    Attributes:
        model: that reads.
        config: how tokens are drawn.
        pen: writes them.
        ahead: forced tokens that are read in one pass with the token before them, at most.
        mesh: that parameters and rows are split over; None for one device.
    """

    model: Transformer
    config: SampleConfig
    pen: Pen
    ahead: int
    mesh: Mesh | None

    @property
    def first(self) -> int:
        """Forced tokens that are read with the prompt, at most: here `aos` may stand before the others."""
        return self.ahead + (self.pen.grammar.vocabulary.layout == "grouped") if self.ahead else 0

    @functools.partial(jax.jit, static_argnums=(0, 6))
    def begin(
        self,
        params: Any,
        prompts_bt: Int[Array, "b t"],
        lengths_b: Int[Array, " b"],
        key: PRNGKeyArray,
        numbers_b: Int[Array, " b"],
        slots: int,
    ) -> Loop:
        """Reads prompts, and what is forced behind them.

        Args:
            params: of `unstacked`.
            prompts_bt: padded on the right.
            lengths_b: of them.
            key: draws the tokens of each row, by its number.
            numbers_b: of the documents.
            slots: to make room for.
        """
        (batch, length), first = prompts_bt.shape, self.first
        state = _read_prompts(self.pen.grammar, prompts_bt, lengths_b)
        logits = jnp.zeros((batch, self.model.tokens), jnp.float32)
        rows = self.pen.start(self.pen.most + first + 1, state, logits, self.config.grammar)
        if self.ahead:
            rows = self.pen.write_on(rows, *self.pen.forced(rows), drawn=False)
        read = jnp.minimum(rows.length, first)

        places_bt = jnp.broadcast_to(jnp.arange(length + first), (batch, length + first))
        behind_bt = jnp.take_along_axis(rows.tokens, places_bt - lengths_b[:, None], axis=1, mode="clip")
        prompts_bt = jnp.pad(prompts_bt, ((0, 0), (0, first)))
        tokens_bt = jnp.where(places_bt < lengths_b[:, None], prompts_bt, behind_bt)
        logits_bv, cache = self._begun(params, tokens_bt, places_bt, lengths_b + read, slots)
        keys_b = jax.vmap(jax.random.fold_in, (None, 0))(key, numbers_b)
        return self._placed(Loop(rows, lengths_b, keys_b, read, logits_bv, cache))

    def _begun(
        self, params: Any, tokens_bt: Array, places_bt: Array, lengths_b: Array, slots: int
    ) -> tuple[Array, Cache | Memory]:
        if isinstance(self.model, ItemTransformer):
            memory = self.model.empty_cache(lengths_b.size, slots)
            return self.model.begin(params, memory, tokens_bt, lengths_b, self.mesh)
        cache = self.model.empty_cache(lengths_b.size, slots)
        logits_b1v, cache = self.model.extend(params, cache, tokens_bt, places_bt, lengths_b - 1, self.mesh)
        return logits_b1v[:, 0], cache

    @functools.partial(jax.jit, static_argnums=(0, 2, 3))
    def resting(self, like: Loop, rows: int, slots: int) -> Loop:
        """So many rows that are done, in place of those of `like`, with so much room."""
        loop = jax.tree.map(lambda x: x[jnp.zeros(rows, jnp.int32)], like._replace(cache=None))
        done = loop.rows._replace(done=jnp.ones(rows, bool))
        return self._placed(loop._replace(rows=done, cache=self.model.empty_cache(rows, slots)))

    @functools.partial(jax.jit, static_argnums=0, donate_argnums=1)
    def replaced(self, loop: Loop, rows_g: Int[Array, " g"], new: Loop) -> Loop:
        """Rows in place of others, which are done; those whose number is too large aren't taken over."""
        cache = caches.put(loop.cache, rows_g, new.cache)
        parts = (part._replace(cache=None) for part in (loop, new))
        loop = jax.tree.map(lambda old, rows: old.at[rows_g].set(rows, mode="drop"), *parts)
        return self._placed(loop._replace(cache=cache))

    @functools.partial(jax.jit, static_argnums=(0, 2))
    def grown(self, loop: Loop, slots: int) -> Loop:
        """The same with more slots."""
        return self._placed(loop._replace(cache=caches.grown(loop.cache, slots)))

    @functools.partial(jax.jit, static_argnums=0, donate_argnums=2)
    def chunk(self, params: Any, loop: Loop, steps: Int[Array, ""], enough: Int[Array, ""]) -> tuple[Loop, Seen]:
        """Draws tokens and reads them, until the host has something to do.

        Args:
            params: of `unstacked`.
            loop: to go on from; given up.
            steps: at most.
            enough: stop when so many rows are done.
        """

        def more(carry: tuple[Loop, Array]) -> Array:
            loop, step = carry
            room = (self._needed(loop) <= caches.slots(loop.cache)) | loop.rows.done
            return (step < steps) & (loop.rows.done.sum() < enough) & ~loop.rows.done.all() & room.all()

        def go_on(carry: tuple[Loop, Array]) -> tuple[Loop, Array]:
            loop, step = carry
            return self._read(params, self._draw(loop)), step + 1

        loop, _ = lax.while_loop(more, go_on, (loop, jnp.zeros((), jnp.int32)))
        rows = loop.rows
        rejected = jnp.zeros_like(rows.length) if rows.opened is None else rows.opened.rejected
        seen = Seen(rows.done, rows.length, self._needed(loop), rows.finished(self.pen.most), rejected)
        if self.mesh is not None:
            seen = lax.with_sharding_constraint(seen, NamedSharding(self.mesh, PartitionSpec()))
        return self._placed(loop), seen

    def _needed(self, loop: Loop) -> Array:
        """Slots that the next step takes: the last token is never read."""
        if isinstance(loop.cache, Memory):
            return loop.cache.steps + 1
        return loop.lengths + jnp.minimum(loop.read + 1 + self.ahead, self.pen.most)

    def _draw(self, loop: Loop) -> Loop:
        """Draws a token for each row that the model has read, and writes what is forced behind it."""
        pen, rows = self.pen, loop.rows
        ready = ~rows.done & (loop.read == rows.length)
        if rows.opened is None:
            keys_b = jax.vmap(jax.random.fold_in)(loop.keys, rows.length)
            token = pick(self.config, loop.logits, rows.legal, keys_b)
        else:
            rows, legal = pen.before(rows, ready, loop.logits)
            assert rows.opened is not None
            keys_b = jax.vmap(jax.random.fold_in)(loop.keys, rows.length + pen.most * rows.opened.attempts)
            token = pick(self.config, loop.logits, legal, keys_b)
            rows, wrong = pen.after(rows, token, ready)
            assert rows.opened is not None
            ready &= ~wrong
            logits = jnp.where(wrong[:, None], rows.opened.logits.astype(loop.logits.dtype), loop.logits)
            if isinstance(self.model, ItemTransformer):  # the item is read again from its first token on
                assert isinstance(loop.cache, Memory)
                read = jnp.where(wrong, loop.read - loop.cache.places, loop.read)
                loop = loop._replace(read=read, cache=self.model.reopened(loop.cache, wrong))
            loop = loop._replace(read=jnp.minimum(loop.read, rows.length), logits=logits)
        write = functools.partial(pen.write_on if self.ahead else pen.write, rows, token, ready, drawn=True)
        return loop._replace(rows=write())

    def _read(self, params: Any, loop: Loop) -> Loop:
        """The model reads one more token of each row; or, where it is worth it, what is forced behind that too."""
        if isinstance(self.model, ItemTransformer):
            return self._read_items(self.model, params, loop)
        waiting, active = loop.rows.length - loop.read, ~loop.rows.done

        def read(width: int, _: Any, carry: tuple[Array, Cache]) -> tuple[Array, Cache]:
            places_bt = loop.read[:, None] + jnp.arange(width)[None, :]
            tokens_bt = jnp.take_along_axis(loop.rows.tokens, places_bt, axis=1, mode="clip")
            last = jnp.clip(waiting, 1, width) - 1  # padding behind it is overwritten before it is seen
            places_bt += loop.lengths[:, None]
            logits_b1v, cache = self.model.extend(params, carry[1], tokens_bt, places_bt, last, self.mesh)
            return logits_b1v[:, 0].astype(carry[0].dtype), cache

        # More tokens of all rows cost more, so that they have to be there in half of them; else rows wait for a few.
        wide = jnp.zeros((), bool)
        if self.ahead:
            wide = active.any() & (2 * (active & (waiting > 1)).sum() >= active.sum())
        # Loops of one round or none: unlike branches they write the cache in place.
        carry = lax.fori_loop(0, jnp.where(active.any() & ~wide, 1, 0), functools.partial(read, 1), loop[-2:])
        if self.ahead:
            carry = lax.fori_loop(0, jnp.where(wide, 1, 0), functools.partial(read, 1 + self.ahead), carry)
        logits, cache = carry
        new = jnp.clip(waiting, 0, jnp.where(wide, 1 + self.ahead, 1))
        logits = jnp.where((new > 0)[:, None], logits, loop.logits)
        return loop._replace(read=loop.read + new, logits=logits, cache=cache)

    def _read_items(self, model: ItemTransformer, params: Any, loop: Loop) -> Loop:
        """The model reads one more token of each row that it doesn't let wait."""
        assert isinstance(loop.cache, Memory)
        waiting = (loop.rows.length > loop.read) & ~loop.rows.done
        tokens = jnp.take_along_axis(loop.rows.tokens, loop.read[:, None], axis=1, mode="clip")[:, 0]
        logits, memory, read = model.read(params, loop.cache, tokens, waiting, self.mesh)
        logits = jnp.where(read[:, None], logits, loop.logits).astype(loop.logits.dtype)
        return loop._replace(read=loop.read + read, logits=logits, cache=memory)

    def shardings(self, loop: Loop) -> Loop:
        """Rows, and the heads of the cache, are split over the mesh."""
        assert self.mesh is not None
        rows, heads = (NamedSharding(self.mesh, PartitionSpec(*axes)) for axes in ((ROWS,), (ROWS, "tensor")))
        split = jax.tree.map(lambda _: rows, loop)
        return split._replace(cache=jax.tree.map(lambda leaf: heads if leaf.ndim > 2 else rows, loop.cache))

    def _placed(self, loop: Loop) -> Loop:
        if self.mesh is None:
            return loop
        return jax.tree.map(lax.with_sharding_constraint, loop, self.shardings(loop))


@functools.partial(jax.jit, static_argnums=(0, 1))
def unstacked(model: Transformer, mesh: Mesh | None, params: Any) -> Any:
    """Parameters as the programs take them, split over the mesh as they were."""
    params = model.unstacked(params)
    if mesh is None:
        return params
    return jax.tree.map(lax.with_sharding_constraint, params, unstacked_shardings(mesh, params))


def unstacked_shardings(mesh: Mesh, params: Any) -> Any:
    """Of what `unstacked` gives."""
    others = parameter_shardings(mesh, {name: part for name, part in params.items() if name != "layers"})
    return others | {"layers": tuple(parameter_shardings(mesh, layer) for layer in params["layers"])}


def _read_prompts(grammar: Grammar, prompts_bt: Array, lengths_b: Array) -> GrammarState:
    def read(state: GrammarState, column: tuple[Array, Array]) -> tuple[GrammarState, None]:
        place, tokens_b = column
        return where(place < lengths_b, grammar.advance(state, tokens_b), state), None

    columns = (jnp.arange(prompts_bt.shape[1]), prompts_bt.T)
    return lax.scan(read, grammar.start_state(prompts_bt.shape[0]), columns)[0]
