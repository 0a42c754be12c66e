"""Anchors: what codecs, counting models and plain classifiers reach on the held-out data of the ablations.

Question   How many bits per pixel, sample or byte do PNG, WebP, FLAC, xz, zstd and brotli need, each at its best
           setting and with the best way to write the levels? How many does a model need that only counts? How often are
           a linear classifier and a support-vector machine right?
Command    python experiments/ablations/anchors.py
           With --out sweeps/NAME/anchors.csv the report of that sweep shows the anchors beside its arms.
Data       that of experiments/digits.py, built by `omnijax prepare`
Hardware   2 CPU cores (x86-64)
Time       2.8 minutes of CPU time
Result     All pictures in one stream: brotli 2.57 bits per pixel, xz 2.69, PNG 3.08, WebP 3.09. Each picture alone:
           from 4.91 (zstd with a dictionary) to 14.05 (PNG, whole files). Counting: independent pixels 2.43, with the
           class as a hidden variable 2.22, with neighbours too 2.04, and 1.99 if the class is given. Speech: FLAC 10.99
           bits per sample, brotli 10.39 in one stream. Words: 3.32 bits per word from their frequencies, 5.87 from xz
           after the training split. Right: 0.961 (linear) and 0.986 (support vectors, the judge) of the pictures, ±
           0.01, and all of the utterances. Figures: experiments/reproduce/results/anchors.csv
"""

from __future__ import annotations

import argparse
import pathlib
import sys

import rich.box
import rich.console
import rich.table

from omnijax.data.sources.spoken_digits import SpokenDigits
from omnijax.errors import OmnijaxError

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2]))  # experiments/ isn't installed

from experiments.anchors import Anchor, anchors, write_anchors

RESULTS = pathlib.Path(__file__).resolve().parents[1] / "reproduce" / "results" / "anchors.csv"


def main() -> None:
    """Measures the anchors, prints them as a table, and writes them as CSV."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data.directory", dest="directory", default=SpokenDigits().directory, help="the data set")
    parser.add_argument("--out", type=pathlib.Path, default=RESULTS, help="the table, as CSV; %(default)s by default")
    arguments = parser.parse_args()
    source = SpokenDigits(directory=arguments.directory)
    console = rich.console.Console(stderr=True)
    try:
        with console.status("anchors") as status:
            found = anchors(source, status.update)
    except OmnijaxError as error:
        sys.exit(str(error))
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    write_anchors(found, arguments.out)
    print_anchors(found, rich.console.Console())
    console.print(f"written to {arguments.out}")


def print_anchors(found: list[Anchor], console: rich.console.Console) -> None:
    """Prints one table, grouped by modality, in the order of measurement."""
    table = rich.table.Table(box=rich.box.SIMPLE_HEAD, pad_edge=False)
    for name, justify in (
        ("modality", "left"),
        ("anchor", "left"),
        ("value", "right"),
        ("±", "right"),
        ("unit", "left"),
    ):
        table.add_column(name, justify=justify)
    before = None
    for one in found:
        if before not in (None, one.modality):
            table.add_section()
        before = one.modality
        error = "" if one.standard_error is None else f"{one.standard_error:.4f}"
        table.add_row(one.modality, one.name, f"{one.value:.4f}", error, one.measure)
    console.print(table)


if __name__ == "__main__":
    main()
