"""The programs of a sampler, which run on the device: rows begin, replace others that are done, and are written on."""

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
from omnijax.config.evaluation import SMALLEST
from omnijax.model import cache as caches
from omnijax.model.transformer import Transformer
from omnijax.step.sharding import ROWS, parameter_shardings
from omnijax.vocab.grammar import Grammar, GrammarState
from omnijax.vocab.vocabulary import PAD

_BITS_OF_ONE = 0x3F800000


class RowBuffers(NamedTuple):
    """The rows so far. A row holds one document that is being sampled. Rows needn't be equally long.

    Attributes:
        tokens: behind the prompt; what stands behind `length` has no meaning.
        length: number of tokens.
        done: the row is complete.
        state: of the grammar; None without one.
        legal: tokens that can follow; None without a grammar.
    """

    tokens: Int[Array, "b n"]
    length: Int[Array, " b"]
    done: Bool[Array, " b"]
    state: GrammarState | None = None
    legal: Bool[Array, "b v"] | None = None


class LoopState(NamedTuple):
    """What the loop carries from step to step.

    Attributes:
        rows: tokens behind the prompts.
        lengths: tokens of each prompt.
        keys: one for each row; draws its tokens.
        read: how many tokens behind the prompt the model has read.
        logits: behind the last token that the model has read.
        memory: of the model.
    """

    rows: RowBuffers
    lengths: Int[Array, " b"]
    keys: PRNGKeyArray
    read: Int[Array, " b"]
    logits: Float[Array, "b v"]
    memory: Any


class ChunkResult(NamedTuple):
    """What the host looks at after a chunk of steps; it is the same on every process.

    Attributes:
        done: the row is complete.
        written: tokens behind each prompt.
        needed: slots that each row needs for the next step.
        tokens: of each row, padded behind its end.
    """

    done: Bool[Array, " b"]
    written: Int[Array, " b"]
    needed: Int[Array, " b"]
    tokens: Int[Array, "b m"]


@dataclasses.dataclass(frozen=True)
class Programs:
    """The compiled programs of a sampler. Hashable and static for `jit`, so that each compiles once for its shapes.

    Attributes:
        model: that is sampled from.
        config: how tokens are drawn.
        grammar: of the segment to come.
        most_tokens: of the longest row.
        most_forced: how many tokens that the grammar leaves no choice for are read in one pass with the token before
            them; 0 gives each token a pass of its own.
        mesh: that parameters and rows are split over; None for one device.
    """

    model: Transformer
    config: SampleConfig
    grammar: Grammar
    most_tokens: int
    most_forced: int
    mesh: Mesh | None = None

    @property
    def forced_behind_prompt(self) -> int:
        """How many forced tokens are read with the prompt; here `aos` may stand before the others."""
        grouped = self.grammar.vocabulary.layout == "grouped"
        return self.most_forced + grouped if self.most_forced else 0

    @functools.partial(jax.jit, static_argnums=(0, 6))
    def begin(
        self,
        params: Any,
        prompts_bt: Int[Array, "b t"],
        lengths_b: Int[Array, " b"],
        key: PRNGKeyArray,
        numbers_b: Int[Array, " b"],
        slots: int,
        bounds_b2: Int[Array, "b 2"] | None = None,
    ) -> LoopState:
        """Reads prompts, and the forced tokens behind them.

        Args:
            params: from `unstacked`.
            prompts_bt: padded on the right.
            lengths_b: tokens of each prompt.
            key: draws the tokens, together with the number of the document.
            numbers_b: of the documents.
            slots: of the memory.
            bounds_b2: fewest and most items of each segment to come; -1, or None for all rows, for the target's.
        """
        (batch, length), forced = prompts_bt.shape, self.forced_behind_prompt
        empty_bn = jnp.full((batch, self.most_tokens + forced + 1), PAD, jnp.int32)
        rows = RowBuffers(empty_bn, jnp.zeros(batch, jnp.int32), jnp.zeros(batch, bool))
        if self.config.grammar:
            state = _read_prompts(self.grammar, prompts_bt, lengths_b)
            state = state if bounds_b2 is None else self.grammar.with_bounds(state, *bounds_b2.T)
            rows = rows._replace(state=state, legal=self.grammar.mask(state))
        if self.most_forced:
            rows = self._write_with_forced(rows, *self._forced(rows))
        read = jnp.minimum(rows.length, forced)

        places_bt = jnp.broadcast_to(jnp.arange(length + forced), (batch, length + forced))
        behind_bt = jnp.take_along_axis(rows.tokens, places_bt - lengths_b[:, None], axis=1, mode="clip")
        prompts_bt = jnp.pad(prompts_bt, ((0, 0), (0, forced)))
        tokens_bt = jnp.where(places_bt < lengths_b[:, None], prompts_bt, behind_bt)
        memory = self.model.empty_memory(batch, slots)
        logits_bv, memory = self.model.begin(params, memory, tokens_bt, lengths_b + read, self.mesh)
        keys_b = jax.vmap(jax.random.fold_in, (None, 0))(key, numbers_b)
        return self._placed(LoopState(rows, lengths_b, keys_b, read, logits_bv, memory))

    @functools.partial(jax.jit, static_argnums=(0, 2, 3))
    def idle(self, like: LoopState, rows: int, slots: int) -> LoopState:
        """A state of `rows` rows that are done, each with `slots` slots; dtypes are those of `like`."""
        loop = jax.tree.map(lambda x: x[jnp.zeros(rows, jnp.int32)], like._replace(memory=None))
        done = loop.rows._replace(done=jnp.ones(rows, bool))
        return self._placed(loop._replace(rows=done, memory=self.model.empty_memory(rows, slots)))

    @functools.partial(jax.jit, static_argnums=0, donate_argnums=1)
    def refilled(self, loop: LoopState, rows_g: Int[Array, " g"], new: LoopState) -> LoopState:
        """The state with new rows in place of rows that are done; a number beyond the last row drops the new row."""
        return self._placed(caches.put(loop, rows_g, new))

    @functools.partial(jax.jit, static_argnums=(0, 2))
    def grown(self, loop: LoopState, slots: int) -> LoopState:
        """The state with more slots."""
        return self._placed(loop._replace(memory=caches.grown(loop.memory, slots)))

    @functools.partial(jax.jit, static_argnums=0, donate_argnums=2)
    def chunk(
        self, params: Any, loop: LoopState, steps: Int[Array, ""], enough: Int[Array, ""]
    ) -> tuple[LoopState, ChunkResult]:
        """Draws tokens and reads them, until the host has something to do.

        Args:
            params: from `unstacked`.
            loop: the state to go on from; its buffers are given up.
            steps: most steps to take.
            enough: stop as soon as this many rows are done.
        """

        def more(carry: tuple[LoopState, Array]) -> Array:
            loop, step = carry
            room = (self._needed(loop) <= caches.slots(loop.memory)) | loop.rows.done
            return (step < steps) & (loop.rows.done.sum() < enough) & ~loop.rows.done.all() & room.all()

        def go_on(carry: tuple[LoopState, Array]) -> tuple[LoopState, Array]:
            loop, step = carry
            return self.told(params, loop, self._drawn(loop)), step + 1

        loop, _ = lax.while_loop(more, go_on, (loop, jnp.zeros((), jnp.int32)))
        rows = loop.rows
        written = jnp.arange(self.most_tokens)[None, :] < rows.length[:, None]
        tokens = jnp.where(written, rows.tokens[:, : self.most_tokens], PAD)
        result = ChunkResult(rows.done, rows.length, self._needed(loop), tokens)
        if self.mesh is not None:
            result = lax.with_sharding_constraint(result, NamedSharding(self.mesh, PartitionSpec()))
        return self._placed(loop), result

    def _needed(self, loop: LoopState) -> Array:
        """Slots that each row needs for the next step. The last token of a row is never read."""
        needed = self.model.slots_needed(loop.memory, 1 + self.most_forced)
        return jnp.minimum(needed, loop.lengths + self.most_tokens)

    def told(self, params: Any, loop: LoopState, token_b: Int[Array, " b"]) -> LoopState:
        """Writes a token for each row that the model has read, and the forced tokens behind it; then the model reads.

        Args:
            params: from `unstacked`.
            loop: the state to go on from.
            token_b: one for each row; not looked at where a row is done or has tokens to read.
        """
        rows, write = loop.rows, self._write_with_forced if self.most_forced else self._write
        rows = write(rows, token_b, ~rows.done & (loop.read == rows.length))
        return self._read(params, loop._replace(rows=rows))

    def _drawn(self, loop: LoopState) -> Int[Array, " b"]:
        """A token for each row, drawn from what the model gives it."""
        keys_b = jax.vmap(jax.random.fold_in)(loop.keys, loop.rows.length)
        return pick(self.config, loop.logits, loop.rows.legal, keys_b)

    def _write(self, rows: RowBuffers, token: Int[Array, " b"], active: Bool[Array, " b"]) -> RowBuffers:
        """Appends a token to the active rows."""
        v = self.grammar.vocabulary
        place = jnp.where(active, rows.length, rows.tokens.shape[1])
        length = rows.length + active
        done = rows.done | (active & (token == (PAD if v.end is None else v.end))) | (length >= self.most_tokens)
        tokens = rows.tokens.at[jnp.arange(place.size), place].set(token, mode="drop")
        rows = rows._replace(tokens=tokens, length=length, done=done)
        if rows.state is None:
            return rows
        state = _select_rows(active, self.grammar.advance(rows.state, token), rows.state)
        return rows._replace(state=state, legal=self.grammar.mask(state))

    def _write_with_forced(self, rows: RowBuffers, token: Int[Array, " b"], active: Bool[Array, " b"]) -> RowBuffers:
        """Appends a token to the active rows, then to every row the tokens that the grammar leaves no choice for.

        This is one loop, so that the grammar, which is the largest part of the program, is compiled once.
        """

        def write(carry: tuple[RowBuffers, Array, Array]) -> tuple[RowBuffers, Array, Array]:
            rows = self._write(*carry)
            return rows, *self._forced(rows)

        return lax.while_loop(lambda carry: carry[2].any(), write, (rows, token, active))[0]

    def _forced(self, rows: RowBuffers) -> tuple[Int[Array, " b"], Bool[Array, " b"]]:
        """The only token that can follow in each row, and which rows have such a token."""
        assert rows.legal is not None
        token = self.grammar.forced(rows.legal)
        return token, (token >= 0) & ~rows.done

    def _read(self, params: Any, loop: LoopState) -> LoopState:
        """The model reads the next tokens of each row."""
        waiting_b = jnp.where(loop.rows.done, 0, loop.rows.length - loop.read)
        places_bt = loop.read[:, None] + jnp.arange(1 + self.most_forced)[None, :]
        tokens_bt = jnp.take_along_axis(loop.rows.tokens, places_bt, axis=1, mode="clip")
        logits, memory, read = self.model.read(params, loop.memory, loop.logits, tokens_bt, waiting_b, self.mesh)
        return loop._replace(read=loop.read + read, logits=logits, memory=memory)

    def shardings(self, loop: LoopState) -> LoopState:
        """Rows, and the heads of the memory, are split over the mesh."""
        assert self.mesh is not None
        rows, heads = (NamedSharding(self.mesh, spec) for spec in (ROWS, PartitionSpec(*ROWS, "tensor")))
        return jax.tree.map(lambda leaf: heads if leaf.ndim > 2 else rows, loop)  # only the memory has heads

    def _placed(self, loop: LoopState) -> LoopState:
        if self.mesh is None:
            return loop
        return jax.tree.map(lax.with_sharding_constraint, loop, self.shardings(loop))


@functools.partial(jax.jit, static_argnums=(0, 1))
def unstacked(model: Transformer, mesh: Mesh | None, params: Any) -> Any:
    """Parameters in the form that the programs take, split over the mesh as before."""
    params = model.unstacked(params)
    if mesh is None:
        return params
    return jax.tree.map(lax.with_sharding_constraint, params, unstacked_shardings(mesh, params))


def unstacked_shardings(mesh: Mesh, params: Any) -> Any:
    """The shardings of what `unstacked` returns."""
    others = parameter_shardings(mesh, {name: part for name, part in params.items() if name != "layers"})
    return others | {"layers": tuple(parameter_shardings(mesh, layer) for layer in params["layers"])}


def _select_rows(active: Bool[Array, " b"], new: Any, old: Any) -> Any:
    """Active rows from `new` and the others from `old`, which are trees of arrays over rows."""
    return jax.tree.map(lambda a, b: jnp.where(active.reshape((-1,) + (1,) * (a.ndim - 1)), a, b), new, old)


def _read_prompts(grammar: Grammar, prompts_bt: Array, lengths_b: Array) -> GrammarState:
    def read(state: GrammarState, column: tuple[Array, Array]) -> tuple[GrammarState, None]:
        place, tokens_b = column
        return _select_rows(place < lengths_b, grammar.advance(state, tokens_b), state), None

    columns = (jnp.arange(prompts_bt.shape[1]), prompts_bt.T)
    return lax.scan(read, grammar.start_state(prompts_bt.shape[0]), columns)[0]


def pick(
    config: SampleConfig, logits_bv: Float[Array, "b v"], legal_bv: Bool[Array, "b v"] | None, keys_b: PRNGKeyArray
) -> Int[Array, " b"]:
    """Draws one legal token for each row, with temperature, then top-k, then top-p (arXiv:1904.09751).

    It draws one number for each row, and takes the token at which the cumulative probability passes it. This is faster
    than drawing noise for each token of the vocabulary, which would take a tenth of the time of a small model.

    Args:
        config: how tokens are drawn.
        logits_bv: of the model.
        legal_bv: tokens that may be drawn, at least one in each row; None for all.
        keys_b: a key for each row; not used at temperature 0.
    """
    logits_bv = logits_bv.astype(jnp.float32)
    if legal_bv is not None:
        logits_bv = jnp.where(legal_bv, logits_bv, -jnp.inf)
    if config.temperature == 0:
        return jnp.argmax(logits_bv, axis=-1).astype(jnp.int32)
    p_bv = jax.nn.softmax(logits_bv / max(config.temperature, SMALLEST), axis=-1)
    if config.top_k or config.top_p < 1:
        p_bv = jnp.where(_likeliest(config, p_bv), p_bv, 0)
    # A token without probability is never taken, whatever the rounding of the cumulative sum.
    sums_bv = jnp.where(p_bv > 0, jnp.cumsum(p_bv, axis=-1), 0)
    drawn_b = jax.vmap(jax.random.uniform)(keys_b) * sums_bv.max(axis=-1)
    return jnp.argmax(sums_bv > drawn_b[:, None], axis=-1).astype(jnp.int32)


def _likeliest(config: SampleConfig, p_bv: Float[Array, "b v"]) -> Bool[Array, "b v"]:
    """Mask of the tokens that top-k and top-p keep. Tokens of equal probability are kept or dropped together.

    It finds the least probability to keep by bisection, which takes a tenth of the time of sorting.
    """
    bits_bv = lax.bitcast_convert_type(p_bv, jnp.int32)  # numbers ≥ 0 and their bits have the same order

    def keeps(least_b: Array) -> Array:
        """Whether a token of this probability is kept, which depends on the tokens that are likelier."""
        likelier_bv = bits_bv > least_b[:, None]
        kept = jnp.ones(least_b.shape, bool)
        if config.top_k:
            kept &= likelier_bv.sum(axis=-1) < config.top_k
        if config.top_p < 1:
            kept &= jnp.where(likelier_bv, p_bv, 0).sum(axis=-1) < max(config.top_p, SMALLEST)
        return kept

    def halve(_: int, bounds: tuple[Array, Array]) -> tuple[Array, Array]:
        out, kept = bounds
        middle = (out + kept) // 2
        keep = keeps(middle)
        return jnp.where(keep, out, middle), jnp.where(keep, middle, kept)

    zero = jnp.zeros(p_bv.shape[0], jnp.int32)
    _, least_b = lax.fori_loop(0, _BITS_OF_ONE.bit_length(), halve, (zero - 1, zero + _BITS_OF_ONE))
    return bits_bv >= least_b[:, None]
