"""Decodes primary tokens into items. The decoder runs under `jit`, with static shapes and any leading dimensions.

The decoder raises no error on malformed streams, because a model can emit anything. It reports an error code for each
token, and keeps the valid items around an error. Scans along the stream use bit masks of 32 tokens in a word
(`marks.py`, `shapes.py`). Static shifts turn digits into numbers (`values.py`). The decoder makes a fixed number of
passes over the tokens, whatever their values.
"""

from __future__ import annotations

import functools
import operator

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from omnijax.vocab import marks
from omnijax.vocab.ids import PrimaryIds, token_array
from omnijax.vocab.marks import Words
from omnijax.vocab.shapes import Classes, Shapes, classify, context_of, find_fragments, in_contexts
from omnijax.vocab.shapes import Error as Error
from omnijax.vocab.shapes import Kind as Kind
from omnijax.vocab.shapes import Reading as Reading
from omnijax.vocab.values import fetch, read_numbers, shift_right
from omnijax.vocab.vocabulary import PAD, Vocabulary


def decode(vocabulary: Vocabulary, ids: PrimaryIds) -> Reading:
    """Reads streams of primary tokens, int[..., tokens] of any numbers; else raises a `VocabularyError`."""
    return _decode(vocabulary, token_array(ids, vocabulary.size))


@functools.partial(jax.jit, static_argnums=0)
def _decode(v: Vocabulary, tokens: Array) -> Reading:
    """Keeps everything known about a token in marks until the last step.

    A mark takes a 32nd of the memory of an integer. Packing marks is a reduction, which XLA computes once. A chain of
    cheap operations would be repeated for each field that needs its result.
    """
    blocks = marks.into_blocks(tokens, PAD)
    classes = classify(v, blocks)
    shapes = find_fragments(v, classes)
    lengths, position, limbs, found = _fragments(v, blocks, classes, shapes)
    errors = _errors(v, classes, shapes, position, found)
    wrong = functools.reduce(operator.or_, errors)
    fragment, general = shapes.ends & ~wrong, classes.general & ~wrong
    kinds: dict[int, Words] = {
        Kind.GENERAL: general,
        Kind.FRAGMENT: fragment,
        Kind.PART: (classes.position | classes.digit) & ~wrong & ~shapes.ends,
        Kind.AOS: classes.aos & ~wrong,
        Kind.CONTROL: classes.control,
        Kind.ERROR: wrong,
    }
    kind_bits = marks.bits_of(kinds, 3)
    lengths = [bits & fragment for bits in lengths]
    lengths[0] |= general
    fragment, general, *bits = marks.settle(fragment, general, *errors, *kind_bits, *lengths)
    error_bits, kind_bits, lengths = bits[:4], tuple(bits[4:7]), bits[7:]
    is_fragment, is_general = marks.unpack(fragment), marks.unpack(general)
    single = jnp.where(is_general, blocks - 1, jnp.where(marks.unpack(classes.control), blocks - v.control_start, -1))
    fields = (
        marks.number(kind_bits),
        marks.number(error_bits),
        jnp.where(is_fragment, limbs[0].astype(jnp.int32), single),
        jnp.where(is_fragment, position, 0),
        marks.count(classes.control),
        marks.number(lengths),
        *(jnp.where(is_fragment, limb, 0) for limb in limbs[1:]),
    )
    streams = (marks.out_of_blocks(field)[..., : tokens.shape[-1]] for field in fields)
    kind, error, number, position, segment, length, *high = streams
    return Reading(kind, error, number, position, segment, length, tuple(high))


def _fragments(
    v: Vocabulary, blocks: Array, classes: Classes, shapes: Shapes
) -> tuple[list[Words], Array, tuple[Array, ...], dict[int, Words]]:
    """Contents of the fragments that have all their parts, at the last token of each fragment.

    Returns bits of the number of tokens, lowest bit first, all 0 if the number of digits is wrong; int32[..., blocks,
    32], the written position, or the number of tokens plus 1 if it is larger; limbs of the secondary id, uint32[...,
    blocks, 32] each; and marks for each `Error` in the digits. If several apply, the first one counts.
    """
    flat = marks.out_of_blocks(blocks)
    places = 0 if v.position == "none" else v.position_places
    behind = v.check_digit + (places if v.position == "after" else 0)
    length, few, many = _lengths(v, classes, shapes, v.check_digit + places)
    count = marks.number(length) - v.check_digit - places
    counts = sorted(set(v.contexts.widths.tolist())) if v.width == "fixed" else list(range(1, v.most_digits + 1))
    # Distance from the least significant digit to the last token.
    backs = [behind] if v.digit_order == "big" else [digits + behind - 1 for digits in counts]

    def at_ends(array: Array, back: Array, choices: list[int]) -> Array:
        return fetch(array.reshape(flat.shape), back.reshape(flat.shape), choices).reshape(blocks.shape)

    def number_at_ends(array: Array) -> Array:
        return array.reshape(blocks.shape) if len(backs) == 1 else at_ends(array, count + behind - 1, backs)

    still = backs[0] if len(backs) == 1 else 0
    limbs, wrong_numbers, check = read_numbers(v, flat, context_of(classes).reshape(flat.shape), still)
    wrong = list(map(number_at_ends, wrong_numbers))
    if check is not None:
        digit = at_ends(flat, count, [behind - 1]) - v.digit_start
        wrong[0] |= digit >= v.check_base
        wrong.append(digit != number_at_ends(check))
    found = (Error.DIGIT_NOT_BELOW_BASE, Error.LEADING_ZERO, Error.ID_OUT_OF_RANGE, Error.WRONG_CHECK_DIGIT)
    errors: dict[int, Words] = {Error.CUT_OFF: shapes.cut_off & few, Error.WRONG_WIDTH: few | many}
    errors |= dict(zip(found, marks.pack(*wrong)))
    position = _positions(v, flat)
    if v.position == "before":
        position = at_ends(position, count + v.check_digit, [digits + v.check_digit for digits in counts])
    return length, position.reshape(blocks.shape), tuple(map(number_at_ends, limbs)), errors


def _lengths(v: Vocabulary, classes: Classes, shapes: Shapes, others: int) -> tuple[list[Words], Words, Words]:
    """Bits of the number of tokens of each fragment, and marks on fragments with too few and with too many digits.

    `others` is the number of tokens of a fragment that are not digits of its id.
    """
    none = shapes.ends & ~shapes.ends
    bits, few, right, started = [none] * (v.most_digits + others).bit_length(), none, none, none
    for length in range(1, v.most_digits + others + 1):
        digits = length - others
        here = marks.later(shapes.starts, length - 1) & ~started
        started |= here
        if v.width == "fixed":
            few |= here & in_contexts(classes, v.contexts.widths > digits)
            here &= in_contexts(classes, v.contexts.widths == digits)
        elif digits < 1:
            few |= here
            continue
        else:
            here &= in_contexts(classes, v.contexts.widths >= digits)
        right |= here
        bits = [words | here if length >> bit & 1 else words for bit, words in enumerate(bits)]
    settled = marks.settle(few, ~(few | right), *bits)
    return list(settled[2:]), settled[0], settled[1]


def _positions(v: Vocabulary, flat: Int[Array, "*b t"]) -> Int[Array, "*b t"]:
    """The position in the position tokens that end at each token, at most the number of tokens plus 1."""
    most = flat.shape[-1]
    if v.position == "none":
        return jnp.zeros_like(flat)
    written = (flat - v.position_start).astype(jnp.uint32)
    number, far = shift_right(written, v.position_places - 1), jnp.zeros(flat.shape, bool)
    for back in reversed(range(v.position_places - 1)):
        far |= number > most // v.positions
        number = jnp.where(far, most, number) * v.positions + shift_right(written, back)
    return jnp.where(far | (number > most), most + 1, number).astype(jnp.int32)


def _errors(
    v: Vocabulary, classes: Classes, shapes: Shapes, position: Array, errors: dict[int, Words]
) -> tuple[Words, ...]:
    """Bits of the number of the `Error` at each token, lowest bit first. `errors` are those in the digits."""
    if v.position != "none":
        (items,) = marks.settle(classes.general | shapes.ends)
        total = marks.count_at_next(items, classes.control) - marks.count_at_last(items, classes.control)
        zero, beyond = marks.pack(position == 0, position > total)
        errors |= {Error.POSITION_ZERO: zero, Error.POSITION_OUT_OF_RANGE: beyond}
        (valid,) = marks.settle(shapes.whole & ~functools.reduce(operator.or_, errors.values()))
        errors[Error.POSITION_TWICE] = _taken(v, valid, classes.control, position)
    left, found = shapes.whole, {}
    for error, words in errors.items():  # the first error that applies counts
        found[error] = left & words
        left &= ~words
    bits = marks.bits_of(found, int(max(Error)).bit_length())
    return tuple(one | other for one, other in zip(bits, (*shapes.errors, classes.pad & ~classes.pad), strict=True))


def _taken(v: Vocabulary, valid: Words, control: Words, position: Int[Array, "*b n 32"]) -> Words:
    """Marks on valid fragments whose position already belongs to an earlier valid fragment of the segment.

    Each position has a slot in the stream: position p has the slot of the p-th token behind the marker of the segment,
    which has at least as many tokens as items. A scatter finds the first fragment of each slot. A fragment takes
    several tokens. Among as many neighbouring tokens at most one ends a valid fragment, so that the scatter needs one
    entry for such a group of tokens.
    """
    shortest = int(v.contexts.widths.min()) if v.width == "fixed" else 1
    shortest += v.check_digit + v.position_places
    group = max(size for size in (2, 4, 8, 16, 32) if size <= shortest)
    tokens = position.shape[-2] * position.shape[-1]
    grouped = (*position.shape[:-2], tokens // group, group)
    nowhere = np.int32(2 * tokens)
    places = jnp.where(marks.unpack(valid), position, nowhere).reshape(grouped).min(axis=-1)
    (slots,) = marks.settle((marks.last(control).reshape(grouped)[..., 0] + places).astype(jnp.uint32))
    slots = slots.astype(jnp.int32)
    small = jnp.int16 if tokens // group < 2**15 else jnp.int32

    def first_of(slots: Array) -> Array:
        number = jnp.arange(slots.shape[-1], dtype=small)
        table = jnp.full(tokens, np.iinfo(small).max, small).at[slots].min(number, mode="drop")
        return table.at[slots].get(mode="fill", fill_value=np.iinfo(small).max) < number

    for _ in slots.shape[:-1]:
        first_of = jax.vmap(first_of)
    taken = first_of(slots)[..., None]
    (words,) = marks.pack(jnp.broadcast_to(taken, grouped).reshape(position.shape))
    return words & valid
