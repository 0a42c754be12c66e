"""How figures look: one theme for light pages, one for dark ones, and the way a figure gets onto the page."""

from __future__ import annotations

import html
import importlib
import pathlib
from collections.abc import Callable
from typing import Literal, NamedTuple

from etils import epy

from omnijax.errors import PlatformError
from omnijax.modalities.inline import data_uri

with epy.lazy_imports():  # extras: only whoever draws needs them
    import matplotlib.axes
    import matplotlib.figure

DOTS_PER_INCH = 180


class Theme(NamedTuple):
    """Colours of a figure; `paper` is the card of the page that it lies on (style.css)."""

    paper: str
    ink: str
    muted: str
    line: str
    series: tuple[str, ...]
    """Told apart by eye and by label."""


_LIGHT = ("#2464ab", "#b9560f", "#2b7d50", "#7a4fb0", "#a8324a", "#127c86")
_DARK = ("#74aef0", "#f0a15e", "#6cc594", "#bb9be6", "#ee8597", "#5fc7d1")
LIGHT = Theme("#ffffff", ink="#1c2026", muted="#5d6673", line="#d9dee5", series=_LIGHT)
DARK = Theme("#1b1f25", ink="#e8eaee", muted="#9aa3af", line="#363d47", series=_DARK)


def new_figure(width_inches: float, height_inches: float, theme: Theme) -> matplotlib.figure.Figure:
    """An empty figure that shares no state with others (nothing here uses pyplot)."""
    return matplotlib.figure.Figure(figsize=(width_inches, height_inches), layout="constrained", facecolor=theme.paper)


def dress(axes: matplotlib.axes.Axes, theme: Theme, grid: Literal["x", "y"] = "y") -> matplotlib.axes.Axes:
    """Colours and sizes of everything around the data, and lines across one axis, behind it."""
    axes.grid(axis=grid, color=theme.line, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.set_facecolor(theme.paper)
    axes.tick_params(colors=theme.muted, labelsize=9, length=2, width=0.7)
    for side, spine in axes.spines.items():
        spine.set_color(theme.line)
        spine.set_visible(side in ("left", "bottom"))
    for axis in (axes.xaxis, axes.yaxis):
        axis.label.set(color=theme.muted, fontsize=9)
    return axes


def check_drawing() -> None:
    """Raises a `PlatformError` if a plotting library isn't installed."""
    try:
        for library in ("matplotlib", "matplotlib.backends.backend_agg"):  # the second one is what draws
            importlib.import_module(library)
    except ImportError as error:
        rule, fix = "the figures of a report need it", "pip install 'omnijax[demo]'"
        raise PlatformError("import", "matplotlib", rule, fix) from error


class Figures:
    """Where figures go: each is written as `NAME.png` and `NAME_dark.png`, and embedded in the page.

    Raises a `PlatformError` if a library that draws isn't installed.
    """

    def __init__(self, directory: pathlib.Path):
        check_drawing()
        self.directory = directory

    def add(self, name: str, paint: Callable[[Theme], matplotlib.figure.Figure], alt: str) -> str:
        """Draws a figure in both themes; returns a `<picture>` with both inside.

        Args:
            name: of the files, without suffix.
            paint: draws the figure in a given theme.
            alt: what the figure shows, for those who don't see it.
        """
        light, dark = self._write(f"{name}.png", paint(LIGHT)), self._write(f"{name}_dark.png", paint(DARK))
        return (
            f'<picture class="wide"><source media="(prefers-color-scheme: dark)" srcset="{dark}">'
            f'<img src="{light}" alt="{html.escape(alt, quote=True)}"></picture>'
        )

    def _write(self, name: str, figure: matplotlib.figure.Figure) -> str:
        self.directory.mkdir(exist_ok=True)
        path = self.directory / name
        with path.open("wb") as file:
            figure.savefig(file, format="png", dpi=DOTS_PER_INCH)
        return data_uri("image/png", path.read_bytes())
