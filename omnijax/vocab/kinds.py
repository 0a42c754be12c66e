"""What kind of token each primary id is: for the loss by kind, and for whoever counts tokens."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Int

from omnijax.vocab.decode import context_rows, last_where
from omnijax.vocab.vocabulary import PAD, Vocabulary

FIXED_KINDS = ("pad", "general", "position", "aos", "control")


def kind_names(vocabulary: Vocabulary) -> tuple[str, ...]:
    """Names of the kinds that `token_kinds` gives: the fixed ones, then a digit place each, 0 the most significant."""
    return (*FIXED_KINDS, *(f"digit_{place}" for place in range(vocabulary.most_digits)))


def token_kinds(vocabulary: Vocabulary, tokens_bt: Int[Array, "*b t"]) -> Int[Array, "*b t"]:
    """Index into `kind_names` of each token of whole documents (their markers say how wide the digits are).

    Runs of digits longer than any id count at the last place.
    """
    v = vocabulary
    digit = (tokens_bt >= v.digit_start) & (tokens_bt < v.aos)
    index = jnp.broadcast_to(jnp.arange(tokens_bt.shape[-1], dtype=jnp.int32), tokens_bt.shape)
    place = index - last_where(~digit, index) - 1
    if v.position == "none":
        control = (tokens_bt >= v.control_start) & (tokens_bt < v.size)
        widths = jnp.asarray(v.contexts.widths, jnp.int32)[context_rows(v, tokens_bt, last_where(control, index))]
        place = place % jnp.maximum(widths, 1)
    return jnp.select(
        [digit, tokens_bt == PAD, tokens_bt < v.position_start, tokens_bt < v.digit_start, tokens_bt == v.aos],
        [len(FIXED_KINDS) + jnp.minimum(place, v.most_digits - 1), 0, 1, 2, 3],
        FIXED_KINDS.index("control"),
    )
