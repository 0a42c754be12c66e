"""A keyed shuffle of a space of any size, in constant memory."""

from __future__ import annotations

import dataclasses
import functools
import hashlib

import numpy as np
from numpy.typing import NDArray

from omnijax.vocab.assignment.base import Assignment, Radices, require
from omnijax.vocab.ids import Numbers
from omnijax.vocab.numbers import LIMB, below, limbs_for, to_limbs

_ROUNDS = 10
_HALF = np.uint64(LIMB)
_LOW = np.uint64(2**LIMB - 1)
_Words = list[NDArray[np.uint64]]
"""The 32-bit limbs of many numbers: one array for each limb, least significant first."""


@dataclasses.dataclass(frozen=True)
class Random(Assignment):
    """A pseudo-random bijection. Fragments that share digits then have nothing else in common.

    It is a Feistel network over the b bits of size - 1. Two halves, of b // 2 and b - b // 2 bits, take turns: one is
    xored with a hash of the other half and of the key of the round. Numbers beyond the space go through the network
    again (cycle walking). Since 2^b < 2 · size, the mean number of passes is below two. This is not a secure cipher.

    Attributes:
        key: chooses the shuffle; any whole number ≥ 0.

    Raises:
        VocabularyError: the key is not such a number.
    """

    kind: str = dataclasses.field(default="random", kw_only=True)
    key: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        whole = isinstance(self.key, int) and not isinstance(self.key, bool)
        require(whole and self.key >= 0, "key", self.key, "must be a whole number ≥ 0", "choose one")

    def _block(self, numbers: Numbers, size: int, radices: Radices, back: bool) -> Numbers:
        rounds = range(_ROUNDS)[:: -1 if back else 1]
        network = functools.partial(_network, self._round_keys, (size - 1).bit_length(), rounds)
        numbers = network(to_limbs(numbers, limbs_for(size)))
        stray = np.flatnonzero(~below(numbers, size))
        while stray.size:  # each cycle returns to the space that it began in
            again = network(numbers[stray])
            numbers[stray] = again
            stray = stray[~below(again, size)]
        return numbers

    @functools.cached_property
    def _round_keys(self) -> tuple[int, ...]:
        text = [f"{self.key} {number}".encode() for number in range(_ROUNDS)]
        return tuple(int.from_bytes(hashlib.sha256(part).digest()[:8], "little") for part in text)


def _network(keys: tuple[int, ...], bits: int, rounds: range, numbers: Numbers) -> Numbers:
    """The shuffled numbers, uint32[items, limbs], all below 2^bits."""
    if bits == 0:
        return numbers
    limbs = [limb.astype(np.uint64) for limb in numbers.T]
    lengths = bits // 2, bits - bits // 2
    halves = [_cut(limbs, 0, lengths[0]), _cut(limbs, lengths[0], bits)]
    for number in rounds:
        side = number % 2
        target = halves[side]
        for k, word in enumerate(_hashes(halves[1 - side], len(numbers), keys[number], len(target))):
            target[k] ^= word & np.uint64(2 ** min(LIMB, lengths[side] - LIMB * k) - 1)
    return np.stack(_join(halves[0], halves[1], lengths[0], len(limbs)), axis=1).astype(np.uint32)


def _cut(limbs: _Words, start: int, end: int) -> _Words:
    """Bits start … end - 1 as numbers of their own."""
    result = []
    for bit in range(start, end, LIMB):
        first, shift = bit // LIMB, np.uint64(bit % LIMB)
        word = limbs[first] >> shift
        if bit % LIMB and first + 1 < len(limbs):
            word = word | limbs[first + 1] << _HALF - shift
        result.append(word & np.uint64(2 ** min(LIMB, end - bit) - 1))
    return result


def _join(low: _Words, high: _Words, low_bits: int, count: int) -> _Words:
    """The inverse of cutting at `low_bits`."""
    limbs = [*low, *(np.zeros_like(high[0]) for _ in range(count - len(low)))]
    shift = np.uint64(low_bits % LIMB)
    for k, word in enumerate(high):
        first = low_bits // LIMB + k
        limbs[first] |= word << shift & _LOW
        if low_bits % LIMB and first + 1 < count:
            limbs[first + 1] |= word >> _HALF - shift
    return limbs


def _hashes(words: _Words, items: int, key: int, count: int) -> _Words:
    """`count` columns of 32 bits that depend on every bit of all words and of the key."""
    state = np.full(items, key, np.uint64)
    for word in words:
        state ^= word
        state = _mix(state)
    result: _Words = []
    for number in range(-(-count // 2)):
        spread = state if number == 0 else _mix(state + np.uint64(number * 0x9E3779B97F4A7C15 % 2**64))
        result += [spread >> _HALF, spread & _LOW]
    return result[:count]


def _mix(state: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The finaliser of SplitMix64 (Steele, Lea, Flood 2014). Each input bit flips about half of the output bits."""
    state = state ^ state >> np.uint64(30)
    state *= np.uint64(0xBF58476D1CE4E5B9)
    state ^= state >> np.uint64(27)
    state *= np.uint64(0x94D049BB133111EB)
    state ^= state >> np.uint64(31)
    return state
