"""The legal next tokens: an automaton with static shapes that runs inside `jit`.

It accepts exactly what the encoder can write: `mask` gives the tokens that can follow, `advance` reads one. The sampler
draws under the mask, the likelihood is renormalised under the same one, and data is checked by it.
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
from omnijax.vocab.grammar_digits import CLOSED, DigitRows, DigitTables, digit_tables
from omnijax.vocab.grammar_positions import between, unused, with_position, words
from omnijax.vocab.grammar_rules import (
    LARGEST,
    SegmentRows,
    check_rules,
    last_position,
    places_needed,
    segment_rows,
)
from omnijax.vocab.grammar_rules import SegmentRule as SegmentRule
from omnijax.vocab.ids import PrimaryIds, expect
from omnijax.vocab.vocabulary import PAD, Vocabulary


class GrammarState(NamedTuple):
    """What has been read of one document, int32[batch] but for `used`.

    Attributes:
        marker: index of the control token that opened the segment; one more for an unmarked segment, and another one
            more before the first token.
        after_aos: 1 behind the boundary of a grouped segment.
        generals: general tokens of the segment so far.
        fragments: fragments of the segment so far, counted from where both begin and position are written.
        last: largest position among them.
        used: uint32[batch, words], in any order: a bit for each of their positions.
        begun: 1 inside a fragment.
        place: position tokens of its position so far, 0 when all are there.
        prefix: the number they make.
        digits: row of the digit automaton.
        alternating: alternating sum of the digits, modulo the radix of the check digit.
        complete: 1 where the digits, and the check digit, are all there.
        ended: 1 once the document is closed.
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


class _Now(NamedTuple):
    """Which kinds of tokens a state allows, bool[batch] each."""

    general: Array
    position: Array
    digits: Array
    boundary: Array
    closes: Array
    """The segment may end."""


@dataclasses.dataclass(frozen=True)
class Grammar:
    """Which tokens can follow, for a vocabulary and what is asked of its segments. Hashable: static for `jit`.

    Attributes:
        vocabulary: what is written.
        rules: for some segment markers, what such a segment holds and what follows it.
        start: control tokens that may open a document; None for all, and for a segment without a marker.
        order: how the fragments of a segment follow each other: in `raster` order, by increasing position, as the
            encoder writes them if it isn't told otherwise, or in `any`, each position once.

    Raises:
        VocabularyError: a marker that doesn't exist, or rules that no document can keep.
    """

    vocabulary: Vocabulary
    rules: tuple[SegmentRule, ...] = ()
    start: tuple[str, ...] | None = None
    order: Literal["raster", "any"] = "raster"

    def __post_init__(self) -> None:
        check_rules(self.vocabulary, self.rules, self.start, self.order)
        _ = self._places

    def start_state(self, batch: int) -> GrammarState:
        """The state before the first token of a document."""
        zero = jnp.zeros(batch, jnp.int32)
        row = len(self.vocabulary.control) + 1
        used = jnp.zeros((batch, words(self._places) if self.order == "any" else 0), jnp.uint32)
        nothing = dict.fromkeys(GrammarState._fields, zero)
        return GrammarState(**nothing | {"marker": zero + row, "used": used, "digits": zero + self._resting[row]})

    def mask(self, state: GrammarState) -> Bool[Array, "b v"]:
        """Which primary tokens can follow; never none of them."""
        v = self.vocabulary
        segment = SegmentRows(*_picked(self._segments, state.marker))
        first, last = self._next_positions(state, segment)
        now = self._now(state, segment, first <= last)
        ended, opens = state.ended > 0, state.marker == len(v.control) + 1

        def wide(allowed: Array, count: int) -> Array:
            return jnp.broadcast_to(allowed[:, None], (allowed.shape[0], count))

        positions = wide(now.position, v.positions)
        if v.position != "none":
            if self.order == "any":
                positions &= unused(v, state.used, last, state.place, state.prefix)
            else:
                positions &= between(v, first, last, state.place, state.prefix)
        pad = ended if v.end is not None else ended | (now.closes & ~opens)
        control = _at(self._follow, state.marker) & (now.closes | (opens & ~ended))[:, None]
        digits = self._digit_mask(state, now.digits)
        return jnp.concatenate(
            [wide(pad, 1), wide(now.general, v.general), positions, digits, wide(now.boundary, 1), control], axis=1
        )

    def _now(self, state: GrammarState, segment: SegmentRows, place: Bool[Array, " b"]) -> _Now:
        """What can follow; `place` says whether there is a position for one more fragment."""
        v = self.vocabulary
        items = state.generals + state.fragments
        free = state.begun == 0
        if v.position == "before" and v.width == "minimal":  # only the next token says that the id is complete
            free |= state.complete > 0
        free &= state.ended == 0
        room, enough = free & (items < segment.most), items >= segment.least
        general, fragment, closes = room & (segment.general > 0), room & place & (segment.fragments > 0), free & enough
        if self.order == "any":
            closes &= items >= state.last
        boundary = jnp.zeros_like(free)
        if v.layout == "grouped":
            before, after = state.after_aos == 0, state.after_aos > 0
            enough |= (segment.fragments > 0) & (segment.least - items <= last_position(v))
            boundary = free & before & enough & (segment.opens > 0)
            general, fragment, closes = general & before, fragment & after, closes & after
        begun, placing = state.begun > 0, state.place > 0
        position = fragment if v.position == "before" else begun & (state.complete > 0)
        return _Now(
            general=general,
            position=(position | placing) if v.position != "none" else jnp.zeros_like(free),
            digits=begun if v.position == "before" else begun | fragment,
            boundary=boundary,
            closes=closes,
        )

    def _next_positions(self, state: GrammarState, segment: SegmentRows) -> tuple[Array, Array]:
        """First and last position that the next fragment may have, those already used in any order among them."""
        reach, items = last_position(self.vocabulary), state.generals + state.fragments
        if self.vocabulary.position == "none":
            return items, items
        if self.order == "any":  # none is left when all up to the last have their fragments
            last = jnp.minimum(segment.most, reach)
            return state.fragments + 1, last
        if self.vocabulary.layout == "inline":
            return items + 1, jnp.minimum(items + 1, reach)
        # General tokens have to fill every gap; and there have to be positions for the items that are still needed.
        return state.last + 1, jnp.minimum(items + 1, reach - jnp.maximum(segment.least - items - 1, 0))

    def _digit_mask(self, state: GrammarState, allowed: Bool[Array, " b"]) -> Bool[Array, "b d"]:
        row = DigitRows(*_picked(self._digits.rows, state.digits))
        column = jnp.arange(self.vocabulary.digits, dtype=jnp.int32)[None, :]
        legal = (column >= row.low[:, None]) & (column <= row.high[:, None])
        if self.vocabulary.check_digit:
            check = jnp.where(row.stops > 0, -state.alternating % self.vocabulary.check_base, -1)
            legal |= column == check[:, None]
        return legal & allowed[:, None]

    def advance(self, state: GrammarState, tokens: Int[Array, " b"]) -> GrammarState:
        """The state after one more token of each document; tokens that `mask` allows."""
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

        resting = _at(self._resting, marker)
        after = after._replace(
            begun=jnp.where(finished, 0, after.begun),
            digits=jnp.where(finished, resting, after.digits),
            alternating=jnp.where(finished, 0, after.alternating),
            complete=jnp.where(finished, 0, after.complete),
        )
        anew = ("after_aos", "generals", "fragments", "last", "place", "prefix")
        after = after._replace(
            **{name: jnp.where(control, 0, getattr(after, name)) for name in anew},
            used=jnp.where(control[:, None], 0, after.used),
            ended=state.ended | (tokens == PAD) | (tokens == (-1 if v.end is None else v.end)),
        )
        return jax.tree.map(lambda new, old: new.astype(old.dtype), after, state)

    def _read_digit(self, state: GrammarState, digit: Array) -> tuple[Array, Array, Array]:
        """Row, alternating sum and completeness behind one more digit."""
        v, table = self.vocabulary, self._digits
        step = jnp.sum(digit[:, None] >= _at(table.breaks, state.digits), axis=1, dtype=jnp.int32)
        row = _at(table.following.reshape(-1), state.digits * table.following.shape[1] + step)
        if not v.check_digit:
            return row, state.alternating, _at(table.rows.stops, row) > 0
        now = DigitRows(*_picked(table.rows, state.digits))
        complete = (now.stops > 0) & (digit == -state.alternating % v.check_base)
        # Signs alternate from the least significant digit.
        if v.digit_order == "big":
            alternating = digit - state.alternating
        else:
            alternating = state.alternating + digit * (1 - 2 * now.odd)
        return row, alternating % v.check_base, complete

    def _read_position(self, state: GrammarState, tokens: Array, finished: Array) -> tuple[GrammarState, Array]:
        """Reads a position token where there is one; and whether the fragment is finished by it."""
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
            after = after._replace(used=jnp.where(whole[:, None], with_position(state.used, number), state.used))
        if v.position == "after":
            return after._replace(digits=jnp.where(token, CLOSED, after.digits)), finished | whole
        begins = _at(self._segments.start, state.marker)
        row = jnp.where(whole, begins, jnp.where(part, CLOSED, state.digits))
        return after._replace(digits=row, alternating=jnp.where(token, 0, after.alternating)), finished

    def masks(self, tokens: PrimaryIds) -> Bool[Array, "b t v"]:
        """The legal tokens at each position of legal documents, given what stands before it."""
        _, masks = self.read(self.start_state(_streams(tokens).shape[1]), tokens)
        return masks

    def read(self, state: GrammarState, tokens: PrimaryIds) -> tuple[GrammarState, Bool[Array, "b t v"]]:
        """Reads tokens of documents; returns the state behind them, and the mask before each of them."""

        def step(state: GrammarState, tokens_b: Array) -> tuple[GrammarState, Array]:
            return self.advance(state, tokens_b), self.mask(state)

        state, masks = lax.scan(step, state, _streams(tokens))
        return state, jnp.swapaxes(masks, 0, 1)

    def accepts(self, tokens: PrimaryIds) -> Bool[Array, " b"]:
        """Whether each row is one whole document that keeps the rules, padded on the right."""

        def step(carry: tuple[GrammarState, Array], tokens_b: Array) -> tuple[tuple[GrammarState, Array], None]:
            state, legal = carry
            inside = (tokens_b >= 0) & (tokens_b < self.vocabulary.size)
            known = jnp.where(inside, tokens_b, PAD)
            legal &= inside & jnp.take_along_axis(self.mask(state), known[:, None], axis=1)[:, 0]
            return (self.advance(state, known), legal), None

        streams = _streams(tokens)
        (state, legal), _ = lax.scan(
            step, (self.start_state(streams.shape[1]), jnp.ones(streams.shape[1], bool)), streams
        )
        return legal & self.mask(state)[:, PAD]

    def forced(self, mask: Bool[Array, "b v"]) -> Int[Array, " b"]:
        """The only legal token of each row, -1 where there are several."""
        column = jnp.arange(mask.shape[1], dtype=jnp.int32)[None, :]
        token = jnp.sum(jnp.where(mask, column, 0), axis=1)
        return jnp.where(jnp.sum(mask, axis=1, dtype=jnp.int32) == 1, token, -1)

    # Tables are NumPy arrays: constants that are made while tracing must not outlive the trace.

    @functools.cached_property
    def _digits(self) -> DigitTables:
        return digit_tables(self.vocabulary)

    @functools.cached_property
    def _rows(self) -> tuple[SegmentRows, NDArray[np.bool_]]:
        return segment_rows(self.vocabulary, self.rules, self.start)

    @property
    def _segments(self) -> SegmentRows:
        return self._rows[0]

    @property
    def _follow(self) -> NDArray[np.bool_]:
        return self._rows[1]

    @functools.cached_property
    def _places(self) -> int:
        return places_needed(self.vocabulary, self._segments) if self.order == "any" else 0

    @property
    def _resting(self) -> NDArray[np.int32]:
        """Row of the digit automaton between two fragments, by marker: position before, none until it is written."""
        starts = self._segments.start
        return np.full_like(starts, CLOSED) if self.vocabulary.position == "before" else starts


def _picked(tables: SegmentRows | DigitRows, row: Int[Array, " b"]) -> tuple[Array, ...]:
    """One row of each table, gathered at once."""
    return tuple(jnp.unstack(_at(np.stack(tables, axis=1), row), axis=1))


def _at(table: NDArray[Any], row: Int[Array, " b"]) -> Array:
    """Rows of a table, int or bool[batch, ...]."""
    return jnp.take(jnp.asarray(table), row, axis=0, mode="clip")


def _streams(tokens: PrimaryIds) -> Int[Array, "t b"]:
    array = expect(PrimaryIds, tokens, "tokens").array
    if array.ndim != 2:
        raise VocabularyError("tokens", tuple(array.shape), "must be int[rows, tokens]", "use tokens[None] for one row")
    if not jnp.issubdtype(array.dtype, jnp.integer):
        raise VocabularyError("tokens", array.dtype, "tokens must be whole numbers", "convert them first")
    if array.dtype.itemsize > 4:  # must not wrap around to a token
        array = array.clip(-1, LARGEST)
    return jnp.asarray(array, jnp.int32).T
