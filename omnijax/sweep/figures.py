"""Figures of a sweep: arms held side by side, against their base, over time and FLOPs, by digit place."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from omnijax.report.curves import spread
from omnijax.report.theme import DARK, Theme, dress, new_figure
from omnijax.sweep.numbers import quantity
from omnijax.sweep.statistics import Interval

_WIDTH = 5.0
_SMALL = 8.5
_MOST_TICKS = 8
_LABEL_SHARE = 0.07  # of an axis, that a label takes


class Mark(NamedTuple):
    """An arm in a figure of rows.

    Attributes:
        label: its name.
        value: over seeds; of no seed at all where it is missing.
        seeds: the values themselves.
    """

    label: str
    value: Interval
    seeds: Sequence[float]


class Line(NamedTuple):
    """A curve.

    Attributes:
        label: name of the arm.
        mean: (x, y), float [n] each: over seeds.
        seeds: likewise, of each seed.
    """

    label: str
    mean: tuple[np.ndarray, np.ndarray]
    seeds: Sequence[tuple[np.ndarray, np.ndarray]]


def colours_of(names: Sequence[str], baseline: str, theme: Theme) -> dict[str, str]:
    """A colour for each arm: ink for the baseline, hues that are told apart for a few, a scale in order for many."""
    others = [name for name in names if name != baseline]
    if len(others) <= len(theme.series):
        found = dict(zip(others, theme.series))
    else:
        low, high = (0.35, 1.0) if theme == DARK else (0.0, 0.8)
        scale = matplotlib.colormaps["plasma"]
        found = {name: to_hex(scale(place)) for name, place in zip(others, np.linspace(low, high, len(others)))}
    return found | {baseline: theme.ink}


def rows_figure(
    marks: Sequence[Mark], baseline: str, anchors: Mapping[str, float], label: str, theme: Theme, log: bool = False
) -> Figure:
    """Arms below each other: mean and interval, every seed as a dot, the baseline's mean as a line; anchors beside it.

    Args:
        marks: the arms, from top to bottom; those without values are named as missing.
        baseline: name of the arm whose mean gets a line through all rows.
        anchors: name -> value: outside figures of the same unit, each a row below the arms.
        label: of the axis.
        theme: colours.
        log: scale of the axis.
    """
    outside = sorted(anchors.items(), key=lambda pair: pair[1])
    names = [*(mark.label for mark in marks), *(name for name, _ in outside)]
    figure = new_figure(_WIDTH, 0.65 + 0.27 * len(names), theme)
    axes = dress(figure.add_subplot(), theme)
    axes.grid(axis="x", color=theme.line, linewidth=0.6)
    axes.set_axisbelow(True)
    if log:
        axes.set_xscale("log")
    for row, mark in enumerate(marks):
        if not mark.value.count:
            axes.annotate(
                "no result",
                (0.02, row),
                xycoords=("axes fraction", "data"),
                color=theme.warning,
                fontsize=_SMALL,
                va="center",
                style="italic",
            )
            continue
        colour = theme.ink if mark.label == baseline else theme.series[0]
        axes.plot(mark.seeds, [row] * len(mark.seeds), ".", color=colour, alpha=0.35, markersize=5)
        if math.isfinite(mark.value.low):
            axes.plot([mark.value.low, mark.value.high], [row, row], color=colour, linewidth=1.6)
        axes.plot(mark.value.mean, row, "o", color=colour, markersize=5.5)
        if mark.label == baseline:
            axes.axvline(mark.value.mean, color=theme.ink, linewidth=0.9, linestyle=(0, (4, 3)), alpha=0.6)
    for row, (_, value) in enumerate(outside, start=len(marks)):
        axes.plot(value, row, "D", color=theme.series[1], markersize=5)
        axes.axvline(value, color=theme.series[1], linewidth=0.7, alpha=0.35)
    _frame(axes, marks, list(anchors.values()))
    axes.set_yticks(range(len(names)), [_shortened(name, 40) for name in names], fontsize=9)
    for tick, name in zip(axes.get_yticklabels(), names):
        tick.set_color(theme.series[1] if name in anchors else theme.ink)
        tick.set_fontweight("bold" if name == baseline else "normal")
    axes.set(xlabel=label, ylim=(len(names) - 0.4, -0.6))
    return figure


def _frame(axes: Axes, marks: Sequence[Mark], others: Sequence[float]) -> None:
    """Keeps one very wide interval (of two seeds) from pressing all the rest together; it goes on beyond the edge."""
    values = [*others, *(value for mark in marks for value in mark.seeds)]
    ends = [end for mark in marks for end in (mark.value.low, mark.value.high) if math.isfinite(end)]
    if not values or not ends or axes.get_xscale() == "log":
        return
    room = 2.0 * (max(values) - min(values)) or abs(max(values)) or 1.0
    low, high = axes.get_xlim()
    axes.set_xlim(max(low, min(values) - room), min(high, max(values) + room))


def base_figure(bases: Mapping[int, Interval], others: Mapping[str, Interval], label: str, theme: Theme) -> Figure:
    """Against the base on a scale of powers of two; arms that have no base of their own as lines.

    Args:
        bases: base -> value over seeds.
        others: name -> value over seeds, of further arms.
        label: of the vertical axis.
        theme: colours.
    """
    figure = new_figure(_WIDTH, 3.2, theme)
    axes = dress(figure.add_subplot(), theme)
    axes.grid(axis="y", color=theme.line, linewidth=0.6)
    places = sorted(bases)
    means = np.array([bases[base].mean for base in places])
    lows = np.array([bases[base].low for base in places])
    highs = np.array([bases[base].high for base in places])
    axes.plot(places, means, "o-", color=theme.series[0], linewidth=1.5, markersize=5)
    drawn = np.isfinite(lows)
    axes.vlines(np.array(places)[drawn], lows[drawn], highs[drawn], color=theme.series[0], linewidth=1.5)
    axes.set_xscale("log", base=2)
    axes.set_xticks(places, _base_labels(places))
    axes.minorticks_off()
    every = [*means, *(one.mean for one in others.values())]
    room = 0.35 * (max(every) - min(every)) or 0.05 * abs(max(every)) or 1.0
    low, high = axes.get_ylim()
    axes.set_ylim(max(low, min(every) - room), min(max(high, max(every) + room / 4), max(every) + room))
    named = {name: one.mean for name, one in others.items()}
    for number, mean in enumerate(named.values()):
        axes.axhline(mean, color=theme.series[1 + number % 5], linewidth=1.1, linestyle=(0, (4, 3)))
    _name_ends(axes, named, {name: theme.series[1 + k % 5] for k, name in enumerate(named)})
    axes.set(xlabel="base", ylabel=label)
    return figure


def _base_labels(places: Sequence[int]) -> list[str]:
    """Labels of bases, a line lower where one would lie on the one before."""
    room = _LABEL_SHARE * math.log2(max(places) / min(places))
    labels, before, lower = [], -math.inf, False
    for base in places:
        lower = math.log2(base) - before < room and not lower
        labels.append(f"\n{base:,}" if lower else f"{base:,}")
        before = math.log2(base)
    return labels


def curves_figure(lines: Sequence[Line], baseline: str, label: str, below: str, theme: Theme) -> Figure:
    """Held-out bits over what was spent: a line an arm, named at its right end; faint ones for its seeds.

    Args:
        lines: one for each arm.
        baseline: its line is thick, and where it ends another goes through the whole figure.
        label: of the vertical axis.
        below: of the horizontal one, which is logarithmic.
        theme: colours.
    """
    figure = new_figure(_WIDTH, max(3.2, 0.21 * len(lines) + 1.2), theme)
    axes = dress(figure.add_subplot(), theme)
    axes.grid(axis="y", color=theme.line, linewidth=0.6)
    axes.set_xscale("log")
    colours = colours_of([line.label for line in lines], baseline, theme)
    for line in lines:
        colour = colours[line.label]
        for x, y in line.seeds:
            axes.plot(x, y, color=colour, linewidth=0.6, alpha=0.3)
        axes.plot(*line.mean, color=colour, linewidth=2.2 if line.label == baseline else 1.4)
        axes.plot(line.mean[0][-1], line.mean[1][-1], "o", color=colour, markersize=4)
        if line.label == baseline:
            axes.axhline(line.mean[1][-1], color=colour, linewidth=0.8, linestyle=(0, (4, 3)), alpha=0.6)
    ends = [float(line.mean[1][-1]) for line in lines]
    # The first points of a slow arm lie far up, and would press together what is to be told apart.
    starts = [float(line.mean[1][min(1, len(line.mean[1]) - 1)]) for line in lines]
    span = max(max(starts) - min(ends), 2 * (max(ends) - min(ends)), 1e-3 * abs(min(ends)))
    axes.set_ylim(min(ends) - 0.06 * span, min(axes.get_ylim()[1], min(ends) + 1.15 * span))
    _name_ends(axes, {line.label: float(line.mean[1][-1]) for line in lines}, colours)
    axes.set(xlabel=below, ylabel=label)
    _log_ticks(axes, *axes.get_xlim())
    return figure


def _log_ticks(axes: Axes, low: float, high: float) -> None:
    """Ticks at 1, 2 and 5 of each power of ten, or at fewer of them where they would lie on each other."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for digits in ((1, 2, 5), (1, 3), (1,)):
        ticks = [digit * 10.0**power for power in powers for digit in digits if low <= digit * 10.0**power <= high]
        if len(ticks) <= _MOST_TICKS:
            break
    else:
        ticks = ticks[:: -(-len(ticks) // _MOST_TICKS)]
    axes.set_xticks(ticks, [quantity(tick) for tick in ticks])
    axes.minorticks_off()


def _name_ends(axes: Axes, ends: Mapping[str, float], colours: Mapping[str, str]) -> None:
    """Names beside the right edge, at the height of the values, moved apart where they would lie on each other."""
    low, high = axes.get_ylim()
    figure = axes.get_figure(root=True)
    assert figure is not None
    inches = figure.get_size_inches()[1] - 0.7  # less what stands below the axes
    gap = 0.165 / inches * (high - low)
    heights = spread(list(ends.values()), gap)
    # What is pushed beyond the top comes down again, and everything with it.
    beyond = max([height - high for height in heights], default=0.0)
    if beyond > 0:
        ceiling = math.inf
        for place in np.argsort(heights)[::-1]:
            heights[place] = min(heights[place], high, ceiling - gap)
            ceiling = heights[place]
    for (name, _), height in zip(ends.items(), heights):
        axes.annotate(
            _shortened(name),
            (1.0, height),
            xycoords=("axes fraction", "data"),
            xytext=(5, 0),
            textcoords="offset points",
            color=colours[name],
            fontsize=_SMALL,
            va="center",
            annotation_clip=False,
        )


def cost_figure(rows: Sequence[tuple[str, float, Interval]], baseline: str, theme: Theme) -> Figure:
    """Cost predicted against cost measured: for each arm both, in units of the baseline's, joined by a line.

    Args:
        rows: arm, predicted ratio, measured one over seeds; NaN where there is none.
        baseline: name of the arm whose cost is 1.
        theme: colours.
    """
    figure = new_figure(_WIDTH, 0.95 + 0.27 * len(rows), theme)
    axes = dress(figure.add_subplot(), theme)
    axes.set_xscale("log")
    axes.grid(axis="x", color=theme.line, linewidth=0.6)
    axes.axvline(1, color=theme.ink, linewidth=0.9, linestyle=(0, (4, 3)), alpha=0.6)
    for row, (_, predicted, measured) in enumerate(rows):
        axes.plot([predicted, measured.mean], [row, row], color=theme.line, linewidth=2, zorder=1)
        first = row == 0
        style: dict[str, Any] = {"markersize": 6, "zorder": 3, "linestyle": "none"}
        axes.plot(
            predicted,
            row,
            "o",
            color=theme.series[1],
            markerfacecolor=theme.paper,
            markeredgewidth=1.4,
            label="predicted" if first else None,
            **style,
        )
        axes.plot(measured.mean, row, "o", color=theme.series[0], label="measured" if first else None, **style)
        if math.isfinite(measured.low) and measured.low > 0:
            axes.plot([measured.low, measured.high], [row, row], color=theme.series[0], linewidth=1.4, zorder=2)
    shown = [value for _, predicted, measured in rows for value in (predicted, measured.mean) if value > 0]
    low, high = min([1.0, *shown]), max([1.0, *shown])
    axes.set_xlim(low / 1.25, high * 1.25)
    _log_ticks(axes, low / 1.25, high * 1.25)
    axes.set_yticks(range(len(rows)), [_shortened(name) for name, _, _ in rows], fontsize=9)
    for tick, (name, _, _) in zip(axes.get_yticklabels(), rows):
        tick.set_color(theme.ink)
        tick.set_fontweight("bold" if name == baseline else "normal")
    axes.set(xlabel="cost of an item, in units of the baseline's", ylim=(len(rows) - 0.4, -0.6))
    axes.legend(
        loc="lower center",
        bbox_to_anchor=(0.5, 1.0),
        ncols=2,
        frameon=False,
        fontsize=_SMALL,
        labelcolor=theme.ink,
        handletextpad=0.1,
    )
    return figure


def places_figure(places: Mapping[str, Sequence[Interval]], baseline: str, theme: Theme) -> Figure:
    """Share of digits that are guessed right, by digit place: a line an arm, whose last point is its last place."""
    figure = new_figure(_WIDTH, max(3.0, 0.21 * len(places) + 1.0), theme)
    axes = dress(figure.add_subplot(), theme)
    axes.grid(axis="y", color=theme.line, linewidth=0.6)
    colours = colours_of(list(places), baseline, theme)
    for name, found in places.items():
        means = [one.mean for one in found]
        wide = 2.2 if name == baseline else 1.4
        axes.plot(range(len(means)), means, "o-", color=colours[name], linewidth=wide, markersize=4)
    longest = max(len(found) for found in places.values())
    every = max(1, math.ceil(longest / 12))
    axes.set_xticks(range(0, longest, every), [str(place) for place in range(0, longest, every)])
    lowest = min(one.mean for found in places.values() for one in found)
    axes.set_ylim(max(0.0, lowest - 0.06), 1.02)
    axes.set(xlabel="digit place, 0 the most significant", ylabel="share guessed right")
    _name_ends(axes, {name: found[-1].mean for name, found in places.items()}, colours)
    return figure


def _shortened(name: str, most: int = 30) -> str:
    """A name that leaves room for the figure: its middle goes first."""
    return name if len(name) <= most else f"{name[: most // 2]}…{name[-(most // 2 - 1) :]}"
