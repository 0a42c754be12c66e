"""Finds the fragments in a stream and checks that they have all their parts, on marks (`marks.py`).

Kinds and errors are what the decoder reports for each token.
"""

from __future__ import annotations

import enum
import functools
import operator
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int, UInt32

from omnijax.vocab import marks
from omnijax.vocab.marks import Words
from omnijax.vocab.values import look_up
from omnijax.vocab.vocabulary import Vocabulary


class Kind(enum.IntEnum):
    """What a token is."""

    PAD = 0
    GENERAL = 1
    FRAGMENT = 2
    """The last token of a fragment. The fragment is reported there."""
    PART = 3
    """Any other token of a fragment."""
    AOS = 4
    CONTROL = 5
    ERROR = 6


class Error(enum.IntEnum):
    """What is wrong with a token. If several errors apply, the one with the lowest number is reported.

    If the stream ends inside a fragment, `CUT_OFF` stands for what is missing there.
    """

    NONE = 0
    NOT_A_TOKEN = 1
    """The number is outside the primary vocabulary."""
    WRONG_PLACE = 2
    """A token of this kind can't stand in this part of this segment."""
    POSITION_WITHOUT_DIGITS = 3
    DIGITS_WITHOUT_POSITION = 4
    POSITION_INCOMPLETE = 5
    """There are position tokens, but fewer than a position takes."""
    WRONG_WIDTH = 6
    """The number of digits, check digit included, is wrong here. With minimal width: too many or too few."""
    CUT_OFF = 7
    """The stream ended inside a fragment."""
    DIGIT_NOT_BELOW_BASE = 8
    LEADING_ZERO = 9
    ID_OUT_OF_RANGE = 10
    WRONG_CHECK_DIGIT = 11
    POSITION_ZERO = 12
    POSITION_OUT_OF_RANGE = 13
    """The position is larger than the number of items of the segment. Malformed items count."""
    POSITION_TWICE = 14


class Reading(NamedTuple):
    """What stands at each token. All fields are [..., tokens], int32 except for `high`.

    Attributes:
        kind: a `Kind`.
        error: an `Error`.
        id: number of a general token or a control token; or the secondary id of a fragment, which is the offset of the
            space plus the written number (`assemble` undoes assignments); -1 elsewhere. Low 32 bits of wide ids.
        position: written position of a fragment, from 1; 0 elsewhere.
        segment: number of control tokens up to and with this token.
        length: number of tokens of the item that ends here; 0 elsewhere.
        high: uint32, further limbs of the secondary id, least significant first; empty if all ids fit 32 bits.
    """

    kind: Int[Array, "*b t"]
    error: Int[Array, "*b t"]
    id: Int[Array, "*b t"]
    position: Int[Array, "*b t"]
    segment: Int[Array, "*b t"]
    length: Int[Array, "*b t"]
    high: tuple[UInt32[Array, "*b t"], ...] = ()


class Classes(NamedTuple):
    """The kind of each token, and the context (row of `Vocabulary.contexts`) of its segment."""

    other: Words
    """Not in the primary vocabulary."""
    pad: Words
    general: Words
    position: Words
    digit: Words
    aos: Words
    control: Words
    context: tuple[Words, ...]
    """Bits of the number of the context, lowest bit first."""


class Shapes(NamedTuple):
    """Where fragments are, valid or not, and all errors that can be found without the values of digits."""

    ends: Words
    """Last tokens of all fragments."""
    whole: Words
    """Last tokens of fragments at an allowed place with a position and digits; the number of digits may be wrong."""
    cut_off: Words
    """Last tokens that the end of the stream follows: missing parts may have been cut off there."""
    starts: Words
    """First tokens of fragments that have digits."""
    errors: tuple[Words, ...]
    """Bits of the number of the `Error` at each token, lowest bit first."""


_Parts = tuple[Words, Words, Words, Words, Words, Words]
"""Last tokens of fragments: whole, with an incomplete position, without a position, and without digits.

No token is in two of these. Then the first tokens of fragments that have digits; and the last tokens that the end of
the stream may have cut off.
"""


def classify(v: Vocabulary, tokens: Int[Array, "*b n 32"]) -> Classes:
    """Finds the kind of each token, in one pass, and packs the kinds into bit masks."""
    unsigned = tokens.astype(jnp.uint32)  # negative numbers become large
    edges = (1, v.position_start, v.digit_start, v.aos, v.control_start, v.size)
    code = sum(((unsigned >= np.uint32(edge)).astype(jnp.uint32) for edge in edges), jnp.uint32(0))
    contexts = v.contexts.of_control
    bits = []
    for bit in range(int(contexts.max(initial=0)).bit_length()):
        opening = [unsigned == np.uint32(v.control_start + k) for k in np.flatnonzero(contexts >> bit & 1)]
        bits.append(functools.reduce(operator.or_, opening, unsigned != unsigned))
    low, middle, high, *opened = marks.pack(*(code >> np.uint32(bit) & np.uint32(1) > 0 for bit in range(3)), *bits)
    general, position, digit = low & ~middle & ~high, middle & ~low & ~high, low & middle
    aos, control = high & ~low & ~middle, high & low
    context = [marks.hold(bit, control & ~bit) for bit in opened]
    pad, other = ~(low | middle | high), high & middle
    return marks.settled(Classes(other, pad, general, position, digit, aos, control, tuple(context)))


def find_fragments(v: Vocabulary, classes: Classes) -> Shapes:
    """Divides a stream into fragments and other tokens.

    A fragment is a run of digits with the position tokens next to it, at most as many as a position has places. Each
    further position token is a (malformed) fragment by itself. Without positions, a run of digits is divided into
    fragments of the width of the context.
    """
    nowhere = classes.pad & ~classes.pad
    behind_aos = marks.hold(marks.later(classes.aos), marks.later(classes.control))
    after_aos = (behind_aos | classes.aos) & ~classes.control
    wrong_place = classes.general & ~in_contexts(classes, v.contexts.general)
    if v.layout == "grouped":
        grouped = ~in_contexts(classes, ~v.contexts.grouped)
        barred = grouped & ~after_aos
        wrong_place |= (classes.general & grouped & after_aos) | (classes.aos & (behind_aos | ~grouped))
    else:
        barred = nowhere
        wrong_place |= classes.aos
    if v.position == "none":
        wrong_place |= classes.position
    divide = {"none": _unplaced, "after": _after, "before": _before}[v.position]
    whole, incomplete, no_position, no_digits, starts, cut_off = divide(v, classes)
    short = incomplete | no_position | no_digits
    cut_off &= marks.earlier(classes.pad, fill=2**32 - 1)
    ends = whole | short
    errors: dict[int, Words] = {
        Error.NOT_A_TOKEN: classes.other,
        Error.WRONG_PLACE: wrong_place | (barred & ends),
        Error.POSITION_WITHOUT_DIGITS: no_digits & ~cut_off & ~barred,
        Error.DIGITS_WITHOUT_POSITION: no_position & ~cut_off & ~barred,
        Error.WRONG_WIDTH if v.position == "none" else Error.POSITION_INCOMPLETE: incomplete & ~cut_off & ~barred,
        Error.CUT_OFF: short & cut_off & ~barred,
    }
    return marks.settled(Shapes(ends, whole & ~barred, cut_off, starts, marks.bits_of(errors, 3)))


def _after(v: Vocabulary, classes: Classes) -> _Parts:
    position, digit = classes.position, classes.digit
    follows_position, follows_digit = marks.earlier(position), marks.earlier(digit)
    place = position & marks.later(digit)
    alone = position & ~marks.later(digit | position)
    taken, incomplete = place | alone, digit & ~digit
    lonely_ends = incomplete
    for _ in range(v.position_places - 1):
        incomplete |= place & ~follows_position
        lonely_ends |= alone & ~follows_position
        place, alone = position & marks.later(place), position & marks.later(alone)
        taken |= place | alone
    no_position = digit & ~follows_digit & ~follows_position
    no_digits = lonely_ends | alone | (position & ~taken)
    return place, incomplete, no_position, no_digits, digit & ~marks.later(digit), incomplete | digit


def _before(v: Vocabulary, classes: Classes) -> _Parts:
    position, digit = classes.position, classes.digit
    last = position & ~marks.earlier(position)
    run_ends = digit & ~marks.earlier(digit)
    leads = last & marks.earlier(digit)
    taken, part = last, digit & ~digit
    for _ in range(v.position_places - 1):
        part |= leads & ~marks.later(position)
        leads = position & marks.earlier(leads)
        taken |= position & marks.earlier(taken)
    naked = digit & ~marks.later(digit | position)
    has_all, has_part = marks.hold(leads, part | naked), marks.hold(part, leads | naked)
    lonely_ends = last & ~marks.earlier(digit)
    whole, incomplete, no_position = run_ends & has_all, run_ends & has_part, run_ends & ~has_all & ~has_part
    no_digits = lonely_ends | (position & ~taken)
    return whole, incomplete, no_position, no_digits, leads | part | naked, lonely_ends | whole


def _unplaced(v: Vocabulary, classes: Classes) -> _Parts:
    digit, nowhere = classes.digit, classes.digit & ~classes.digit
    index = marks.token_index(digit)
    width = look_up(v.contexts.widths + v.check_digit, context_of(classes))
    place = modulo(index - marks.last(~digit) - 1, width)
    starts, full = (words & digit for words in marks.pack(place == 0, place == width - 1))
    return full, digit & ~full & ~marks.earlier(digit), nowhere, nowhere, starts, digit


def context_of(classes: Classes) -> Int[Array, "*b n 32"]:
    """Row of `Vocabulary.contexts` of each token."""
    return jnp.zeros((*classes.pad.shape, marks.BLOCK), jnp.int32) + marks.number(classes.context)


def in_contexts(classes: Classes, rows: Bool[np.ndarray, " contexts"]) -> Words:
    """Marks on the tokens that are in one of these contexts."""
    nowhere = classes.pad & ~classes.pad
    if rows.all():
        return ~nowhere
    found = nowhere
    for row in np.flatnonzero(rows[: 1 << len(classes.context)]):  # no marker opens later contexts
        bits = (words if row >> bit & 1 else ~words for bit, words in enumerate(classes.context))
        found |= functools.reduce(operator.and_, bits, ~nowhere)
    return found


def modulo(number: Array, divisor: Array) -> Array:
    """`number % divisor` of numbers below 2^24. It is faster than `%`: processors can't divide integer vectors."""
    quotient = (number.astype(jnp.float32) / divisor.astype(jnp.float32)).astype(jnp.int32)
    rest = number - quotient * divisor  # the quotient may be one off
    return jnp.where(rest < 0, rest + divisor, jnp.where(rest >= divisor, rest - divisor, rest))
