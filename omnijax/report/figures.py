"""Figures of signals and judgements: digits side by side, spectrograms, confusion matrices."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from omnijax.report.theme import Theme, dress, new_figure

_WINDOW_SAMPLES = 256
_HOP_SAMPLES = 64
_RANGE_DECIBELS = 60.0


def sample_grid(
    rows: dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]], classes: int, peak: int, each: int, theme: Theme
) -> Figure:
    """Images by class, one block of rows for each origin; a frame marks an image that was judged another class.

    Args:
        rows: name of the block -> (images uint8 [n, height, width], labels int [n], judged int [n]).
        classes: columns.
        peak: value of full ink.
        each: images shown of a class, at most.
        theme: colours.
    """
    depths = [min(each, int(np.bincount(labels).max())) for _, labels, _ in rows.values()]
    figure = new_figure(5.2, sum(0.53 * depth + 0.45 for depth in depths), theme)
    panels = np.ravel(figure.subplots(len(rows), 1, height_ratios=depths))
    for axes, depth, (name, (images, labels, judged)) in zip(panels, depths, rows.items()):
        dress(axes, theme)
        height, width = images.shape[1:]
        mosaic = np.zeros((depth * (height + 1) + 1, classes * (width + 1) + 1))
        for column in range(classes):
            for place, index in enumerate(np.flatnonzero(labels == column)[:depth]):
                top, left = place * (height + 1) + 1, column * (width + 1) + 1
                mosaic[top : top + height, left : left + width] = images[index]
                if judged[index] != column:
                    corner = (left - 0.9, top - 0.9)
                    frame = Rectangle(corner, width + 0.8, height + 0.8, fill=False, edgecolor=theme.warning, lw=1.6)
                    axes.add_patch(frame)
        shades = LinearSegmentedColormap.from_list("ink", [theme.paper, theme.ink])
        axes.imshow(mosaic, cmap=shades, vmin=0, vmax=peak, interpolation="nearest")
        axes.set_xticks([(width + 1) * (i + 0.5) for i in range(classes)], [str(i) for i in range(classes)])
        axes.set_yticks([])
        axes.tick_params(length=0)
        axes.set_title(name, loc="left", fontsize=9.5, color=theme.ink, pad=3)
        for spine in axes.spines.values():
            spine.set_visible(False)
    return figure


class Completions(NamedTuple):
    """Pictures that a model completed; uint8 [n, height, width] unless another is said."""

    real: np.ndarray
    pictures: np.ndarray
    given: np.ndarray
    """bool [height, width], the pixels that were known."""
    labels: np.ndarray
    """int [n], the true digits."""
    judged: np.ndarray
    """int [n], what the judge read in each of `pictures`."""


_COMPLETION_LINES = ("given", "completed", "real")


def completion_grid(blocks: dict[str, Completions], classes: int, peak: int, each: int, theme: Theme) -> Figure:
    """What was known of pictures, how they were completed, and what they really are, by class.

    Args:
        blocks: title of the block -> its pictures.
        classes: columns.
        peak: value of full ink.
        each: pictures shown of a class, at most.
        theme: colours; unknown pixels are tinted, and a frame marks a picture in which another digit was judged.
    """
    depths = [min(each, int(np.bincount(block.labels).max())) for block in blocks.values()]
    count = len(_COMPLETION_LINES)
    figure = new_figure(5.2, sum(0.51 * count * depth + 0.5 for depth in depths), theme)
    shades = LinearSegmentedColormap.from_list("ink", [theme.paper, theme.ink]).with_extremes(bad=theme.line)
    panels = np.ravel(figure.subplots(len(blocks), 1, height_ratios=depths))
    for axes, depth, (title, block) in zip(panels, depths, blocks.items()):
        dress(axes, theme)
        height, width = block.given.shape
        tops = [(height + 1) * line + 1 + 3 * (line // count) for line in range(depth * count)]
        mosaic = np.zeros((tops[-1] + height + 1, classes * (width + 1) + 1))
        for column in range(classes):
            left = column * (width + 1) + 1
            for place, index in enumerate(np.flatnonzero(block.labels == column)[:depth]):
                known = np.where(block.given, block.real[index].astype(np.float64), np.nan)
                lines = (known, block.pictures[index], block.real[index])
                for top, picture in zip(tops[place * count :], lines):
                    mosaic[top : top + height, left : left + width] = picture
                if block.judged[index] != column:
                    corner = (left - 0.9, tops[place * count + 1] - 0.9)
                    frame = Rectangle(corner, width + 0.8, height + 0.8, fill=False, edgecolor=theme.warning, lw=1.6)
                    axes.add_patch(frame)
        axes.imshow(np.ma.masked_invalid(mosaic), cmap=shades, vmin=0, vmax=peak, interpolation="nearest")
        axes.set_xticks([(width + 1) * (i + 0.5) for i in range(classes)], [str(i) for i in range(classes)])
        axes.set_yticks([top + height / 2 - 0.5 for top in tops], _COMPLETION_LINES * depth)
        axes.tick_params(length=0)
        axes.set_title(title, loc="left", fontsize=9.5, color=theme.ink, pad=3)
        for spine in axes.spines.values():
            spine.set_visible(False)
    return figure


def spectrum(waveform: np.ndarray, seconds: float, sample_rate_hz: int) -> np.ndarray:
    """Short-time power of float [n] padded to `seconds`: decibels relative to its peak, [frequencies, frames]."""
    samples = max(int(seconds * sample_rate_hz), _WINDOW_SAMPLES)
    padded = np.zeros(samples)
    padded[: min(len(waveform), samples)] = waveform[:samples]
    frames = np.lib.stride_tricks.sliding_window_view(padded, _WINDOW_SAMPLES)[::_HOP_SAMPLES]
    power = np.abs(np.fft.rfft(frames * np.hanning(_WINDOW_SAMPLES), axis=1)).T ** 2
    decibels: np.ndarray = 10 * np.log10(power + 1e-12)
    decibels -= decibels.max()
    return decibels


def spectrogram(waveform: np.ndarray, seconds: float, sample_rate_hz: int, theme: Theme) -> Figure:
    """Spectrogram of a waveform, float [n], on a time axis of `seconds`."""
    figure = new_figure(2.1, 1.55, theme)
    axes = dress(figure.add_subplot(), theme)
    picture = spectrum(waveform, seconds, sample_rate_hz)
    extent = (0.0, seconds, 0.0, sample_rate_hz / 2000)
    axes.imshow(picture, cmap="magma", origin="lower", aspect="auto", extent=extent, vmin=-_RANGE_DECIBELS, vmax=0)
    ticks = np.arange(0, seconds, 0.25 if seconds < 1 else 0.5)
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.set_yticks(np.arange(0, sample_rate_hz / 2000, 2))
    axes.set(xlabel="seconds", ylabel="kHz")
    return figure


def confusion(counts: np.ndarray, theme: Theme) -> Figure:
    """How often each true class (row) was judged as each class (column, the last one: none), int [c, c + 1]."""
    classes = len(counts)
    figure = new_figure(3.1, 2.95, theme)
    axes = dress(figure.add_subplot(), theme)
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    heat = LinearSegmentedColormap.from_list("heat", theme.heat)
    axes.imshow(share, cmap=heat, vmin=0, vmax=1)
    for row, column in np.argwhere(counts > 0):
        colour = theme.paper if share[row, column] > 0.5 else theme.ink
        axes.text(column, row, str(counts[row, column]), ha="center", va="center", fontsize=7.5, color=colour)
    axes.axvline(classes - 0.5, color=theme.line, linewidth=1)
    axes.set_xticks(range(classes + 1), [*map(str, range(classes)), "–"])
    axes.set_yticks(range(classes), [str(i) for i in range(classes)])
    axes.tick_params(length=0)
    axes.set(xlabel="judged", ylabel="true digit")
    for spine in axes.spines.values():
        spine.set_visible(True)
    return figure
