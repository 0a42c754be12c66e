"""What the encoder refuses, before it writes anything: documents that could not be read back as they were."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from omnijax.errors import VocabularyError
from omnijax.vocab.documents import GENERAL, UNMARKED, Documents
from omnijax.vocab.vocabulary import END, Vocabulary


def check_segments(vocabulary: Vocabulary, documents: Documents) -> None:
    """Holds documents and their markers against the vocabulary.

    Raises:
        VocabularyError: a document without segments, a marker that is none, a later segment without one, or a segment
            that would leave no trace.
    """
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


def check_items(
    vocabulary: Vocabulary,
    documents: Documents,
    segment_of: NDArray[np.int64],
    context: NDArray[np.int64],
    item_position: NDArray[np.int64],
) -> None:
    """Holds every item against its space and its segment.

    Args:
        vocabulary: that the documents are to be written in.
        documents: whose segments are all right.
        segment_of: int64[items], segment of each item.
        context: int64[items], row of `Vocabulary.contexts` of that segment.
        item_position: int64[items], 1-based place in the segment.

    Raises:
        VocabularyError: names the first item that is wrong, and its segment.
    """
    spaces, ids = documents.spaces, documents.ids

    def refuse(wrong: NDArray[np.bool_], field: str, values: NDArray, rule: str, fix: str) -> None:
        if wrong.any():
            item = int(np.argmax(wrong))
            where = f"item {item_position[item]} of segment {segment_of[item]}: {field}"
            raise VocabularyError(where, int(values[item]), rule, fix)

    unknown = (spaces < GENERAL) | (spaces >= len(vocabulary.spaces))
    names = ", ".join(space.name for space in vocabulary.spaces)
    refuse(unknown, "space", spaces, f"the spaces are {names}", "use their index, or -1 for a general token")

    sizes = np.append([space.size for space in vocabulary.spaces], vocabulary.general)  # GENERAL is -1: the last row
    outside = (ids < 0) | (ids >= sizes[spaces])
    if outside.any():
        item = int(np.argmax(outside))
        kind = "general" if spaces[item] == GENERAL else vocabulary.spaces[spaces[item]].name
        rule = f"must be in 0 … {sizes[spaces[item]] - 1}"
        refuse(outside, f"id in {kind}", ids, rule, "check the modality that made it, or enlarge the space")

    fragment = spaces != GENERAL
    foreign = (context > 0) & (spaces != context - 1)
    rule = "a segment opened by the marker of a space holds fragments of that space alone"
    refuse(foreign, "space", spaces, rule, "put the item into a segment of its own")
    untyped = (context == 0) & fragment & (vocabulary.contexts.sizes[0] == 0)
    rule = "with fixed width and several spaces only a marker says how many digits there are"
    refuse(untyped, "space", spaces, rule, "open the segment with the control token of its space")

    if vocabulary.position != "none":
        rule = f"there are {vocabulary.positions} position tokens, for items 1 … {vocabulary.positions - 1}"
        too_far = fragment & (item_position >= vocabulary.positions)
        refuse(too_far, "position", item_position, rule, "raise vocabulary.positions, or use more, shorter segments")
    elif vocabulary.layout == "grouped":
        rule = "grouped without position tokens can't say that a general token stood after a fragment"
        after_fragment = ~fragment & (item_position > 1) & np.concatenate([[False], fragment[:-1]])[: fragment.size]
        refuse(after_fragment, "kind", spaces, rule, "put general tokens first, or use position tokens")
