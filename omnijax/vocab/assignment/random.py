"""A keyed shuffle of a space of any size, in constant memory."""

from __future__ import annotations

import dataclasses
import functools
import hashlib

import numpy as np
from numpy.typing import NDArray

from omnijax.vocab.assignment.base import Assignment, Radices, require
from omnijax.vocab.ids import Numbers
from omnijax.vocab.numbers import LIMB, LOW, below, from_digits, to_digits

_ROUNDS = 10


@dataclasses.dataclass(frozen=True)
class Random(Assignment):
    """A pseudo-random bijection. Fragments that share digits then have nothing else in common.

    It is a Feistel network over the b bits of size - 1. Two halves, of b // 2 and b - b // 2 bits, take turns: one is
    xored with a hash of the other half and of the key of the round. Numbers beyond the space go through the network
    again (cycle walking). Since 2^b < 2 · size, the mean number of passes is below two. This is not a secure cipher.
    Raises a `VocabularyError` if the key is no whole number ≥ 0.

    Attributes:
        key: chooses the shuffle; any whole number ≥ 0.
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
        numbers = network(numbers)
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
    """The shuffled numbers, all below 2^bits. The 32-bit words of both halves are the digits of a number."""
    if bits == 0:
        return numbers
    lengths = bits - bits // 2, bits // 2
    words = [2 ** min(LIMB, length - at) for length in lengths for at in reversed(range(0, length, LIMB))]
    columns = to_digits(numbers, tuple(words)).view(np.uint32).T[::-1].astype(np.uint64, "C")
    masks, low = np.array(words[::-1], np.uint64) - np.uint64(1), -(-lengths[1] // LIMB)
    halves = (columns[:low], masks[:low]), (columns[low:], masks[low:])
    for number in rounds:
        (target, target_masks), (source, _) = halves[:: -1 if number % 2 else 1]
        for column, mask, word in zip(target, target_masks, _hashes(source, keys[number], len(target)), strict=True):
            column ^= word & mask
    return from_digits(columns[::-1].T, tuple(words))


def _hashes(words: NDArray[np.uint64], key: int, count: int) -> list[NDArray[np.uint64]]:
    """`count` columns of 32 bits that depend on every bit of all words and of the key."""
    state = np.full(words.shape[1], key, np.uint64)
    for word in words:
        state = _mix(state ^ word)
    result = []
    for number in range(-(-count // 2)):
        spread = state if number == 0 else _mix(state + np.uint64(number * 0x9E3779B97F4A7C15 % 2**64))
        result += [spread >> np.uint64(LIMB), spread & LOW]
    return result[:count]


def _mix(state: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The finaliser of SplitMix64 (Steele, Lea, Flood 2014). Each input bit flips about half of the output bits."""
    state = state ^ state >> np.uint64(30)
    state *= np.uint64(0xBF58476D1CE4E5B9)
    state ^= state >> np.uint64(27)
    state *= np.uint64(0x94D049BB133111EB)
    state ^= state >> np.uint64(31)
    return state
