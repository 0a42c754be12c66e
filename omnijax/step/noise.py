"""Digit noise: wrong digits among those that the model reads in training, so that it goes on from its own mistakes.

A model that writes an id digit by digit has only ever seen right ones before the next; one wrong first digit, and what
follows belongs to no fragment at all. Noise in the input alone teaches it to carry on; targets stay as they are.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Int

from omnijax.vocab.ids import PrimaryIds
from omnijax.vocab.vocabulary import Vocabulary

_STREAM = 2**32 - 1  # folded into the key of a run; no step has this number, so that dropout draws something else


def with_digit_noise(
    vocabulary: Vocabulary,
    tokens_bt: Int[Array, "b t"],
    last_b1: Int[Array, "b 1"],
    share: float,
    seed: int,
    step: Int[Array, ""],
) -> Int[Array, "b t"]:
    """Rows with a share of their digits drawn anew; all other tokens as they are.

    A pure function of the seed, the step and the rows, on whichever devices these are.

    Args:
        vocabulary: that the tokens are of.
        tokens_bt: packed documents.
        last_b1: the token that follows each row, which may belong to the row's last number.
        share: of digits that are drawn, evenly from those below their radix; some come out as they were.
        seed: of the run.
        step: of the run.
    """
    key = jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), _STREAM), step)
    where_key, digit_key = jax.random.split(key)
    radices_bt = digit_radices(vocabulary, PrimaryIds(jnp.concatenate([tokens_bt, last_b1], axis=1)))[:, :-1]
    drawn_bt = jax.random.randint(digit_key, tokens_bt.shape, 0, jnp.maximum(radices_bt, 1), tokens_bt.dtype)
    noisy_bt = (radices_bt > 0) & jax.random.bernoulli(where_key, share, tokens_bt.shape)
    return jnp.where(noisy_bt, vocabulary.digit_start + drawn_bt, tokens_bt)


def digit_radices(vocabulary: Vocabulary, tokens: PrimaryIds) -> Int[Array, "*b t"]:
    """The radix that each digit token of legal documents is written in, int32[..., tokens]; 0 for any other token."""
    v, tokens_bt = vocabulary, tokens.array
    digit_bt = (tokens_bt >= v.digit_start) & (tokens_bt < v.aos)
    if not isinstance(v.base, tuple):
        return jnp.where(digit_bt, v.base, 0)
    axis = tokens_bt.ndim - 1
    index_bt = jnp.broadcast_to(jnp.arange(tokens_bt.shape[-1]), tokens_bt.shape)
    start_bt = lax.cummax(jnp.where(digit_bt, -1, index_bt), axis=axis) + 1
    end_bt = lax.cummin(jnp.where(digit_bt, tokens_bt.shape[-1], index_bt), axis=axis, reverse=True)
    place_bt, length_bt = index_bt - start_bt, end_bt - start_bt
    if v.position == "none":  # numbers of one width stand side by side
        control_bt = (tokens_bt >= v.control_start) & (tokens_bt < v.size)
        marked_bt = lax.cummax(jnp.where(control_bt, index_bt, -1), axis=axis)
        marker_bt = jnp.take_along_axis(tokens_bt, jnp.maximum(marked_bt, 0), axis=-1) - v.control_start
        context_bt = jnp.asarray([*v.contexts.of_control, 0])[jnp.where(marked_bt >= 0, marker_bt, -1)]
        length_bt = jnp.asarray(v.contexts.widths)[context_bt] + v.check_digit
        place_bt = place_bt % length_bt
    digits_bt = length_bt - v.check_digit
    power_bt = digits_bt - 1 - place_bt if v.digit_order == "big" else place_bt
    radices_bt = jnp.asarray(v.base[::-1])[jnp.clip(power_bt, 0, len(v.base) - 1)]
    return jnp.where(digit_bt, jnp.where(place_bt < digits_bt, radices_bt, v.check_base), 0)
