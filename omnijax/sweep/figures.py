"""Figures of a sweep: all arms, and bits against the base, training time and FLOPs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

from omnijax.report.curves import Line, draw_lines, name_ends, shortened
from omnijax.report.theme import Theme, dress, new_figure
from omnijax.sweep.statistics import interval, quantity

_WIDTH = 5.0
_DASHED = (0, (4, 3))


def rows_figure(
    arms: Mapping[str, Sequence[float]], baseline: str, anchors: Mapping[str, float], label: str, theme: Theme
) -> Figure:
    """Arms from top to bottom: mean and interval, a dot for every seed, and a dashed line at the mean of the baseline.

    `arms` are the values of the seeds of each arm; without values its row is empty. `anchors` are reference values with
    the same unit, by name; each gets a diamond in a row below the arms. `label` is that of the axis.
    """
    names = [*arms, *sorted(anchors, key=lambda name: anchors[name])]
    figure = new_figure(_WIDTH, 0.65 + 0.27 * len(names), theme)
    axes = dress(figure.add_subplot(), theme, "x")
    for row, (name, values) in enumerate(arms.items()):
        colour, found = theme.ink if name == baseline else theme.series[0], interval(values)
        axes.plot(values, [row] * len(values), ".", color=colour, alpha=0.35, markersize=5)
        axes.errorbar(found.mean, row, xerr=found.half, fmt="o", color=colour, linewidth=1.6, markersize=5.5)
        if name == baseline:
            axes.axvline(found.mean, color=theme.ink, linewidth=0.9, linestyle=_DASHED, alpha=0.6)
    places = [anchors[name] for name in names[len(arms) :]]
    axes.plot(places, range(len(arms), len(names)), "D", color=theme.series[1], markersize=5)
    # Very wide intervals (of two seeds) are cut off: they would press all values together.
    if shown := [*places, *(value for values in arms.values() for value in values)]:
        room = 2.0 * (max(shown) - min(shown)) or abs(max(shown)) or 1.0
        low, high = axes.get_xlim()
        axes.set_xlim(max(low, min(shown) - room), min(high, max(shown) + room))
    axes.set_yticks(range(len(names)), [shortened(name, 40) for name in names], fontsize=9, color=theme.ink)
    axes.set(xlabel=label, ylim=(len(names) - 0.4, -0.6))
    return figure


def curves_figure(
    lines: Sequence[Line], baseline: str, label: str, below: str, theme: Theme, skipped: int = 1
) -> Figure:
    """Held-out bits against the base, or against what was spent: a named line for each arm, thin lines for its seeds.

    The line of the baseline is thick, and its last value is a dashed line. `label` is that of the vertical axis, and
    `below` that of the horizontal one, which is logarithmic. The `skipped` first points of a line may lie outside:
    those of a slow arm lie far up.
    """
    figure = new_figure(_WIDTH, max(3.2, 0.21 * len(lines) + 1.2), theme)
    axes = dress(figure.add_subplot(), theme)
    axes.set_xscale("log")
    colours = draw_lines(axes, lines, baseline, theme)
    ends = {line.name: float(line.y[-1]) for line in lines}
    if baseline in ends:
        axes.axhline(ends[baseline], color=colours[baseline], linewidth=0.8, linestyle=_DASHED, alpha=0.6)
    shown = np.concatenate([line.y[min(skipped, len(line.y) - 1) :] for line in lines])
    room = 0.06 * np.ptp(shown) or 1e-3 * abs(shown[0]) or 1.0
    axes.set_ylim(shown.min() - room, shown.max() + room)
    name_ends(axes, ends, colours)
    axes.set(xlabel=below, ylabel=label)
    # Ticks at 1, 2 and 5 of each power of ten; only at 1 if there are many powers.
    low, high = axes.get_xlim()
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high / low < 100 else (1,)))
    axes.xaxis.set_major_formatter(lambda value, _: quantity(value))
    axes.minorticks_off()
    return figure
