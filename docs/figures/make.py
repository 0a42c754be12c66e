"""Draws the figure of the README and of the page Concepts: picture, patch, natural digits, tokens, picture.

    python docs/figures/make.py          writes two_levels_light.svg and two_levels_dark.svg beside this file

Nothing in the figure is typed by hand: the picture is one of scikit-learn's digits, the tokens are those of the demo's
vocabulary, and the last picture is decoded from them. The files are plain SVG, the same bytes on every machine.
"""

from __future__ import annotations

import dataclasses
import pathlib

import numpy as np
from sklearn.datasets import load_digits

from omnijax.experiment import load_experiment
from omnijax.modalities import Items
from omnijax.vocab import Documents, PrimaryIds, SecondaryIds, Segment, Vocabulary, assemble, decode, encode

HERE = pathlib.Path(__file__).resolve().parent
EXPERIMENT = HERE.parents[1] / "experiments" / "digits.py"
PICTURE, PATCH = 44, 1  # a seven with a bar, and its second patch
SIDE, EDGE, LEVELS = 8, 2, 17
SANS = "-apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
CRISP = 'shape-rendering="crispEdges"'
MONO = "ui-monospace, SFMono-Regular, Menlo, Consolas, 'DejaVu Sans Mono', monospace"


@dataclasses.dataclass(frozen=True)
class Palette:
    """Colours of one variant, as `#rrggbb`; `paper` is grey level 0, `ink` the highest."""

    name: str
    text: str
    faint: str
    line: str
    paper: str
    ink: str
    accent: str
    accent_paper: str

    def grey(self, level: int) -> str:
        """The colour of a grey level, on a straight line from `paper` to `ink`."""
        share = level / (LEVELS - 1)
        ends = [[int(colour[i : i + 2], 16) for i in (1, 3, 5)] for colour in (self.paper, self.ink)]
        return "#" + "".join(f"{round(a + (b - a) * share):02x}" for a, b in zip(*ends))

    def on_grey(self, level: int) -> str:
        """The colour of text that stands on a grey level."""
        return self.paper if level > (LEVELS - 1) * 0.45 else self.ink


LIGHT = Palette("light", "#1c2530", "#5f6b78", "#c4ccd4", "#f3f5f7", "#1c2530", "#c2410c", "#fff1e8")
DARK = Palette("dark", "#e8edf2", "#9aa7b4", "#4a5663", "#20272f", "#eef2f6", "#fb923c", "#43291a")


def write_and_read(pixels: np.ndarray) -> tuple[Vocabulary, list[str], np.ndarray]:
    """Encodes a picture with the demo's vocabulary, and decodes it again.

    Args:
        pixels: uint8[8, 8], grey levels 0 to 16.

    Returns:
        The vocabulary, the printed tokens of the highlighted patch, and the decoded pixels.
    """
    config = load_experiment(EXPERIMENT)
    vocabulary, picture = config.vocabulary, config.data.fields["image"]
    [part] = picture.parts
    segment = Segment.of(vocabulary, "image", SecondaryIds(part.name, part.numbers(picture.encode([pixels]).digits)))
    tokens = encode(vocabulary, Documents.of([[segment]])).tokens
    [[[again]]] = assemble(vocabulary, decode(vocabulary, PrimaryIds(tokens.array[None])))
    symbols = [vocabulary.symbols()[token] for token in tokens.array]
    start = symbols.index(f"p_{PATCH + 1}")
    return vocabulary, symbols[start : start + 1 + EDGE**2], picture.decode(Items.one(0, part.digits(again.ids)))


class Drawing:
    """SVG elements in the order in which they are painted."""

    def __init__(self, palette: Palette) -> None:
        self.palette = palette
        self.elements: list[str] = []

    def box(self, x: float, y: float, width: float, height: float, fill: str, stroke: str = "none", **more) -> None:
        """A rectangle; `radius` rounds its corners, `thick` is the width of its outline."""
        radius, thick = more.get("radius", 0), more.get("thick", 1)
        self.elements.append(
            f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="{radius:g}" fill="{fill}" '
            f'stroke="{stroke}" stroke-width="{thick:g}"{" " + CRISP if radius == 0 else ""}/>'
        )

    def line(self, points: list[tuple[float, float]], colour: str, arrow: bool = False, dashed: bool = False) -> None:
        """Straight lines from point to point; an arrow ends the last."""
        path = " ".join(f"{'L' if number else 'M'}{x:g} {y:g}" for number, (x, y) in enumerate(points))
        more = (' marker-end="url(#arrow)"' if arrow else "") + (' stroke-dasharray="4 3"' if dashed else "")
        self.elements.append(f'<path d="{path}" fill="none" stroke="{colour}" stroke-width="1.6"{more}/>')

    def text(self, x: float, y: float, words: str, colour: str = "", size: float = 15, **more) -> None:
        """Words, centred on `x` unless `anchor` says otherwise."""
        self.elements.append(
            f'<text x="{x:g}" y="{y:g}" fill="{colour or self.palette.text}" font-size="{size:g}" '
            f'font-weight="{more.get("weight", 400)}" text-anchor="{more.get("anchor", "middle")}" '
            f'font-family="{more.get("font", SANS)}">{words}</text>'
        )

    def picture(self, x: float, y: float, cell: float, pixels: np.ndarray) -> None:
        """Pixels, a grid of patches over them, and an outline around the patch that the figure follows."""
        colours = self.palette
        for (row, column), level in np.ndenumerate(pixels):
            self.box(x + column * cell, y + row * cell, cell + 0.5, cell + 0.5, colours.grey(int(level)))
        for place in range(0, SIDE + 1, EDGE):
            self.line([(x + place * cell, y), (x + place * cell, y + SIDE * cell)], colours.line)
            self.line([(x, y + place * cell), (x + SIDE * cell, y + place * cell)], colours.line)
        row, column = divmod(PATCH, SIDE // EDGE)
        edge = EDGE * cell
        self.box(x + column * edge, y + row * edge, edge, edge, "none", colours.accent, thick=3.5)

    def heading(self, x: float, words: str, below: str) -> None:
        """What a column shows, in two lines."""
        self.text(x, 30, words, weight=650, size=18)
        self.text(x, 52, below, self.palette.faint, 14)


def draw(palette: Palette, pixels: np.ndarray) -> str:
    """The figure as the text of an SVG file."""
    vocabulary, tokens, decoded = write_and_read(pixels)
    row, column = divmod(PATCH, SIDE // EDGE)
    patch = pixels[row * EDGE : (row + 1) * EDGE, column * EDGE : (column + 1) * EDGE]
    levels = [int(level) for level in patch.ravel()]
    drawing, top, cell = Drawing(palette), 76, 23
    middle = top + SIDE * cell / 2

    # The picture, and its patch enlarged.
    drawing.heading(112, "a picture", f"{SIDE}×{SIDE} pixels, {LEVELS} grey levels")
    drawing.picture(20, top, cell, pixels)
    left, big = 288, 58
    right, low = 20 + (column + 1) * EDGE * cell, top + row * EDGE * cell
    drawing.line([(right, low), (left, middle - big)], palette.accent, dashed=True)
    drawing.line([(right, low + EDGE * cell), (left, middle + big)], palette.accent, dashed=True)
    drawing.heading(left + big, "a patch", f"one of {LEVELS**EDGE**2:,} fragments")
    for place, level in enumerate(levels):
        x, y = left + place % EDGE * big, middle - big + place // EDGE * big
        drawing.box(x, y, big, big, palette.grey(level))
        drawing.text(x + big / 2, y + big / 2 + 7, str(level), palette.on_grey(level), 20, weight=600)
    drawing.box(left, middle - big, 2 * big, 2 * big, "none", palette.accent, thick=3.5)

    # Its natural digits, and a token for each.
    first, step, chip = 488, 56, 48
    centre = first + 2 * step + chip / 2
    drawing.heading(centre + step / 2, "natural digits", "its four grey levels")
    drawing.text(first + chip / 2, 52, "position", palette.accent, 14, weight=600)
    drawing.line([(left + 2 * big + 14, middle), (first - 18, middle)], palette.faint, arrow=True)
    for place, (digit, token) in enumerate(zip([PATCH + 1, *levels], tokens, strict=True)):
        x, position = first + place * step, place == 0
        fill = palette.accent_paper if position else palette.grey(digit)
        ink = palette.accent if position else palette.on_grey(digit)
        outline = palette.accent if position else palette.line
        drawing.box(x, top + 8, chip, chip, fill, outline, radius=6, thick=1.6)
        drawing.text(x + chip / 2, top + 8 + chip / 2 + 7, str(digit), ink, 20, weight=600)
        drawing.line([(x + chip / 2, top + chip + 16), (x + chip / 2, top + chip + 52)], palette.faint, arrow=True)
        around = palette.accent_paper if position else "none"
        drawing.box(x, top + chip + 64, chip, 38, around, outline, radius=19, thick=1.6)
        colour = palette.accent if position else palette.text
        drawing.text(x + chip / 2, top + chip + 88, token, colour, 15, font=MONO, weight=600)
    drawing.text(centre, top + chip + 130, "tokens", weight=650, size=18)
    drawing.text(
        centre, top + chip + 152, f"the model reads and writes these: {vocabulary.size} in all", palette.faint, 14
    )

    # The picture again.
    last = 860
    drawing.line([(first + 4 * step + chip + 14, middle), (last - 18, middle)], palette.faint, arrow=True)
    drawing.heading(last + SIDE * cell / 2, "the picture again", "decoded without loss")
    drawing.picture(last, top, cell, decoded)

    arrow = '<marker id="arrow" viewBox="0 0 10 10" refX="8" refY="5" markerWidth="7" markerHeight="7" orient="auto">'
    return "\n".join(
        [
            '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 1064 286" role="img">',
            "<title>A picture becomes patches, a patch natural digits, digits tokens, and tokens the picture again"
            "</title>",
            f'<defs>{arrow}<path d="M0 0L10 5L0 10z" fill="{palette.faint}"/></marker></defs>',
            *drawing.elements,
            "</svg>\n",
        ]
    )


def figures() -> dict[str, str]:
    """The text of each file, by its name."""
    pixels = load_digits().images[PICTURE].astype(np.uint8)
    return {f"two_levels_{palette.name}.svg": draw(palette, pixels) for palette in (LIGHT, DARK)}


if __name__ == "__main__":
    for name, text in figures().items():
        (HERE / name).write_text(text, encoding="utf-8")
