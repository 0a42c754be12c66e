"""Curves with their names at the right ends, and the loss curves of a run."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from etils import epy

from omnijax.report.theme import DARK, Theme, dress, new_figure

with epy.lazy_imports():  # extras: only whoever draws needs them
    import matplotlib
    import matplotlib.axes
    import matplotlib.colors
    import matplotlib.figure

_DIGIT = "loss/digit_"
_SMOOTHING = 2  # points on each side
_GAP_INCHES, _BELOW_INCHES = 0.165, 0.7  # between two names; of the labels below the axes
SMALL = 8.5
"""Size of the names in a figure, in points."""


class Line(NamedTuple):
    """A curve, float [n] each for x and y, with its name at its right end."""

    name: str
    x: Any
    y: Any
    behind: Sequence[tuple[Any, Any]] = ()
    """(x, y) of thin curves behind it, such as those of its seeds."""


def draw_lines(axes: matplotlib.axes.Axes, lines: Sequence[Line], first: str, theme: Theme) -> dict[str, str]:
    """Draws curves, the one named `first` thick and in ink; returns the colour of each, for `name_ends`."""
    others = [line.name for line in lines if line.name != first]
    hues: Any = theme.series
    if len(others) > len(hues):  # a scale of colours
        hues = matplotlib.colormaps["plasma"](np.linspace(*((0.35, 1.0) if theme == DARK else (0.0, 0.8)), len(others)))
    colours = dict(zip(others, map(matplotlib.colors.to_hex, hues))) | {first: theme.ink}
    for line in lines:
        colour, width = colours[line.name], 2.1 if line.name == first else 1.4
        for x, y in line.behind:
            axes.plot(x, y, color=colour, linewidth=0.6, alpha=0.3)
        axes.plot(line.x, line.y, "o-", color=colour, linewidth=width, markersize=4, markevery=[-1])
    return colours


def name_ends(
    axes: matplotlib.axes.Axes, ends: Mapping[str, float], colours: Mapping[str, str], values: bool = False
) -> None:
    """Writes names, and the `values` if wanted, beside the right edge of axes that have their final limits.

    A name stands at the height of its value in `ends`; they are moved apart where they would overlap.
    """
    low, high = axes.get_ylim()
    figure = axes.get_figure(root=True)
    assert figure is not None
    gap = _GAP_INCHES / (figure.get_size_inches()[1] - _BELOW_INCHES) * (high - low)
    for (name, end), height in zip(ends.items(), spread(list(ends.values()), gap, high)):
        told, place = shortened(name) + f" {end:.2f}" * values, axes.get_yaxis_transform()
        axes.text(1.02, height, told, transform=place, color=colours[name], fontsize=SMALL, va="center")


def spread(heights: list[float], gap: float, highest: float = math.inf) -> list[float]:
    """Moves labels up until any two are at least `gap` apart, and then down until none is above `highest`."""
    moved, lowest = list(heights), -math.inf
    order = np.argsort(heights, kind="stable")
    for place in order:
        moved[place] = lowest = max(moved[place], lowest + gap)
    for place in order[::-1]:
        moved[place] = highest = min(moved[place], highest)
        highest -= gap
    return moved


def shortened(name: str, most: int = 30) -> str:
    """A name without its middle, if it is too long."""
    return name if len(name) <= most else f"{name[: most // 2]}…{name[-(most // 2 - 1) :]}"


def loss_names(metrics: list[dict[str, float]]) -> tuple[list[str], list[str]]:
    """Names of the losses with a finite value: by kind of token, and by digit place, the most significant first."""
    found = [name for name in dict.fromkeys(key for entry in metrics for key in entry) if len(curve(metrics, name)[0])]
    kinds = [name for name in found if name.startswith("loss/") and not name.startswith(_DIGIT)]
    places = sorted((name for name in found if name.startswith(_DIGIT)), key=lambda name: int(name[len(_DIGIT) :]))
    return ["loss"] * ("loss" in found) + kinds, places


def curve(metrics: list[dict[str, float]], name: str) -> tuple[np.ndarray, np.ndarray]:
    """Steps and values, float [n] each, of the logged steps that have a finite number of this name."""
    points = [(entry["step"], entry[name]) for entry in metrics if name in entry and np.isfinite(entry[name])]
    steps, values = np.array(points, dtype=np.float64).reshape(-1, 2).T
    return steps, values


def loss_figure(metrics: list[dict[str, float]], labels: Mapping[str, str], theme: Theme) -> matplotlib.figure.Figure:
    """Running means of some losses by step, with the logged points behind; `labels` has their names for readers."""
    figure = new_figure(4.7, max(3.4, 0.23 * len(labels) + 0.9), theme)
    axes = dress(figure.add_subplot(), theme)
    found = {label: curve(metrics, name) for name, label in labels.items()}
    lines = [
        Line(label, x, [y[max(0, n - _SMOOTHING) : n + _SMOOTHING + 1].mean() for n in range(len(y))], [(x, y)])
        for label, (x, y) in found.items()
    ]
    colours = draw_lines(axes, lines, labels.get("loss", ""), theme)
    axes.set(xlim=(0, max([1.0, *(line.x[-1] for line in lines)])), xlabel="step", ylabel="loss, nats per token")
    axes.set_ylim(bottom=0)
    name_ends(axes, {line.name: float(line.y[-1]) for line in lines}, colours, values=True)
    return figure
