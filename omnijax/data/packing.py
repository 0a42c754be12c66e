"""Which documents go into which row: decided from lengths alone, so that a row's number is all there is to resume."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int64

from omnijax.errors import DataError

OPEN_ROWS = 64  # rows that still take documents; bounds the search, and how far a document strays from its place


def check_lengths(
    lengths: Int64[np.ndarray, " n"], room: int, knob: str = "sequence_length", unit: str = "tokens"
) -> None:
    """Holds documents against the rows that they have to fit in.

    Args:
        lengths: of the documents.
        room: of a row.
        knob: of `batch`, that says so.
        unit: of both.

    Raises:
        DataError: a document is longer than a row.
    """
    if lengths.size and lengths.max() > room:
        fix = f"set batch.{knob} to {lengths.max()} or more"
        raise DataError("document", f"{lengths.max()} {unit}", f"a row has {room}, and nothing is cut", fix)


def pack(lengths: Int64[np.ndarray, " n"], sequence_length: int) -> list[list[int]]:
    """Puts documents, in order, into the first open row with room. No document is cut, none is left out.

    Args:
        lengths: of each document.
        sequence_length: of a row, in the same unit.

    Returns:
        For each row the indices of its documents.

    Raises:
        DataError: a document is longer than a row.
    """
    check_lengths(lengths, sequence_length)
    shortest = int(lengths.min()) if lengths.size else 0
    full: list[list[int]] = []
    rows: list[list[int]] = []
    room: list[int] = []
    for document, length in enumerate(lengths.tolist()):
        row = next((row for row, left in enumerate(room) if left >= length), len(rows))
        if row == OPEN_ROWS:
            full.append(rows.pop(0))
            room.pop(0)
            row -= 1
        if row == len(rows):
            rows.append([])
            room.append(sequence_length)
        rows[row].append(document)
        room[row] -= length
        if room[row] < shortest:
            full.append(rows.pop(row))
            room.pop(row)
    return full + rows


def fill_rate(lengths: Int64[np.ndarray, " n"], rows: Sequence[Sequence[int]], sequence_length: int) -> float:
    """Share of the tokens of the rows that are not padding."""
    return float(lengths.sum() / (len(rows) * sequence_length)) if rows else 1.0
