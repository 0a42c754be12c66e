"""The legal next tokens: an automaton with static shapes that runs inside `jit`.

It accepts exactly what the encoder can write. `mask` gives the tokens that can follow; `advance` reads one token. The
sampler draws under the mask, the likelihood is renormalised under it, and data is checked by it.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Int, UInt32
from numpy.typing import NDArray

from omnijax.errors import VocabularyError
from omnijax.vocab import grammar_tables
from omnijax.vocab.grammar_tables import CLOSED, Bounds, DigitRows, DigitTables, SegmentRows
from omnijax.vocab.grammar_tables import SegmentRule as SegmentRule
from omnijax.vocab.ids import PrimaryIds, token_array
from omnijax.vocab.rules import enforce
from omnijax.vocab.vocabulary import PAD, Vocabulary


class GrammarState(NamedTuple):
    """The state of the grammar after the tokens so far, for a batch. Fields are int32[batch] unless stated otherwise.

    Attributes:
        marker: index of the control token that opened the segment. The number of control tokens stands for an unmarked
            segment; this number plus 1 stands for the state before the first token.
        after_aos: 1 behind the `aos` of a grouped segment.
        generals: number of general tokens of the segment so far.
        fragments: number of fragments of the segment so far. A fragment counts once its position is complete, or
            without positions once its digits are complete.
        last: largest position of these fragments.
        used: uint32[batch, words], a bit for each position that is used, if the order is `any`.
        begun: 1 inside a fragment.
        place: number of position tokens of the current position so far; 0 once all are there.
        prefix: the number that these position tokens make.
        digits: row of the digit automaton.
        alternating: alternating sum of the digits, modulo the radix of the check digit.
        complete: 1 if all digits, check digit included, are there.
        ended: 1 once the document is closed.
        number: int32[batch, 1], control tokens so far; int32[batch, 0] if no segment has bounds of its own.
        least: int32[batch, n], the fewest items of segment `number`, where column 0 is for a segment without a marker;
            -1 stands for the bound of the rule. n is 0 if no segment has bounds of its own.
        most: int32[batch, n], the most items, likewise.
    """

    marker: Int[Array, " b"]
    after_aos: Int[Array, " b"]
    generals: Int[Array, " b"]
    fragments: Int[Array, " b"]
    last: Int[Array, " b"]
    used: UInt32[Array, "b w"]
    begun: Int[Array, " b"]
    place: Int[Array, " b"]
    prefix: Int[Array, " b"]
    digits: Int[Array, " b"]
    alternating: Int[Array, " b"]
    complete: Int[Array, " b"]
    ended: Int[Array, " b"]
    number: Int[Array, "b c"]
    least: Int[Array, "b n"]
    most: Int[Array, "b n"]


class _Tables(NamedTuple):
    segments: SegmentRows
    follow: NDArray[np.bool_]
    """bool[rows, control], the control tokens that may follow."""
    digits: DigitTables
    places: int
    """Largest position of a segment in any order."""


@dataclasses.dataclass(frozen=True)
class Grammar:
    """The grammar of a vocabulary, with rules for its segments. It is hashable, so that `jit` takes it as static.

    Attributes:
        vocabulary: how documents are written.
        rules: rules for the segments of some markers.
        start: control tokens that may open a document. None allows all, and a segment without a marker.
        order: order of the fragments of a segment. `raster` means by increasing position, as the encoder writes them by
            default. `any` means each position once, in any order.

    Raises:
        VocabularyError: a marker doesn't exist, or no document can keep the rules.
    """

    vocabulary: Vocabulary
    rules: tuple[SegmentRule, ...] = ()
    start: tuple[str, ...] | None = None
    order: Literal["raster", "any"] = "raster"

    def __post_init__(self) -> None:
        enforce(grammar_tables.rule_checks(self.vocabulary, self.rules, self.start, self.order))
        _ = self._tables  # raises what no document can keep

    def start_state(self, batch: int, least_bs: Bounds = None, most_bs: Bounds = None) -> GrammarState:
        """The state before the first token of each document.

        `least_bs` and `most_bs` are int32[batch, segments], the fewest and the most items of the segment that control
        token number s opens, counted from 0. -1 keeps the bound of the rule, as do later segments. `SegmentRule.most`
        stays an upper bound. As they are arrays, one compiled program serves segments of all sizes.
        """
        zero = jnp.zeros(batch, jnp.int32)
        row = len(self.vocabulary.control) + 1
        used = jnp.zeros((batch, self._tables.places // 32 + 1 if self.order == "any" else 0), jnp.uint32)
        least, most = grammar_tables.bound_columns(batch, least_bs, most_bs)
        return GrammarState(
            **dict.fromkeys(GrammarState._fields, zero)
            | {"marker": zero + row, "used": used, "digits": self._resting(zero + row)}
            | {"number": jnp.zeros((batch, min(1, least.shape[1])), jnp.int32), "least": least, "most": most}
        )

    def with_bounds(self, state: GrammarState, least_b: Int[Array, " b"], most_b: Int[Array, " b"]) -> GrammarState:
        """The state with other bounds on the number of items of the segment that is open now, and none for later ones.

        `least_b` and `most_b` are int32[batch], the fewest and the most items; -1 keeps the bound of the rule. What has
        been read already counts: `most_b` can't fall below it.
        """
        least, most = (bound_b[:, None].astype(jnp.int32) for bound_b in (least_b, most_b))
        return state._replace(number=jnp.zeros_like(least), least=least, most=most)

    def _segment(self, state: GrammarState) -> SegmentRows:
        """What the open segment of each document may hold."""
        segment = SegmentRows(*_picked(self._tables.segments, state.marker))
        if not state.least.shape[1]:
            return segment
        uncounted = state.place > 0 if self.vocabulary.position == "before" else state.begun > 0
        items = jnp.maximum(state.generals + state.fragments + uncounted, state.last)
        return grammar_tables.bounded(self.vocabulary, segment, state.number, state.least, state.most, items)

    def mask(self, state: GrammarState) -> Bool[Array, "b v"]:
        """The primary tokens that can follow. At least one can."""
        v = self.vocabulary
        segment = self._segment(state)
        first, last = self._next_positions(state, segment)
        general, position, digits, boundary, closes = self._kinds(state, segment, first <= last)
        ended, opens = state.ended > 0, state.marker == len(v.control) + 1

        def wide(allowed: Array, count: int) -> Array:
            return jnp.broadcast_to(allowed[:, None], (allowed.shape[0], count))

        positions = wide(position, v.positions)
        if v.position != "none" and self.order == "any":
            positions &= grammar_tables.unused(v, state.used, last, state.place, state.prefix)
        elif v.position != "none":
            positions &= grammar_tables.between(v, first, last, state.place, state.prefix)
        pad = ended if v.end is not None else ended | (closes & ~opens)
        control = _at(self._tables.follow, state.marker) & (closes | (opens & ~ended))[:, None]
        before = (wide(pad, 1), wide(general, v.general), positions, self._digit_mask(state, digits))
        return jnp.concatenate([*before, wide(boundary, 1), control], axis=1)

    def _kinds(self, state: GrammarState, segment: SegmentRows, place: Bool[Array, " b"]) -> tuple[Array, ...]:
        """Whether these can follow, bool[batch] each: general, position and digit tokens, `aos`, a closed segment.

        `place` says whether there is a position for another fragment.
        """
        v = self.vocabulary
        items = state.generals + state.fragments
        free = state.begun == 0
        if v.position == "before" and v.width == "minimal":  # only the next token shows that the id is complete
            free |= state.complete > 0
        free &= state.ended == 0
        room, enough = free & (items < segment.most), items >= segment.least
        general, fragment, closes = room & (segment.general > 0), room & place & (segment.fragments > 0), free & enough
        if self.order == "any":
            closes &= items >= state.last
        boundary = jnp.zeros_like(free)
        if v.layout == "grouped":
            grouped, before = segment.opens > 0, state.after_aos == 0
            after = ~before | ~grouped
            enough |= (segment.fragments > 0) & (segment.least - items <= grammar_tables.last_position(v))
            boundary = free & before & enough & grouped
            general, fragment, closes = general & before, fragment & after, closes & after
        begun, first = state.begun > 0, v.position == "before"
        position = (fragment if first else begun & (state.complete > 0)) | (state.place > 0)
        return general, position & (v.position != "none"), begun if first else begun | fragment, boundary, closes

    def _next_positions(self, state: GrammarState, segment: SegmentRows) -> tuple[Array, Array]:
        """First and last position that the next fragment may have. In any order, used positions are among these."""
        reach, items = grammar_tables.last_position(self.vocabulary), state.generals + state.fragments
        if self.vocabulary.position == "none":
            return items, items
        if self.order == "any":  # no position is left if all up to the last are used
            return state.fragments + 1, jnp.minimum(segment.most, reach)
        if self.vocabulary.layout == "inline":
            return items + 1, jnp.minimum(items + 1, reach)
        # General tokens must fill all gaps, and positions must be left for the items that are still needed.
        grouped, needed = segment.opens > 0, jnp.maximum(segment.least - items - 1, 0)
        first = jnp.where(grouped, state.last + 1, items + 1)
        return first, jnp.minimum(items + 1, jnp.where(grouped, reach - needed, reach))

    def _digit_mask(self, state: GrammarState, allowed: Bool[Array, " b"]) -> Bool[Array, "b d"]:
        row = DigitRows(*_picked(self._tables.digits.rows, state.digits))
        column = jnp.arange(self.vocabulary.digits, dtype=jnp.int32)[None, :]
        legal = (column >= row.low[:, None]) & (column <= row.high[:, None])
        if self.vocabulary.check_digit:
            check = jnp.where(row.stops > 0, -state.alternating % self.vocabulary.check_base, -1)
            legal |= column == check[:, None]
        return legal & allowed[:, None]

    def advance(self, state: GrammarState, tokens: Int[Array, " b"]) -> GrammarState:
        """The state after another token of each document. `mask` must allow these tokens."""
        v = self.vocabulary
        general = (tokens >= 1) & (tokens < v.position_start)
        digit = (tokens >= v.digit_start) & (tokens < v.aos)
        control = tokens >= v.control_start
        unmarked = jnp.minimum(state.marker, len(v.control))
        marker = jnp.where(control, jnp.minimum(tokens - v.control_start, len(v.control) - 1), unmarked)
        row, alternating, complete = self._read_digit(state, tokens - v.digit_start)
        after = state._replace(
            marker=marker,
            after_aos=jnp.where(tokens == v.aos, 1, state.after_aos),
            generals=state.generals + general,
            begun=jnp.where(digit, 1, state.begun),
            digits=jnp.where(digit, row, state.digits),
            alternating=jnp.where(digit, alternating, state.alternating),
            complete=jnp.where(digit, complete, state.complete),
        )
        finished = general | control | (tokens == PAD)
        if v.position != "none":
            after, finished = self._read_position(after, tokens, finished)
        if v.position == "none" or (v.position == "before" and v.width == "fixed"):
            finished |= digit & complete
        if v.position == "none":
            after = after._replace(fragments=after.fragments + (digit & complete))
        of_segment = ("after_aos", "generals", "fragments", "last", "place", "prefix")
        after = after._replace(
            **{name: jnp.where(finished, 0, getattr(after, name)) for name in ("begun", "alternating", "complete")},
            **{name: jnp.where(control, 0, getattr(after, name)) for name in of_segment},
            digits=jnp.where(finished, self._resting(marker), after.digits),
            used=jnp.where(control[:, None], 0, after.used),
            ended=state.ended | (tokens == PAD) | (tokens == (-1 if v.end is None else v.end)),
            number=state.number + control[:, None],
        )
        return jax.tree.map(lambda new, old: new.astype(old.dtype), after, state)

    def _resting(self, marker: Int[Array, " b"]) -> Int[Array, " b"]:
        """Row of the digit automaton between two fragments. If positions come first, it is closed."""
        before = self.vocabulary.position == "before"
        return jnp.full_like(marker, CLOSED) if before else _at(self._tables.segments.start, marker)

    def _read_digit(self, state: GrammarState, digit: Array) -> tuple[Array, Array, Array]:
        """Row of the automaton, alternating sum and completeness after another digit."""
        v, table = self.vocabulary, self._tables.digits
        step = jnp.sum(digit[:, None] >= _at(table.breaks, state.digits), axis=1, dtype=jnp.int32)
        row = _at(table.following.reshape(-1), state.digits * table.following.shape[1] + step)
        if not v.check_digit:
            return row, state.alternating, _at(table.rows.stops, row) > 0
        now = DigitRows(*_picked(table.rows, state.digits))
        complete = (now.stops > 0) & (digit == -state.alternating % v.check_base)
        # Signs alternate from the least significant digit.
        little = state.alternating + digit * (1 - 2 * now.odd)
        alternating = digit - state.alternating if v.digit_order == "big" else little
        return row, alternating % v.check_base, complete

    def _read_position(self, state: GrammarState, tokens: Array, finished: Array) -> tuple[GrammarState, Array]:
        """Reads a position token, if the token is one. Also says whether it finishes the fragment."""
        v = self.vocabulary
        token = (tokens >= v.position_start) & (tokens < v.digit_start)
        number = state.prefix * v.positions + tokens - v.position_start
        whole = token & (state.place == v.position_places - 1)
        part = token & ~whole
        after = state._replace(
            fragments=state.fragments + whole,
            last=jnp.where(whole, jnp.maximum(state.last, number), state.last),
            place=jnp.where(whole, 0, state.place + part),
            prefix=jnp.where(part, number, jnp.where(whole, 0, state.prefix)),
            complete=jnp.where(token, 0, state.complete),
            begun=jnp.where(token, 1, state.begun),
        )
        if self.order == "any":
            used = grammar_tables.with_position(state.used, number)
            after = after._replace(used=jnp.where(whole[:, None], used, state.used))
        if v.position == "after":
            return after._replace(digits=jnp.where(token, CLOSED, after.digits)), finished | whole
        begins = _at(self._tables.segments.start, state.marker)
        row = jnp.where(whole, begins, jnp.where(part, CLOSED, state.digits))
        return after._replace(digits=row, alternating=jnp.where(token, 0, after.alternating)), finished

    def masks(self, tokens: PrimaryIds, least_bs: Bounds = None, most_bs: Bounds = None) -> Bool[Array, "b t v"]:
        """The legal tokens at each position of legal documents; `start_state` explains the bounds."""
        batch = _streams(tokens, self.vocabulary.size).shape[1]
        return self.read(self.start_state(batch, least_bs, most_bs), tokens)[1]

    def read(self, state: GrammarState, tokens: PrimaryIds) -> tuple[GrammarState, Bool[Array, "b t v"]]:
        """Reads tokens of documents. Returns the state after them, and the mask before each token."""

        def step(state: GrammarState, tokens_b: Array) -> tuple[GrammarState, Array]:
            return self.advance(state, tokens_b), self.mask(state)

        state, masks = lax.scan(step, state, _streams(tokens, self.vocabulary.size))
        return state, jnp.swapaxes(masks, 0, 1)

    def accepts(self, tokens: PrimaryIds, least_bs: Bounds = None, most_bs: Bounds = None) -> Bool[Array, " b"]:
        """Whether each sequence is one whole document that keeps the rules and the bounds, padded on the right."""
        streams = _streams(tokens, self.vocabulary.size)
        state, masks = self.read(self.start_state(streams.shape[1], least_bs, most_bs), tokens)
        inside = (streams.T >= 0) & (self.vocabulary.size > streams.T)
        legal = jnp.take_along_axis(masks, jnp.where(inside, streams.T, PAD)[..., None], axis=2)[..., 0]
        return (legal & inside).all(axis=1) & self.mask(state)[:, PAD]

    def forced(self, mask: Bool[Array, "b v"]) -> Int[Array, " b"]:
        """The only legal token of each document; -1 if there are several."""
        return jnp.where(jnp.sum(mask, axis=1, dtype=jnp.int32) == 1, jnp.argmax(mask, axis=1).astype(jnp.int32), -1)

    @functools.cached_property
    def _tables(self) -> _Tables:
        # These are NumPy arrays, since JAX constants that are made while tracing must not outlive the trace.
        segments, follow = grammar_tables.segment_rows(self.vocabulary, self.rules, self.start)
        places = grammar_tables.places_needed(self.vocabulary, segments) if self.order == "any" else 0
        return _Tables(segments, follow, grammar_tables.digit_tables(self.vocabulary), places)


def _picked(tables: SegmentRows | DigitRows, row: Int[Array, " b"]) -> tuple[Array, ...]:
    """Takes one row of each table in one gather."""
    return tuple(jnp.unstack(_at(np.stack(tables, axis=1), row), axis=1))


def _at(table: NDArray[Any], row: Int[Array, " b"]) -> Array:
    """Rows of a table, int or bool[batch, ...]."""
    return jnp.take(jnp.asarray(table), row, axis=0, mode="clip")


def _streams(tokens: PrimaryIds, size: int) -> Int[Array, "t b"]:
    array = token_array(tokens, size)
    if array.ndim != 2:
        raise VocabularyError("tokens", tuple(array.shape), "must be int[rows, tokens]", "use tokens[None] for one row")
    return array.T
