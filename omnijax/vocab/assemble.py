"""What was read, as documents again: the inverse of the encoder on everything that it writes."""

from __future__ import annotations

import jax
import numpy as np
from jaxtyping import Int

from omnijax.vocab.decode import Kind, Reading
from omnijax.vocab.documents import GENERAL, UNMARKED, Segment
from omnijax.vocab.vocabulary import Vocabulary


def assemble(vocabulary: Vocabulary, reading: Reading) -> list[list[list[Segment]]]:
    """The documents of each stream: `assemble(decode(encode(x)))` is x.

    Fragments stand where their position says, and general tokens fill the gaps in order. What could not be read is left
    out. `eos` closes a document; without it a stream is one document.

    Args:
        vocabulary: that the streams are of.
        reading: of `decode`, with one leading dimension.
    """
    host = jax.device_get(reading)
    return [_stream(vocabulary, Reading(*(field[row] for field in host))) for row in range(len(host.kind))]


def _stream(vocabulary: Vocabulary, reading: Reading) -> list[list[Segment]]:
    documents: list[list[Segment]] = []
    open_document: list[Segment] = []
    for number in range(int(reading.segment[-1]) + 1 if reading.segment.size else 0):
        tokens = np.flatnonzero((reading.segment == number) & (reading.kind != Kind.PAD))
        if tokens.size == 0:
            continue
        opens = reading.kind[tokens[0]] == Kind.CONTROL
        marker = int(reading.id[tokens[0]]) if opens else UNMARKED
        if opens and vocabulary.control_start + marker == vocabulary.end:
            documents.append(open_document)
            open_document = []
            marker, tokens = UNMARKED, tokens[1:]
        if tokens.size:
            open_document.append(_segment(vocabulary, marker, reading, tokens))
    return [*documents, open_document] if open_document else documents


def _segment(vocabulary: Vocabulary, marker: int, reading: Reading, tokens: Int[np.ndarray, " n"]) -> Segment:
    kind, ids, written = (np.asarray(field)[tokens] for field in (reading.kind, reading.id, reading.position))
    general, fragment = kind == Kind.GENERAL, kind == Kind.FRAGMENT
    if vocabulary.position == "none":
        items = np.flatnonzero(general | fragment)
        order = items[np.argsort(fragment[items], kind="stable")] if vocabulary.layout == "grouped" else items
    else:
        free = np.setdiff1d(np.arange(1, tokens.size + 1), written[fragment])
        place = np.where(fragment, written, 0)
        place[general] = free[: general.sum()]
        items = np.flatnonzero(general | fragment)
        order = items[np.argsort(place[items], kind="stable")]
    starts = np.cumsum([0, *(space.size for space in vocabulary.spaces)])
    space = np.searchsorted(starts, ids[order], side="right") - 1
    space = np.where(general[order], GENERAL, space).astype(np.int32)
    local = np.where(general[order], ids[order], ids[order] - starts[space]).astype(np.int64)
    return Segment(marker, space, local)
