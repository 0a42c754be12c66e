"""Items to tokens, a block of them at a time: a row of a table for each item, a column for each token it can have."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from omnijax.vocab.documents import GENERAL
from omnijax.vocab.ids import Numbers
from omnijax.vocab.numbers import add, limbs_for, to_int64, to_limbs, write_digits
from omnijax.vocab.radix import radices_of, width_of
from omnijax.vocab.vocabulary import Vocabulary


def fragment_tokens(vocabulary: Vocabulary, context: int) -> int:
    """Tokens of the longest fragment of a context; of all of them with fixed width."""
    positions = 0 if vocabulary.position == "none" else vocabulary.position_places
    return int(vocabulary.contexts.widths[context]) + vocabulary.check_digit + positions


def write_items(
    vocabulary: Vocabulary, context: int, spaces: NDArray[np.int32], ids: Numbers, positions: NDArray[np.uint32]
) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Writes items of segments of one context.

    Args:
        vocabulary: that they are written in.
        context: row of `Vocabulary.contexts`.
        spaces: int32[items], space of each item, or `GENERAL`.
        ids: int64[items] or uint32[items, limbs], within the space.
        positions: uint32[items], place in the segment, from 1.

    Returns:
        int32[tokens], one item behind the other, and int64[items], how many tokens each has.
    """
    general = np.flatnonzero(spaces == GENERAL) if context == 0 else np.zeros(0, np.int64)
    if general.size == spaces.size:
        return 1 + to_int64(ids).astype(np.int32), np.broadcast_to(np.int64(1), spaces.shape)
    table = _fragments(vocabulary, context, spaces, ids, positions)
    if vocabulary.width == "fixed" and general.size == 0:
        return table.reshape(-1), np.broadcast_to(np.int64(table.shape[1]), spaces.shape)
    written = np.ones(table.shape, bool)
    if vocabulary.width == "minimal":
        _leave_out_zeros(_digits(vocabulary, context, table), _digits(vocabulary, context, written), vocabulary)
    table[general, 0] = 1 + to_int64(ids[general])
    written[general, 0] = True
    written[general, 1:] = False
    return table[written], written.sum(axis=1)


def _fragments(
    v: Vocabulary, context: int, spaces: NDArray[np.int32], ids: Numbers, positions: NDArray[np.uint32]
) -> NDArray[np.int32]:
    """int32[items, tokens], fragments with their leading zeros."""
    table = np.empty((len(spaces), fragment_tokens(v, context)), np.int32)
    digits = _digits(v, context, table)
    write_digits(_numbers(v, context, spaces, ids), v.radices(context), digits, v.digit_start)
    if v.check_digit:
        check = _check_digits(digits - v.digit_start, v.check_base)
        table[:, _first_digit(v) + digits.shape[1]] = v.digit_start + check
    if v.position != "none":
        at = 0 if v.position == "before" else table.shape[1] - v.position_places
        radices = (v.positions,) * v.position_places
        write_digits(positions, radices, table[:, at : at + v.position_places], v.position_start)
    return table


def _digits(v: Vocabulary, context: int, table: NDArray) -> NDArray:
    """The columns of the digits, most significant first."""
    first = _first_digit(v)
    digits = table[:, first : first + int(v.contexts.widths[context])]
    return digits if v.digit_order == "big" else digits[:, ::-1]


def _first_digit(v: Vocabulary) -> int:
    return v.position_places if v.position == "before" else 0


def _leave_out_zeros(digits: NDArray[np.int32], written: NDArray[np.bool_], v: Vocabulary) -> None:
    """Only digits from the first that isn't 0 on are written, and the last."""
    seen = np.zeros(len(digits), bool)
    for place in range(digits.shape[1] - 1):
        seen |= digits[:, place] != v.digit_start
        written[:, place] = seen


def _check_digits(digits: NDArray[np.int32], base: int) -> NDArray[np.int32]:
    """`radix.check_digit` of each row."""
    signs = np.where(np.arange(digits.shape[1])[::-1] % 2, 1, -1).astype(np.int64)
    return ((digits @ signs) % base).astype(np.int32)


def _numbers(v: Vocabulary, context: int, spaces: NDArray[np.int32], ids: Numbers) -> Numbers:
    """What is written for fragments: the number that their space assigns, on the number line of the segment."""
    if context:
        return _assigned(v, context - 1, ids)
    size = v.contexts.sizes[0]
    line: Numbers = np.zeros(len(ids), np.int64)
    if size > 2**63:
        line = np.zeros((len(ids), limbs_for(size)), np.uint32)
    for space in np.unique(spaces[spaces != GENERAL]).tolist():
        of_space = spaces == space
        numbers = _form(_assigned(v, space, ids[of_space]), size)
        line[of_space] = add(numbers, v.contexts.offsets[1 + space])
    return line


def _assigned(v: Vocabulary, space: int, ids: Numbers) -> Numbers:
    part = v.spaces[space]
    radices = radices_of(v.base, width_of(part.size - 1, v.base))
    return part.assignment.forward(_form(ids, part.size), part.size, radices)


def _form(numbers: Numbers, size: int) -> Numbers:
    """Numbers below `size` in the form that they are reckoned with."""
    return to_int64(numbers) if size <= 2**63 else to_limbs(numbers, limbs_for(size))
