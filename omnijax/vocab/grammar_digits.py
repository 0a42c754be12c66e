"""The digits that can follow: a finite automaton over the digits of an id. Its states are the rows of a table.

To know whether an id is below the size of its space, it is enough to compare its digits with those of the largest id.
So no state holds the number itself, and ids may have any size.
"""

from __future__ import annotations

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


_Ways = dict[_State, list[tuple[int, _State | None]]]
"""For each state: digits at which the next state changes, 0 first, and the next state from there on."""


@functools.lru_cache(maxsize=32)
def digit_tables(vocabulary: Vocabulary) -> DigitTables:
    """The automaton of all contexts of a vocabulary.

    Raises:
        VocabularyError: the automaton is too large, which only happens with mixed radices.
    """
    v, ways = vocabulary, _Ways()
    widths = v.contexts.widths.tolist()
    starts = [_State(row, 0, 0, 2 ** (n + 1) - 2 if v.width == "minimal" else 2**n) for row, n in enumerate(widths)]
    waiting = list(starts)
    while waiting:
        state = waiting.pop()
        if state in ways:
            continue
        if len(ways) == MOST_STATES:
            rule = f"the grammar of these radices has more than {MOST_STATES} states"
            raise VocabularyError("vocabulary.base", v.base, rule, "use fixed width, or fewer different radices")
        ways[state] = _steps(v, state)
        waiting += [after for _, after in ways[state] if after is not None]

    # Each step adds a digit, so that the states after a state are decided before it.
    alive: dict[_State | None, int] = {}
    for state in sorted(ways, key=lambda state: -state.read):
        if _stops(v, state) or any(after in alive for _, after in ways[state]):
            alive[state] = len(alive) + 1

    count, most = len(alive) + 1, max(map(len, ways.values()))
    rows = DigitRows(np.ones(count, np.int32), *np.zeros((3, count), np.int32))
    breaks = np.full((count, most - 1), _FAR, np.int32)
    following = np.full((count, most), CLOSED, np.int32)
    for state in ways.keys() & alive:
        row = alive[state]
        begins = [*(digit for digit, _ in ways[state]), _FAR]
        legal = [number for number, (_, after) in enumerate(ways[state]) if after in alive]
        if legal:
            assert legal == list(range(legal[0], legal[-1] + 1)), "the digits that can follow are no interval"
            rows.low[row], rows.high[row] = begins[legal[0]], begins[legal[-1] + 1] - 1
        breaks[row, : len(begins) - 2] = begins[1:-1]
        following[row, : len(begins) - 1] = [alive.get(after, CLOSED) for _, after in ways[state]]
        rows.stops[row], rows.odd[row] = _stops(v, state), state.read % 2
    return DigitTables(np.array([alive[state] for state in starts], np.int32), rows, breaks, following)


def _stops(v: Vocabulary, state: _State) -> bool:
    """Whether the digits so far are an id."""
    shorter = state.read < v.contexts.widths[state.context]
    return state.read > 0 and bool(state.lengths >> state.read & 1) and (shorter or state.order <= 0)


def _steps(v: Vocabulary, state: _State) -> list[tuple[int, _State | None]]:
    """What can follow a state, as in `_Ways`. States that can't lead to an id are removed later."""
    radices, read, big = v.radices(state.context), state.read, v.digit_order == "big"
    longest = len(radices)
    if read == longest:
        return [(0, None)]
    bound = int(v.contexts.bounds[state.context][read - longest if big else -1 - read])
    # Radix of the next digit, for each number of digits that the id can have.
    places = {
        k: radices[read - k if big else -1 - read] for k in range(read + 1, longest + 1) if state.lengths >> k & 1
    }
    steps: list[tuple[int, _State | None]] = []
    for digit in sorted({0, 1, bound, bound + 1, *places.values()}):
        bits = sum(1 << k for k, radix in places.items() if digit < radix)
        if v.width == "minimal" and digit == 0:  # only the id 0 has a most significant digit 0
            bits &= (2 if read == 0 else -1) if big else ~(1 << read + 1 if read else 0)
        order = (digit > bound) - (digit < bound)
        order = (state.order or order) if big else (order or state.order)
        steps.append((digit, _State(state.context, read + 1, order, bits) if bits else None))
    return steps
