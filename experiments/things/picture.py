"""Draws what a run names and draws: the first picture of the README.

    python experiments/things/picture.py runs/things          writes docs/figures/things_light.png and things_dark.png

The things are evenly spaced in the alphabet, none chosen by its result. Wrong names are red.
"""

from __future__ import annotations

import pathlib
import sys
import textwrap

import matplotlib.figure
import numpy as np

import omnijax
from omnijax.evaluate import TrainedRun
from omnijax.report.theme import DARK, DOTS_PER_INCH, LIGHT, Theme, new_figure

SPLIT, COLUMNS, LANGUAGES = "validation/artist", 8, ("en", "ru", "fr")
TOLD_IN = ("fr", "en", "ru", "en", "fr", "en", "ru", "en")
"""Language of the caption that each drawing is generated from."""
FOLDER = pathlib.Path(__file__).resolve().parents[2] / "docs" / "figures"


def cells(trained: TrainedRun) -> list[tuple[np.ndarray, list[tuple[str, bool]], str, np.ndarray, np.ndarray]]:
    """For each column a picture, its names and whether they are right, a caption, what is drawn of it, the nearest."""
    data = trained.config.data
    records, labels = data.records(SPLIT), data.labels(SPLIT)
    order = np.argsort([data.classes[label] for label in labels])
    places = order[np.linspace(0, len(order) - 1, COLUMNS).round().astype(int)]
    rows, judges, found = [records[place] for place in places], data.judges(), []
    names = []
    for language in LANGUAGES:
        field = f"caption_{language}"
        told = trained.sample_batch([{"picture": row["picture"]} for row in rows], field)
        names.append(list(zip(told, judges[field](told) == labels[places], strict=True)))
    for column, row in enumerate(rows):
        field = f"caption_{TOLD_IN[column]}"
        drawn = trained.sample({field: row[field]}, "picture", seed=column)
        (like,) = data.nearest("picture", [drawn])
        found.append((row["picture"], [one[column] for one in names], row[field], drawn, like["picture"]))
    return found


def paint(columns: list, theme: Theme) -> matplotlib.figure.Figure:
    """Five rows: captions, generated pictures, the nearest training pictures, held-out pictures, generated names."""
    figure = new_figure(1.4 * COLUMNS, 6.6, theme)
    figure.set_layout_engine("none")
    space = {"left": 0.01, "right": 0.99, "bottom": 0.01, "top": 0.95, "hspace": 0.22, "wspace": 0.12}
    axes = figure.add_gridspec(5, COLUMNS, height_ratios=[0.18, 1, 1, 1, 0.62], **space).subplots()
    for column, (picture, names, caption, drawn, like) in enumerate(columns):
        for line, shown in ((1, drawn), (2, like), (3, picture)):
            axes[line, column].imshow(shown, interpolation="nearest")
        for height, (name, right) in zip((1.04, 0.66, 0.28), names, strict=True):
            colour = theme.ink if right else theme.series[4]
            axes[4, column].text(0.5, height, _lines(name), color=colour, fontsize=8, ha="center", va="center")
        axes[0, column].text(0.5, 0.3, _lines(caption), color=theme.ink, fontsize=8, ha="center", va="center")
    for line in axes:
        for one in line:
            one.set(xticks=[], yticks=[], facecolor=theme.paper)
            one.spines[:].set_visible(False)
    titles = (
        "What the model draws when it is given a caption in English, Russian or French",
        "",
        "The training picture nearest to each",
        "Drawings by an artist whom it never saw, and its names for them in these languages (red: wrong)",
        "",
    )
    for line, title in zip(axes, titles, strict=True):
        box = line[0].get_position()
        figure.text(box.x0, box.y1 + 0.012, title, fontsize=9.5, color=theme.muted, ha="left", va="bottom")
    return figure


def _lines(text: str | None) -> str:
    """A text in at most two lines of 20 characters; a dash where it can't be decoded."""
    return "\n".join(textwrap.wrap(text or "–", 20, max_lines=2, placeholder=" …"))


def main() -> None:
    columns = cells(omnijax.load(sys.argv[1]))
    for name, theme in (("light", LIGHT), ("dark", DARK)):
        paint(columns, theme).savefig(FOLDER / f"things_{name}.png", dpi=DOTS_PER_INCH)


if __name__ == "__main__":
    main()
