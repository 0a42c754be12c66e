"""Draws the rest of a document: one jitted loop over a KV cache, batched, under the grammar or without it."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from omnijax.config import SampleConfig, Target
from omnijax.errors import ConfigError
from omnijax.model.attention import Cache
from omnijax.model.transformer import Transformer
from omnijax.vocab.grammar import Grammar, GrammarState
from omnijax.vocab.vocabulary import END, PAD, Vocabulary


class _Loop(NamedTuple):
    step: Array
    drawn: Int[Array, "b n"]
    logits: Float[Array, "b v"]
    cache: Cache
    state: GrammarState
    done: Bool[Array, " b"]


@dataclasses.dataclass(frozen=True)
class Sampler:
    """Completes documents with one segment and `eos`.

    Attributes:
        model: whose parameters are given at each call.
        grammar: of the vocabulary, with the number of items of the segment to come.
        config: how tokens are drawn.
        most: tokens to draw at most; with the grammar no document needs more.
    """

    model: Transformer
    grammar: Grammar
    config: SampleConfig
    most: int

    @classmethod
    def of(cls, model: Transformer, vocabulary: Vocabulary, target: Target) -> Sampler:
        """The sampler of one modality.

        Raises:
            ConfigError: a temperature, top-k or top-p that can't be.
        """
        _check(target.sample)
        grammar = Grammar.of(vocabulary, {target.name: (target.min_items, target.max_items)}, (END,))
        return cls(model, grammar, target.sample, most_tokens(vocabulary, target))

    def __call__(
        self, params: Any, prompts_bt: Int[np.ndarray, "b t"], lengths_b: Int[np.ndarray, " b"], key: PRNGKeyArray
    ) -> Int[Array, "b n"]:
        """The tokens that follow each prompt, padded behind `eos`.

        Args:
            params: of the model.
            prompts_bt: beginnings of documents, the marker of the wanted segment included, padded on the right.
            lengths_b: tokens of each prompt, at least one.
            key: draws the tokens; not used at temperature 0.
        """
        return _sample(self, params, jnp.asarray(prompts_bt), jnp.asarray(lengths_b), key)


def most_tokens(vocabulary: Vocabulary, target: Target) -> int:
    """Tokens that the longest segment of a target takes, `eos` included, its marker not."""
    context = vocabulary.contexts.of_control[vocabulary.control.index(target.name)]
    digits = int(vocabulary.contexts.widths[context])
    item = max(1, digits + (vocabulary.position != "none")) if vocabulary.contexts.sizes[context] else 1
    return target.max_items * item + (vocabulary.layout == "grouped") + 1


@functools.partial(jax.jit, static_argnums=0)
def _sample(sampler: Sampler, params: Any, prompts_bt: Array, lengths_b: Array, key: PRNGKeyArray) -> Array:
    model, grammar, most = sampler.model, sampler.grammar, sampler.most
    rows, prompt = prompts_bt.shape
    end = grammar.vocabulary.end
    last_token = PAD if end is None else end

    positions_bt = jnp.broadcast_to(jnp.arange(prompt), (rows, prompt))
    cache = model.empty_cache(rows, prompt + most)
    logits_btv, cache = model.extend(params, cache, prompts_bt, positions_bt)
    logits_bv = jnp.take_along_axis(logits_btv, lengths_b[:, None, None] - 1, axis=1)[:, 0]

    def more(loop: _Loop) -> Array:
        return (loop.step < most) & ~loop.done.all()

    def draw(loop: _Loop) -> _Loop:
        legal_bv = grammar.mask(loop.state) if sampler.config.grammar else jnp.ones((1, 1), bool)
        token_b = pick(sampler.config, loop.logits, legal_bv, jax.random.fold_in(key, loop.step))
        token_b = jnp.where(loop.done, PAD, token_b)
        state = grammar.advance(loop.state, token_b) if sampler.config.grammar else loop.state
        logits_b1v, cache = model.extend(params, loop.cache, token_b[:, None], (lengths_b + loop.step)[:, None])
        drawn = lax.dynamic_update_slice_in_dim(loop.drawn, token_b[:, None], loop.step, axis=1)
        done = loop.done | (token_b == last_token)
        return _Loop(loop.step + 1, drawn, logits_b1v[:, 0], cache, state, done)

    loop = _Loop(
        jnp.zeros((), jnp.int32),
        jnp.full((rows, most), PAD, jnp.int32),
        logits_bv,
        cache,
        _read_prompts(grammar, prompts_bt, lengths_b),
        jnp.zeros(rows, bool),
    )
    return lax.while_loop(more, draw, loop).drawn


def _read_prompts(grammar: Grammar, prompts_bt: Array, lengths_b: Array) -> GrammarState:
    def read(state: GrammarState, column: tuple[Array, Array]) -> tuple[GrammarState, None]:
        place, tokens_b = column
        after = grammar.advance(state, tokens_b)
        return GrammarState(
            *(jnp.where(place < lengths_b, new, old) for new, old in zip(after, state, strict=True))
        ), None

    columns = (jnp.arange(prompts_bt.shape[1]), prompts_bt.T)
    return lax.scan(read, grammar.start(prompts_bt.shape[0]), columns)[0]


def pick(
    config: SampleConfig, logits_bv: Float[Array, "b v"], legal_bv: Bool[Array, "b v"], key: PRNGKeyArray
) -> Int[Array, " b"]:
    """One token for each row: illegal ones out, then temperature, top-k, top-p (arXiv:1904.09751)."""
    logits_bv = jnp.where(legal_bv, logits_bv.astype(jnp.float32), -jnp.inf)
    if config.temperature == 0:
        return jnp.argmax(logits_bv, axis=-1).astype(jnp.int32)
    logits_bv = logits_bv / config.temperature
    if config.top_k or config.top_p < 1:
        ordered_bv = jnp.sort(logits_bv, axis=-1, descending=True)
        least_b1 = jnp.full((logits_bv.shape[0], 1), -jnp.inf)
        if config.top_k:
            least_b1 = ordered_bv[:, min(config.top_k, logits_bv.shape[1]) - 1, None]
        if config.top_p < 1:
            probabilities_bv = jax.nn.softmax(ordered_bv, axis=-1)
            before_bv = jnp.cumsum(probabilities_bv, axis=-1) - probabilities_bv
            kept_bv = jnp.where(before_bv < config.top_p, ordered_bv, jnp.inf)
            least_b1 = jnp.maximum(least_b1, kept_bv.min(axis=-1, keepdims=True))
        logits_bv = jnp.where(logits_bv >= least_b1, logits_bv, -jnp.inf)
    return jax.random.categorical(key, logits_bv).astype(jnp.int32)


def _check(config: SampleConfig) -> None:
    for field, holds, rule in (
        ("temperature", config.temperature >= 0, "must be ≥ 0; 0 takes the likeliest token"),
        ("top_k", config.top_k >= 0, "must be ≥ 0; 0 draws from all"),
        ("top_p", 0 < config.top_p <= 1, "must be in (0, 1]"),
    ):
        if not holds:
            raise ConfigError(f"sample.{field}", getattr(config, field), rule, "choose another value")
