"""Digits to numbers, under `jit`: static shifts of the stream, one for each digit place, and no integer beyond 32 bits.

Every token is taken for the least significant digit of a number, at a few operations for each place; who reads the
stream picks the tokens that really are one.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Int, UInt32

from omnijax.vocab.vocabulary import Vocabulary

HALF = 16
"""Bits of a half limb: a product of two fits 32 bits, and so does the carry."""
FEW = 16


class Values(NamedTuple):
    """The numbers whose least significant digit stands so many tokens before each token, and what is wrong with them.

    Attributes:
        limbs: uint32[..., tokens] each, of the secondary id, the least significant first.
        not_below_base: bool[..., tokens], a digit is none of its radix.
        leading_zero: bool[..., tokens].
        out_of_range: bool[..., tokens], more than the largest id of the context.
        check: int32[..., tokens], the check digit that belongs to them.
    """

    limbs: tuple[UInt32[Array, "*b t"], ...]
    not_below_base: Bool[Array, "*b t"]
    leading_zero: Bool[Array, "*b t"]
    out_of_range: Bool[Array, "*b t"]
    check: Int[Array, "*b t"] | None


def read_numbers(v: Vocabulary, tokens: Int[Array, "*b t"], context: Int[Array, "*b t"], behind: int = 0) -> Values:
    """Numbers of the digits from `behind` tokens before each token on, towards the most significant one.

    The digits are read from one padded array, by slices: what is moved later, padding and all, XLA neither reads in
    vectors nor reckons once.
    """
    tables, most = v.contexts, v.most_digits
    length = tokens.shape[-1]
    sides = (most - 1 + behind, 0) if v.digit_order == "big" else (behind, most)
    padding = [(0, 0)] * (tokens.ndim - 1) + [sides]
    # Every place reads the stream anew: in as few bytes as hold a digit and, as their largest number, what is none.
    small = next(kind for kind in (np.uint8, np.uint16, np.uint32) if v.digits <= np.iinfo(kind).max)
    none = small(np.iinfo(small).max)
    written = (tokens - v.digit_start).astype(jnp.uint32)
    padded = jnp.pad(jnp.where(written < v.digits, written.astype(small), none), padding, constant_values=none)
    check_follows = v.check_digit and v.digit_order == "little"  # a digit is inside if there is one more behind it
    inside = jnp.ones(tokens.shape, bool)
    bad = jnp.zeros(tokens.shape, bool)
    within, zero_first, alternating = inside, bad, jnp.zeros(tokens.shape, jnp.int32)
    # Where all numbers of so many digits fit, the number says whether it is too large; else its digits do.
    exact = v.limbs == 1 and max(tables.sizes) < 2**32 and math.prod(map(int, tables.radices)) <= 2**32
    digits = []
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
        digits.append(digit)
    check = jnp.mod(alternating, v.check_base) if v.check_digit else None
    if exact:
        (number,) = _limbs(v, digits, context, offset=False)
        within = number < look_up(np.array(tables.sizes, np.uint32), context)
    return Values(_limbs(v, digits, context), bad, zero_first, ~within, check)


def _limbs(v: Vocabulary, digits: list[Array], context: Array, offset: bool = True) -> tuple[Array, ...]:
    """The secondary id with these digits, the least significant first, modulo 2^32 for each of its limbs.

    Without `offset`, the id within the space.
    """
    radices = v.contexts.radices[::-1]
    if v.limbs == 1:
        number, weight = jnp.zeros_like(digits[0]), 1
        for digit, radix in zip(digits, radices, strict=True):
            number, weight = number + digit * np.uint32(weight % 2**32), weight * radix
        return (number + look_up(np.array(v.contexts.offsets, np.uint32), context) if offset else number,)
    chunks: list[tuple[Array, int]] = []
    for digit, radix in zip(digits, radices, strict=True):
        if chunks and chunks[-1][1] * radix <= 2**HALF:
            number, weight = chunks[-1]
            chunks[-1] = number + digit * np.uint32(weight), weight * radix
        else:
            chunks.append((digit, radix))
    halves: list[Array] = []
    reach = 1
    for number, radix in reversed(chunks):
        reach *= radix
        halves = _times_plus(halves, radix, number, -(-(reach - 1).bit_length() // HALF))[: 2 * v.limbs]
    halves += [jnp.zeros_like(digits[0])] * (2 * v.limbs - len(halves))
    carry: Array = jnp.zeros_like(digits[0])
    for place, half in enumerate(halves):
        offsets = [offset >> HALF * place & (2**HALF - 1) for offset in v.contexts.offsets]
        total = half + look_up(np.array(offsets, np.uint32), context) + carry
        halves[place], carry = total & np.uint32(2**HALF - 1), total >> np.uint32(HALF)
    return tuple(low | (high << np.uint32(HALF)) for low, high in zip(halves[::2], halves[1::2], strict=True))


def _times_plus(halves: list[Array], radix: int, number: Array, count: int) -> list[Array]:
    """`halves` · radix + number, in so many half limbs."""
    if radix == 2**HALF:
        return [number, *halves][:count]
    result, carry = [], number
    for half in halves:
        total = half * np.uint32(radix) + carry
        result.append(total & np.uint32(2**HALF - 1))
        carry = total >> np.uint32(HALF)
    return [*result, carry][:count]


def look_up(table: np.ndarray, index: Array) -> Array:
    """`table[index]`, by comparison where the table is short, which no gather comes near."""
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
    """`array[..., i - back[..., i]]`, by static shifts where there are few choices of `back`; else anything."""
    if len(choices) <= FEW:
        found = shift_right(array, choices[0])
        for choice in choices[1:]:
            found = jnp.where(back == choice, shift_right(array, choice), found)
        return found
    index = lax.broadcasted_iota(jnp.int32, array.shape, array.ndim - 1) - back
    return jnp.take_along_axis(array, jnp.clip(index, 0, array.shape[-1] - 1), axis=-1)


def shift_right(array: Array, by: int) -> Array:
    """Moved towards the end of the last axis, zeros in front."""
    by = min(by, array.shape[-1])
    padding = [(0, 0)] * (array.ndim - 1) + [(by, 0)]
    return jnp.pad(array, padding)[..., : array.shape[-1]]
