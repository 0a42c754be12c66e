"""Evaluations over the steps of a run, as a plot beside its data."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omnijax.evaluate.history import mean_bits
from omnijax.report.curves import Line, draw_lines, name_ends
from omnijax.report.text import arrow
from omnijax.report.theme import DOTS_PER_INCH, LIGHT, Theme, check_drawing, dress, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PLOT = "evaluations.png"
Series = dict[str, list[tuple[int, float]]]


def write_plot(rows: Sequence[dict[str, Any]], path: Path) -> Path:
    """Draws the rows of `history.history` into a PNG.

    Raises:
        PlatformError: a library that draws isn't installed.
    """
    check_drawing()
    steps_figure(rows, LIGHT).savefig(path, format="png", dpi=DOTS_PER_INCH)
    return path


def steps_figure(rows: Sequence[dict[str, Any]], theme: Theme) -> Figure:
    """Bits per item by form and their mean, and the accuracies where they were measured.

    Args:
        rows: of one run, by rising step.
        theme: colours.
    """
    bits: Series = {}
    shares: Series = {}
    for row in rows:
        forms = {form: entry["renormalised"] for form, entry in row.get("bits_per_item", {}).items()}
        for name, value in ({"mean": mean_bits(row)} | forms if forms else {}).items():
            bits.setdefault(name, []).append((row["step"], value))
        for name, found in {**row.get("directions", {}), **row.get("completions", {})}.items():
            if "accuracy" in found:
                shares.setdefault(arrow(name), []).append((row["step"], found["accuracy"]))
    both: list[tuple[Series, str, float | None]] = [(bits, "bits per item", None), (shares, "accuracy", 1.0)]
    panels = [panel for panel in both if panel[0]]
    figure = new_figure(5.6 * max(1, len(panels)), 3.6, theme)
    for axes, (series, label, top) in zip(figure.subplots(1, max(1, len(panels)), squeeze=False)[0], panels):
        lines = [Line(name, *zip(*points, strict=True)) for name, points in series.items()]
        colours = draw_lines(dress(axes, theme), lines, "mean", theme)
        axes.set(xlim=(0, max([1, *(line.x[-1] for line in lines)])), ylim=(0, top))
        axes.set(xlabel="step", ylabel=f"{label}, {rows[0]['split']}")
        name_ends(axes, {line.name: line.y[-1] for line in lines}, colours, values=True)
    return figure
