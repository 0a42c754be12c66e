"""Kinds of tokens: what a token is, and for a digit its place. Losses and errors are reported for each kind."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from omnijax.vocab.vocabulary import Vocabulary

FIXED_KINDS = ("pad", "general", "position", "aos", "control")
PAD_KIND, GENERAL, POSITION, AOS, CONTROL, FIRST_DIGIT = range(6)
Kinds = NDArray[np.uint8] | NDArray[np.uint16]
"""Index into `kind_names` of each token; uint16 if there are more than 256 kinds."""


def kind_names(vocabulary: Vocabulary) -> tuple[str, ...]:
    """Names of the kinds: the fixed ones, then `digit_0`, … by digit place, then `check` if there are check digits.

    Place 0 is the most significant digit that is written for an id.
    """
    digits = [f"digit_{place}" for place in range(vocabulary.most_digits)]
    return (*FIXED_KINDS, *digits, *["check"] * vocabulary.check_digit)


def kind_type(vocabulary: Vocabulary) -> np.dtype[Any]:
    """Dtype of kinds: uint8, or uint16 if there are more than 256 kinds."""
    return np.min_scalar_type(len(kind_names(vocabulary)) - 1)


def token_kinds(vocabulary: Vocabulary, tokens: NDArray[np.int32], segment_tokens: NDArray[np.int64]) -> Kinds:
    """Kind of each token that the encoder wrote. The arrays are those of `Encoded`."""
    v = vocabulary
    order = np.array([PAD_KIND, GENERAL, POSITION, FIRST_DIGIT, AOS, CONTROL], kind_type(v))
    kinds = np.repeat(order, (1, v.general, v.positions, v.digits, 1, len(v.control)))[tokens]
    digits = np.flatnonzero(kinds == FIRST_DIGIT)
    firsts = np.flatnonzero(np.diff(digits, prepend=-2) > 1)  # of each run
    lengths = np.diff(firsts, append=len(digits))
    if v.position == "none":  # a run of digits may be several fragments, each of the width of its segment
        ends = np.cumsum(segment_tokens)
        marker = tokens[ends - segment_tokens] - v.control_start
        context = np.append(v.contexts.of_control, 0)[np.maximum(marker, -1)]
        width = v.contexts.widths[context[np.searchsorted(ends, digits[firsts], side="right")]] + v.check_digit
        count = lengths // width
        lengths = np.repeat(width, count)
    last = np.cumsum(lengths) - 1
    place = np.arange(len(digits), dtype=np.int32) - np.repeat((last + 1 - lengths).astype(np.int32), lengths)
    if v.digit_order == "little":
        place = np.repeat(lengths - 1 - v.check_digit, lengths) - place
    if v.check_digit:
        place[last] = v.most_digits
    kinds[digits] = FIRST_DIGIT + place
    return kinds
