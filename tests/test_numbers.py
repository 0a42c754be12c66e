"""Numbers of any size, against Python integers."""

from __future__ import annotations

import functools
import math
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from omnijax.vocab import numbers, radix

BASES = (2, 3, 9, 10, 16, 17, 64, 256, 512, 1000, 4096)
MIXED = ((4, 16, 64, 64), (3, 7, 5, 2, 10, 11, 13), (64, 4096))
LARGEST = 2**256


@st.composite
def radices_and_numbers(draw: st.DrawFn) -> tuple[tuple[int, ...], list[int]]:
    """Any radices up to 2^16 that write numbers up to 2^256, and such numbers, their ends among them."""
    one = st.integers(2, 2**16) | st.sampled_from([2, 10, 64, 2**16 - 1, 2**16])
    equal = st.tuples(one, st.integers(1, 300)).map(lambda pair: [pair[0]] * pair[1])
    radices = draw(equal | st.lists(one, min_size=1, max_size=40))
    while math.prod(radices) > LARGEST:
        radices.pop()
    most = math.prod(radices)
    anything = st.integers(0, most - 1) | st.integers(0, most.bit_length() - 1).map(lambda bits: 2**bits - 1)
    return tuple(radices), [0, most - 1, *draw(st.lists(anything, min_size=1, max_size=6))]


def forms(values: list[int], most: int) -> list[numbers.Numbers]:
    """The same numbers in limbs, and in int64 where they fit."""
    found: list[numbers.Numbers] = [numbers.from_ints(values, numbers.limbs_for(most))]
    return [*found, np.array(values, np.int64)] if most <= 2**63 else found


@settings(max_examples=150)
@given(radices_and_numbers())
def test_digits_are_those_of_python(drawn: tuple[tuple[int, ...], list[int]]) -> None:
    radices, values = drawn
    digits = [radix.to_digits(value, radices) for value in values]
    for form in forms(values, math.prod(radices)):
        assert numbers.to_digits(form, radices).tolist() == digits
    back = numbers.from_digits(np.array(digits), radices)
    assert numbers.to_ints(back) == values
    assert back.dtype == (np.int64 if math.prod(radices) <= 2**63 else np.uint32)


@settings(max_examples=150)
@given(radices_and_numbers(), st.integers(-LARGEST, LARGEST), st.data())
def test_arithmetic_is_that_of_python(drawn: tuple[Any, list[int]], amount: int, data: st.DataObject) -> None:
    radices, values = drawn
    most = math.prod(radices)
    bound = data.draw(st.integers(0, most) | st.sampled_from([values[-1], values[-1] + 1]))
    for form in forms(values, most):
        assert numbers.to_ints(form) == values
        assert numbers.below(form, bound).tolist() == [value < bound for value in values]
        assert numbers.to_ints(numbers.to_limbs(form, 9)) == values
        if form.ndim == 2:
            reach = 2 ** (32 * form.shape[1])
            assert numbers.to_ints(numbers.add(form, amount)) == [(value + amount) % reach for value in values]
        else:
            np.testing.assert_array_equal(numbers.to_int64(numbers.to_limbs(form, 2)), form)
            small = amount % (2**63 - most + 1)
            assert numbers.to_ints(numbers.add(form, small)) == [value + small for value in values]


def test_negative_numbers_are_below_nothing() -> None:
    assert numbers.below(np.array([-1, 0, 5, -(2**63)]), 5).tolist() == [False, True, False, False]
    assert numbers.below(np.array([-1, 2**63 - 1]), 2**80).tolist() == [False, True]


@pytest.mark.parametrize("dtype", ["u1", ">u4", "i8"])
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("count", [1, 3, 4, 12, 13, 32])
def test_bytes_come_back_and_are_their_own_digits(count: int, order: Literal["C", "F"], dtype: str) -> None:
    raw = np.random.default_rng(count).integers(0, 256, (50, count)).astype(dtype, order)
    raw[0], raw[1] = 0, 255
    limbs = numbers.from_digits(raw, (256,) * count)
    assert limbs.shape == ((50,) if count < 8 else (50, -(-count // 4)))
    assert numbers.to_ints(limbs) == [int.from_bytes(bytes(row.tolist()), "big") for row in raw]
    np.testing.assert_array_equal(numbers.to_digits(limbs, (256,) * count), raw)


def test_coordinates_are_numbers_in_radix_levels() -> None:
    """A patch of 16 pixels of 5 levels, a codebook product of 12 channels of 8."""
    for pixels, levels in ((16, 5), (12, 8), (64, 17)):
        patch = np.random.default_rng(0).integers(0, levels, (9, pixels))
        ids = numbers.from_digits(patch, (levels,) * pixels)
        assert numbers.to_ints(ids) == [
            functools.reduce(lambda number, digit: number * levels + digit, row) for row in patch.tolist()
        ]
        np.testing.assert_array_equal(numbers.to_digits(ids, (levels,) * pixels), patch)


@pytest.mark.parametrize("bits", [2, 6, 8, 15, 16])
def test_digits_in_a_power_of_two_are_bits(bits: int) -> None:
    """A digit can cross the border between two limbs. A digit beyond the last limb is 0."""
    for places in range(1, 192 // bits):
        radices, rng = (2**bits,) * places, np.random.default_rng(places)
        for width in range(1, bits * places + 1, 5):
            values = [0, 2**width - 1, *(int.from_bytes(rng.bytes(24)) % 2**width for _ in range(3))]
            digits = [radix.to_digits(value, radices) for value in values]
            for form in forms(values, 2**width):
                assert numbers.to_digits(form, radices).tolist() == digits


def test_blocks_are_no_seams() -> None:
    """More items than are worked on at a time."""
    values = np.random.default_rng(0).integers(0, 10**15, numbers.BLOCK // 15 + 1000)
    digits = numbers.to_digits(values, (10,) * 15)
    assert ["".join(map(str, row)) for row in digits[-3:].tolist()] == [f"{value:015}" for value in values[-3:]]
    np.testing.assert_array_equal(numbers.from_digits(digits, (10,) * 15), values)
    np.testing.assert_array_equal(digits[:, -1], values % 10)


@pytest.mark.parametrize("base", [*BASES, *MIXED], ids=str)
def test_every_number_of_a_space(base: int | tuple[int, ...]) -> None:
    """All ids below 2^18 (or all that a shorter mixed radix writes): in both forms."""
    size = 2**18 if isinstance(base, int) else min(2**18, math.prod(base))
    radices = radix.radices_of(base, radix.width_of(size - 1, base))
    ids = np.arange(size)
    digits = numbers.to_digits(ids, radices)
    expected, rest = [], ids
    for one in reversed(radices):
        expected.append(rest % one)
        rest = rest // one
    np.testing.assert_array_equal(digits, np.stack(expected[::-1], axis=1))
    np.testing.assert_array_equal(digits, numbers.to_digits(numbers.to_limbs(ids, 1), radices))
    np.testing.assert_array_equal(numbers.from_digits(digits, radices), ids)
