"""Checks of documents before the encoder writes anything. It refuses what could not be read back unchanged."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from omnijax.errors import VocabularyError
from omnijax.vocab.documents import GENERAL, UNMARKED, Documents
from omnijax.vocab.numbers import below, blocks, check_form, to_ints
from omnijax.vocab.rules import END, Rule
from omnijax.vocab.vocabulary import Vocabulary


def segment_rules(v: Vocabulary, documents: Documents) -> Iterator[Rule]:
    """What the arrays, documents, segments and markers must keep."""
    items, markers = documents.segment_items, documents.segment_markers
    counts = (len(documents.spaces), len(documents.ids), int(items.sum()))
    rule, fix = "spaces, ids and the items of all segments must have the same count", "give each item a space and an id"
    yield len(set(counts)) == 1 and not (items < 0).any(), "documents", counts, rule, fix
    counts = (items.size, markers.size, int(documents.document_segments.sum()))
    rule = "there must be one marker for each segment, and the documents must have all segments"
    yield len(set(counts)) == 1, "documents", counts, rule, "build them with Documents.of"
    check_form(documents.ids, "ids")
    full = not (documents.document_segments < 1).any()
    yield full, "document_segments", 0, "a document has at least one segment", "drop the empty document"
    wrong = (markers < UNMARKED) | (markers >= len(v.control))
    if END in v.control:
        wrong |= markers == v.control.index(END)
    names = ", ".join(name for name in v.control if name != END) or "none"
    rule = f"must be -1 (no marker) or the index of a control token that opens a segment ({names})"
    first_wrong = int(markers[np.argmax(wrong)]) if wrong.any() else None
    yield first_wrong is None, "segment_markers", first_wrong, rule, "use one of these"
    traceless = v.layout == "inline" and ((markers == UNMARKED) & (items == 0)).any()
    rule = "inline writes nothing for a segment that has neither a marker nor items"
    yield not traceless, "segment_items", 0, rule, "leave the segment out, or give it a marker"
    later = np.ones(markers.size, bool)
    later[np.cumsum(documents.document_segments) - documents.document_segments] = False
    rule = "only the first segment of a document can go without a marker"
    yield not (later & (markers == UNMARKED)).any(), "segment_markers", UNMARKED, rule, "give each a control token"


def check_items(vocabulary: Vocabulary, documents: Documents, contexts: NDArray[np.int64]) -> None:
    """Checks every item: its space, its id, and whether its segment may hold it.

    The documents keep `segment_rules`. `contexts` is int64[segments], rows of `Vocabulary.contexts`. Raises a
    `VocabularyError` that names the first wrong item and its segment.
    """
    v, spaces, items = vocabulary, documents.spaces, documents.segment_items
    space = int(spaces.min(initial=len(v.spaces)))
    if 0 <= space < len(v.spaces) and spaces.max() == space:  # the usual case, which is checked fast
        near = v.position == "none" or items.max() <= v.last_position
        held = np.isin(v.contexts.spaces[contexts], (-1, space)) | (items == 0)
        inside = (below(documents.ids[part], v.spaces[space].size) for part in blocks(spaces.size, 4))
        if near and held.all() and all(part.all() for part in inside):
            return
    segment_of = np.repeat(np.arange(items.size), items)
    position = np.arange(segment_of.size) - (np.cumsum(items) - items)[segment_of] + 1
    for wrong, field, values, rule, fix in _item_rules(vocabulary, documents, contexts[segment_of], position):
        if wrong.any():
            item = int(np.argmax(wrong))
            where = f"item {position[item]} of segment {segment_of[item]}: {field}"
            raise VocabularyError(where, to_ints(values[item : item + 1])[0], rule, fix)


def _item_rules(
    v: Vocabulary, documents: Documents, context: NDArray[np.int64], position: NDArray[np.int64]
) -> Iterator[tuple[NDArray[np.bool_], str, NDArray, str, str]]:
    """Items that break a rule, the field, its values, the rule, and the fix."""
    spaces, tables = documents.spaces, v.contexts
    names = ", ".join(space.name for space in v.spaces)
    unknown = (spaces < GENERAL) | (spaces >= len(v.spaces))
    yield unknown, "space", spaces, f"the spaces are {names}", "use their index, or -1 for a general token"
    for space in np.unique(spaces):
        size = v.general if space == GENERAL else v.spaces[space].size
        outside = spaces == space
        outside[outside] = ~below(documents.ids[outside], size)
        kind = "general" if space == GENERAL else v.spaces[space].name
        fix = "check the modality that made it, or enlarge the space"
        yield outside, f"id in {kind}", documents.ids, f"must be in 0 … {size - 1}", fix
    fragment, own = spaces != GENERAL, tables.spaces[context]
    foreign = (own >= 0) & (spaces != own) & (fragment | ~tables.general[context])
    rule = "a typed segment holds fragments of one space, and general tokens only if its Marker says so"
    yield foreign, "space", spaces, rule, "put the item into a segment of its own, or set Marker.general"
    if v.position != "none":
        each = "" if v.position_places == 1 else f", {v.position_places} for a position"
        rule = f"there are {v.positions} position tokens{each}, for items 1 … {v.last_position}"
        fix = "raise vocabulary.positions, or use more, shorter segments"
        yield fragment & (position > v.last_position), "position", position, rule, fix
        return
    rule = "grouped without position tokens can't say that a general token stood after a fragment"
    after_fragment = ~fragment & (position > 1) & np.append(False, fragment[:-1]) & tables.grouped[context]
    yield after_fragment, "kind", spaces, rule, "put general tokens first, or use position tokens"


def order_rules(v: Vocabulary, documents: Documents, order: NDArray[np.integer]) -> Iterator[Rule]:
    """What an order of writing must keep: a permutation within each segment, which a reader can undo."""
    rule = "without position tokens nothing says where an item belongs"
    fix = "use position='before' or 'after', or leave the order out"
    yield v.position != "none", "order", "given", rule, fix
    items = documents.spaces.size
    whole = order.shape == (items,) and np.issubdtype(order.dtype, np.integer)
    rule = f"must be the whole numbers 0 … {items - 1}, one for each item"
    yield whole, "order", f"{order.dtype}{list(order.shape)}", rule, "give int64[items]"
    order = order.astype(np.int64)  # differences of unsigned numbers have no sign
    segment_of = np.repeat(np.arange(documents.segment_items.size), documents.segment_items)
    there = (order >= 0) & (order < items)
    wrong = ~there | (segment_of[np.where(there, order, 0)] != segment_of)
    wrong |= np.bincount(order[there], minlength=items)[:items] != 1
    for item in order[wrong][:1]:
        rule = "must name each item once, among those of its own segment"
        yield False, "order", int(item), rule, "permute the items of each segment"
    general = order[documents.spaces[order] == GENERAL]
    for item in general[1:][np.diff(general) < 0][:1]:
        rule = "general tokens have no position: they are read in the order in which they are written"
        yield False, "order", int(item), rule, "permute fragments alone"
