"""From a reading back to documents. On everything that the encoder writes this is the inverse of the encoder."""

from __future__ import annotations

import operator

import jax
import numpy as np
from jaxtyping import Int

from omnijax.errors import VocabularyError
from omnijax.vocab.documents import GENERAL, UNMARKED, Segment
from omnijax.vocab.ids import Numbers
from omnijax.vocab.numbers import add, below, to_int64, to_limbs
from omnijax.vocab.radix import radices_for
from omnijax.vocab.shapes import Kind, Reading
from omnijax.vocab.vocabulary import Vocabulary


def assemble(vocabulary: Vocabulary, reading: Reading) -> list[list[list[Segment]]]:
    """The documents of each stream: `assemble(decode(encode(x)))` is x.

    Fragments stand where their positions say, and general tokens fill the gaps in order. What could not be read is left
    out. Assignments are undone. `eos` closes a document; without it a stream is one. Raises a `VocabularyError` if the
    reading, a result of `decode`, hasn't one leading dimension.
    """
    if reading.kind.ndim != 2:
        rule, fix = "must have one leading dimension", "decode rows: PrimaryIds(tokens[None]) for a single stream"
        raise VocabularyError("reading", tuple(reading.kind.shape), rule, fix)
    host = jax.device_get(reading)
    return [_stream(vocabulary, jax.tree.map(operator.itemgetter(row), host)) for row in range(len(host.kind))]


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
    order = np.flatnonzero(general | fragment)
    if vocabulary.position != "none":
        free = np.setdiff1d(np.arange(1, tokens.size + 1), written[fragment])
        place = np.where(fragment, written, 0)
        place[general] = free[: general.sum()]
        order = order[np.argsort(place[order], kind="stable")]
    space = np.full(order.size, GENERAL, np.int32)
    at = tokens[order]
    limbs = [np.ascontiguousarray(np.asarray(field)[at]).view(np.uint32) for field in (reading.id, *reading.high)]
    numbers: Numbers = np.stack(limbs, axis=-1)
    numbers = numbers if vocabulary.secondary_size > 2**63 else to_int64(numbers)
    local: Numbers = np.where(general, ids, 0).astype(np.int64)[order]
    if numbers.ndim == 2:
        local = to_limbs(local, vocabulary.limbs)
    for index, (one, start) in enumerate(zip(vocabulary.spaces, vocabulary.contexts.offsets[1:], strict=False)):
        inside = fragment[order] & below(numbers, start + one.size) & ~below(numbers, start)
        if inside.any():
            radices = radices_for(one.size, vocabulary.base)
            local[inside] = one.assignment.inverse(add(numbers[inside], -start), one.size, radices)
            space[inside] = index
    return Segment(marker, space, local)
