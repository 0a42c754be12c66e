"""Exact likelihoods: bits of tokens, and bits of items.

By the chain rule, −log2 p(item) = Σ −log2 p(digit | everything before) + −log2 p(position token | everything before).
So bits of different radices, orders and layouts are comparable. The bits of positions are reported separately.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from omnijax.vocab.decode import Kind, Reading, decode
from omnijax.vocab.ids import PrimaryIds, expect
from omnijax.vocab.values import take_back
from omnijax.vocab.vocabulary import Vocabulary


class TokenBits(NamedTuple):
    """−log2 of the probability of each token, float32[..., tokens].

    Attributes:
        raw: under the softmax over all tokens.
        renormalised: under the softmax over the legal tokens. `raw - renormalised` is the leak: the cost of the
            probability that the model gives to illegal tokens.
    """

    raw: Float[Array, "*b t"]
    renormalised: Float[Array, "*b t"]


class ItemBits(NamedTuple):
    """Bits of the item that ends at each token, float32[..., tokens]; 0 where none ends.

    Attributes:
        content: bits of the digits of a fragment, or of a general token.
        position: bits of the position tokens of a fragment.
        check: bits of the check digit of a fragment, which carries no information of its own.
        places: float32[..., tokens, digits], bits of each digit, most significant first.
    """

    content: Float[Array, "*b t"]
    position: Float[Array, "*b t"]
    check: Float[Array, "*b t"]
    places: Float[Array, "*b t k"]


def token_bits(logits_btv: Float[Array, "*b t v"], tokens: PrimaryIds, legal_btv: Bool[Array, "*b t v"]) -> TokenBits:
    """Bits of tokens under the logits that predict them (`logits[..., i, :]` predicts `tokens[..., i]`)."""
    array = expect(PrimaryIds, tokens, "tokens").array

    def bits(logits: Array) -> Array:
        chosen = jnp.take_along_axis(logits, array[..., None], axis=-1)[..., 0]
        return (jax.nn.logsumexp(logits, axis=-1) - chosen) / math.log(2)

    logits_btv = logits_btv.astype(jnp.float32)
    return TokenBits(bits(logits_btv), bits(jnp.where(legal_btv, logits_btv, -jnp.inf)))


def item_bits(vocabulary: Vocabulary, tokens: PrimaryIds, bits_bt: Float[Array, "*b t"]) -> ItemBits:
    """Sums the bits of tokens to bits of items.

    The sums run over the few tokens of an item. They are not differences of long sums, so that nothing cancels.
    """
    v = vocabulary
    reading: Reading = decode(v, expect(PrimaryIds, tokens, "tokens"))
    general, fragment = reading.kind == Kind.GENERAL, reading.kind == Kind.FRAGMENT
    at_side = 0 if v.position == "none" else v.position_places
    behind = at_side if v.position == "after" else 0
    digits = reading.length - at_side - v.check_digit
    nothing = jnp.zeros_like(bits_bt)

    def back(by: Array | int) -> Array:
        return jnp.where(fragment, take_back(bits_bt, by), 0.0)

    places = []
    for place in range(v.most_digits):  # the distance from the digit of this place to the end
        from_run_end = digits - 1 - place if v.digit_order == "big" else place
        places.append(jnp.where(place < digits, back(from_run_end + behind + v.check_digit), 0.0))
    places_btk = jnp.stack(places, axis=-1)
    first = 0 if v.position == "after" else digits + v.check_digit
    position = sum((back(first + place) for place in range(at_side)), nothing)
    check = back(behind) if v.check_digit else nothing
    return ItemBits(jnp.where(general, bits_bt, places_btk.sum(axis=-1)), position, check, places_btk)
