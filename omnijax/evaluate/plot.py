"""Evaluations over the steps of a run, as a picture beside its data."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from omnijax.evaluate.history import mean_bits
from omnijax.report.curves import spread
from omnijax.report.theme import DOTS_PER_INCH, LIGHT, Theme, dress, new_figure

PICTURE = "evaluations.png"
Points = list[tuple[int, float]]


def write_plot(rows: Sequence[dict[str, Any]], path: Path) -> Path:
    """Draws what is known of a run's checkpoints over their steps.

    Args:
        rows: of `rows.history`.
        path: of the picture, a PNG.
    """
    steps_figure(rows, LIGHT).savefig(path, format="png", dpi=DOTS_PER_INCH)
    return path


def steps_figure(rows: Sequence[dict[str, Any]], theme: Theme) -> Figure:
    """Bits of an item by form and their mean, and, where they were measured, shares of what came out right.

    Args:
        rows: of one run, by rising step.
        theme: colours.
    """
    both = ((_bits(rows), "bits an item", None), (_shares(rows), "share of right digits", 1.0))
    panels = [panel for panel in both if panel[0]]
    figure = new_figure(5.6 * max(1, len(panels)), 3.6, theme)
    for axes, panel in zip(figure.subplots(1, max(1, len(panels)), squeeze=False)[0], panels, strict=False):
        series, label, top = panel
        _draw(dress(axes, theme), series, top, theme)
        axes.set(xlabel="step", ylabel=f"{label}, held-out data")
    return figure


def _bits(rows: Sequence[dict[str, Any]]) -> dict[str, Points]:
    measured = [row for row in rows if "bits_per_item" in row]
    series: dict[str, Points] = {"mean": [(row["step"], mean_bits(row)) for row in measured]} if measured else {}
    for row in measured:
        for form, entry in row["bits_per_item"].items():
            series.setdefault(form, []).append((row["step"], entry["renormalised"]))
    return series


def _shares(rows: Sequence[dict[str, Any]]) -> dict[str, Points]:
    series: dict[str, Points] = {}
    for row in rows:
        shares, halves = dict(row.get("directions", {})), row.get("completions", {})
        shares |= {f"from the {half} half": found["accuracy"] for half, found in halves.items()}
        for name, share in shares.items():
            series.setdefault(name.replace("->", " → "), []).append((row["step"], share))
    return series


def _draw(axes: Axes, series: dict[str, Points], top: float | None, theme: Theme) -> None:
    """Lines with a name at their right ends."""
    last = max(step for points in series.values() for step, _ in points)
    colours = [theme.ink if name == "mean" else theme.series[n % len(theme.series)] for n, name in enumerate(series)]
    for points, colour in zip(series.values(), colours, strict=True):
        axes.plot(
            *zip(*points, strict=True),
            color=colour,
            linewidth=1.9 if colour == theme.ink else 1.4,
            marker=".",
            clip_on=False,
        )
    axes.grid(axis="y", color=theme.line, linewidth=0.6)
    axes.set(xlim=(0, max(last, 1)))
    axes.set_ylim(0, top)
    ends = [points[-1][1] for points in series.values()]
    heights = spread(ends, 0.06 * axes.get_ylim()[1])
    for name, end, height, colour in zip(series, ends, heights, colours, strict=True):
        axes.annotate(
            f"{name} {end:.2f}",
            (last, height),
            xytext=(7, 0),
            textcoords="offset points",
            color=colour,
            fontsize=8.5,
            va="center",
            annotation_clip=False,
        )
