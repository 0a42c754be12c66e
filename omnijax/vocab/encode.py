"""Documents to primary tokens: a pure function of arrays to arrays, with no Python loop over items."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from omnijax.vocab.checks import check_items, check_segments
from omnijax.vocab.digits import digit_counts
from omnijax.vocab.documents import GENERAL, UNMARKED, Documents
from omnijax.vocab.vocabulary import Vocabulary


class Encoded(NamedTuple):
    """The tokens of many documents, end to end.

    Attributes:
        tokens: int32[tokens], primary ids.
        segment_tokens: int64[segments], tokens of each segment; `eos` belongs to the last one of its document.
        document_tokens: int64[documents], tokens of each document.
    """

    tokens: NDArray[np.int32]
    segment_tokens: NDArray[np.int64]
    document_tokens: NDArray[np.int64]

    def split(self) -> list[NDArray[np.int32]]:
        """The tokens of each document."""
        return np.split(self.tokens, np.cumsum(self.document_tokens))[:-1]


def encode(vocabulary: Vocabulary, documents: Documents) -> Encoded:
    """Writes documents in the primary vocabulary.

    A segment becomes `[marker] general… aos fragments…` (grouped) or `[marker] items…` (inline); a fragment becomes its
    digits with its position token after, before, or not at all; `eos`, where the vocabulary has it, closes a document.

    Raises:
        VocabularyError: an id outside its space, more items than position tokens, or an item that can't stand there.
    """
    check_segments(vocabulary, documents)
    segment_count = documents.segment_items.size
    segment_of = np.repeat(np.arange(segment_count), documents.segment_items)
    first_item = np.cumsum(documents.segment_items) - documents.segment_items
    item_position = np.arange(documents.ids.size) - first_item[segment_of] + 1
    fragment = documents.spaces != GENERAL
    marked = documents.segment_markers != UNMARKED
    context = _segment_contexts(vocabulary, documents)[segment_of]
    check_items(vocabulary, documents, segment_of, context, item_position)

    tables = vocabulary.contexts
    space_context = np.where(fragment, documents.spaces + 1, 0)
    numbers = documents.ids + np.where(fragment, tables.offsets[space_context] - tables.offsets[context], 0)
    if vocabulary.width == "fixed":
        widths = tables.widths[context]
    else:
        widths = digit_counts(numbers, vocabulary.base, vocabulary.most_digits)
    with_position = int(vocabulary.position != "none")
    lengths = np.where(fragment, widths + with_position, 1)

    grouped = int(vocabulary.layout == "grouped")
    segment_tokens = marked + grouped + np.bincount(segment_of, lengths, segment_count).astype(np.int64)
    last_segment = np.cumsum(documents.document_segments) - 1
    if vocabulary.end is not None:
        np.add.at(segment_tokens, last_segment, 1)
    segment_start = np.cumsum(segment_tokens) - segment_tokens
    total = int(segment_tokens.sum())

    starts = _item_starts(segment_of, fragment, lengths, first_item, grouped, segment_start + marked)
    tokens = np.empty(total, np.int32)
    tokens[segment_start[marked]] = vocabulary.control_start + documents.segment_markers[marked]
    if grouped:
        general_items = np.bincount(segment_of, ~fragment, segment_count).astype(np.int64)
        tokens[segment_start + marked + general_items] = vocabulary.aos
    if vocabulary.end is not None:
        tokens[segment_start[last_segment] + segment_tokens[last_segment] - 1] = vocabulary.end
    tokens[starts[~fragment]] = 1 + documents.ids[~fragment]
    _write_fragments(vocabulary, tokens, starts[fragment], numbers[fragment], widths[fragment], item_position[fragment])
    document_ends = np.concatenate([[0], np.cumsum(segment_tokens)])[np.cumsum(documents.document_segments)]
    return Encoded(tokens, segment_tokens, np.diff(document_ends, prepend=0))


def _segment_contexts(vocabulary: Vocabulary, documents: Documents) -> NDArray[np.int64]:
    of_marker = np.append(vocabulary.contexts.of_control, 0)  # UNMARKED is -1: the last row
    return of_marker[documents.segment_markers]


def _item_starts(
    segment_of: NDArray[np.int64],
    fragment: NDArray[np.bool_],
    lengths: NDArray[np.int64],
    first_item: NDArray[np.int64],
    grouped: int,
    items_start: NDArray[np.int64],
) -> NDArray[np.int64]:
    """Token at which each item begins."""
    order = np.argsort(2 * segment_of + fragment, kind="stable") if grouped else np.arange(lengths.size)
    before = np.concatenate([[0], np.cumsum(lengths[order])])
    starts = np.empty(lengths.size, np.int64)
    starts[order] = before[:-1] - before[first_item[segment_of[order]]]
    return starts + items_start[segment_of] + grouped * fragment


def _write_fragments(
    vocabulary: Vocabulary,
    tokens: NDArray[np.int32],
    starts: NDArray[np.int64],
    numbers: NDArray[np.int64],
    widths: NDArray[np.int64],
    positions: NDArray[np.int64],
) -> None:
    if vocabulary.position == "before":
        tokens[starts] = vocabulary.position_start + positions
        starts = starts + 1
    elif vocabulary.position == "after":
        tokens[starts + widths] = vocabulary.position_start + positions
    for place in range(vocabulary.most_digits):  # from the least significant digit
        numbers, digits = np.divmod(numbers, vocabulary.base)
        written = widths > place
        tokens[(starts + widths - 1 - place)[written]] = vocabulary.digit_start + digits[written]
