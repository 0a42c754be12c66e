"""What was read, as documents again: the inverse of the encoder on everything that it writes."""

from __future__ import annotations

import operator

import jax
import numpy as np
from jaxtyping import Int
from numpy.typing import NDArray

from omnijax.errors import VocabularyError
from omnijax.vocab.documents import GENERAL, UNMARKED, Segment
from omnijax.vocab.ids import Numbers
from omnijax.vocab.radix import radices_of, width_of
from omnijax.vocab.reading import Kind, Reading
from omnijax.vocab.vocabulary import Vocabulary


def assemble(vocabulary: Vocabulary, reading: Reading) -> list[list[list[Segment]]]:
    """The documents of each stream: `assemble(decode(encode(x)))` is x.

    Fragments stand where their position says, and general tokens fill the gaps in order. What could not be read is left
    out. Assignments are undone. `eos` closes a document; without it a stream is one document.

    Args:
        vocabulary: that the streams are of.
        reading: of `decode`, with one leading dimension.

    Raises:
        VocabularyError: it has another number of dimensions.
    """
    if reading.kind.ndim != 2:
        rule, fix = "must have one leading dimension", "decode rows: PrimaryIds(tokens[None]) for a single stream"
        raise VocabularyError("reading", tuple(reading.kind.shape), rule, fix)
    host = jax.device_get(reading)
    rows = range(len(host.kind))
    return [_stream(vocabulary, jax.tree.map(operator.itemgetter(row), host)) for row in rows]


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
    general_ids = np.where(general, ids, 0).astype(np.int64)[order]
    space = np.full(order.size, GENERAL, np.int32)
    numbers = _secondary(vocabulary, reading, tokens[order])
    local: Numbers = general_ids if numbers.ndim == 1 else _limbs_of(general_ids, vocabulary.limbs)
    offsets = vocabulary.contexts.offsets
    for index, one in enumerate(vocabulary.spaces):
        base = vocabulary.base
        inside = fragment[order] & _at_least(numbers, offsets[1 + index])
        if index + 1 < len(vocabulary.spaces):
            inside &= ~_at_least(numbers, offsets[2 + index])
        written = _minus(numbers[inside], offsets[1 + index])
        radices = radices_of(base, width_of(one.size - 1, base))
        local[inside] = one.assignment.inverse(written, one.size, radices) if inside.any() else written
        space[inside] = index
    return Segment(marker, space, local)


def _secondary(vocabulary: Vocabulary, reading: Reading, tokens: Int[np.ndarray, " n"]) -> Numbers:
    """Secondary ids at these tokens: as int64 where all of the vocabulary fit, else in limbs."""
    limbs = [np.ascontiguousarray(np.asarray(field)[tokens]).view(np.uint32) for field in (reading.id, *reading.high)]
    if vocabulary.secondary_size > 2**63:
        return np.stack(limbs, axis=-1)
    numbers = np.zeros(tokens.size, np.int64)
    for place, limb in enumerate(limbs):
        numbers |= limb.astype(np.int64) << 32 * place
    return numbers


def _limbs_of(numbers: NDArray[np.int64], limbs: int) -> NDArray[np.uint32]:
    halves = [numbers & 0xFFFFFFFF, numbers >> 32, *[np.zeros_like(numbers)] * limbs]
    return np.stack(halves[:limbs], axis=-1).astype(np.uint32)


def _at_least(numbers: Numbers, least: int) -> NDArray[np.bool_]:
    """Whether each number is `least` or more."""
    if numbers.ndim == 1:
        return numbers >= least
    reached = np.ones(len(numbers), bool)
    for place in range(numbers.shape[1]):
        limb = least >> 32 * place & 0xFFFFFFFF
        reached = (numbers[:, place] > limb) | ((numbers[:, place] == limb) & reached)
    return reached


def _minus(numbers: Numbers, less: int) -> Numbers:
    """Each number less another one, which is smaller."""
    if numbers.ndim == 1:
        return numbers - less
    result, borrow = np.empty_like(numbers), np.zeros(len(numbers), bool)
    for place in range(numbers.shape[1]):
        difference = numbers[:, place].astype(np.int64) - (less >> 32 * place & 0xFFFFFFFF) - borrow
        result[:, place], borrow = difference & 0xFFFFFFFF, difference < 0
    return result
