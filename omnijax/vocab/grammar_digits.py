"""Which digits can follow: a finite automaton over the digits of one id, its states rows of a table.

Whether an id is below the size of its space shows from how its written digits compare with those of the largest id, so
that no state holds the number itself and ids may be as large as one likes.
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
"""The row in which no digit can follow."""
MOST_STATES = 2**16
_FAR = 2**31 - 1


class DigitRows(NamedTuple):
    """What holds in each state, int32[rows]; or, picked from these, int32[batch].

    Attributes:
        low: the least digit that can follow.
        high: the largest one; below `low` where none can.
        stops: 1 where the digits so far are an id.
        odd: number of digits so far, modulo 2.
    """

    low: Any
    high: Any
    stops: Any
    odd: Any


class DigitTables(NamedTuple):
    """The automaton: a digit `d` read in row r leads to row `following[r, number of breaks[r] ≤ d]`.

    Attributes:
        starts: int32[contexts], the row before the first digit.
        rows: what holds in each row.
        breaks: int32[rows, breaks], digits from which on another row follows, increasing.
        following: int32[rows, breaks + 1].
    """

    starts: NDArray[np.int32]
    rows: DigitRows
    breaks: NDArray[np.int32]
    following: NDArray[np.int32]


class _State(NamedTuple):
    context: int
    read: int
    """Digits so far."""
    order: int
    """Below 0, 0 or above: they against those of the largest id at the same places."""
    lengths: int
    """Bit k: they can begin an id of k digits."""


@dataclasses.dataclass(frozen=True)
class _Ids:
    """Ids of one context, one digit after another as they are written."""

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
        """Digits from which on the next state, or that there is one, can differ."""
        if state.read == len(self.radices):
            return []
        bound = self._bound(state.read)
        return sorted({1, bound, bound + 1, *self._radices(state.read)} - {0})

    def step(self, state: _State, digit: int) -> _State | None:
        """The state after a digit; what can't become an id is left to be found out from where its way ends."""
        count, longest = state.read, len(self.radices)
        if count == longest:
            return None
        lengths = state.lengths & self._fitting(count, digit)
        if self.minimal and digit == 0:  # the most significant digit is 0 in the id 0 alone
            if self.big and count == 0:
                lengths &= 1 << 1
            elif not self.big and count > 0:
                lengths &= ~(1 << count + 1)
        bound = self._bound(count)
        order = (digit > bound) - (digit < bound)
        order = (state.order or order) if self.big else (order or state.order)
        return _State(self.context, count + 1, order, lengths) if lengths else None

    def _bound(self, count: int) -> int:
        return self.largest[count if self.big else -1 - count]

    def _radices(self, count: int) -> set[int]:
        """Radices that the next digit can have, by how many digits there will be."""
        if not self.big:
            return {self.radices[-1 - count]}
        return set(self.radices[count:] if self.minimal else self.radices[count : count + 1])

    def _fitting(self, count: int, digit: int) -> int:
        """Lengths above `count` in which `digit` is below the radix of its place."""
        longest = len(self.radices)
        fitting = 0
        for length in range(count + 1, longest + 1):
            if digit < self.radices[longest - length + count if self.big else longest - 1 - count]:
                fitting |= 1 << length
        return fitting


@functools.lru_cache(maxsize=32)
def digit_tables(vocabulary: Vocabulary) -> DigitTables:
    """The automaton of all contexts of a vocabulary.

    Raises:
        VocabularyError: mixed radices that make it too large; no other way of writing does.
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
        ways[state] = [(digit, ids.step(state, digit)) for digit in (0, *ids.breaks(state))]
        waiting += [after for _, after in ways[state] if after is not None]

    # Digits only ever get more, so that a state's ways are known before it is.
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
