"""Digits to numbers, under `jit`: static shifts of the stream for each digit place, in 32-bit arithmetic.

A number is computed at every token, as if the token were its least significant digit. This takes a few operations for
each place. The caller picks the tokens that really are least significant digits.
"""

from __future__ import annotations

import math

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Int, UInt32

from omnijax.vocab.numbers import runs_of
from omnijax.vocab.vocabulary import Vocabulary

HALF = 16
"""Bits in half a limb. The product of two halves plus a carry fits into 32 bits."""
FEW = 16
Values = tuple[tuple[UInt32[Array, "*b t"], ...], tuple[Bool[Array, "*b t"], ...], Int[Array, "*b t"] | None]


def read_numbers(v: Vocabulary, tokens: Int[Array, "*b t"], context: Int[Array, "*b t"], behind: int = 0) -> Values:
    """The number whose least significant digit stands `behind` tokens before each token, and what is wrong with it.

    Returns the limbs of the secondary id, uint32[..., tokens] each, least significant first; whether a digit is not
    below its radix, whether the most significant of several digits is 0, whether the number is larger than the largest
    id of the context, bool[..., tokens] each; and its check digit, int32[..., tokens], None without check digits.

    The digits are slices of one padded array. If padded arrays were shifted later, XLA would neither vectorise the
    reads nor compute the array once.
    """
    tables, most = v.contexts, v.most_digits
    length = tokens.shape[-1]
    sides = (most - 1 + behind, 0) if v.digit_order == "big" else (behind, most)
    padding = [(0, 0)] * (tokens.ndim - 1) + [sides]
    # Every place reads the stream again, so the array has a small dtype. Its largest number stands for "not a digit".
    small = next(kind for kind in (np.uint8, np.uint16, np.uint32) if v.digits <= np.iinfo(kind).max)
    none = small(np.iinfo(small).max)
    written = (tokens - v.digit_start).astype(jnp.uint32)
    padded = jnp.pad(jnp.where(written < v.digits, written.astype(small), none), padding, constant_values=none)
    check_follows = v.check_digit and v.digit_order == "little"  # a digit belongs to the id if one more digit follows
    inside = jnp.ones(tokens.shape, bool)
    bad = jnp.zeros(tokens.shape, bool)
    within, zero_first, alternating = inside, bad, jnp.zeros(tokens.shape, jnp.int32)
    # If all numbers of so many digits fit 32 bits, the number is compared with the size, otherwise its digits.
    exact = v.limbs == 1 and max(tables.sizes) < 2**32 and math.prod(map(int, tables.radices)) <= 2**32
    digits: list[Array] = []
    for place in range(most):  # from the least significant
        start = most - 1 - place if v.digit_order == "big" else place
        digit = padded[..., start : start + length].astype(jnp.uint32)
        if v.width == "fixed":
            inside = look_up(tables.widths > place, context)
        else:
            inside &= padded[..., start + check_follows : start + check_follows + length] < v.digits
            zero_first = jnp.where(inside, digit == 0, zero_first) if place else zero_first
        digit = jnp.where(inside, digit, 0)
        bad |= digit >= tables.radices[-1 - place]
        if not exact:
            bound = look_up(tables.bounds[:, -1 - place].astype(np.uint32), context)
            within = (digit < bound) | ((digit == bound) & within)
        if v.check_digit:
            signed = digit.astype(jnp.int32)
            alternating = alternating + signed if place % 2 else alternating - signed
        digits.insert(0, digit)
    check = jnp.mod(alternating, v.check_base) if v.check_digit else None
    if exact:
        within = _horner(digits, tables.radices) < look_up(np.array(tables.sizes, np.uint32), context)
    return _limbs(v, digits, context), (bad, zero_first, ~within), check


def _limbs(v: Vocabulary, digits: list[Array], context: Array) -> tuple[Array, ...]:
    """Limbs of the secondary id with these digits, which come most significant first."""
    radices = v.contexts.radices
    if v.limbs == 1:
        return (_horner(digits, radices) + look_up(np.array(v.contexts.offsets, np.uint32), context),)
    halves: list[Array] = []
    reach, place = 1, 0
    for count in runs_of(radices, 2**HALF):
        run = slice(place, place + count)
        reach, place = reach * math.prod(radices[run]), place + count
        number, width = _horner(digits[run], radices[run]), -(-(reach - 1).bit_length() // HALF)
        halves = _times_plus(halves, math.prod(radices[run]), number, width)[: 2 * v.limbs]
    halves += [jnp.zeros_like(digits[0])] * (2 * v.limbs - len(halves))
    carry: Array = jnp.zeros_like(digits[0])
    for place, half in enumerate(halves):
        offsets = [offset >> HALF * place & (2**HALF - 1) for offset in v.contexts.offsets]
        total = half + look_up(np.array(offsets, np.uint32), context) + carry
        halves[place], carry = total & np.uint32(2**HALF - 1), total >> np.uint32(HALF)
    return tuple(low | (high << np.uint32(HALF)) for low, high in zip(halves[::2], halves[1::2], strict=True))


def _horner(digits: list[Array], radices: tuple[int, ...]) -> Array:
    """The number with these digits modulo 2^32, most significant first."""
    number = digits[0]
    for digit, radix in zip(digits[1:], radices[1:], strict=True):
        number = number * np.uint32(radix) + digit
    return number


def _times_plus(halves: list[Array], radix: int, number: Array, count: int) -> list[Array]:
    """`halves` · radix + number, in `count` half limbs."""
    if radix == 2**HALF:
        return [number, *halves][:count]
    result, carry = [], number
    for half in halves:
        total = half * np.uint32(radix) + carry
        result.append(total & np.uint32(2**HALF - 1))
        carry = total >> np.uint32(HALF)
    return [*result, carry][:count]


def look_up(table: np.ndarray, index: Array) -> Array:
    """`table[index]`. If the table is short, comparisons are much faster than a gather."""
    if (table == table[0]).all():
        return jnp.full(index.shape, table[0])
    if len(table) > FEW:
        return jnp.asarray(table)[index]
    found = jnp.full(index.shape, table[0])
    for row, value in enumerate(table):
        if row and value != table[0]:
            found = jnp.where(index == row, value, found)
    return found


def fetch(array: Array, back: Int[Array, "*b t"], choices: range | list[int]) -> Array:
    """`array[..., i - back[..., i]]` where `back` is one of `choices`. Few choices are static shifts."""
    if len(choices) <= FEW:
        found = shift_right(array, choices[0])
        for choice in choices[1:]:
            found = jnp.where(back == choice, shift_right(array, choice), found)
        return found
    return take_back(array, back)


def take_back(array: Array, by: Array | int) -> Array:
    """The values that stand `by` places before each place of the last axis, or at its border."""
    index = lax.broadcasted_iota(jnp.int32, array.shape, array.ndim - 1) - by
    return jnp.take_along_axis(array, jnp.clip(index, 0, array.shape[-1] - 1), axis=-1)


def shift_right(array: Array, by: int) -> Array:
    """Moves an array towards the end of its last axis. Zeros come in at the front."""
    by = min(by, array.shape[-1])
    padding = [(0, 0)] * (array.ndim - 1) + [(by, 0)]
    return jnp.pad(array, padding)[..., : array.shape[-1]]
