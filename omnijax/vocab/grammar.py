"""The legal next tokens: an automaton with static shapes that runs inside `jit`.

It accepts exactly what the encoder can write: `mask` gives the tokens that can follow, `advance` reads one. The sampler
draws under the mask, and the likelihood is renormalised under the same one.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Int

from omnijax.errors import VocabularyError
from omnijax.vocab.digits import place_bounds
from omnijax.vocab.vocabulary import LARGEST, PAD, Vocabulary


class GrammarState(NamedTuple):
    """What has been read of one document, int32[batch] each.

    Attributes:
        marker: control token that opened the segment, -1 for none.
        after_aos: 1 behind the boundary of a grouped segment.
        generals: general tokens of the segment so far.
        fragments: fragments of the segment so far, one begun with its position token included.
        last: position of the last of them.
        pending: 1 between a position token and the end of the digits that follow it.
        places: digits of the open fragment.
        value: the number they make.
        ended: 1 once the document is closed.
    """

    marker: Int[Array, " b"]
    after_aos: Int[Array, " b"]
    generals: Int[Array, " b"]
    fragments: Int[Array, " b"]
    last: Int[Array, " b"]
    pending: Int[Array, " b"]
    places: Int[Array, " b"]
    value: Int[Array, " b"]
    ended: Int[Array, " b"]


@dataclasses.dataclass(frozen=True)
class Grammar:
    """Which tokens can follow, for a vocabulary and what is asked of its segments.

    Attributes:
        vocabulary: what is written.
        items: for some segment markers, the least and largest number of items of such a segment.
        closers: control tokens that may end a segment; None for all. A sampler of one segment gives `("eos",)`.

    Raises:
        VocabularyError: a marker that doesn't exist, or numbers of items that can't be.
    """

    vocabulary: Vocabulary
    items: tuple[tuple[str, int, int], ...] = ()
    closers: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        room = self.vocabulary.positions - 1
        for name, least, most in self.items:
            self.vocabulary.token(name)
            if not 0 <= least <= most:
                raise VocabularyError(f"items of {name}", (least, most), "0 ≤ least ≤ most", "swap or raise them")
            context = self.vocabulary.contexts.of_control[self.vocabulary.control.index(name)]
            fragments = self.vocabulary.contexts.sizes[context] > 0
            if least > 0 and not fragments and self.vocabulary.general == 0:
                raise VocabularyError(f"items of {name}", least, "no item can stand in such a segment", "set it to 0")
            positioned = self.vocabulary.position != "none" and fragments
            if positioned and least > room:
                raise VocabularyError(f"items of {name}", least, f"the position tokens reach {room}", "raise positions")
        if self.closers == ():
            raise VocabularyError("closers", (), "a segment has to end", "name a control token, or None for all")
        for name in self.closers or ():
            self.vocabulary.token(name)

    @classmethod
    def of(
        cls, vocabulary: Vocabulary, items: Mapping[str, tuple[int, int]], closers: tuple[str, ...] | None = None
    ) -> Grammar:
        """A grammar with numbers of items given as a mapping."""
        return cls(vocabulary, tuple((name, *bounds) for name, bounds in sorted(items.items())), closers)

    def start(self, batch: int) -> GrammarState:
        """The state before the first token of a document."""
        zero = jnp.zeros(batch, jnp.int32)
        return GrammarState(zero - 1, *[zero] * 8)

    def mask(self, state: GrammarState) -> Bool[Array, "b v"]:
        """Which primary tokens can follow; never none of them."""
        v, t = self.vocabulary, self._tables
        context, most, least = t.contexts[state.marker], t.most[state.marker], t.least[state.marker]
        items = state.generals + state.fragments
        open_item = (state.pending > 0) | (state.places > 0)
        complete = (state.places > 0) & jnp.asarray(v.position == "before" and v.width == "minimal")
        free = (~open_item | complete) & (state.ended == 0)
        in_fragments = free & (state.after_aos > 0) if v.layout == "grouped" else free
        room = items < most
        fragment = in_fragments & room & (t.sizes[context] > 0)
        if v.position != "none":  # grouped, a fragment may stand before general tokens that are written already
            fragment &= (state.last if v.layout == "grouped" else items) < v.positions - 1

        column = jnp.arange(v.size)[None, :]
        general = free & room & (context == 0) & ((state.after_aos == 0) if v.layout == "grouped" else True)
        mask = general[:, None] & (column >= 1) & (column < v.position_start)
        digit_limit = self._digit_limit(state, context, fragment)
        mask |= (column >= v.digit_start) & (column - v.digit_start <= digit_limit[:, None])
        if v.position != "none":
            first, last = self._positions(state, fragment)
            position = column - v.position_start
            mask |= (position >= first[:, None]) & (position <= last[:, None]) & (column < v.digit_start)
        closes = free & (items >= least)
        untouched = free & (state.marker < 0) & (state.after_aos == 0) & (items == 0)
        if v.layout == "grouped":
            fragments_follow = (t.sizes[context] > 0) & room
            boundary = free & (state.after_aos == 0) & (fragments_follow | (items >= least))
            mask |= boundary[:, None] & (column == v.aos)
            closes &= state.after_aos > 0
        # A document begins with its first segment: before that a marker can stand, but no end.
        closes &= ~untouched
        mask |= untouched[:, None] & (column >= v.control_start) & ~t.ends[None, :]
        mask |= closes[:, None] & t.closers[None, :]
        ended = (state.ended > 0) | (closes if v.end is None else False)
        return mask | (ended[:, None] & (column == PAD))

    def _digit_limit(self, state: GrammarState, context: Array, fragment: Array) -> Array:
        """Largest digit that can follow, -1 where none can: what it makes must still reach an id below the size."""
        v, t = self.vocabulary, self._tables
        if v.position == "before":
            begins_or_goes_on = state.pending > 0
        else:
            begins_or_goes_on = fragment | (state.places > 0)
        place = state.places if v.width == "fixed" else jnp.full_like(state.places, v.most_digits - 1)
        bound = jnp.where(place < v.most_digits, t.bounds[context, jnp.minimum(place, v.most_digits - 1)], -1)
        fits = (bound >= 0) & (state.value <= bound // v.base)
        if v.width == "minimal":
            fits &= ~((state.places > 0) & (state.value == 0))
        limit = jnp.where(fits, jnp.minimum(bound - state.value * v.base, v.base - 1), -1)
        return jnp.where(begins_or_goes_on & (state.ended == 0), limit, -1)

    def _positions(self, state: GrammarState, fragment: Array) -> tuple[Array, Array]:
        """First and last position that can be written now; increasing, and with general tokens for every gap."""
        v, t = self.vocabulary, self._tables
        if v.position == "after":
            writable = (state.places > 0) & (state.ended == 0)
            if v.width == "fixed":
                writable &= state.places == t.widths[t.contexts[state.marker]]
        else:
            writable = fragment
        last = state.fragments + state.generals + 1
        first = state.last + 1 if v.layout == "grouped" else last
        return jnp.where(writable, first, 1), jnp.where(writable, last, 0)

    def advance(self, state: GrammarState, tokens: Int[Array, " b"]) -> GrammarState:
        """The state after one more token of each document; tokens that `mask` allows."""
        v, t = self.vocabulary, self._tables
        general = (tokens >= 1) & (tokens < v.position_start)
        position = (tokens >= v.position_start) & (tokens < v.digit_start)
        digit = (tokens >= v.digit_start) & (tokens < v.aos)
        control = tokens >= v.control_start
        width = t.widths[t.contexts[state.marker]]

        value = jnp.where(digit, state.value * v.base + tokens - v.digit_start, state.value)
        count = jnp.where(digit, state.places + 1, state.places)
        last = jnp.where(position, tokens - v.position_start, state.last)
        if v.position == "after":
            finished, began = position, position
            pending = state.pending
        elif v.position == "before":
            finished = (digit & (count == width)) if v.width == "fixed" else ~digit & ~position
            began = position
            pending = jnp.where(position, 1, jnp.where(finished, 0, state.pending))
        else:
            finished = began = digit & (count == width)
            pending = state.pending
        reset = finished | position | control
        state = GrammarState(
            marker=jnp.where(control, tokens - v.control_start, state.marker),
            after_aos=jnp.where(control, 0, jnp.where(tokens == v.aos, 1, state.after_aos)),
            generals=jnp.where(control, 0, state.generals + general),
            fragments=jnp.where(control, 0, state.fragments + began),
            last=jnp.where(control, 0, last),
            pending=jnp.where(control, 0, pending),
            places=jnp.where(reset, 0, count),
            value=jnp.where(reset, 0, value),
            ended=jnp.where((tokens == PAD) | (t.ends[tokens]), 1, state.ended),
        )
        return GrammarState(*(part.astype(jnp.int32) for part in state))

    def masks(self, tokens_bt: Int[Array, "b t"]) -> Bool[Array, "b t v"]:
        """The legal tokens at each position of legal documents, given what stands before it."""
        _, masks = self.read(self.start(tokens_bt.shape[0]), tokens_bt)
        return masks

    def read(self, state: GrammarState, tokens_bt: Int[Array, "b t"]) -> tuple[GrammarState, Bool[Array, "b t v"]]:
        """Reads tokens of documents; returns the state behind them, and the mask before each of them."""

        def step(state: GrammarState, tokens_b: Array) -> tuple[GrammarState, Array]:
            return self.advance(state, tokens_b), self.mask(state)

        state, masks = lax.scan(step, state, tokens_bt.T)
        return state, jnp.swapaxes(masks, 0, 1)

    @property
    def _tables(self) -> _Tables:
        # Made anew at each use: constants that are made while tracing must not outlive the trace.
        return _Tables(*(jnp.asarray(table) for table in self._arrays))

    @functools.cached_property
    def _arrays(self) -> tuple[np.ndarray, ...]:
        v, contexts = self.vocabulary, self.vocabulary.contexts
        bounds = np.full((len(contexts.sizes), v.most_digits), -1, np.int32)
        for row, (size, width) in enumerate(zip(contexts.sizes, contexts.widths, strict=True)):
            if size:
                width = int(width) if v.width == "fixed" else v.most_digits
                bounds[row, :width] = place_bounds(int(size), v.base, width)
        # A marker of -1 (an unmarked segment) indexes the last row of the tables by marker.
        least, most = np.zeros(len(v.control) + 1, np.int32), np.full(len(v.control) + 1, LARGEST, np.int32)
        for name, low, high in self.items:
            least[v.control.index(name)], most[v.control.index(name)] = low, high
        closers, ends = np.zeros(v.size, bool), np.zeros(v.size, bool)
        closers[[v.token(name) for name in (v.control if self.closers is None else self.closers)]] = True
        if v.end is not None:
            ends[v.end] = True
        return (
            np.append(contexts.of_control, 0).astype(np.int32),
            contexts.sizes.astype(np.int32),
            contexts.widths.astype(np.int32),
            bounds,
            least,
            most,
            closers,
            ends,
        )


class _Tables(NamedTuple):
    contexts: Array
    sizes: Array
    widths: Array
    bounds: Array
    least: Array
    most: Array
    closers: Array
    ends: Array
