"""Rows of tokens that a sampler writes, and the state to which it can take each row back.

A row holds one document that is being sampled. Rows needn't be equally long.
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from omnijax.vocab.grammar import Grammar, GrammarState
from omnijax.vocab.vocabulary import PAD


class OpenFragment(NamedTuple):
    """The fragment that each row is writing, for rejection by check digit.

    Attributes:
        fresh: none of its tokens has been drawn; those that are there were forced.
        digits: number of its digits so far.
        attempts: how often it has been rejected.
        rejected: rejections in the whole row.
        start: length of the row when its first token was drawn.
        start_digits: its digits at that time, which were forced.
        state: of the grammar at that time.
        logits: at that time.
    """

    fresh: Bool[Array, " b"]
    digits: Int[Array, " b"]
    attempts: Int[Array, " b"]
    rejected: Int[Array, " b"]
    start: Int[Array, " b"]
    start_digits: Int[Array, " b"]
    state: GrammarState
    logits: Float[Array, "b v"]


class RowBuffers(NamedTuple):
    """The rows so far.

    Attributes:
        tokens: behind the prompt; what stands behind `length` has no meaning.
        length: number of tokens.
        done: the row is complete.
        state: of the grammar; None without one.
        legal: tokens that can follow; None without a grammar.
        fragment: None where no fragment is ever rejected.
    """

    tokens: Int[Array, "b n"]
    length: Int[Array, " b"]
    done: Bool[Array, " b"]
    state: GrammarState | None
    legal: Bool[Array, "b v"] | None
    fragment: OpenFragment | None

    def padded(self, most: int) -> Int[Array, "b m"]:
        """The first `most` tokens, with padding behind the length."""
        return jnp.where(jnp.arange(most)[None, :] < self.length[:, None], self.tokens[:, :most], PAD)


def select_rows(active: Bool[Array, " b"], new: Any, old: Any) -> Any:
    """Active rows from `new` and the others from `old`, which are trees of arrays over rows."""
    return jax.tree.map(lambda a, b: jnp.where(active.reshape((-1,) + (1,) * (a.ndim - 1)), a, b), new, old)


@dataclasses.dataclass(frozen=True)
class RowWriter:
    """Appends tokens to rows, and takes back fragments whose check digit is wrong.

    Attributes:
        grammar: that the rows are written by.
        most_tokens: longest row.
        retries: how often one fragment can be rejected.
        digits: number of digits of a fragment without its check digit.
    """

    grammar: Grammar
    most_tokens: int
    retries: int
    digits: int

    def empty(self, room: int, state: GrammarState, logits: Float[Array, "b v"], use_grammar: bool) -> RowBuffers:
        """Rows without a token.

        Args:
            room: capacity of each row in tokens.
            state: of the grammar behind the prompts.
            logits: an array of the shape and dtype of the logits.
            use_grammar: whether rows keep to the grammar.
        """
        zero = jnp.zeros(logits.shape[0], jnp.int32)
        fragment = OpenFragment(zero == 0, zero, zero, zero, zero, zero, state, logits) if self.retries else None
        tokens = jnp.full((zero.size, room), PAD, jnp.int32)
        if not use_grammar:
            return RowBuffers(tokens, zero, zero > 0, None, None, None)
        return RowBuffers(tokens, zero, zero > 0, state, self.grammar.mask(state), fragment)

    def write(
        self, rows: RowBuffers, token: Int[Array, " b"], active: Bool[Array, " b"], drawn: bool | Array
    ) -> RowBuffers:
        """Appends a token, drawn or forced, to the active rows."""
        v = self.grammar.vocabulary
        place = jnp.where(active, rows.length, rows.tokens.shape[1])
        length = rows.length + active
        done = rows.done | (active & (token == (PAD if v.end is None else v.end))) | (length >= self.most_tokens)
        tokens = rows.tokens.at[jnp.arange(place.size), place].set(token, mode="drop")
        rows = rows._replace(tokens=tokens, length=length, done=done)
        if rows.state is None:
            return rows
        state = select_rows(active, self.grammar.advance(rows.state, token), rows.state)
        rows = rows._replace(state=state, legal=self.grammar.mask(state))
        if rows.fragment is None:
            return rows
        digit = (token >= v.digit_start) & (token < v.aos)
        closed = state.begun == 0
        fresh = closed | (rows.fragment.fresh & jnp.logical_not(drawn))
        digits = jnp.where(closed, 0, rows.fragment.digits + digit)
        fresh, digits = select_rows(active, (fresh, digits), (rows.fragment.fresh, rows.fragment.digits))
        return rows._replace(fragment=rows.fragment._replace(fresh=fresh, digits=digits))

    def write_with_forced(
        self, rows: RowBuffers, token: Int[Array, " b"], active: Bool[Array, " b"], drawn: bool
    ) -> RowBuffers:
        """Appends a token to the active rows, then to every row the tokens that the grammar leaves no choice for.

        This is one loop, so that the grammar, which is the largest part of the program, is compiled once.
        """

        def more(carry: tuple[RowBuffers, Array, Array, Array]) -> Array:
            return carry[2].any() | carry[3]

        def write(carry: tuple[RowBuffers, Array, Array, Array]) -> tuple[RowBuffers, Array, Array, Array]:
            *_, first = carry
            rows = self.write(*carry[:3], drawn=first & drawn)
            return rows, *self.forced(rows), jnp.zeros_like(first)

        return lax.while_loop(more, write, (rows, token, active, jnp.ones((), bool)))[0]

    def forced(self, rows: RowBuffers) -> tuple[Int[Array, " b"], Bool[Array, " b"]]:
        """The only token that can follow in each row, and which rows have such a token."""
        assert rows.legal is not None
        token = self.grammar.forced(rows.legal)
        active = (token >= 0) & ~rows.done
        if rows.fragment is not None:
            active &= ~self._at_check_digit(rows.fragment)
        return token, active

    def open_fragments(
        self, rows: RowBuffers, ready: Bool[Array, " b"], logits: Float[Array, "b v"]
    ) -> tuple[RowBuffers, Array]:
        """Prepares to draw a token: remembers the rows whose fragment begins here, and says what to draw from.

        A check digit is drawn from all digits. A rejected fragment is followed by another fragment and not by an end of
        the segment: an end is never rejected, so that ends would become too frequent.

        Args:
            rows: so far.
            ready: rows for which a token is to be drawn.
            logits: to draw it from.

        Returns:
            The rows, and bool[b, v], the tokens that may be drawn.
        """
        v, fragment, legal = self.grammar.vocabulary, rows.fragment, rows.legal
        assert fragment is not None
        assert legal is not None
        assert rows.state is not None
        here = {
            "attempts": jnp.zeros_like(rows.length),
            "start": rows.length,
            "start_digits": fragment.digits,
            "state": rows.state,
            "logits": logits.astype(fragment.logits.dtype),
        }
        before = {name: getattr(fragment, name) for name in here}
        noted = select_rows(ready & fragment.fresh, here, before)
        fragment = fragment._replace(fresh=fragment.fresh & ~ready, **noted)
        column = jnp.arange(v.size)[None, :]
        any_digit = (column >= v.digit_start) & (column < v.digit_start + v.check_base)
        of_fragment = (column >= v.position_start) & (column < v.aos)
        again = (fragment.attempts > 0) & (rows.length == fragment.start)
        legal = jnp.where(self._at_check_digit(fragment)[:, None], any_digit, legal & (of_fragment | ~again[:, None]))
        return rows._replace(fragment=fragment), legal

    def reject(
        self, rows: RowBuffers, token: Int[Array, " b"], ready: Bool[Array, " b"]
    ) -> tuple[RowBuffers, Bool[Array, " b"]]:
        """Takes back the fragments for which a wrong check digit was drawn; says which rows these are."""
        fragment, legal = rows.fragment, rows.legal
        assert fragment is not None
        assert legal is not None
        wrong = ready & ~jnp.take_along_axis(legal, token[:, None], axis=1)[:, 0]
        length, state = select_rows(wrong, (fragment.start, fragment.state), (rows.length, rows.state))
        fragment = fragment._replace(
            attempts=fragment.attempts + wrong,
            rejected=fragment.rejected + wrong,
            digits=jnp.where(wrong, fragment.start_digits, fragment.digits),
        )
        return rows._replace(length=length, state=state, fragment=fragment), wrong

    def _at_check_digit(self, fragment: OpenFragment) -> Bool[Array, " b"]:
        """Rows whose next token is a check digit that may be drawn wrong."""
        return (fragment.digits == self.digits) & (fragment.attempts < self.retries)
