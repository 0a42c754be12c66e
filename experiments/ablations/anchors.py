"""What do codecs, counting models and plain classifiers reach on the held-out data that the arms are measured on?

Question   How few bits per pixel, sample or byte do PNG, WebP, FLAC, xz, zstd and brotli take, each at its best setting
           and with the levels written in the best way; how few does a model that only counts; how often are a linear
           classifier and a support-vector machine right?
Command    python experiments/ablations/anchors.py
           With --out sweeps/NAME/anchors.csv the page of that sweep shows them beside its arms.
Data       that of experiments/digits.py, built by `omnijax prepare`
Hardware   2 CPU cores (x86-64)
Time       2.8 minutes of CPU time
Result     All pictures in one stream: brotli 2.57 bits per pixel, xz 2.69, PNG 3.08, WebP 3.09; each picture alone from
           4.91 (zstd with a dictionary) to 14.05 (PNG, whole files). Counting: independent pixels 2.43, with the digit
           as a hidden class 2.22, neighbours too 2.04, and 1.99 where the digit is given. Speech: FLAC 10.99 bits per
           sample, brotli 10.39 in one stream. Words: 3.32 bits each from their frequencies, 5.87 from xz behind the
           training split. Right: 0.961 (linear) and 0.978 (support vectors) of the pictures, ± 0.01, and all of the
           utterances.
           Figures: experiments/reproduce/results/anchors.csv
"""

from __future__ import annotations

import argparse
import pathlib
import sys

import rich.box
import rich.console
import rich.table

from omnijax.anchors import Anchor, anchors, write_anchors
from omnijax.config import DataConfig
from omnijax.errors import OmnijaxError

RESULTS = pathlib.Path(__file__).parents[1] / "reproduce" / "results" / "anchors.csv"


def main() -> None:
    """Measures, prints a table, writes it as CSV."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data.directory", dest="directory", default=DataConfig().directory, help="the data set")
    parser.add_argument("--out", type=pathlib.Path, default=RESULTS, help="the table, as CSV; %(default)s by default")
    arguments = parser.parse_args()
    config = DataConfig(directory=arguments.directory)
    console = rich.console.Console(stderr=True)
    try:
        with console.status("anchors") as status:
            found = anchors(config, status.update)
    except OmnijaxError as error:
        sys.exit(str(error))
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    write_anchors(found, arguments.out)
    print_anchors(found, rich.console.Console())
    console.print(f"written to {arguments.out}")


def print_anchors(found: list[Anchor], console: rich.console.Console) -> None:
    """One table for all, by modality, in the order in which they were measured."""
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
