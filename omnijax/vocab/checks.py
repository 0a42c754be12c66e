"""What the encoder refuses, before it writes anything: documents that could not be read back as they were."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from omnijax.errors import VocabularyError
from omnijax.vocab.documents import GENERAL, UNMARKED, Documents
from omnijax.vocab.numbers import below, blocks, check_form, to_ints
from omnijax.vocab.vocabulary import END, Vocabulary


def check_segments(vocabulary: Vocabulary, documents: Documents) -> None:
    """Holds documents and their markers against the vocabulary.

    Raises:
        VocabularyError: parts that don't fit together, a document without segments, a marker that is none, a later
            segment without one, or a segment that would leave no trace.
    """
    counts = (len(documents.spaces), len(documents.ids), int(documents.segment_items.sum()))
    if len(set(counts)) > 1 or (documents.segment_items < 0).any():
        rule = "spaces, ids and the items of all segments must be as many"
        raise VocabularyError("documents", counts, rule, "give each item its space and its id")
    segments = (documents.segment_items.size, documents.segment_markers.size, int(documents.document_segments.sum()))
    if len(set(segments)) > 1:
        rule = "there must be as many markers as segments, and these in the documents"
        raise VocabularyError("documents", segments, rule, "build them with Documents.of")
    check_form(documents.ids, "ids")
    if (documents.document_segments < 1).any():
        raise VocabularyError("document_segments", 0, "a document has at least one segment", "drop the empty document")
    markers = documents.segment_markers
    wrong = (markers < UNMARKED) | (markers >= len(vocabulary.control))
    if END in vocabulary.control:
        wrong |= markers == vocabulary.control.index(END)
    if wrong.any():
        names = ", ".join(name for name in vocabulary.control if name != END) or "none"
        rule = f"must be -1 (no marker) or the index of a control token that opens a segment ({names})"
        raise VocabularyError("segment_markers", int(markers[np.argmax(wrong)]), rule, "use one of these")
    if vocabulary.layout == "inline" and ((markers == UNMARKED) & (documents.segment_items == 0)).any():
        rule = "inline writes nothing for a segment that has neither a marker nor items"
        raise VocabularyError("segment_items", 0, rule, "leave the segment out, or give it a marker")
    later = np.ones(markers.size, bool)
    later[np.cumsum(documents.document_segments) - documents.document_segments] = False
    if (later & (markers == UNMARKED)).any():
        rule = "only the first segment of a document can go without a marker"
        raise VocabularyError("segment_markers", UNMARKED, rule, "give each later one a control token")


def check_items(vocabulary: Vocabulary, documents: Documents, contexts: NDArray[np.int64]) -> None:
    """Holds every item against its space and its segment.

    Args:
        vocabulary: that the documents are to be written in.
        documents: whose segments are all right.
        contexts: int64[segments], row of `Vocabulary.contexts` of each segment.

    Raises:
        VocabularyError: names the first item that is wrong, and its segment.
    """
    spaces, ids, items = documents.spaces, documents.ids, documents.segment_items
    if _same_space(vocabulary, documents, contexts):
        return
    segment_of = np.repeat(np.arange(items.size), items)
    item_position = np.arange(spaces.size) - (np.cumsum(items) - items)[segment_of] + 1
    context = contexts[segment_of]

    def refuse(wrong: NDArray[np.bool_], field: str, values: NDArray, rule: str, fix: str) -> None:
        if wrong.any():
            item = int(np.argmax(wrong))
            where = f"item {item_position[item]} of segment {segment_of[item]}: {field}"
            raise VocabularyError(where, to_ints(values[item : item + 1])[0], rule, fix)

    unknown = (spaces < GENERAL) | (spaces >= len(vocabulary.spaces))
    names = ", ".join(space.name for space in vocabulary.spaces)
    refuse(unknown, "space", spaces, f"the spaces are {names}", "use their index, or -1 for a general token")

    outside = np.zeros(spaces.size, bool)
    for space in np.unique(spaces):
        of_space = spaces == space
        outside[of_space] = ~below(ids[of_space], _size(vocabulary, space))
    if outside.any():
        space = spaces[np.argmax(outside)]
        kind = "general" if space == GENERAL else vocabulary.spaces[space].name
        rule = f"must be in 0 … {_size(vocabulary, space) - 1}"
        refuse(outside, f"id in {kind}", ids, rule, "check the modality that made it, or enlarge the space")

    fragment = spaces != GENERAL
    foreign = (context > 0) & (spaces != context - 1)
    rule = "a segment opened by the marker of a space holds fragments of that space alone"
    refuse(foreign, "space", spaces, rule, "put the item into a segment of its own")

    if vocabulary.position != "none":
        each = "" if vocabulary.position_places == 1 else f", {vocabulary.position_places} for a position"
        rule = f"there are {vocabulary.positions} position tokens{each}, for items 1 … {vocabulary.last_position}"
        too_far = fragment & (item_position > vocabulary.last_position)
        refuse(too_far, "position", item_position, rule, "raise vocabulary.positions, or use more, shorter segments")
    elif vocabulary.layout == "grouped":
        rule = "grouped without position tokens can't say that a general token stood after a fragment"
        after_fragment = ~fragment & (item_position > 1) & np.concatenate([[False], fragment[:-1]])[: fragment.size]
        refuse(after_fragment, "kind", spaces, rule, "put general tokens first, or use position tokens")


def check_order(vocabulary: Vocabulary, documents: Documents, order: NDArray[np.int64] | None) -> None:
    """Holds the sequence in which items are to be written against the documents.

    Raises:
        VocabularyError: it is no permutation of the items within each segment, or can't be undone when it is read.
    """
    if order is None:
        return
    if vocabulary.position == "none":
        rule = "without position tokens nothing says where an item belongs"
        raise VocabularyError("order", "given", rule, "use position='before' or 'after', or leave the order out")
    items = documents.spaces.size
    if order.shape != (items,) or not np.issubdtype(order.dtype, np.integer):
        rule = f"must be the whole numbers 0 … {items - 1}, one for each item"
        raise VocabularyError("order", f"{order.dtype}{list(order.shape)}", rule, "give int64[items]")
    order = order.astype(np.int64)  # differences of unsigned numbers have no sign
    segment_of = np.repeat(np.arange(documents.segment_items.size), documents.segment_items)
    there = (order >= 0) & (order < items)
    wrong = ~there | (segment_of[np.where(there, order, 0)] != segment_of)
    wrong |= np.bincount(order[there], minlength=items)[:items] != 1
    if wrong.any():
        rule = "must name each item once, among those of its own segment"
        raise VocabularyError("order", int(order[np.argmax(wrong)]), rule, "permute the items of each segment")
    general = order[documents.spaces[order] == GENERAL]
    if (np.diff(general) < 0).any():
        rule = "general tokens have no position: they are read in the order in which they are written"
        item = int(general[1:][np.diff(general) < 0][0])
        raise VocabularyError("order", item, rule, "permute fragments alone")


def _same_space(vocabulary: Vocabulary, documents: Documents, contexts: NDArray[np.int64]) -> bool:
    """Whether all items are of one space and right. It is the usual case, and checked at the speed of memory."""
    spaces, items = documents.spaces, documents.segment_items
    if spaces.size == 0:
        return True
    space = int(spaces.min())
    if not 0 <= space < len(vocabulary.spaces) or spaces.max() != space:
        return False
    if vocabulary.position != "none" and items.max() > vocabulary.last_position:
        return False
    right = (contexts == 0) | (contexts == space + 1) | (items == 0)
    size = vocabulary.spaces[space].size
    return bool(right.all()) and all(below(documents.ids[part], size).all() for part in blocks(spaces.size, 4))


def _size(vocabulary: Vocabulary, space: int) -> int:
    return vocabulary.general if space == GENERAL else vocabulary.spaces[space].size
