"""Figures of a sweep: all arms, and bits against the base, training time and FLOPs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

from omnijax.report.curves import SMALL, Line, draw_lines, name_ends, shortened
from omnijax.report.theme import Theme, dress, new_figure
from omnijax.sweep.numbers import quantity
from omnijax.sweep.statistics import Interval, interval

_WIDTH = 5.0
_DASHED = (0, (4, 3))


def rows_figure(
    arms: Mapping[str, Sequence[float]], baseline: str, anchors: Mapping[str, float], label: str, theme: Theme
) -> Figure:
    """Arms from top to bottom: mean and interval, a dot for every seed, and a line at the baseline's mean.

    Args:
        arms: values of the seeds of each arm; without values it is shown as missing.
        baseline: name of the arm with the line.
        anchors: name -> value of reference values with the same unit; each gets a row below the arms.
        label: of the axis.
        theme: colours.
    """
    names = [*arms, *sorted(anchors, key=lambda name: anchors[name])]
    figure, axes = _axes(0.65 + 0.27 * len(names), theme, "x")
    for row, (name, values) in enumerate(arms.items()):
        if not values:
            place = axes.get_yaxis_transform()
            axes.text(0.02, row, "no result", transform=place, color=theme.warning, fontsize=SMALL, va="center")
            continue
        colour, found = theme.ink if name == baseline else theme.series[0], interval(values)
        axes.plot(values, [row] * len(values), ".", color=colour, alpha=0.35, markersize=5)
        axes.plot([found.low, found.high], [row, row], color=colour, linewidth=1.6)
        axes.plot(found.mean, row, "o", color=colour, markersize=5.5)
        if name == baseline:
            axes.axvline(found.mean, color=theme.ink, linewidth=0.9, linestyle=_DASHED, alpha=0.6)
    for row, name in enumerate(names[len(arms) :], start=len(arms)):
        axes.plot(anchors[name], row, "D", color=theme.series[1], markersize=5)
        axes.axvline(anchors[name], color=theme.series[1], linewidth=0.7, alpha=0.35)
    # Very wide intervals (of two seeds) are cut off: they would press all values together.
    if shown := [*anchors.values(), *(value for values in arms.values() for value in values)]:
        room = 2.0 * (max(shown) - min(shown)) or abs(max(shown)) or 1.0
        low, high = axes.get_xlim()
        axes.set_xlim(max(low, min(shown) - room), min(high, max(shown) + room))
    axes.set_yticks(range(len(names)), [shortened(name, 40) for name in names], fontsize=9)
    for tick, name in zip(axes.get_yticklabels(), names):
        tick.set_color(theme.series[1] if name in anchors else theme.ink)
        tick.set_fontweight("bold" if name == baseline else "normal")
    axes.set(xlabel=label, ylim=(len(names) - 0.4, -0.6))
    return figure


def base_figure(bases: Mapping[int, Interval], others: Mapping[str, Interval], label: str, theme: Theme) -> Figure:
    """Against the base, on a scale of powers of two.

    Args:
        bases: base -> value over seeds.
        others: name -> value over seeds of arms without a base; each is a horizontal line.
        label: of the vertical axis.
        theme: colours.
    """
    figure, axes = _axes(3.2, theme, "y")
    bases = dict(sorted(bases.items()))
    for base, found in bases.items():
        axes.plot([base, base], [found.low, found.high], color=theme.series[0], linewidth=1.5)
    means = [found.mean for found in bases.values()]
    axes.plot([*bases], means, "o-", color=theme.series[0], linewidth=1.5, markersize=5)
    axes.set_xscale("log", base=2)
    # Neighbouring labels are on different lines, since bases such as 16 and 17 would overlap.
    axes.set_xticks([*bases], ["\n" * (number % 2) + f"{base:,}" for number, base in enumerate(bases)])
    axes.minorticks_off()
    ends = {name: found.mean for name, found in others.items()}
    every = [*means, *ends.values()]
    room = 0.35 * (max(every) - min(every)) or 0.05 * abs(max(every)) or 1.0
    low, high = axes.get_ylim()
    axes.set_ylim(max(low, min(every) - room), min(max(high, max(every) + room / 4), max(every) + room))
    colours = dict(zip(ends, theme.series[1:]))
    for name, mean in ends.items():
        axes.axhline(mean, color=colours[name], linewidth=1.1, linestyle=_DASHED)
    name_ends(axes, ends, colours)
    axes.set(xlabel="base", ylabel=label)
    return figure


def curves_figure(lines: Sequence[Line], baseline: str, label: str, below: str, theme: Theme) -> Figure:
    """Held-out bits against what was spent: a named line for each arm, and thin lines for its seeds.

    Args:
        lines: one for each arm.
        baseline: its line is thick, and its last value is a dashed line.
        label: of the vertical axis.
        below: of the horizontal axis, which is logarithmic.
        theme: colours.
    """
    figure, axes = _axes(max(3.2, 0.21 * len(lines) + 1.2), theme, "y")
    axes.set_xscale("log")
    colours = draw_lines(axes, lines, baseline, theme)
    ends = {line.name: float(line.y[-1]) for line in lines}
    if baseline in ends:
        axes.axhline(ends[baseline], color=colours[baseline], linewidth=0.8, linestyle=_DASHED, alpha=0.6)
    # The first points of a slow arm lie far up, and would press the ends together.
    low, high = min(ends.values()), max(ends.values())
    span = max([2 * (high - low), 1e-3 * abs(low), *(float(line.y[:2][-1]) - low for line in lines)])
    axes.set_ylim(low - 0.06 * span, min(axes.get_ylim()[1], low + 1.15 * span))
    name_ends(axes, ends, colours)
    axes.set(xlabel=below, ylabel=label)
    # Ticks at 1, 2 and 5 of each power of ten; only at 1 if there are many powers.
    low, high = axes.get_xlim()
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high / low < 100 else (1,)))
    axes.xaxis.set_major_formatter(lambda value, _: quantity(value))
    axes.minorticks_off()
    return figure


def _axes(height: float, theme: Theme, grid: Literal["x", "y"]) -> tuple[Figure, Axes]:
    figure = new_figure(_WIDTH, height, theme)
    return figure, dress(figure.add_subplot(), theme, grid)
