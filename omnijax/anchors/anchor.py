"""One outside figure, and the table that many of them are kept in."""

from __future__ import annotations

import csv
import dataclasses
import math
import pathlib
from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np

from omnijax.errors import DataError

Measure = Literal["bits per pixel", "bits per sample", "bits per byte", "accuracy"]
_MEASURES: dict[str, Measure] = {one: one for one in get_args(Measure)}
COLUMNS = ("name", "modality", "measure", "value", "standard_error", "note")


@dataclasses.dataclass(frozen=True)
class Anchor:
    """What something that is no model of ours reaches on the same held-out data.

    Attributes:
        name: what was measured.
        modality: `image`, `speech` or `text`; of a classifier `image->text` or `speech->text`; `image|text` is of
            pictures whose digit is known.
        measure: unit of the value.
        value: less is better, but of an accuracy, a share.
        standard_error: of the value, over held-out signals; None where all of them make one stream.
        note: how it was come by, in a sentence.
    """

    name: str
    modality: str
    measure: Measure
    value: float
    standard_error: float | None
    note: str


def of_signals(name: str, modality: str, measure: Measure, each: np.ndarray, units: np.ndarray, note: str) -> Anchor:
    """The anchor of signals that were measured one by one.

    Args:
        name: of the anchor.
        modality: of the anchor.
        measure: of the anchor.
        each: float [n], bits of every signal.
        units: int [n], pixels, samples or bytes of every signal.
        note: of the anchor.
    """
    bits, count = np.asarray(each, np.float64), np.asarray(units, np.float64)
    value = bits.sum() / count.sum()
    # Of a ratio of sums (the delta method); with signals of one size this is the error of their mean.
    error = np.std(bits - value * count, ddof=1) / math.sqrt(len(bits)) / count.mean()
    return Anchor(name, modality, measure, float(value), float(error), note)


def write_anchors(anchors: Sequence[Anchor], path: pathlib.Path) -> None:
    """Writes a table with a line for each anchor, as CSV."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        for one in anchors:
            error = "" if one.standard_error is None else f"{one.standard_error:.6f}"
            writer.writerow([one.name, one.modality, one.measure, f"{one.value:.6f}", error, one.note])


def read_anchors(path: pathlib.Path) -> list[Anchor]:
    """Reads a table that `write_anchors` wrote.

    Raises:
        DataError: it is no such table.
    """
    fix = "write it anew: `python experiments/ablations/anchors.py`"
    with path.open(newline="", encoding="utf-8") as file:
        lines = list(csv.reader(file))
    if not lines or tuple(lines[0]) != COLUMNS:
        raise DataError(str(path), lines[:1], f"its first line must be {','.join(COLUMNS)}", fix)
    found = []
    for number, line in enumerate(lines[1:], start=2):
        try:
            name, modality, measure, value, error, note = line
            unit = _MEASURES[measure]
            found.append(Anchor(name, modality, unit, float(value), float(error) if error else None, note))
        except (ValueError, KeyError) as problem:
            raise DataError(f"{path}:{number}", line, f"it must be an anchor ({problem})", fix) from problem
    return found
