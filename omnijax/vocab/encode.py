"""Documents to primary tokens: a pure function from arrays to arrays, without a Python loop over items.

Items are written in blocks that fit the processor's cache, as a table with a row for each item and a column for each
token that it can have. Items of the same context are written together. Around the items of a segment stands its frame:
marker, `aos`, `eos`.
"""

from __future__ import annotations

import dataclasses
import functools
import operator
from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from omnijax.errors import VocabularyError
from omnijax.vocab.checks import check_items, order_rules, segment_rules
from omnijax.vocab.documents import GENERAL, UNMARKED, Documents
from omnijax.vocab.ids import Numbers, PrimaryIds
from omnijax.vocab.kinds import Kinds, token_kinds
from omnijax.vocab.numbers import add, blocks, limbs_for, to_int64, to_limbs, write_digits
from omnijax.vocab.radix import radices_for
from omnijax.vocab.rules import enforce
from omnijax.vocab.vocabulary import Vocabulary


@dataclasses.dataclass(frozen=True, eq=False)
class Encoded:
    """The tokens of many documents, one after another.

    Attributes:
        vocabulary: how the documents were written.
        tokens: int32[tokens].
        segment_tokens: int64[segments], number of tokens of each segment. `eos` belongs to the last segment.
        document_tokens: int64[documents], number of tokens of each document.
    """

    vocabulary: Vocabulary
    tokens: PrimaryIds
    segment_tokens: NDArray[np.int64]
    document_tokens: NDArray[np.int64]

    @functools.cached_property
    def kinds(self) -> Kinds:
        """Index into `kind_names` of each token. It is computed when it is first asked for."""
        return token_kinds(self.vocabulary, self.tokens.array, self.segment_tokens)

    def split(self) -> list[PrimaryIds]:
        """The tokens of each document."""
        return [PrimaryIds(part) for part in np.split(self.tokens.array, np.cumsum(self.document_tokens))[:-1]]


def encode(vocabulary: Vocabulary, documents: Documents, order: NDArray[np.int64] | None = None) -> Encoded:
    """Writes documents in the primary vocabulary.

    A segment becomes `[marker] general… aos fragments…` (grouped) or `[marker] items…` (inline, or a marker with
    general tokens). A fragment becomes its digits, with its position tokens after, before, or not at all. `eos` closes
    a document if the vocabulary has it.

    `order` is int64[items], the indices of the items in the order of writing, a permutation within each segment; by
    default as they stand. Positions still say where fragments belong. General tokens keep their order. Raises a
    `VocabularyError` if these are not `Documents`, an id is outside its space, a segment has more items than positions,
    an item can't stand in its segment, or the order can't be undone.
    """
    groups, edges, segment_tokens, document_tokens = _plan(vocabulary, documents, order)
    marked, grouped = documents.segment_markers != UNMARKED, edges[:, 1] < edges[:, 2]
    tokens = np.empty(segment_tokens.sum(), np.int32)
    tokens[edges[marked, 0] - 1] = vocabulary.control_start + documents.segment_markers[marked]
    tokens[edges[grouped, 1]] = vocabulary.aos
    if vocabulary.end is not None:
        tokens[np.cumsum(document_tokens) - 1] = vocabulary.end
    for segments, of_items, blocks_of_tokens in groups:
        _place(blocks_of_tokens, of_items, edges[segments], tokens)
    return Encoded(vocabulary, PrimaryIds(tokens), segment_tokens, document_tokens)


def count_tokens(vocabulary: Vocabulary, documents: Documents) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Numbers of tokens that `encode` would write: `Encoded.segment_tokens` and `Encoded.document_tokens`.

    Raises a `VocabularyError` as `encode`.
    """
    return _plan(vocabulary, documents, None)[2:]


_Group = tuple[NDArray[np.bool_], NDArray[np.int64], Iterable[NDArray[np.int32]]]
"""The items of all segments of one context.

bool[all segments], whether each segment is of this context; int64[segments of the context], number of tokens of the
items of each; and int32[tokens] each, the tokens of the items, one block after another. Blocks are written only when
they are asked for, if the number of tokens is known before.
"""


def _plan(
    vocabulary: Vocabulary, documents: Documents, order: NDArray[np.int64] | None
) -> tuple[list[_Group], NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Checks the documents, and lays out their tokens.

    Returns all items; int64[segments, 4], where the items of each segment begin, stop before `aos`, go on, and end;
    and `Encoded.segment_tokens` and `Encoded.document_tokens`.
    """
    given: object = documents
    if not isinstance(given, Documents):
        rule = "must be Documents"
        raise VocabularyError("documents", type(given).__name__, rule, "write Documents.of([[segment, …], …])")
    enforce(segment_rules(vocabulary, documents))
    contexts = np.append(vocabulary.contexts.of_control, 0)[documents.segment_markers]  # UNMARKED is -1: the last row
    check_items(vocabulary, documents, contexts)
    enforce(order_rules(vocabulary, documents, order) if order is not None else ())
    grouped, marked = vocabulary.contexts.grouped[contexts], documents.segment_markers != UNMARKED
    rows, before_aos = _sequence(documents, grouped, order)
    groups = [_group(vocabulary, documents, contexts == context, context, rows) for context in np.unique(contexts)]
    item_tokens = np.zeros(contexts.size, np.int64)
    for segments, of_items, _ in groups:
        item_tokens[segments] = of_items
    segment_tokens = item_tokens + marked + grouped
    last_segment = np.cumsum(documents.document_segments) - 1
    segment_tokens[last_segment] += vocabulary.end is not None
    first = np.cumsum(segment_tokens) - segment_tokens + marked
    boundary = first + before_aos
    edges = np.stack([first, boundary, boundary + grouped, first + grouped + item_tokens], axis=1)
    return groups, edges, segment_tokens, _sums(segment_tokens, last_segment + 1)


def _sequence(
    documents: Documents, grouped: NDArray[np.bool_], order: NDArray[np.int64] | None
) -> tuple[NDArray[np.int64] | None, NDArray[np.int64]]:
    """The items in the sequence in which they are written, and how many of each segment stand before its `aos`.

    The sequence is int64[items], or None if items are written as they stand.
    """
    none = np.zeros(documents.segment_items.size, np.int64)
    if documents.spaces.min(initial=0) != GENERAL or not grouped.any():
        return order, none
    segment_of = np.repeat(np.arange(none.size), documents.segment_items)
    first = (documents.spaces == GENERAL) & grouped[segment_of]
    general = none + np.bincount(segment_of[first], minlength=none.size)
    if first.all():
        return order, general
    rows = np.arange(first.size) if order is None else order
    return rows[np.argsort(2 * segment_of - first[rows], kind="stable")], general


def _group(
    vocabulary: Vocabulary, documents: Documents, segments: NDArray[np.bool_], context: int, rows: NDArray | None
) -> _Group:
    if not segments.all():
        of_group = np.repeat(segments, documents.segment_items)
        rows = np.flatnonzero(of_group) if rows is None else rows[of_group]  # the order stays within segments
    spaces = documents.spaces if rows is None else documents.spaces[rows]
    items = documents.segment_items[segments]
    ends, before = np.cumsum(items), (np.cumsum(documents.segment_items) - documents.segment_items)[segments]
    longest = vocabulary.fragment_tokens(context)

    def written() -> Iterator[tuple[NDArray[np.int32], NDArray[np.int64]]]:
        for block in blocks(spaces.size, longest):
            first, last = np.searchsorted(ends, [block.start, block.stop - 1], side="right")
            counts = np.diff(np.minimum(ends[first : last + 1], block.stop), prepend=block.start)
            which = block if rows is None else rows[block]
            row = np.arange(block.start, block.stop, dtype=np.uint32) if rows is None else rows[block].astype(np.uint32)
            positions = row - np.repeat((before[first : last + 1] - 1).astype(np.uint32), counts)
            yield _write_items(vocabulary, context, spaces[block], documents.ids[which], positions)

    all_general = spaces.max(initial=GENERAL) == GENERAL
    if all_general or (vocabulary.width == "fixed" and spaces.min() != GENERAL):
        return segments, items * (1 if all_general else longest), map(operator.itemgetter(0), written())
    found = list(written())
    return segments, _sums(np.concatenate([lengths for _, lengths in found]), ends), [part for part, _ in found]


def _place(
    blocks: Iterable[NDArray[np.int32]], counts: NDArray[np.int64], edges: NDArray[np.int64], tokens: NDArray[np.int32]
) -> None:
    """Puts the blocks of a group into int32[all tokens]. `counts` and `edges` are those of its segments."""
    before = np.cumsum(counts) - counts
    of_items = np.tile([False, True], edges.size // 2 + 1)  # frame, general tokens, `aos`, fragments, frame, …
    done = here = segment = 0
    for block in blocks:
        done += block.size
        last = int(np.searchsorted(before, done)) - 1
        end = int(edges[last, 0] + done - before[last])
        end += int(edges[last, 2] - edges[last, 1]) if end > edges[last, 1] else 0
        inside = np.minimum(np.maximum(edges[segment : last + 1], here), end).ravel()
        lengths = np.diff(inside, prepend=here, append=end)
        tokens[here:end][np.repeat(of_items[: lengths.size], lengths)] = block
        here, segment = end, last
        del block  # the next block can take its memory, which is in the cache


def _sums(values: NDArray[np.int64], ends: NDArray[np.int64]) -> NDArray[np.int64]:
    """Sums of neighbouring values, up to each of these ends."""
    return np.diff(np.concatenate([[0], np.cumsum(values)])[ends], prepend=0)


def _write_items(
    vocabulary: Vocabulary, context: int, spaces: NDArray[np.int32], ids: Numbers, positions: NDArray[np.uint32]
) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Writes items of segments of one context: int32[tokens], and int64[items], the number of tokens of each item.

    The arrays hold for each item: its space, or `GENERAL`; its id within the space; its position, from 1.
    """
    general = np.flatnonzero(spaces == GENERAL) if vocabulary.contexts.general[context] else np.zeros(0, np.int64)
    if general.size == spaces.size:
        return 1 + to_int64(ids).astype(np.int32), np.broadcast_to(np.int64(1), spaces.shape)
    table = _fragments(vocabulary, context, spaces, ids, positions)
    if vocabulary.width == "fixed" and general.size == 0:
        return table.reshape(-1), np.broadcast_to(np.int64(table.shape[1]), spaces.shape)
    written = np.ones(table.shape, bool)
    if vocabulary.width == "minimal":  # digits from the first that isn't 0 on are written, and the last one
        digits, shown = (_digits(vocabulary, context, each) for each in (table, written))
        seen = np.zeros(len(digits), bool)
        for place in range(digits.shape[1] - 1):
            seen |= digits[:, place] != vocabulary.digit_start
            shown[:, place] = seen
    table[general, 0] = 1 + to_int64(ids[general])
    written[general] = np.arange(table.shape[1]) == 0
    return table[written], written.sum(axis=1)


def _fragments(
    v: Vocabulary, context: int, spaces: NDArray[np.int32], ids: Numbers, positions: NDArray[np.uint32]
) -> NDArray[np.int32]:
    """Tokens of fragments with their leading zeros, int32[items, tokens]."""
    table = np.empty((len(spaces), v.fragment_tokens(context)), np.int32)
    digits = _digits(v, context, table)
    write_digits(_numbers(v, context, spaces, ids), v.radices(context), digits, v.digit_start)
    if v.check_digit:
        # Signs alternate from the least significant digit on: one wrong digit is always found, a swap of neighbours
        # unless they differ by half the base.
        signs = np.where(np.arange(digits.shape[1])[::-1] % 2, 1, -1).astype(np.int64)
        check = (digits - v.digit_start) @ signs % v.check_base
        table[:, -1 - (v.position_places if v.position == "after" else 0)] = v.digit_start + check
    if v.position != "none":
        at = 0 if v.position == "before" else table.shape[1] - v.position_places
        radices = (v.positions,) * v.position_places
        write_digits(positions, radices, table[:, at : at + v.position_places], v.position_start)
    return table


def _digits(v: Vocabulary, context: int, table: NDArray) -> NDArray:
    """The columns of the digits, most significant first."""
    first = v.position_places if v.position == "before" else 0
    digits = table[:, first : first + int(v.contexts.widths[context])]
    return digits if v.digit_order == "big" else digits[:, ::-1]


def _numbers(v: Vocabulary, context: int, spaces: NDArray[np.int32], ids: Numbers) -> Numbers:
    """The numbers that are written: those that the space assigns, on the number line of the segment."""
    tables, size = v.contexts, v.contexts.sizes[context]
    if not tables.general[context]:
        return _assigned(v, int(tables.spaces[context]), ids)
    line = _form(np.zeros(len(ids), np.int64), size)
    for space in np.unique(spaces[spaces != GENERAL]).tolist():
        of_space = spaces == space
        numbers = _form(_assigned(v, space, ids[of_space]), size)
        line[of_space] = add(numbers, tables.offsets[1 + space] - tables.offsets[context])
    return line


def _assigned(v: Vocabulary, space: int, ids: Numbers) -> Numbers:
    part = v.spaces[space]
    return part.assignment.forward(_form(ids, part.size), part.size, radices_for(part.size, v.base))


def _form(numbers: Numbers, size: int) -> Numbers:
    """Numbers below `size` in the form for arithmetic: int64 if `size` allows it, else limbs."""
    return to_int64(numbers) if size <= 2**63 else to_limbs(numbers, limbs_for(size))
