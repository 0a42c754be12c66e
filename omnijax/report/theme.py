"""How figures look: one theme for light pages, one for dark ones, and the way a figure gets onto the page."""

from __future__ import annotations

import dataclasses
import html
import io
import pathlib
from collections.abc import Callable

import PIL.Image
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from omnijax.report.signals import data_uri

DOTS_PER_INCH = 180


@dataclasses.dataclass(frozen=True)
class Theme:
    """Colours of a figure; `paper` is the card of the page that it lies on (style.py)."""

    paper: str
    ink: str
    muted: str
    line: str
    series: tuple[str, ...]
    """Told apart by eye and by label."""
    places: tuple[str, ...]
    """From the most to the least significant digit."""
    warning: str
    heat: tuple[str, str]
    """From no count to all."""


LIGHT = Theme(
    paper="#ffffff",
    ink="#1c2026",
    muted="#5d6673",
    line="#d9dee5",
    series=("#2464ab", "#b9560f", "#2b7d50", "#7a4fb0", "#a8324a", "#127c86"),
    places=("#123f73", "#2464ab", "#5b93cf", "#97bce3", "#c6daf0"),
    warning="#c4420f",
    heat=("#ffffff", "#1d5796"),
)
DARK = Theme(
    paper="#1b1f25",
    ink="#e8eaee",
    muted="#9aa3af",
    line="#363d47",
    series=("#74aef0", "#f0a15e", "#6cc594", "#bb9be6", "#ee8597", "#5fc7d1"),
    places=("#3f7cc0", "#74aef0", "#a3caf5", "#c9e0f9", "#e3effc"),
    warning="#ff8f5c",
    heat=("#1b1f25", "#74aef0"),
)


def new_figure(width_inches: float, height_inches: float, theme: Theme) -> Figure:
    """An empty figure that shares no state with others (nothing here uses pyplot)."""
    return Figure(figsize=(width_inches, height_inches), layout="constrained", facecolor=theme.paper)


def dress(axes: Axes, theme: Theme) -> Axes:
    """Colours and sizes of everything around the data."""
    axes.set_facecolor(theme.paper)
    axes.tick_params(colors=theme.muted, labelsize=9, length=2, width=0.7)
    for side, spine in axes.spines.items():
        spine.set_color(theme.line)
        spine.set_visible(side in ("left", "bottom"))
    axes.xaxis.label.set(color=theme.muted, fontsize=9)
    axes.yaxis.label.set(color=theme.muted, fontsize=9)
    return axes


@dataclasses.dataclass(frozen=True)
class Figures:
    """Where figures go: each is written as `NAME.png` and `NAME_dark.png`, and embedded in the page."""

    directory: pathlib.Path

    def add(self, name: str, paint: Callable[[Theme], Figure], alt: str, css: str) -> str:
        """Draw a figure in both themes.

        Args:
            name: of the files, without suffix.
            paint: draws the figure in a given theme.
            alt: what the figure shows, for those who don't see it.
            css: class of the element, which says how wide it may get.

        Returns:
            A `<picture>` with both themes inside.
        """
        light = self._write(f"{name}.png", paint(LIGHT))
        dark = self._write(f"{name}_dark.png", paint(DARK))
        return (
            f'<picture class="{css}"><source media="(prefers-color-scheme: dark)" srcset="{dark}">'
            f'<img src="{light}" alt="{html.escape(alt, quote=True)}"></picture>'
        )

    def _write(self, name: str, figure: Figure) -> str:
        raw, buffer = io.BytesIO(), io.BytesIO()
        figure.savefig(raw, format="png", dpi=DOTS_PER_INCH, pil_kwargs={"compress_level": 1})
        # 256 colours are enough for any of these figures, and make the page less than half as large.
        picture = PIL.Image.open(raw).convert("RGB")
        picture.quantize(256, PIL.Image.Quantize.FASTOCTREE, dither=PIL.Image.Dither.NONE).save(buffer, format="PNG")
        (self.directory / name).write_bytes(buffer.getvalue())
        return data_uri("image/png", buffer.getvalue())
