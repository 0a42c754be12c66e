"""Figures of numbers: loss by kind of token and by digit place, bits in an item."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from omnijax.report.theme import Theme, dress, new_figure

_DIGIT = "loss/digit_"
_SMOOTHING = 5


def loss_kinds(metrics: list[dict[str, float]]) -> list[str]:
    """Names of the loss terms by kind of token other than digits, in the order in which they first occur."""
    names = dict.fromkeys(key for entry in metrics for key in entry if key.startswith("loss/"))
    return [name for name in names if not name.startswith(_DIGIT)]


def loss_places(metrics: list[dict[str, float]]) -> list[str]:
    """Names of the loss terms by digit place, most significant first."""
    names = {key for entry in metrics for key in entry if key.startswith(_DIGIT)}
    return sorted(names, key=lambda name: int(name.removeprefix(_DIGIT)))


def curve(metrics: list[dict[str, float]], name: str) -> tuple[np.ndarray, np.ndarray]:
    """Steps and values, float [n] each, of the logged steps that have a finite number of this name."""
    points = [(entry["step"], entry[name]) for entry in metrics if name in entry and np.isfinite(entry[name])]
    steps, values = np.array(points, dtype=np.float64).reshape(-1, 2).T
    return steps, values


def smooth(values: np.ndarray) -> np.ndarray:
    """Centred running mean, float [n]; nearer than half a window to an end, the window shrinks on both sides."""
    half = [min(i, len(values) - 1 - i, _SMOOTHING // 2) for i in range(len(values))]
    return np.array([values[i - h : i + h + 1].mean() for i, h in enumerate(half)])


def spread(heights: list[float], gap: float) -> list[float]:
    """Move labels up, as little as needed, until any two are at least `gap` apart."""
    moved = list(heights)
    lowest = -np.inf
    for i in np.argsort(heights, kind="stable"):
        moved[i] = lowest = max(moved[i], lowest + gap)
    return moved


def loss_figure(metrics: list[dict[str, float]], names: list[str], labels: list[str], theme: Theme) -> Figure:
    """Loss curves, each named at its right end with its last value; a line through running means, points behind."""
    figure = new_figure(4.7, 3.4, theme)
    axes = dress(figure.add_subplot(), theme)
    colours = [theme.ink if name == "loss" else theme.series[i % len(theme.series)] for i, name in enumerate(names)]
    ends, last_step = [], 1.0
    for name, colour in zip(names, colours):
        steps, values = curve(metrics, name)
        line = smooth(values)
        axes.plot(steps, values, color=colour, linewidth=0.6, alpha=0.35)
        axes.plot(steps, line, color=colour, linewidth=1.9 if name == "loss" else 1.5)
        ends.append(float(line[-1]))
        last_step = max(last_step, float(steps[-1]))
    axes.set(xlim=(0, last_step), xlabel="step", ylabel="loss, nats per token")
    axes.set_ylim(bottom=0)
    axes.grid(axis="y", color=theme.line, linewidth=0.6)
    for label, end, height, colour in zip(labels, ends, spread(ends, 0.068 * axes.get_ylim()[1]), colours):
        axes.annotate(
            f"{label} {end:.2f}",
            (last_step, height),
            xytext=(6, 0),
            textcoords="offset points",
            color=colour,
            fontsize=9.5,
            va="center",
            annotation_clip=False,
        )
    return figure


def bits_figure(bits: dict[str, dict[str, Any]], theme: Theme) -> Figure:
    """Bits in an item of each modality, stacked: its digits by place, its position token, or a general token."""
    figure = new_figure(4.7, 0.75 + 0.6 * len(bits), theme)
    axes = dress(figure.add_subplot(), theme)
    axes.grid(axis="x", color=theme.line, linewidth=0.6)
    axes.set_axisbelow(True)
    widest = max(max(float(entry["raw"]), sum(part[1] for part in bit_parts(entry))) for entry in bits.values())
    for row, entry in enumerate(bits.values()):
        left = 0.0
        for part, value in bit_parts(entry):
            place = part.removeprefix("digit ")
            colour = theme.places[min(int(place), len(theme.places) - 1)] if place.isdigit() else theme.series[1]
            if part == "token":
                colour = theme.series[2]
            axes.barh(row, value, left=left, height=0.56, color=colour, edgecolor=theme.paper, linewidth=1.2)
            if value > 0.16 * widest:
                bright = sum(int(colour[i : i + 2], 16) for i in (1, 3, 5)) > 380
                text_colour = "#101418" if bright else "#ffffff"
                axes.text(
                    left + value / 2,
                    row,
                    f"{part} {value:.1f}",
                    color=text_colour,
                    fontsize=8.5,
                    ha="center",
                    va="center",
                )
            left += value
        axes.annotate(
            f"{left:.2f}",
            (left, row),
            xytext=(5, 0),
            textcoords="offset points",
            fontsize=9,
            color=theme.ink,
            va="center",
        )
    axes.set_yticks(range(len(bits)), list(bits), color=theme.ink, fontsize=10)
    axes.set(xlabel="bits in an item", xlim=(0, widest * 1.12), ylim=(len(bits) - 0.5, -0.5))
    return figure


def bit_parts(entry: dict[str, Any]) -> list[tuple[str, float]]:
    """The parts of an item's bits, in the order in which they are written; a general token is one part."""
    parts = [(f"digit {place}", float(value)) for place, value in enumerate(entry["by_place"])]
    if not parts:
        return [("token", float(entry["raw"]))]
    return [*parts, ("position", float(entry["position"]))] if entry["position"] > 0 else parts
