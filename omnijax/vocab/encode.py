"""Documents to primary tokens: a pure function of arrays to arrays, with no Python loop over items.

Items are written in blocks that stay in the cache, those of each context (untyped, or of one space) together. Around
them stands the frame of each segment: its marker, `aos`, `eos`.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from omnijax.errors import VocabularyError
from omnijax.vocab.checks import check_items, check_order, check_segments
from omnijax.vocab.documents import GENERAL, UNMARKED, Documents
from omnijax.vocab.ids import PrimaryIds
from omnijax.vocab.numbers import blocks
from omnijax.vocab.vocabulary import Vocabulary
from omnijax.vocab.write import fragment_tokens, write_items


class Encoded(NamedTuple):
    """The tokens of many documents, end to end.

    Attributes:
        tokens: int32[tokens].
        segment_tokens: int64[segments], tokens of each segment; `eos` belongs to the last one of its document.
        document_tokens: int64[documents], tokens of each document.
    """

    tokens: PrimaryIds
    segment_tokens: NDArray[np.int64]
    document_tokens: NDArray[np.int64]

    def split(self) -> list[PrimaryIds]:
        """The tokens of each document."""
        parts = np.split(self.tokens.array, np.cumsum(self.document_tokens))[:-1]
        return [PrimaryIds(part) for part in parts]


def encode(vocabulary: Vocabulary, documents: Documents, order: NDArray[np.int64] | None = None) -> Encoded:
    """Writes documents in the primary vocabulary.

    A segment becomes `[marker] general… aos fragments…` (grouped) or `[marker] items…` (inline); a fragment becomes its
    digits with its position tokens after, before, or not at all; `eos`, where the vocabulary has it, closes a document.

    Args:
        vocabulary: how to write.
        documents: what to write.
        order: int64[items], the items in the sequence in which they are written, each within its own segment; positions
            still say where fragments belong. General tokens keep their order. As they stand, if it is left out.

    Raises:
        VocabularyError: no `Documents`, an id outside its space, more items than positions, an item that can't stand
            there, or an order that can't be undone.
    """
    given: object = documents
    if not isinstance(given, Documents):
        rule = "must be Documents"
        raise VocabularyError("documents", type(given).__name__, rule, "write Documents.of([[segment, …], …])")
    check_segments(vocabulary, documents)
    contexts = np.append(vocabulary.contexts.of_control, 0)[documents.segment_markers]  # UNMARKED is -1: the last row
    check_items(vocabulary, documents, contexts)
    check_order(vocabulary, documents, order)
    rows, general = _sequence(vocabulary, documents, order)
    groups = [_group(vocabulary, documents, contexts == context, context, rows) for context in np.unique(contexts)]

    marked, grouped = documents.segment_markers != UNMARKED, int(vocabulary.layout == "grouped")
    item_tokens = np.zeros(marked.size, np.int64)
    for group in groups:
        item_tokens[group.segments] = group.segment_tokens
    segment_tokens = marked + grouped + item_tokens
    last_segment = np.cumsum(documents.document_segments) - 1
    segment_tokens[last_segment] += vocabulary.end is not None
    ends = np.cumsum(segment_tokens)
    starts = ends - segment_tokens

    tokens = np.empty(segment_tokens.sum(), np.int32)
    tokens[starts[marked]] = vocabulary.control_start + documents.segment_markers[marked]
    first = starts + marked
    boundary = first + grouped * general
    if grouped:
        tokens[boundary] = vocabulary.aos
    if vocabulary.end is not None:
        tokens[ends[last_segment] - 1] = vocabulary.end
    edges = np.stack([first, boundary, boundary + grouped, first + grouped + item_tokens], axis=1)
    for group in groups:
        _place(group, edges[group.segments], tokens)
    document_ends = np.concatenate([[0], ends])[np.cumsum(documents.document_segments)]
    return Encoded(PrimaryIds(tokens), segment_tokens, np.diff(document_ends, prepend=0))


def _sequence(
    vocabulary: Vocabulary, documents: Documents, order: NDArray[np.int64] | None
) -> tuple[NDArray[np.int64] | None, NDArray[np.int64]]:
    """The items in the sequence in which they are written (None: as they stand); general tokens of each segment."""
    none = np.zeros(documents.segment_items.size, np.int64)
    if documents.spaces.min(initial=0) != GENERAL:
        return order, none
    segment_of = np.repeat(np.arange(documents.segment_items.size), documents.segment_items)
    is_general = documents.spaces == GENERAL
    general = none + np.bincount(segment_of[is_general], minlength=none.size)
    if vocabulary.layout == "inline" or is_general.all():
        return order, general
    rows = np.arange(is_general.size) if order is None else order
    return rows[np.argsort(2 * segment_of - is_general[rows], kind="stable")], general


class _Group(NamedTuple):
    """The items of all segments of one context.

    Attributes:
        segments: bool[all segments], which are of this context.
        segment_tokens: int64[segments], tokens of the items of each.
        blocks: int32[tokens] each, of all these items one behind the other; written when they are asked for, if it is
            known without that how many there are.
    """

    segments: NDArray[np.bool_]
    segment_tokens: NDArray[np.int64]
    blocks: Iterable[NDArray[np.int32]]


def _group(
    vocabulary: Vocabulary,
    documents: Documents,
    segments: NDArray[np.bool_],
    context: int,
    rows: NDArray[np.int64] | None,
) -> _Group:
    if not segments.all():
        of_group = np.repeat(segments, documents.segment_items)
        rows = np.flatnonzero(of_group) if rows is None else rows[of_group]  # rows stay within their segment
    spaces = documents.spaces if rows is None else documents.spaces[rows]
    items = documents.segment_items[segments]
    first_item = (np.cumsum(documents.segment_items) - documents.segment_items)[segments]
    written = _written(vocabulary, documents, context, rows, first_item, np.cumsum(items))
    if spaces.max(initial=GENERAL) == GENERAL:
        return _Group(segments, items, map(operator.itemgetter(0), written))
    if vocabulary.width == "fixed" and spaces.min() != GENERAL:
        return _Group(segments, items * fragment_tokens(vocabulary, context), map(operator.itemgetter(0), written))
    found = list(written)
    lengths = np.concatenate([lengths for _, lengths in found])
    ends = np.concatenate([[0], np.cumsum(lengths)])[np.cumsum(items)]
    return _Group(segments, np.diff(ends, prepend=0), [tokens for tokens, _ in found])


def _written(
    vocabulary: Vocabulary,
    documents: Documents,
    context: int,
    rows: NDArray[np.int64] | None,
    first_item: NDArray[np.int64],
    ends: NDArray[np.int64],
) -> Iterator[tuple[NDArray[np.int32], NDArray[np.int64]]]:
    """Tokens of the items of a context, and how many each has, block by block.

    Args:
        vocabulary: that they are written in.
        documents: that they are of.
        context: row of `Vocabulary.contexts`.
        rows: int64[items], which items, in sequence; None for all of them.
        first_item: int64[segments], of each segment of the context, the row of its first item.
        ends: int64[segments], items of the context up to the end of each segment.
    """
    size = documents.spaces.size if rows is None else rows.size
    for block in blocks(size, fragment_tokens(vocabulary, context)):
        first, last = np.searchsorted(ends, [block.start, block.stop - 1], side="right")
        counts = _differences(block.start, np.minimum(ends[first : last + 1], block.stop))
        row = np.arange(block.start, block.stop, dtype=np.uint32) if rows is None else rows[block].astype(np.uint32)
        positions = row - np.repeat((first_item[first : last + 1] - 1).astype(np.uint32), counts)
        which = block if rows is None else rows[block]
        yield write_items(vocabulary, context, documents.spaces[which], documents.ids[which], positions)


def _place(group: _Group, edges: NDArray[np.int64], tokens: NDArray[np.int32]) -> None:
    """Puts the blocks of a group into int32[all tokens].

    Args:
        group: whose blocks.
        edges: int64[segments, 4], where items begin in each of its segments, stop before `aos`, go on, and end.
        tokens: where they go.
    """
    before = np.cumsum(group.segment_tokens) - group.segment_tokens
    of_items = np.resize([False, True], edges.size + 1)  # the frame, general tokens, `aos`, fragments, the frame, …
    done = here = segment = 0
    for block in group.blocks:
        done += block.size
        last = int(np.searchsorted(before, done)) - 1
        end = int(edges[last, 0] + done - before[last])
        end += int(edges[last, 2] - edges[last, 1]) if end > edges[last, 1] else 0
        inside = np.minimum(np.maximum(edges[segment : last + 1], here), end).ravel()
        counts = _differences(here, inside, end)
        tokens[here:end][np.repeat(of_items[: counts.size], counts)] = block
        here, segment = end, last
        del block  # the next one can have its memory, which is in the cache


def _differences(*parts: NDArray[np.int64] | int) -> NDArray[np.int64]:
    bounds = np.hstack(parts)
    return bounds[1:] - bounds[:-1]
