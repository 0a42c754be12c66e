"""What a sampling loop has written: rows of tokens out of step with each other, and where each can go back to."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from omnijax.vocab.grammar import Grammar, GrammarState
from omnijax.vocab.vocabulary import PAD


class Opened(NamedTuple):
    """The open fragment of each row.

    Attributes:
        fresh: nothing of it has been drawn; what stands of it is forced.
        digits: how many it has.
        attempts: how often it has been rejected.
        rejected: how many rejections the row has seen.
        start: tokens of the row where the first of it was drawn.
        start_digits: how many digits it had there, forced ones.
        state: of the grammar there.
        logits: there.
    """

    fresh: Bool[Array, " b"]
    digits: Int[Array, " b"]
    attempts: Int[Array, " b"]
    rejected: Int[Array, " b"]
    start: Int[Array, " b"]
    start_digits: Int[Array, " b"]
    state: GrammarState
    logits: Float[Array, "b v"]


class Rows(NamedTuple):
    """The rows so far.

    Attributes:
        tokens: of each; behind its length anything.
        length: how many these are.
        done: nothing more is to be written.
        state: of the grammar; None without one.
        legal: what can follow; None without a grammar.
        opened: None where no fragment is rejected.
    """

    tokens: Int[Array, "b n"]
    length: Int[Array, " b"]
    done: Bool[Array, " b"]
    state: GrammarState | None
    legal: Bool[Array, "b v"] | None
    opened: Opened | None

    def finished(self, most: int) -> Int[Array, "b m"]:
        """The first `most` tokens, padded behind the length."""
        return jnp.where(jnp.arange(most)[None, :] < self.length[:, None], self.tokens[:, :most], PAD)


def where(active: Bool[Array, " b"], new: Any, old: Any) -> Any:
    """Trees of arrays over rows: the active ones from `new`, the others from `old`."""
    return jax.tree.map(lambda a, b: jnp.where(active.reshape((-1,) + (1,) * (a.ndim - 1)), a, b), new, old)


@dataclasses.dataclass(frozen=True)
class Pen:
    """Writes tokens behind rows, and takes back fragments whose check digit is wrong.

    Attributes:
        grammar: whose state goes with the rows.
        most: tokens of a row, at most.
        retries: how often a fragment is rejected, at most.
        width: digits of a fragment, its check digit not counted.
    """

    grammar: Grammar
    most: int
    retries: int
    width: int

    def start(self, room: int, state: GrammarState, logits: Float[Array, "b v"], under: bool) -> Rows:
        """Rows without a token, behind what the state has read.

        Args:
            room: tokens of a row to keep space for.
            state: behind the prompts.
            logits: of the shape that logits have.
            under: what is written keeps to the grammar.
        """
        zero = jnp.zeros(logits.shape[0], jnp.int32)
        opened = Opened(zero == 0, zero, zero, zero, zero, zero, state, logits) if self.retries else None
        tokens = jnp.full((zero.size, room), PAD, jnp.int32)
        if not under:
            return Rows(tokens, zero, zero > 0, None, None, None)
        return Rows(tokens, zero, zero > 0, state, self.grammar.mask(state), opened)

    def write(self, rows: Rows, token: Int[Array, " b"], active: Bool[Array, " b"], drawn: bool | Array) -> Rows:
        """Appends a token, drawn or forced, to the active rows."""
        v = self.grammar.vocabulary
        place = jnp.where(active, rows.length, rows.tokens.shape[1])
        length = rows.length + active
        done = rows.done | (active & (token == (PAD if v.end is None else v.end))) | (length >= self.most)
        tokens = rows.tokens.at[jnp.arange(place.size), place].set(token, mode="drop")
        rows = rows._replace(tokens=tokens, length=length, done=done)
        if rows.state is None:
            return rows
        state = where(active, self.grammar.advance(rows.state, token), rows.state)
        rows = rows._replace(state=state, legal=self.grammar.mask(state))
        if rows.opened is None:
            return rows
        digit = (token >= v.digit_start) & (token < v.aos)
        closed = state.begun == 0
        fresh = closed | (rows.opened.fresh & jnp.logical_not(drawn))
        digits = jnp.where(closed, 0, rows.opened.digits + digit)
        fresh, digits = where(active, (fresh, digits), (rows.opened.fresh, rows.opened.digits))
        return rows._replace(opened=rows.opened._replace(fresh=fresh, digits=digits))

    def write_on(self, rows: Rows, token: Int[Array, " b"], active: Bool[Array, " b"], drawn: bool) -> Rows:
        """Appends a token to the active rows, drawn or forced, then tokens to each row as long as only one can follow.

        One loop for all of them: the grammar, which is most of it, is compiled once.
        """

        def more(carry: tuple[Rows, Array, Array, Array]) -> Array:
            return carry[2].any() | carry[3]

        def write(carry: tuple[Rows, Array, Array, Array]) -> tuple[Rows, Array, Array, Array]:
            *_, first = carry
            rows = self.write(*carry[:3], drawn=first & drawn)
            return rows, *self.forced(rows), jnp.zeros_like(first)

        return lax.while_loop(more, write, (rows, token, active, jnp.ones((), bool)))[0]

    def forced(self, rows: Rows) -> tuple[Int[Array, " b"], Bool[Array, " b"]]:
        """The only token that can follow, and in which rows there is one."""
        assert rows.legal is not None
        token = self.grammar.forced(rows.legal)
        active = (token >= 0) & ~rows.done
        if rows.opened is not None:
            active &= ~self._at_check(rows.opened)
        return token, active

    def before(self, rows: Rows, ready: Bool[Array, " b"], logits: Float[Array, "b v"]) -> tuple[Rows, Array]:
        """Notes where fragments begin, before a token is drawn for rows that are ready; and what to draw it from.

        A check digit is drawn from all digits. A fragment that was rejected is followed by another one, not by an end:
        ends are never rejected, and would become too frequent.
        """
        v, opened, legal = self.grammar.vocabulary, rows.opened, rows.legal
        assert opened is not None
        assert legal is not None
        assert rows.state is not None
        first = ready & opened.fresh
        here = {
            "attempts": jnp.zeros_like(rows.length),
            "start": rows.length,
            "start_digits": opened.digits,
            "state": rows.state,
            "logits": logits.astype(opened.logits.dtype),
        }
        noted = where(first, here, {name: getattr(opened, name) for name in here})
        opened = opened._replace(fresh=opened.fresh & ~ready, **noted)
        column = jnp.arange(v.size)[None, :]
        any_digit = (column >= v.digit_start) & (column < v.digit_start + v.check_base)
        of_fragment = (column >= v.position_start) & (column < v.aos)
        again = (opened.attempts > 0) & (rows.length == opened.start)
        legal = jnp.where(self._at_check(opened)[:, None], any_digit, legal & (of_fragment | ~again[:, None]))
        return rows._replace(opened=opened), legal

    def after(self, rows: Rows, token: Int[Array, " b"], ready: Bool[Array, " b"]) -> tuple[Rows, Array]:
        """Takes back fragments whose check digit was drawn wrong, and tells in which rows."""
        opened, legal = rows.opened, rows.legal
        assert opened is not None
        assert legal is not None
        wrong = ready & ~jnp.take_along_axis(legal, token[:, None], axis=1)[:, 0]
        length, state = where(wrong, (opened.start, opened.state), (rows.length, rows.state))
        opened = opened._replace(
            attempts=opened.attempts + wrong,
            rejected=opened.rejected + wrong,
            digits=jnp.where(wrong, opened.start_digits, opened.digits),
        )
        return rows._replace(length=length, state=state, opened=opened), wrong

    def _at_check(self, opened: Opened) -> Bool[Array, " b"]:
        """Where a check digit comes next that may still be wrong."""
        return (opened.digits == self.width) & (opened.attempts < self.retries)
