"""Anchors: figures of codecs, counting models and classifiers on the same held-out data."""

from __future__ import annotations

import csv
import dataclasses
import pathlib
from collections.abc import Callable, Sequence

from omnijax.data.sources.spoken_digits import SpokenDigits
from omnijax.errors import PlatformError
from omnijax.sweep.anchors import COLUMNS, Anchor, read_anchors

__all__ = ["Anchor", "anchors", "read_anchors", "write_anchors"]


def anchors(source: SpokenDigits, on_part: Callable[[str], None] = lambda part: None) -> list[Anchor]:
    """Measures every anchor on the held-out split of a prepared data set.

    Codecs and counting models give bits per pixel, sample or byte, and classifiers give accuracies. Models are fitted
    on the training split, with each picture once, and their constants are chosen within it. Only the settings of a
    codec are chosen by the result, which favours the codec.

    Args:
        source: the data set.
        on_part: called with the name of each part before it is measured.

    Raises:
        DataError: the data set doesn't exist or is damaged.
        PlatformError: a library is missing, or a codec isn't lossless.
    """
    try:
        from experiments.anchors.measure import measure  # a missing library is named below
    except ModuleNotFoundError as error:
        rule, fix = "anchors need the codecs themselves", "pip install 'omnijax[demo,ablations]'"
        raise PlatformError("import", error.name, rule, fix) from error
    return measure(source, on_part)


def write_anchors(anchors: Sequence[Anchor], path: pathlib.Path) -> None:
    """Writes a CSV table with a line for each anchor."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        for one in map(dataclasses.astuple, anchors):
            writer.writerow([f"{cell:.6f}" if isinstance(cell, float) else cell for cell in one])
