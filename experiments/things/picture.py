"""Draws what a run names and draws: the first picture of the README.

    python experiments/things/picture.py runs/things          writes docs/figures/things_light.png and things_dark.png

The things are evenly spaced in the alphabet, none chosen by its result. Wrong names are red.
"""

from __future__ import annotations

import pathlib
import sys

import matplotlib.figure
import numpy as np

import omnijax
from omnijax.evaluate import TrainedRun
from omnijax.report.theme import DARK, DOTS_PER_INCH, LIGHT, Theme, new_figure

SPLIT, COLUMNS, LANGUAGES = "validation/artist", 9, ("en", "ru", "fr")
TOLD_IN = ("fr", "en", "ru", "fr", "en", "ru", "fr", "en", "ru")
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
    """Four lines: pictures, their names, drawings of captions, and the training pictures nearest to those."""
    figure = new_figure(1.35 * COLUMNS, 5.6, theme)
    axes = figure.subplots(4, COLUMNS, height_ratios=[1, 0.62, 1, 1], squeeze=False)
    titles = ("by an artist whom it never saw", "named", "drawn from a caption", "nearest in training")
    for column, (picture, names, caption, drawn, like) in enumerate(columns):
        for line, shown in ((0, picture), (2, drawn), (3, like)):
            axes[line, column].imshow(shown, interpolation="nearest")
        for height, (name, right) in zip((0.8, 0.5, 0.2), names, strict=True):
            colour = theme.ink if right else theme.series[4]
            axes[1, column].text(0.5, height, name, color=colour, fontsize=8.5, ha="center", va="center")
        axes[2, column].set_title(f"“{caption}”", fontsize=8.5, color=theme.ink)
    for line, title in enumerate(titles):
        for one in axes[line]:
            one.set(xticks=[], yticks=[], facecolor=theme.paper)
            one.spines[:].set_visible(False)
        axes[line, 0].set_ylabel(title, fontsize=8.5, color=theme.muted)
    return figure


def main() -> None:
    columns = cells(omnijax.load(sys.argv[1]))
    for name, theme in (("light", LIGHT), ("dark", DARK)):
        paint(columns, theme).savefig(FOLDER / f"things_{name}.png", dpi=DOTS_PER_INCH)


if __name__ == "__main__":
    main()
