"""What the train step reads, and which documents go into which sequence.

Lengths alone decide that, so a run resumes with the number of a sequence.
"""

from __future__ import annotations

from typing import NotRequired, TypedDict

import numpy as np
from jaxtyping import Float32, Int32, Int64

from omnijax.errors import DataError
from omnijax.vocab.kinds import Kinds

OPEN_SEQUENCES = 64
"""Sequences that still take documents. It bounds the search, and how far a document moves from its place."""


class Batch(TypedDict):
    """Sequences of packed documents, as the model reads them; `t` is one less than `batch.sequence_length`.

    Attributes:
        tokens: primary ids to read.
        targets: the ids that follow them in the same document.
        weights: of each target in the loss; 0 where none follows.
        kinds: kind of the token behind each token in its sequence, as `Encoded.kinds`.
        positions: place of each token in its document.
        documents: which document of its sequence it belongs to, from 0; -1 for padding.
        items: items of each sequence, for the throughput.
        source: number of the source of each sequence, in a mixture.
    """

    tokens: Int32[np.ndarray, "b t"]
    targets: Int32[np.ndarray, "b t"]
    weights: Float32[np.ndarray, "b t"]
    kinds: Kinds
    positions: Int32[np.ndarray, "b t"]
    documents: Int32[np.ndarray, "b t"]
    items: Int32[np.ndarray, " b"]
    source: NotRequired[Int32[np.ndarray, " b"]]


def check_lengths(
    lengths: Int64[np.ndarray, " n"], room: int, knob: str = "sequence_length", unit: str = "tokens"
) -> None:
    """Raises a `DataError` if a document is longer than `room`, the `knob` of `batch` for a sequence, in `unit`."""
    if lengths.size and lengths.max() > room:
        fix = f"set batch.{knob} to {lengths.max()} or more"
        raise DataError("document", f"{lengths.max()} {unit}", f"a sequence has {room}, and nothing is cut", fix)


def pack(lengths: Int64[np.ndarray, " n"], sequence_length: int) -> list[list[int]]:
    """Puts documents, in order, into the first open sequence with room. No document is cut or left out.

    Returns for each sequence the indices of its documents. Raises a `DataError` for a document that fits into none.
    """
    check_lengths(lengths, sequence_length)
    shortest = int(lengths.min()) if lengths.size else 0
    full: list[list[int]] = []
    sequences: list[list[int]] = []
    room: list[int] = []
    for document, length in enumerate(lengths.tolist()):
        for place, left in enumerate(room):  # noqa: B007 (a loop takes half the time of a generator)
            if left >= length:
                break
        else:
            place = len(sequences)
        if place == OPEN_SEQUENCES:
            full.append(sequences.pop(0))
            room.pop(0)
            place -= 1
        if place == len(sequences):
            sequences.append([])
            room.append(sequence_length)
        sequences[place].append(document)
        room[place] -= length
        if room[place] < shortest:
            full.append(sequences.pop(place))
            room.pop(place)
    return full + sequences
