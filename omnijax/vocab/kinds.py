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
    edges = np.flatnonzero(np.diff(kinds == FIRST_DIGIT, prepend=False, append=False))
    starts, lengths = edges[::2], np.diff(edges)[::2]
    if v.position == "none":  # a run of digits may be several fragments, each of the width of its segment
        ends = np.cumsum(segment_tokens)
        marker = tokens[ends - segment_tokens] - v.control_start
        context = np.append(v.contexts.of_control, 0)[np.maximum(marker, -1)]
        width = v.contexts.widths[context[np.searchsorted(ends, starts, side="right")]] + v.check_digit
        count = lengths // width
        lengths = np.repeat(width, count)
        number = np.arange(lengths.size) - np.repeat(np.cumsum(count) - count, count)
        starts = np.repeat(starts, count) + number * lengths
    last = starts + lengths - 1
    if v.check_digit:
        kinds[last] = FIRST_DIGIT + v.most_digits
    for place in range(v.most_digits):
        here = lengths - v.check_digit > place
        tokens_here = starts[here] + place if v.digit_order == "big" else last[here] - v.check_digit - place
        kinds[tokens_here] = FIRST_DIGIT + place
    return kinds
