"""Anchors: figures from outside the project, for the report of a sweep. `experiments/anchors/` measures them."""

from __future__ import annotations

import csv
import dataclasses
import pathlib
from typing import Literal, get_args

from omnijax.errors import DataError

Measure = Literal["bits per pixel", "bits per sub-pixel", "bits per sample", "bits per byte", "accuracy"]


@dataclasses.dataclass(frozen=True)
class Anchor:
    """A figure of something outside the project on the same held-out data.

    Attributes:
        modality: name of a field; `A|B` is field A given field B; `A->B` is the direction of a classifier.
        measure: unit of the value.
        value: fewer bits are better; an accuracy is a share, and more is better.
        standard_error: of the value, over held-out signals; None if all signals are one stream.
        note: how it was measured.
    """

    name: str
    modality: str
    measure: Measure
    value: float
    standard_error: float | None
    note: str


COLUMNS = [field.name for field in dataclasses.fields(Anchor)]


def read_anchors(path: pathlib.Path) -> list[Anchor]:
    """Reads a CSV table with a line for each anchor; raises a `DataError` if the file isn't such a table."""
    found, fix = [], "write it again: `python experiments/ablations/anchors.py`"
    with path.open(newline="", encoding="utf-8") as file:
        head, *lines = [*csv.reader(file)] or [[]]
    if head != COLUMNS:
        raise DataError(str(path), head, f"its first line must be {','.join(COLUMNS)}", fix)
    measures: dict[str, Measure] = {one: one for one in get_args(Measure)}
    for number, line in enumerate(lines, start=2):
        try:
            name, modality, measure, value, error, note = line
            found.append(Anchor(name, modality, measures[measure], float(value), float(error) if error else None, note))
        except (ValueError, KeyError) as problem:
            raise DataError(f"{path}:{number}", line, f"it must be an anchor ({problem})", fix) from problem
    return found
