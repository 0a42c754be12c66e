"""Primary tokens back to items, under `jit`: static shapes, any leading dimensions, never a failure.

A model can emit anything, so a malformed stream is data: each position gets what was read there and an error code, and
what is valid around an error is kept. All scans here are cumulative maxima over the token axis.
"""

from __future__ import annotations

import enum
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Int, Integer

from omnijax.errors import VocabularyError
from omnijax.vocab.vocabulary import PAD, Vocabulary


class Kind(enum.IntEnum):
    """What a token is."""

    PAD = 0
    GENERAL = 1
    FRAGMENT = 2
    """The last token of a fragment, where it is reported."""
    PART = 3
    """Any other token of a fragment."""
    AOS = 4
    CONTROL = 5
    ERROR = 6


class Error(enum.IntEnum):
    """What is wrong with a token: the first that applies, in this order.

    Where the stream ends inside a fragment, `CUT_OFF` stands for what is missing there.
    """

    NONE = 0
    NOT_A_TOKEN = 1
    """Outside the primary vocabulary."""
    WRONG_PLACE = 2
    """A kind of token that can't stand in this part of this segment."""
    POSITION_WITHOUT_DIGITS = 3
    DIGITS_WITHOUT_POSITION = 4
    WRONG_WIDTH = 5
    """Fixed width, and not as many digits as the space has."""
    CUT_OFF = 6
    """The stream ended inside a fragment."""
    DIGIT_NOT_BELOW_BASE = 7
    LEADING_ZERO = 8
    ID_OUT_OF_RANGE = 9
    POSITION_ZERO = 10
    POSITION_OUT_OF_RANGE = 11
    """Beyond the number of items that the segment has, well read or not."""
    POSITION_TWICE = 12


class Reading(NamedTuple):
    """What stands at each token, all int32[..., tokens].

    Attributes:
        kind: a `Kind`.
        error: an `Error`.
        id: of a general token, of a control token, or secondary id over all spaces; -1 elsewhere.
        position: item position of a fragment as it is written, from 1; 0 elsewhere.
        segment: number of control tokens up to here.
        length: tokens of the item that ends here; 0 elsewhere.
    """

    kind: Int[Array, "*b t"]
    error: Int[Array, "*b t"]
    id: Int[Array, "*b t"]
    position: Int[Array, "*b t"]
    segment: Int[Array, "*b t"]
    length: Int[Array, "*b t"]


class _Classes(NamedTuple):
    general: Array
    position: Array
    digit: Array
    aos: Array
    control: Array
    ends: Array
    """The next token is padding, or there is none."""


class _Item(NamedTuple):
    """A fragment as it was read, reported at its last token."""

    ends: Array
    error: Array
    number: Array
    position: Array
    length: Array


def decode(vocabulary: Vocabulary, tokens: Integer[Array, "*b t"] | Integer[np.ndarray, "*b t"]) -> Reading:
    """Reads streams of primary tokens.

    Args:
        vocabulary: static.
        tokens: int[..., tokens], anything.

    Raises:
        VocabularyError: tokens are not whole numbers, or the stream is so long that a (segment, position) pair has no
            int32.
    """
    if not jnp.issubdtype(tokens.dtype, jnp.integer):
        raise VocabularyError("tokens", tokens.dtype, "tokens must be whole numbers", "convert them before decoding")
    if tokens.shape[-1] * max(vocabulary.positions, 1) >= 2**31:
        raise VocabularyError(
            "tokens", tokens.shape, "tokens × positions must stay below 2^31", "decode shorter streams"
        )
    if tokens.dtype.itemsize > 4:  # must not wrap around to a token
        tokens = jnp.where((tokens >= 0) & (tokens < vocabulary.size), tokens.astype(jnp.int32), vocabulary.size)
    return _decode(vocabulary, tokens.astype(jnp.int32))


@functools.partial(jax.jit, static_argnums=0)
def _decode(vocabulary: Vocabulary, tokens: Array) -> Reading:
    classes = _classify(vocabulary, tokens)
    index = jnp.broadcast_to(jnp.arange(tokens.shape[-1], dtype=jnp.int32), tokens.shape)
    segment_start = last_where(classes.control, index)
    context = context_rows(vocabulary, tokens, segment_start)
    item = _fragments(vocabulary, tokens, classes, index, context)
    misplaced = _misplaced(vocabulary, classes, index, segment_start, context)

    fragment_error = _first_error(jnp.where(misplaced, Error.WRONG_PLACE, 0), item.error)
    if vocabulary.position != "none":
        position_error = _position_errors(vocabulary, classes, item, fragment_error)
        fragment_error = _first_error(fragment_error, position_error)
    token_error = jnp.where(
        (tokens < 0) | (tokens >= vocabulary.size),
        Error.NOT_A_TOKEN,
        jnp.where(misplaced & ~(classes.digit | classes.position), Error.WRONG_PLACE, 0),
    )
    if vocabulary.position == "none":
        token_error = jnp.where(classes.position, Error.WRONG_PLACE, token_error)
    error = jnp.where(item.ends, fragment_error, token_error).astype(jnp.int32)

    kind = jnp.select(
        [error > 0, item.ends, classes.general, classes.aos, classes.control, classes.digit | classes.position],
        [Kind.ERROR, Kind.FRAGMENT, Kind.GENERAL, Kind.AOS, Kind.CONTROL, Kind.PART],
        Kind.PAD,
    ).astype(jnp.int32)
    fragment = kind == Kind.FRAGMENT
    offsets = jnp.asarray(vocabulary.contexts.offsets, jnp.int32)
    ids = jnp.select(
        [fragment, kind == Kind.GENERAL, kind == Kind.CONTROL],
        [item.number + offsets[context], tokens - 1, tokens - vocabulary.control_start],
        -1,
    )
    return Reading(
        kind,
        error,
        ids,
        jnp.where(fragment, item.position, 0),
        jnp.cumsum(classes.control, axis=-1, dtype=jnp.int32),
        jnp.where(fragment, item.length, (kind == Kind.GENERAL).astype(jnp.int32)),
    )


def _classify(vocabulary: Vocabulary, tokens: Array) -> _Classes:
    v = vocabulary
    following = _shift_left(tokens, 1, PAD)
    return _Classes(
        general=(tokens >= 1) & (tokens < v.position_start),
        position=(tokens >= v.position_start) & (tokens < v.digit_start),
        digit=(tokens >= v.digit_start) & (tokens < v.aos),
        aos=tokens == v.aos,
        control=(tokens >= v.control_start) & (tokens < v.size),
        ends=following == PAD,
    )


def context_rows(vocabulary: Vocabulary, tokens: Array, segment_start: Array) -> Array:
    """Row of `Vocabulary.contexts` that holds at each token."""
    of_control = jnp.asarray([*vocabulary.contexts.of_control, 0], jnp.int32)
    marker = jnp.take_along_axis(tokens, jnp.maximum(segment_start, 0), axis=-1) - vocabulary.control_start
    return of_control[jnp.where(segment_start >= 0, marker, -1)]


def _misplaced(v: Vocabulary, classes: _Classes, index: Array, segment_start: Array, context: Array) -> Array:
    """Tokens that can't stand where they do, by the layout and the type of the segment."""
    no_fragments = jnp.asarray(v.contexts.sizes == 0)[context]
    fragment_part = classes.digit | classes.position
    general = classes.general & (context > 0)
    if v.layout == "inline":
        return classes.aos | general | (fragment_part & no_fragments)
    last_aos = last_where(classes.aos, index)
    after_aos = last_aos > segment_start
    second_aos = classes.aos & (_shift_right(last_aos, 1, -1) > segment_start)
    return general | (classes.general & after_aos) | (fragment_part & (~after_aos | no_fragments)) | second_aos


def _fragments(v: Vocabulary, tokens: Array, classes: _Classes, index: Array, context: Array) -> _Item:
    """Where fragments end, and what is written there, by the place of the position token."""
    run_start = last_where(~classes.digit, index) + 1
    next_digit = _shift_left(classes.digit, 1, False)
    next_position = _shift_left(classes.position, 1, False)
    run_ends = classes.digit & ~next_digit
    widths = jnp.asarray(v.contexts.widths, jnp.int32)[context]

    def cut_or(error: Error) -> Array:
        return jnp.where(classes.ends, Error.CUT_OFF, error)

    if v.position == "after":
        ends = classes.position | (run_ends & ~next_position)
        last_digit = jnp.where(classes.position, index - 1, index)
        start = jnp.where(classes.position, _shift_right(run_start, 1, 0), run_start)
        error = jnp.where(classes.position, 0, cut_or(Error.DIGITS_WITHOUT_POSITION))
        error = jnp.where(classes.position & (last_digit < start), Error.POSITION_WITHOUT_DIGITS, error)
        position = tokens - v.position_start
        length = last_digit - start + 2
    elif v.position == "before":
        ends = run_ends | (classes.position & ~next_digit)
        last_digit, start = index, run_start
        before = jnp.maximum(start - 1, 0)
        has_position = (start > 0) & jnp.take_along_axis(classes.position, before, axis=-1)
        error = jnp.where(classes.position, cut_or(Error.POSITION_WITHOUT_DIGITS), 0)
        error = jnp.where(classes.digit & ~has_position, Error.DIGITS_WITHOUT_POSITION, error)
        position = jnp.take_along_axis(tokens, before, axis=-1) - v.position_start
        length = last_digit - start + 2
    else:
        place = jnp.mod(index - run_start, jnp.maximum(widths, 1))
        ends = classes.digit & ((place == widths - 1) | ~next_digit)
        last_digit, start = index, index - place
        error = jnp.where(place < widths - 1, cut_or(Error.WRONG_WIDTH), 0)
        position = jnp.zeros_like(index)
        length = place + 1

    count = jnp.maximum(last_digit - start + 1, 0)
    if v.width == "fixed" and v.position != "none":
        short_at_end = classes.ends & (count < widths) & (v.position == "before")
        error = _first_error(
            error, jnp.where(short_at_end, Error.CUT_OFF, jnp.where(count != widths, Error.WRONG_WIDTH, 0))
        )
    number, number_error = _number(v, tokens, classes, index, context, last_digit, start)
    return _Item(ends, _first_error(error, number_error), number, position, length)


def _number(
    v: Vocabulary, tokens: Array, classes: _Classes, index: Array, context: Array, last_digit: Array, start: Array
) -> tuple[Array, Array]:
    """The number whose digits stand at `start … last_digit`, and what is wrong with it.

    Horner's rule over shifted copies of the stream; it stops growing at the first prefix that is out of range, so that
    nothing overflows: a number below 2^31 plus a digit fits uint32.
    """
    digits = (tokens - v.digit_start).astype(jnp.uint32)
    largest = jnp.asarray(jnp.maximum(v.contexts.sizes - 1, 0), jnp.uint32)[context]
    ends_before = last_digit < index  # position after: the window ends one token earlier
    number = jnp.zeros_like(digits)
    beyond = last_digit - start + 1 > v.most_digits
    for back in reversed(range(v.most_digits)):
        digit = jnp.where(ends_before, _shift_right(digits, back + 1, 0), _shift_right(digits, back, 0))
        inside = last_digit - back >= start
        next_number = number * v.base + digit
        beyond |= inside & ((number > largest // v.base) | (next_number > largest))
        number = jnp.where(inside & ~beyond, next_number, number)
    bad_digit = last_where(classes.digit & (tokens - v.digit_start >= v.base), index) >= start
    leading_zero = jnp.zeros_like(beyond)
    if v.width == "minimal":
        first = jnp.take_along_axis(tokens, jnp.clip(start, 0, tokens.shape[-1] - 1), axis=-1)
        leading_zero = (first == v.digit_start) & (last_digit > start)
    error = jnp.where(beyond, Error.ID_OUT_OF_RANGE, 0)
    error = jnp.where(leading_zero, Error.LEADING_ZERO, error)
    return number.astype(jnp.int32), jnp.where(bad_digit, Error.DIGIT_NOT_BELOW_BASE, error)


def _position_errors(v: Vocabulary, classes: _Classes, item: _Item, error: Array) -> Array:
    """Positions that are zero, beyond the items of the segment, or taken by an earlier valid fragment."""
    items = jnp.cumsum(classes.general | item.ends, axis=-1, dtype=jnp.int32)
    before = lax.cummax(jnp.where(classes.control, items, 0), axis=items.ndim - 1)
    segment_total = jnp.where(_shift_left(classes.control, 1, False), items, items[..., -1:])
    until = lax.cummin(segment_total, axis=items.ndim - 1, reverse=True)
    wrong = jnp.where(item.position > until - before, Error.POSITION_OUT_OF_RANGE, 0)
    wrong = jnp.where(item.position == 0, Error.POSITION_ZERO, wrong)

    valid = item.ends & (error == 0) & (wrong == 0)
    segment = jnp.cumsum(classes.control, axis=-1, dtype=jnp.int32)
    key = jnp.where(valid, segment * v.positions + item.position, -1)
    order = jnp.argsort(key, axis=-1, stable=True)
    ordered = jnp.take_along_axis(key, order, axis=-1)
    again = (ordered == _shift_right(ordered, 1, -1)) & (ordered >= 0)
    twice = jnp.take_along_axis(again, jnp.argsort(order, axis=-1), axis=-1)
    return jnp.where(twice, Error.POSITION_TWICE, wrong)


def _first_error(first: Array, second: Array) -> Array:
    return jnp.where(first > 0, first, second)


def last_where(where: Bool[Array, "*b t"], index: Array) -> Array:
    """Index of the last token up to each one at which `where` holds; -1 where there is none."""
    return lax.cummax(jnp.where(where, index, -1), axis=index.ndim - 1)


def _shift_right(array: Array, by: int, fill: int | bool) -> Array:
    by = min(by, array.shape[-1])
    padding = [(0, 0)] * (array.ndim - 1) + [(by, 0)]
    return jnp.pad(array, padding, constant_values=fill)[..., : array.shape[-1]]


def _shift_left(array: Array, by: int, fill: int | bool) -> Array:
    by = min(by, array.shape[-1])
    padding = [(0, 0)] * (array.ndim - 1) + [(0, by)]
    return jnp.pad(array, padding, constant_values=fill)[..., by:]
