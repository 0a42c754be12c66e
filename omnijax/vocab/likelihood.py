"""Exact likelihoods: bits of tokens, and of the items that they make.

−log2 p(item) = Σ −log2 p(digit | what stands before) + −log2 p(position token | …), by the chain rule, so that figures
of different radices, orders and layouts are comparable. The position is reported apart from the digits.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from omnijax.vocab.decode import Kind, Reading, decode
from omnijax.vocab.vocabulary import Vocabulary


class TokenBits(NamedTuple):
    """−log2 of the probability of each token, float32[..., tokens].

    Attributes:
        raw: under the softmax as it is.
        renormalised: under the softmax restricted to the legal tokens; `raw - renormalised` is the leak, the cost of
            the probability that the model spends on what can't follow.
    """

    raw: Float[Array, "*b t"]
    renormalised: Float[Array, "*b t"]


class ItemBits(NamedTuple):
    """Bits of the item that ends at each token, float32[..., tokens]; 0 where none ends.

    Attributes:
        content: of the digits of a fragment, or of a general token.
        position: of the position token of a fragment.
        places: float32[..., tokens, digits], of the digits, most significant first.
    """

    content: Float[Array, "*b t"]
    position: Float[Array, "*b t"]
    places: Float[Array, "*b t k"]


def token_bits(
    logits_btv: Float[Array, "*b t v"], tokens_bt: Int[Array, "*b t"], legal_btv: Bool[Array, "*b t v"]
) -> TokenBits:
    """Bits of tokens under the logits that predict them (`logits[..., i, :]` predicts `tokens[..., i]`)."""

    def bits(logits: Array) -> Array:
        chosen = jnp.take_along_axis(logits, tokens_bt[..., None], axis=-1)[..., 0]
        return (jax.nn.logsumexp(logits, axis=-1) - chosen) / math.log(2)

    logits_btv = logits_btv.astype(jnp.float32)
    return TokenBits(bits(logits_btv), bits(jnp.where(legal_btv, logits_btv, -jnp.inf)))


def item_bits(vocabulary: Vocabulary, tokens_bt: Int[Array, "*b t"], bits_bt: Float[Array, "*b t"]) -> ItemBits:
    """Sums the bits of tokens to bits of items.

    Sums run over the few tokens of one item, not over differences of long sums, so that nothing cancels.
    """
    reading: Reading = decode(vocabulary, tokens_bt)
    general = reading.kind == Kind.GENERAL
    fragment = reading.kind == Kind.FRAGMENT
    after, before = vocabulary.position == "after", vocabulary.position == "before"
    digits = reading.length - (after or before)
    places = []
    for place in range(vocabulary.most_digits):
        back = digits - 1 - place + after  # how far before the end the digit of this place stands
        places.append(jnp.where(fragment & (place < digits), _back(bits_bt, back), 0.0))
    places_btk = jnp.stack(places, axis=-1)
    position = jnp.zeros_like(bits_bt)
    if after or before:
        position = jnp.where(fragment, _back(bits_bt, 0 * digits if after else digits), 0.0)
    return ItemBits(jnp.where(general, bits_bt, places_btk.sum(axis=-1)), position, places_btk)


def _back(bits: Array, by: Array) -> Array:
    index = jnp.broadcast_to(jnp.arange(bits.shape[-1]), by.shape) - by
    return jnp.take_along_axis(bits, jnp.clip(index, 0, bits.shape[-1] - 1), axis=-1)
