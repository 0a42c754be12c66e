"""Draws the rest of a document: one jitted loop over a KV cache, batched, under the grammar or without it.

A token that the grammar leaves no choice for is written without a forward pass of its own: the model reads it together
with the token before it. Rows get out of step by that, and where a check digit sends one back.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int, PRNGKeyArray

from omnijax.config import SampleConfig, Target
from omnijax.errors import ConfigError
from omnijax.model.cache import Cache
from omnijax.model.transformer import Transformer
from omnijax.pick import pick
from omnijax.rows import Pen, Rows, where
from omnijax.vocab.grammar import Grammar, GrammarState, SegmentRule
from omnijax.vocab.vocabulary import END, Vocabulary


class Drawn(NamedTuple):
    """What was sampled.

    Attributes:
        tokens: that follow each prompt, padded behind the end.
        rejected: how many fragments of each row were drawn again because of their check digit.
    """

    tokens: Int[Array, "b n"]
    rejected: Int[Array, " b"]


class _Loop(NamedTuple):
    rows: Rows
    read: Int[Array, " b"]
    """How many tokens of each row the model has read, behind the prompt."""
    logits: Float[Array, "b v"]
    """Behind the last of these."""
    cache: Cache


@dataclasses.dataclass(frozen=True)
class Sampler:
    """Completes documents with one segment and their end.

    Attributes:
        model: whose parameters are given at each call.
        config: how tokens are drawn.
        pen: writes them, by a grammar with what is asked of the segment to come.
        ahead: tokens that the grammar leaves no choice for which are read in one pass with the token before them, at
            most; 0 gives each a pass of its own.
    """

    model: Transformer
    config: SampleConfig
    pen: Pen
    ahead: int

    @classmethod
    def of(cls, model: Transformer, vocabulary: Vocabulary, target: Target, skip: bool = True) -> Sampler:
        """The sampler of one modality.

        Args:
            model: whose tokens are those of the vocabulary.
            vocabulary: of the documents.
            target: the segment to come.
            skip: give tokens that the grammar leaves no choice for no pass of their own.

        Raises:
            ConfigError: a temperature, top-k, top-p or number of retries that can't be.
            VocabularyError: the vocabulary can't write what the target asks for.
        """
        _check(target.sample, vocabulary)
        v, context = vocabulary, _context(vocabulary, target.name)
        end = () if v.end is None else (END,)
        rules = [
            SegmentRule(target.name, target.min_items, target.max_items, "fragments" if context else "general", end)
        ]
        if target.order == "any":  # what other segments hold is read, and needs no bits for its positions
            rules += [SegmentRule(name, 0, 0) for name in v.control if name not in (END, target.name)]
        grammar = Grammar(v, tuple(rules), (target.name,), target.order)
        retries = target.sample.retries if context else 0
        pen = Pen(grammar, most_tokens(v, target), retries, int(v.contexts.widths[context]))
        # A check digit and the tokens of a position are what is forced between two digits that aren't.
        places = v.position_places if v.position != "none" else 0
        ahead = max(1, places + (v.check_digit and v.width == "fixed")) if skip and target.sample.grammar else 0
        return cls(model, target.sample, pen, ahead)

    def __call__(
        self, params: Any, prompts_bt: Int[np.ndarray, "b t"], lengths_b: Int[np.ndarray, " b"], key: PRNGKeyArray
    ) -> Drawn:
        """The tokens that follow each prompt.

        Args:
            params: of the model.
            prompts_bt: beginnings of documents, the marker of the wanted segment included, padded on the right.
            lengths_b: tokens of each prompt, at least one.
            key: draws the tokens, each by its row and its number in it; not used at temperature 0.
        """
        return _sample(self, params, jnp.asarray(prompts_bt, jnp.int32), jnp.asarray(lengths_b, jnp.int32), key)


def most_tokens(vocabulary: Vocabulary, target: Target) -> int:
    """Tokens that the longest segment of a target takes, the end included, its marker not."""
    context, item = _context(vocabulary, target.name), 1
    if context:
        places = vocabulary.position_places if vocabulary.position != "none" else 0
        item = int(vocabulary.contexts.widths[context]) + vocabulary.check_digit + places
    return target.max_items * item + (vocabulary.layout == "grouped") + 1


def _context(vocabulary: Vocabulary, name: str) -> int:
    return int(vocabulary.contexts.of_control[vocabulary.token(name) - vocabulary.control_start])


@functools.partial(jax.jit, static_argnums=0)
def _sample(sampler: Sampler, params: Any, prompts_bt: Array, lengths_b: Array, key: PRNGKeyArray) -> Drawn:
    keys_b = jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(prompts_bt.shape[0]))

    def more(loop: _Loop) -> Array:
        return ~loop.rows.done.all()

    def step(loop: _Loop) -> _Loop:
        return _draw(sampler, _read(sampler, params, lengths_b, loop), keys_b)

    rows = lax.while_loop(more, step, _draw(sampler, _begin(sampler, params, prompts_bt, lengths_b), keys_b)).rows
    rejected = jnp.zeros_like(rows.length) if rows.opened is None else rows.opened.rejected
    return Drawn(rows.finished(sampler.pen.most), rejected)


def _begin(sampler: Sampler, params: Any, prompts_bt: Array, lengths_b: Array) -> _Loop:
    """Reads the prompts, and what is forced behind them."""
    model, pen = sampler.model, sampler.pen
    batch, length = prompts_bt.shape
    # Here `aos` may stand before what can be forced later on.
    ahead = sampler.ahead + (pen.grammar.vocabulary.layout == "grouped") if sampler.ahead else 0
    logits = jnp.zeros((batch, model.tokens), jnp.float32)
    state = _read_prompts(pen.grammar, prompts_bt, lengths_b)
    rows = pen.start(pen.most + ahead + 1, state, logits, sampler.config.grammar)
    rows = pen.write_forced(rows) if ahead else rows
    read = jnp.minimum(rows.length, ahead)

    places_bt = jnp.broadcast_to(jnp.arange(length + ahead), (batch, length + ahead))
    behind_bt = jnp.take_along_axis(rows.tokens, places_bt - lengths_b[:, None], axis=1, mode="clip")
    prompts_bt = jnp.pad(prompts_bt, ((0, 0), (0, ahead)))
    tokens_bt = jnp.where(places_bt < lengths_b[:, None], prompts_bt, behind_bt)
    cache = model.empty_cache(batch, length + pen.most)
    logits_b1v, cache = model.extend(params, cache, tokens_bt, places_bt, lengths_b + read - 1)
    return _Loop(rows, read, logits_b1v[:, 0], cache)


def _read_prompts(grammar: Grammar, prompts_bt: Array, lengths_b: Array) -> GrammarState:
    def read(state: GrammarState, column: tuple[Array, Array]) -> tuple[GrammarState, None]:
        place, tokens_b = column
        return where(place < lengths_b, grammar.advance(state, tokens_b), state), None

    columns = (jnp.arange(prompts_bt.shape[1]), prompts_bt.T)
    return lax.scan(read, grammar.start_state(prompts_bt.shape[0]), columns)[0]


def _read(sampler: Sampler, params: Any, lengths_b: Array, loop: _Loop) -> _Loop:
    """The model reads one more token of each row; or, where it is worth it, what is forced behind that too."""
    waiting = loop.rows.length - loop.read

    def read(width: int, _: Any, carry: tuple[Array, Cache]) -> tuple[Array, Cache]:
        places_bt = loop.read[:, None] + jnp.arange(width)[None, :]
        tokens_bt = jnp.take_along_axis(loop.rows.tokens, places_bt, axis=1, mode="clip")
        last = jnp.clip(waiting, 1, width) - 1  # padding behind it is overwritten before it is seen
        logits_b1v, cache = sampler.model.extend(params, carry[1], tokens_bt, lengths_b[:, None] + places_bt, last)
        return logits_b1v[:, 0].astype(carry[0].dtype), cache

    narrow, wide = (functools.partial(read, width) for width in (1, 1 + sampler.ahead))
    if sampler.ahead:
        # More tokens of all rows cost more, so that they have to be there in half of them; else rows wait for a few.
        ahead = ~loop.rows.done & (waiting > 1)
        worth = 2 * ahead.sum() >= (~loop.rows.done).sum()
        # Loops of one round or none: unlike branches they write the cache in place.
        carry = lax.fori_loop(0, jnp.where(worth, 0, 1), narrow, (loop.logits, loop.cache))
        logits, cache = lax.fori_loop(0, jnp.where(worth, 1, 0), wide, carry)
        new = jnp.clip(waiting, 0, jnp.where(worth, 1 + sampler.ahead, 1))
    else:
        logits, cache = narrow(0, (loop.logits, loop.cache))
        new = jnp.clip(waiting, 0, 1)
    return loop._replace(read=loop.read + new, logits=jnp.where((new > 0)[:, None], logits, loop.logits), cache=cache)


def _draw(sampler: Sampler, loop: _Loop, keys_b: Array) -> _Loop:
    """Draws a token for each row that the model has read, and writes what is forced behind it."""
    pen, rows = sampler.pen, loop.rows
    ready = ~rows.done & (loop.read == rows.length)
    if rows.opened is None:
        keys_b = jax.vmap(jax.random.fold_in)(keys_b, rows.length)
        token = pick(sampler.config, loop.logits, rows.legal, keys_b)
    else:
        rows, legal = pen.before(rows, ready, loop.logits)
        assert rows.opened is not None
        keys_b = jax.vmap(jax.random.fold_in)(keys_b, rows.length + pen.most * rows.opened.attempts)
        token = pick(sampler.config, loop.logits, legal, keys_b)
        rows, wrong = pen.after(rows, token, ready)
        assert rows.opened is not None
        ready &= ~wrong
        logits = jnp.where(wrong[:, None], rows.opened.logits.astype(loop.logits.dtype), loop.logits)
        loop = loop._replace(read=jnp.minimum(loop.read, rows.length), logits=logits)
    rows = pen.write(rows, token, ready, drawn=True)
    return loop._replace(rows=pen.write_forced(rows) if sampler.ahead else rows)


def _check(config: SampleConfig, vocabulary: Vocabulary) -> None:
    for field, holds, rule in (
        ("temperature", config.temperature >= 0, "must be ≥ 0; 0 takes the likeliest token"),
        ("top_k", config.top_k >= 0, "must be ≥ 0; 0 draws from all"),
        ("top_p", 0 < config.top_p <= 1, "must be in (0, 1]"),
        ("retries", config.retries >= 0, "must be ≥ 0; 0 draws nothing again"),
    ):
        if not holds:
            raise ConfigError(f"sample.{field}", getattr(config, field), rule, "choose another value")
    checked = vocabulary.check_digit and vocabulary.width == "fixed"
    for needs, rule in (
        (checked, "needs vocabulary.check_digit, and fixed width, where its place is known"),
        (config.temperature > 0, "at temperature 0 the same digits would come again"),
        (config.grammar, "the grammar says which check digit is right"),
    ):
        if config.retries and not needs:
            raise ConfigError("sample.retries", config.retries, rule, "set it to 0, or mend that")
