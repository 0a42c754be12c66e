"""What kind of token each primary id is: for the loss by kind, and for whoever counts tokens."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from omnijax.vocab import marks
from omnijax.vocab.ids import PrimaryIds, token_array
from omnijax.vocab.shapes import classify, context_of, modulo
from omnijax.vocab.values import look_up
from omnijax.vocab.vocabulary import PAD, Vocabulary

FIXED_KINDS = ("pad", "general", "position", "aos", "control")


def kind_names(vocabulary: Vocabulary) -> tuple[str, ...]:
    """Names of the kinds that `token_kinds` gives: the fixed ones, digit places, 0 the most significant, `check`."""
    digits = [f"digit_{place}" for place in range(vocabulary.most_digits)]
    return (*FIXED_KINDS, *digits, *["check"] * vocabulary.check_digit)


def token_kinds(vocabulary: Vocabulary, tokens: PrimaryIds) -> Int[Array, "*b t"]:
    """Index into `kind_names` of each token of whole documents (their markers say how wide the digits are).

    Runs of digits longer than any id count at the last place.
    """
    v, array = vocabulary, token_array(tokens, vocabulary.size)
    blocks = marks.into_blocks(array, PAD)
    classes = classify(v, blocks)
    index, others = marks.token_index(classes.digit), ~classes.digit
    place, left = index - marks.last(others) - 1, marks.following(others) - index - 1
    if v.position == "none":
        width = look_up(v.contexts.widths.astype(np.int32) + v.check_digit, context_of(classes))
        place = modulo(place, width)
        left = width - 1 - place
    significance = place if v.digit_order == "big" else left - v.check_digit
    kind = len(FIXED_KINDS) + jnp.clip(significance, 0, v.most_digits - 1)
    if v.check_digit:
        kind = jnp.where(left == 0, len(FIXED_KINDS) + v.most_digits, kind)
    named = (classes.digit, classes.pad, classes.general, classes.position, classes.aos)
    kinds = jnp.select([marks.unpack(words) for words in named], [kind, 0, 1, 2, 3], FIXED_KINDS.index("control"))
    return marks.out_of_blocks(kinds)[..., : array.shape[-1]]
