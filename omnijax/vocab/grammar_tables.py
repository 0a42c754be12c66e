"""Tables of the grammar: what segments may hold, how many items, which positions, and which digits can follow.

The digits of an id are read by a finite automaton, whose states are the rows of a table. To know whether an id is below
the size of its space, it is enough to compare its digits with those of the largest id. So no state holds the number
itself, and ids may have any size.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int, UInt32
from numpy.typing import NDArray

from omnijax.errors import VocabularyError
from omnijax.vocab.rules import END, Rule, enforce
from omnijax.vocab.vocabulary import Vocabulary

LARGEST = 2**31 - 1
RULE = -1
"""Stands for the bound of the rule."""
Bounds = Int[Array, "b s"] | None
MOST_PLACES = 2**16
"""Most positions of a segment in any order. Each takes a bit of the state."""
CLOSED = 0
"""Row in which no digit can follow."""
MOST_STATES = 2**16


@dataclasses.dataclass(frozen=True)
class SegmentRule:
    """A rule for the segments that a control token opens.

    Attributes:
        marker: name of the control token.
        least: the fewest items of such a segment.
        most: the most items of such a segment.
        holds: kind of the items: `general` tokens, `fragments`, or `any` that the vocabulary allows in the segment.
        then: control tokens, including `eos`, that may follow the segment; None for all. Without `eos` in the
            vocabulary every segment may also be the last one.
    """

    marker: str
    least: int = 0
    most: int = LARGEST
    holds: Literal["any", "general", "fragments"] = "any"
    then: tuple[str, ...] | None = None


class SegmentRows(NamedTuple):
    """What each kind of segment may hold, int32[rows]; or the open segments of a batch, int32[batch].

    There is a row for each control token, one for unmarked segments, and one for the state before a document.

    Attributes:
        start: row of the digit automaton where a fragment begins.
        least: the fewest items.
        most: the most items.
        general: 1 if general tokens can stand there.
        fragments: 1 if fragments can stand there.
        opens: 1 if `aos` stands between general tokens and fragments.
    """

    start: Any
    least: Any
    most: Any
    general: Any
    fragments: Any
    opens: Any


def last_position(vocabulary: Vocabulary) -> int:
    """Largest position that can be written, at most 2^31 - 2; also 2^31 - 2 if no positions are written."""
    return LARGEST - 1 if vocabulary.position == "none" else min(vocabulary.last_position, LARGEST - 1)


def rule_checks(
    v: Vocabulary, rules: tuple[SegmentRule, ...], start: tuple[str, ...] | None, order: str
) -> Iterator[Rule]:
    """What rules must keep, so that some document can keep them."""
    for field, value in {"rules": rules, "start": start or ()}.items():
        rule = "must be a tuple, so that the grammar is hashable"
        yield isinstance(value, tuple), field, value, rule, "a tuple of one needs a comma"
    yield order in ("raster", "any"), "order", order, "must be one of raster, any", "choose one"
    rule = "without position tokens nothing says where a fragment belongs"
    fix = "use position before or after, or order='raster'"
    yield order == "raster" or v.position != "none", "order", order, rule, fix
    closes = "it closes a document and opens no segment"
    markers = [rule.marker for rule in rules]
    for one in rules:
        where = f"rules.{one.marker}"
        v.token(one.marker)
        yield one.marker != END, "rules", END, closes, "drop the rule"
        yield markers.count(one.marker) == 1, "rules", one.marker, "one rule for each marker", "make one of them"
        bounds, rule = (one.least, one.most), f"0 ≤ least ≤ most ≤ {LARGEST}"
        yield 0 <= one.least <= one.most <= LARGEST, where, bounds, rule, "swap, raise or lower them"
        kinds = ("any", "general", "fragments")
        yield one.holds in kinds, where, one.holds, f"holds is one of {', '.join(kinds)}", "choose one"
        general, fragments = _holds(v, one.marker, one.holds)
        some = one.least == 0 or general or fragments
        yield some, where, one.least, "no item can stand in such a segment", "set least to 0"
        rule, fix = f"the position tokens reach {v.last_position}", "raise positions or position_places"
        yield general or one.least <= last_position(v), where, one.least, rule, fix
        for name in one.then or ():
            v.token(name)
    yield start != (), "start", start, "a document has to begin", "name a control token, or None for all"
    for name in start or ():
        v.token(name)
        yield name != END, "start", END, closes, "leave it out"
    # Every kind of segment must be followed, sooner or later, by the end of the document.
    then = {name: v.control for name in v.control if name != END}
    then |= {rule.marker: rule.then for rule in rules if rule.then is not None}
    ending = {END}
    while more := {name for name, after in then.items() if name not in ending and ending & set(after)}:
        ending |= more
    for name, after in then.items():
        leads = name in ending or v.end is None
        yield leads, f"rules.{name}", after, f"no way leads on from there to {END}", f"add {END} to what may follow"


def segment_rows(
    vocabulary: Vocabulary, rules: tuple[SegmentRule, ...], start: tuple[str, ...] | None
) -> tuple[SegmentRows, NDArray[np.bool_]]:
    """What segments may hold, and the control tokens that may follow, bool[rows, control]. Rules must be valid."""
    v, starts = vocabulary, digit_tables(vocabulary).starts
    of_marker = {rule.marker: rule for rule in rules}
    names: list[str | None] = [*v.control, None, None]
    rows, follow = [], np.ones((len(names), len(v.control)), bool)
    for row, name in enumerate(names):
        rule = of_marker[name] if name in of_marker else SegmentRule(name or "")
        context = v.contexts.of_control[row] if name is not None else 0
        general, fragments = _holds(v, name, rule.holds)
        rows.append([starts[context], rule.least, rule.most, general, fragments, v.contexts.grouped[context]])
        if rule.then is not None:
            follow[row] = [token in rule.then for token in v.control]
    follow[-1] = [token != END and (start is None or token in start) for token in v.control]
    if start is not None:  # then every segment has a marker
        rows[-1][3:] = [False, False, False]
    return SegmentRows(*np.array(rows, np.int32).T), follow


def places_needed(v: Vocabulary, rows: SegmentRows) -> int:
    """Largest position of a segment in any order; raises a `VocabularyError` if the state has fewer bits."""
    most = [int(most) for most, fragments in zip(rows.most, rows.fragments) if fragments]
    if not rows.fragments[-1]:
        most.pop()  # every segment has a marker
    largest = min(last_position(v), max(most, default=0))
    rule = f"order 'any' keeps a bit for each position, for {MOST_PLACES} at most"
    fix = "give a start, and rules with the most items of each segment"
    enforce([(largest <= MOST_PLACES, "order", "any", rule, fix)])
    return largest


def _holds(v: Vocabulary, marker: str | None, holds: str) -> tuple[bool, bool]:
    """Whether general tokens, and whether fragments, can stand in such a segment."""
    if marker == END:
        return False, False
    context = 0 if marker is None else v.context(marker)
    return bool(v.contexts.general[context]) and v.general > 0 and holds != "fragments", holds != "general"


def bound_columns(batch: int, least_bs: Bounds, most_bs: Bounds) -> tuple[Array, Array]:
    """The bounds as a state keeps them, int32[batch, 1 + segments]; int32[batch, 0] if there are none.

    Column 0 is for a segment without a marker.
    """
    given = [bounds for bounds in (least_bs, most_bs) if bounds is not None]
    if not given:
        return (jnp.zeros((batch, 0), jnp.int32),) * 2

    def column(bounds: Bounds) -> Array:
        bounds = jnp.full(given[0].shape, RULE) if bounds is None else jnp.asarray(bounds)
        return jnp.pad(bounds.astype(jnp.int32), ((0, 0), (1, 0)), constant_values=RULE)

    return column(least_bs), column(most_bs)


def bounded(
    v: Vocabulary, segment: SegmentRows, number: Int[Array, "b 1"], least: Array, most: Array, items: Int[Array, " b"]
) -> SegmentRows:
    """Puts the bounds of each document into the rules of its open segment, clipped to what it can still reach.

    `number` is the column of the open segment in `least` and `most`, the fewest and the most items of each segment; it
    already has `items` items, or they are its last position.
    """
    here = jnp.arange(least.shape[1], dtype=jnp.int32)[None, :] == number
    own_least, own_most = (jnp.max(jnp.where(here, bounds, RULE), axis=1) for bounds in (least, most))
    highest = jnp.where(own_most >= 0, jnp.minimum(jnp.maximum(own_most, items), segment.most), segment.most)
    reach = jnp.where(segment.general > 0, highest, jnp.minimum(highest, last_position(v)))
    reach = jnp.where(segment.general + segment.fragments > 0, reach, 0)
    lowest = jnp.minimum(jnp.where(own_least >= 0, own_least, segment.least), reach)
    return segment._replace(least=lowest, most=highest)


def between(
    v: Vocabulary, first: Int[Array, " b"], last: Int[Array, " b"], place: Int[Array, " b"], prefix: Array
) -> Bool[Array, "b p"]:
    """The tokens that lead to a position in `first … last`, after `place` tokens that make the number `prefix`."""
    if v.position_places > 1:
        # The `step` positions that share their digits up to this place are neighbours.
        powers = [min(v.positions**k, LARGEST) for k in reversed(range(v.position_places))]
        step = jnp.take(jnp.asarray(np.array(powers, np.int32)), place, mode="clip")
        first, last = first // step - prefix * v.positions, last // step - prefix * v.positions
    column = jnp.arange(v.positions, dtype=jnp.int32)[None, :]
    return (column >= first[:, None]) & (column <= last[:, None])


def unused(
    v: Vocabulary, used: UInt32[Array, "b w"], last: Int[Array, " b"], place: Int[Array, " b"], prefix: Array
) -> Bool[Array, "b p"]:
    """Position tokens that may come next, bool[batch, positions]: those that can still complete an unused position.

    Positions are 1 … `last`. `prefix` is the number that the `place` position tokens before it make.
    """
    bits = used[:, :, None] >> jnp.arange(32, dtype=jnp.uint32)[None, None, :] & 1
    free = (bits == 0).reshape(used.shape[0], -1)
    number = jnp.arange(free.shape[1])[None, :]
    free &= (number >= 1) & (number <= last[:, None])
    allowed = jnp.zeros((used.shape[0], v.positions), bool)
    column = prefix[:, None] * v.positions + jnp.arange(v.positions, dtype=jnp.int32)[None, :]
    for at in reversed(range(v.position_places)):
        inside = column < free.shape[1]
        here = jnp.take_along_axis(free, jnp.minimum(column, free.shape[1] - 1), axis=1) & inside
        allowed = jnp.where((place == at)[:, None], here, allowed)
        if at:  # a prefix is free if one of its completions is free
            free = jnp.pad(free, ((0, 0), (0, -free.shape[1] % v.positions)))
            free = free.reshape(free.shape[0], -1, v.positions).any(axis=2)
    return allowed


def with_position(used: UInt32[Array, "b w"], position: Int[Array, " b"]) -> UInt32[Array, "b w"]:
    """The sets of used positions, with another position for each document."""
    bit = jnp.left_shift(jnp.uint32(1), (position % 32).astype(jnp.uint32))
    here = jnp.arange(used.shape[1], dtype=jnp.int32)[None, :] == (position // 32)[:, None]
    return used | jnp.where(here, bit[:, None], jnp.uint32(0))


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
    """The automaton of all contexts of a vocabulary; too large a one, of mixed radices, raises a `VocabularyError`."""
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
    breaks = np.full((count, most - 1), LARGEST, np.int32)
    following = np.full((count, most), CLOSED, np.int32)
    for state in ways.keys() & alive:
        row = alive[state]
        begins = [*(digit for digit, _ in ways[state]), LARGEST]
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
    possible = (k for k in range(read + 1, longest + 1) if state.lengths >> k & 1)
    places = {k: radices[read - k if big else -1 - read] for k in possible}
    steps: list[tuple[int, _State | None]] = []
    for digit in sorted({0, 1, bound, bound + 1, *places.values()}):
        bits = sum(1 << k for k, radix in places.items() if digit < radix)
        if v.width == "minimal" and digit == 0:  # only the id 0 has a most significant digit 0
            bits &= (2 if read == 0 else -1) if big else ~(1 << read + 1 if read else 0)
        order = (digit > bound) - (digit < bound)
        order = (state.order or order) if big else (order or state.order)
        steps.append((digit, _State(state.context, read + 1, order, bits) if bits else None))
    return steps
