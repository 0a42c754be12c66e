"""A keyed shuffle of a space of any size, in constant memory."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from collections.abc import Callable
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from omnijax.errors import VocabularyError
from omnijax.vocab.assignment.blocks import in_blocks
from omnijax.vocab.assignment.protocol import Assignment, check_size
from omnijax.vocab.ids import Numbers
from omnijax.vocab.numbers import LIMB, below, limbs_for, to_limbs

_ROUNDS = 10
_HALF = np.uint64(LIMB)
_LOW = np.uint64(2**LIMB - 1)
_Words = list[NDArray[np.uint64]]
"""The 32-bit limbs of many numbers, an array for each, least significant first."""


@dataclasses.dataclass(frozen=True)
class Random:
    """A pseudo-random bijection: what a digit says of a fragment is then nothing that others could share.

    A Feistel network over the b bits of size - 1: halves of b // 2 and b - b // 2 bits take turns to be xored with a
    hash of the other one and the key of the round. Numbers that fall beyond the space go through it again (cycle
    walking): 2^b < 2 · size, so that less than two passes are needed on average. It mixes well; it is no cipher.

    Attributes:
        key: which shuffle; any whole number ≥ 0.

    Raises:
        VocabularyError: another key.
    """

    kind: Literal["random"] = dataclasses.field(default="random", kw_only=True)
    key: int = 0

    def __post_init__(self) -> None:
        if self.kind != "random" or not isinstance(self.key, int) or isinstance(self.key, bool) or self.key < 0:
            raise VocabularyError("assignment.key", self.key, "must be a whole number ≥ 0", "choose one")

    def check(self, size: int, radices: tuple[int, ...]) -> None:
        """Every space with ids will do."""
        check_size(size)

    def forward(self, ids: Numbers, size: int, radices: tuple[int, ...]) -> Numbers:
        """The numbers that are written for these ids."""
        return self._pass(ids, size, range(_ROUNDS))

    def inverse(self, numbers: Numbers, size: int, radices: tuple[int, ...]) -> Numbers:
        """The ids that these numbers are written for."""
        return self._pass(numbers, size, range(_ROUNDS - 1, -1, -1))

    def keeps(self, old: Assignment, sizes: tuple[int, int], radices: tuple[tuple[int, ...], tuple[int, ...]]) -> bool:
        """Only in a space of the same size: another one is shuffled anew."""
        return old == self and sizes[0] == sizes[1]

    def _pass(self, numbers: Numbers, size: int, rounds: range) -> Numbers:
        network = functools.partial(_network, self._round_keys, (size - 1).bit_length(), rounds)
        return in_blocks(lambda block: _walk(network, to_limbs(block, limbs_for(size)), size), numbers, size)

    @functools.cached_property
    def _round_keys(self) -> tuple[int, ...]:
        text = [f"{self.key} {number}".encode() for number in range(_ROUNDS)]
        return tuple(int.from_bytes(hashlib.sha256(part).digest()[:8], "little") for part in text)


def _walk(network: Callable[[Numbers], Numbers], numbers: Numbers, size: int) -> Numbers:
    """The network, again for what fell beyond the space; every cycle comes back, since it began within."""
    numbers = network(numbers)
    stray = np.flatnonzero(~below(numbers, size))
    while stray.size:
        again = network(numbers[stray])
        numbers[stray] = again
        stray = stray[~below(again, size)]
    return numbers


def _network(keys: tuple[int, ...], bits: int, rounds: range, numbers: Numbers) -> Numbers:
    """uint32[items, limbs], numbers below 2^bits, shuffled."""
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
    """The finaliser of SplitMix64 (Steele, Lea, Flood 2014): each bit of the input flips half of the output's."""
    state = state ^ state >> np.uint64(30)
    state *= np.uint64(0xBF58476D1CE4E5B9)
    state ^= state >> np.uint64(27)
    state *= np.uint64(0x94D049BB133111EB)
    state ^= state >> np.uint64(31)
    return state
