"""Digit noise: wrong digits among the tokens that the model reads in training, so that it learns to go on from them.

A model that writes an id digit by digit is trained on correct digits alone. If it draws a wrong digit in generation,
the digits behind it belong to no fragment that it knows. Noise in the input teaches it to go on. Targets stay correct.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Int, UInt

from omnijax.vocab.kinds import CONTROL, FIRST_DIGIT
from omnijax.vocab.vocabulary import Vocabulary

_STREAM = 2**32 - 1  # folded into the key of a run; no step has this number, so that dropout draws something else


def with_digit_noise(
    vocabulary: Vocabulary,
    tokens_bt: Int[Array, "b t"],
    kinds_bt: UInt[Array, "b t"],
    share: float,
    seed: int,
    step: Int[Array, ""],
) -> Int[Array, "b t"]:
    """Sequences in which a share of the digits is drawn anew; all other tokens stay as they are.

    The result is a pure function of the arguments. It doesn't depend on the devices that hold them.

    Args:
        vocabulary: gives each digit its radix.
        tokens_bt: packed documents. The first token of each sequence is a marker.
        kinds_bt: kind of the token behind each token, as in `Batch`.
        share: share of the digits that are drawn, evenly from those below their radix. Some come out as they were.
        seed: seed of the run.
        step: step of the run.
    """
    key = jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), _STREAM), step)
    where_key, digit_key = jax.random.split(key)
    row_bt = jnp.pad(kinds_bt, ((0, 0), (1, 0)), constant_values=CONTROL)
    radices_bt = digit_radices(vocabulary, row_bt)[:, :-1]
    drawn_bt = jax.random.randint(digit_key, tokens_bt.shape, 0, jnp.maximum(radices_bt, 1), tokens_bt.dtype)
    noisy_bt = (radices_bt > 0) & jax.random.bernoulli(where_key, share, tokens_bt.shape)
    return jnp.where(noisy_bt, vocabulary.digit_start + drawn_bt, tokens_bt)


def digit_radices(vocabulary: Vocabulary, kinds_bt: UInt[Array, "b t"]) -> Int[Array, "b t"]:
    """The radix that each digit is written in, int32[b, t]; 0 for tokens that are no digits.

    Args:
        vocabulary: gives each digit place its radix.
        kinds_bt: kind of each token of whole documents, as `Encoded.kinds`.
    """
    v, place_bt = vocabulary, kinds_bt.astype(jnp.int32) - FIRST_DIGIT  # 0 is the most significant digit of an id
    digit_bt, check_bt = (place_bt >= 0) & (place_bt < v.most_digits), place_bt == v.most_digits
    if not isinstance(v.base, tuple):
        return jnp.where(digit_bt | check_bt, v.base, 0)
    index_bt, axis = jnp.broadcast_to(jnp.arange(place_bt.shape[1]), place_bt.shape), 1
    # The radix of a digit depends on how many less significant digits its id has.
    if v.digit_order == "big":
        after_bt = jnp.pad(jnp.where(digit_bt, place_bt, -1)[:, 1:], ((0, 0), (0, 1)), constant_values=-1)
        last_bt = jnp.where(after_bt == place_bt + 1, place_bt.shape[1], index_bt)
        power_bt = lax.cummin(last_bt, axis=axis, reverse=True) - index_bt
    else:
        before_bt = jnp.pad(jnp.where(digit_bt, place_bt, -1)[:, :-1], ((0, 0), (1, 0)), constant_values=-1)
        first_bt = jnp.where(before_bt == place_bt + 1, -1, index_bt)
        power_bt = index_bt - lax.cummax(first_bt, axis=axis)
    radices_bt = jnp.asarray(v.base[::-1])[jnp.clip(power_bt, 0, len(v.base) - 1)]
    return jnp.where(digit_bt, radices_bt, jnp.where(check_bt, v.check_base, 0))
