"""The digits that can follow: a finite automaton over the digits of an id. Its states are the rows of a table.

To know whether an id is below the size of its space, it is enough to compare its digits with those of the largest id.
So no state holds the number itself, and ids may have any size.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from omnijax.errors import VocabularyError
from omnijax.vocab.vocabulary import Vocabulary

CLOSED = 0
"""Row in which no digit can follow."""
MOST_STATES = 2**16
_FAR = 2**31 - 1


class DigitRows(NamedTuple):
    """Properties of each state, int32[rows]; or of the states of a batch, int32[batch].

    Attributes:
        low: the smallest digit that can follow.
        high: the largest digit that can follow; below `low` if none can.
        stops: 1 if the digits so far are an id.
        odd: number of digits so far, modulo 2.
    """

    low: Any
    high: Any
    stops: Any
    odd: Any


class DigitTables(NamedTuple):
    """The automaton. A digit `d` in row r leads to row `following[r, number of breaks[r] ≤ d]`.

    Attributes:
        starts: int32[contexts], the row before the first digit.
        rows: properties of each row.
        breaks: int32[rows, breaks], digits at which the next row changes, increasing.
        following: int32[rows, breaks + 1].
    """

    starts: NDArray[np.int32]
    rows: DigitRows
    breaks: NDArray[np.int32]
    following: NDArray[np.int32]


class _State(NamedTuple):
    context: int
    read: int
    """Number of digits so far."""
    order: int
    """-1, 0 or 1: these digits are below, equal to or above those of the largest id at the same places."""
    lengths: int
    """Bit k is set if these digits can begin an id of k digits."""


@dataclasses.dataclass(frozen=True)
class _Ids:
    """The ids of a context, read digit by digit in the order of writing."""

    context: int
    radices: tuple[int, ...]
    largest: tuple[int, ...]
    big: bool
    minimal: bool

    @property
    def start(self) -> _State:
        longest = len(self.radices)
        return _State(self.context, 0, 0, (2 ** (longest + 1) - 2) if self.minimal else 1 << longest)

    def stops(self, state: _State) -> bool:
        whole = state.lengths >> state.read & 1 and state.read > 0
        return bool(whole and (state.read < len(self.radices) or state.order <= 0))

    def breaks(self, state: _State) -> list[int]:
        """Digits at which the next state, or its existence, can change; 0 first."""
        if state.read == len(self.radices):
            return [0]
        bound = self._bound(state.read)
        return sorted({0, 1, bound, bound + 1, *self._radices(state).values()})

    def step(self, state: _State, digit: int) -> _State | None:
        """The state after a digit; None if there is none. States that can't lead to an id are removed later."""
        count = state.read
        lengths = sum(1 << length for length, radix in self._radices(state).items() if digit < radix)
        if self.minimal and digit == 0:  # only the id 0 has a most significant digit 0
            if self.big and count == 0:
                lengths &= 1 << 1
            elif not self.big and count > 0:
                lengths &= ~(1 << count + 1)
        if not lengths:
            return None
        bound = self._bound(count)
        order = (digit > bound) - (digit < bound)
        return _State(self.context, count + 1, (state.order or order) if self.big else (order or state.order), lengths)

    def _bound(self, count: int) -> int:
        return self.largest[count if self.big else -1 - count]

    def _radices(self, state: _State) -> dict[int, int]:
        """Radix of the next digit, for each number of digits that the id can have."""
        longest = len(self.radices)
        lengths = [length for length in range(state.read + 1, longest + 1) if state.lengths >> length & 1]
        return {k: self.radices[longest - k + state.read if self.big else longest - 1 - state.read] for k in lengths}


@functools.lru_cache(maxsize=32)
def digit_tables(vocabulary: Vocabulary) -> DigitTables:
    """The automaton of all contexts of a vocabulary.

    Raises:
        VocabularyError: the automaton is too large, which only happens with mixed radices.
    """
    v, contexts = vocabulary, vocabulary.contexts
    of_context = []
    for row in range(len(contexts.sizes)):
        radices = v.radices(row)
        largest = tuple(int(digit) for digit in contexts.bounds[row][-len(radices) :])
        of_context.append(_Ids(row, radices, largest, v.digit_order == "big", v.width == "minimal"))

    ways: dict[_State, list[tuple[int, _State | None]]] = {}
    waiting = [ids.start for ids in of_context]
    while waiting:
        state = waiting.pop()
        if state in ways:
            continue
        if len(ways) == MOST_STATES:
            rule = f"the grammar of these radices has more than {MOST_STATES} states"
            raise VocabularyError("vocabulary.base", v.base, rule, "use fixed width, or fewer different radices")
        ids = of_context[state.context]
        ways[state] = [(digit, ids.step(state, digit)) for digit in ids.breaks(state)]
        waiting += [after for _, after in ways[state] if after is not None]

    # Each step adds a digit, so that the states after a state are decided before it.
    alive: dict[_State, int] = {}
    for state in sorted(ways, key=lambda state: -state.read):
        if of_context[state.context].stops(state) or any(after in alive for _, after in ways[state]):
            alive[state] = len(alive) + 1
    return _filled(of_context, ways, alive)


def _filled(
    of_context: list[_Ids], ways: dict[_State, list[tuple[int, _State | None]]], alive: dict[_State, int]
) -> DigitTables:
    count, most = len(alive) + 1, max(len(steps) for steps in ways.values())
    low, high = np.ones(count, np.int32), np.zeros(count, np.int32)
    stops, odd = np.zeros(count, np.int32), np.zeros(count, np.int32)
    breaks = np.full((count, most - 1), _FAR, np.int32)
    following = np.full((count, most), CLOSED, np.int32)
    for state, row in alive.items():
        steps = ways[state]
        begins = [digit for digit, _ in steps]
        legal = [number for number, (_, after) in enumerate(steps) if after in alive]
        if legal:
            assert legal == list(range(legal[0], legal[-1] + 1)), "the digits that can follow are no interval"
            low[row], high[row] = begins[legal[0]], (*begins, _FAR)[legal[-1] + 1] - 1
        breaks[row, : len(steps) - 1] = begins[1:]
        following[row, : len(steps)] = [CLOSED if after is None else alive.get(after, CLOSED) for _, after in steps]
        stops[row], odd[row] = of_context[state.context].stops(state), state.read % 2
    starts = np.array([alive[ids.start] for ids in of_context], np.int32)
    return DigitTables(starts, DigitRows(low, high, stops, odd), breaks, following)
