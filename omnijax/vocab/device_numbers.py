"""Numbers of any size and their digits inside `jit`, in 32-bit arithmetic alone: the twin of `numbers.py`.

A number is a tuple of uint32 arrays, its limbs, the least significant first. They are worked on in halves of 16 bits:
with runs of digits whose radices multiply to 2^16 at most, neither `half * run + carry` nor `remainder * 2^16 + half`
exceeds 32 bits. The loop over runs is a scan, so that digits by the hundred compile as fast as a few.
"""

from __future__ import annotations

import math

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, UInt32

from omnijax.vocab.ids import Digits, expect
from omnijax.vocab.numbers import limbs_for

Limbs = tuple[UInt32[Array, "*items"], ...]
_HALF = 16
_Halves = tuple[UInt32[Array, "*items"], ...]


def limbs_of_digits(digits: Digits) -> Limbs:
    """Limbs of the numbers whose digits these are, int[..., places]: as many as the largest that can be written takes.

    Digits that are not below their radix give some other number.
    """
    given = expect(Digits, digits, "digits")
    place, _, weights, runs = _runs(given.radices)
    array = jnp.asarray(given.array).astype(jnp.uint32)
    parts = (array[..., place] * jnp.broadcast_to(weights, (*array.shape[:-1], *weights.shape))).sum(-1, jnp.uint32)

    def multiply_add(halves: _Halves, part_and_run: tuple[Array, Array]) -> tuple[_Halves, None]:
        carry, run = part_and_run
        out = []
        for half in halves:
            product = half * run + carry
            out.append(product & 0xFFFF)
            carry = product >> _HALF
        return tuple(out), None

    zero = jnp.zeros(array.shape[:-1], jnp.uint32)
    start = (zero,) * (2 * limbs_for(math.prod(given.radices)))
    halves, _ = lax.scan(multiply_add, start, (jnp.moveaxis(parts, -1, 0), jnp.asarray(runs)))
    return tuple(low | high << _HALF for low, high in zip(halves[::2], halves[1::2], strict=True))


def digits_of_limbs(limbs: Limbs, radices: tuple[int, ...]) -> Digits:
    """Digits, int32[..., places], of numbers below the product of the radices: the inverse of `limbs_of_digits`."""
    place, each, weights, runs = _runs(radices)
    same = int(runs[-1]) if len(set(runs[1:].tolist())) < 2 and len(set(radices)) == 1 else None

    def divide(halves: _Halves, run: Array) -> tuple[_Halves, Array]:
        by = run if same is None else same  # to divide by a constant is faster
        rest = jnp.zeros_like(halves[0])
        quotients = []
        for half in reversed(halves):
            dividend = rest << _HALF | half
            quotients.append(dividend // by)
            rest = dividend - quotients[-1] * by
        return tuple(quotients[::-1]), rest

    halves = tuple(half for limb in limbs for half in (limb & 0xFFFF, limb >> _HALF))
    _, parts = lax.scan(divide, halves, jnp.asarray(runs), reverse=True)
    shape = (*limbs[0].shape, *weights.shape)
    weight, radix = (jnp.broadcast_to(np.maximum(table, 1), shape) for table in (weights, each))
    padded = jnp.broadcast_to(jnp.moveaxis(parts, 0, -1)[..., None], shape) // weight % radix
    flat = padded.reshape(*limbs[0].shape, weights.size)
    return Digits(flat[..., np.flatnonzero(weights.reshape(-1))].astype(jnp.int32), radices)


def _runs(radices: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Neighbouring places whose radices multiply to 2^16 at most, as tables [runs, places of a run], padded in front.

    Returns:
        the place of each digit, its radix, its weight within the run (0 for padding), and uint32[runs], the products.
    """
    runs: list[list[int]] = [[]]
    for place in reversed(range(len(radices))):
        if math.prod(radices[at] for at in [place, *runs[0]]) > 2**_HALF:
            runs.insert(0, [])
        runs[0].insert(0, place)
    longest = max(map(len, runs))
    table = np.zeros((3, len(runs), longest), np.uint32)
    for row, run in enumerate(runs):
        for column, place in enumerate(run, longest - len(run)):
            table[:, row, column] = place, radices[place], math.prod(radices[place + 1 : run[-1] + 1])
    products = [math.prod(radices[place] for place in run) for run in runs]
    return table[0].astype(np.int32), table[1], table[2], np.array(products, np.uint32)
