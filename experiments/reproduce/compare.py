"""Holds arms that were run again against the figures in results/.

    python experiments/reproduce/compare.py sweeps/NAME [experiments/reproduce/results/NAME]

For every arm, seed and form that both have: bits per item here, those of the same seed there, and whether this lies in
the interval over the seeds there. On the same kind of processor a seed gives the same bits to about six digits; on
another one it should lie in the interval, which holds the mean of all seeds at 95 %. Exits with 1 if one doesn't.
"""

from __future__ import annotations

import argparse
import pathlib
import sys

import rich.console
import rich.table
from cards import RESULTS, lines_of, number, spread

TOLERANCE = 1e-4
"""Bits per item: what the order of sums may change."""


def main() -> int:
    """Prints the table; gives the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sweep", type=pathlib.Path, help="the directory of a sweep")
    parser.add_argument("published", type=pathlib.Path, nargs="?", help="a folder of results/; that of the same name")
    parsed = parser.parse_args()
    published = parsed.published or RESULTS / parsed.sweep.name
    intervals = {(line["arm"], line["form"]): spread(line, "bits") for line in lines_of(published / "table.csv")}
    there = {(line["arm"], line["seed"], line["form"]): line for line in lines_of(published / "results.csv")}
    shown = rich.table.Table("arm", "seed", "form", "bits here", "same seed there", "interval there", "inside")
    outside = compared = 0
    for line in lines_of(parsed.sweep / "results.csv"):
        key = line["arm"], line["seed"], line["form"]
        if key not in there:
            continue
        bits, before = number(line, "renormalised_bits"), number(there[key], "renormalised_bits")
        found = intervals[line["arm"], line["form"]]
        inside = found.low <= bits <= found.high or abs(bits - before) <= TOLERANCE
        compared, outside = compared + 1, outside + (not inside)
        shown.add_row(
            *key, f"{bits:.4f}", f"{before:.4f}", f"{found.low:.3f} … {found.high:.3f}", "yes" if inside else "NO"
        )
    rich.console.Console().print(shown)
    print(f"{compared} compared, {outside} outside")
    return int(outside > 0 or compared == 0)


if __name__ == "__main__":
    sys.exit(main())
