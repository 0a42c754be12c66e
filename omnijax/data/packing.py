"""Which documents go into which sequence. Lengths alone decide it, so a run resumes with the number of a sequence."""

from __future__ import annotations

import numpy as np
from jaxtyping import Int64

from omnijax.errors import DataError

OPEN_SEQUENCES = 64
"""Sequences that still take documents. It bounds the search, and how far a document moves from its place."""


def check_lengths(
    lengths: Int64[np.ndarray, " n"], room: int, knob: str = "sequence_length", unit: str = "tokens"
) -> None:
    """Checks that each document fits into a sequence.

    Args:
        lengths: of the documents.
        room: of a sequence, in the same unit.
        knob: the field of `batch` that sets the room.
        unit: name of the unit, for the error.

    Raises:
        DataError: a document is longer than a sequence.
    """
    if lengths.size and lengths.max() > room:
        fix = f"set batch.{knob} to {lengths.max()} or more"
        raise DataError("document", f"{lengths.max()} {unit}", f"a sequence has {room}, and nothing is cut", fix)


def pack(lengths: Int64[np.ndarray, " n"], sequence_length: int) -> list[list[int]]:
    """Puts documents, in order, into the first open sequence with room. No document is cut or left out.

    Args:
        lengths: of the documents.
        sequence_length: room of a sequence, in the same unit.

    Returns:
        For each sequence the indices of its documents.

    Raises:
        DataError: a document is longer than a sequence.
    """
    check_lengths(lengths, sequence_length)
    shortest = int(lengths.min()) if lengths.size else 0
    full: list[list[int]] = []
    sequences: list[list[int]] = []
    room: list[int] = []
    for document, length in enumerate(lengths.tolist()):
        place = next((place for place, left in enumerate(room) if left >= length), len(sequences))
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
