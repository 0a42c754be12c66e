"""Compares arms that were run again with the figures in results/.

    python experiments/reproduce/compare.py sweeps/NAME [experiments/reproduce/results/NAME]

For every arm, seed and form that both have, the table shows the bits per item of the new run, those of the same seed in
the published run, and the interval that contains one more run with a probability of 95 %, estimated from the published
seeds (Student's: mean ± t(n - 1) · s · √(1 + 1/n)). On the same kind of processor a seed gives the same bits, unless
the budget is seconds: then the number of steps depends on the speed. The exit status is 1 if a run is outside its
interval and not the same.
"""

from __future__ import annotations

import argparse
import collections
import math
import pathlib
import sys

import numpy as np
import rich.console
import rich.table
import scipy.stats
from cards import RESULTS, lines_of, number

TOLERANCE = 1e-4
"""Bits per item. The order of a sum can change a result by this much."""


def interval_of_one_more(values: list[float]) -> tuple[float, float]:
    """The interval that contains another run of the same arm with a probability of 95 %."""
    half = scipy.stats.t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) * math.sqrt(1 + 1 / len(values))
    return float(np.mean(values) - half), float(np.mean(values) + half)


def main() -> int:
    """Prints the table; gives the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sweep", type=pathlib.Path, help="the directory of a sweep")
    parser.add_argument(
        "published", type=pathlib.Path, nargs="?", help="a folder of results/; default: of the same name"
    )
    parsed = parser.parse_args()
    published = lines_of((parsed.published or RESULTS / parsed.sweep.name) / "results.csv")
    there, seeds = {}, collections.defaultdict(list)
    for line in published:
        bits = there[line["arm"], line["seed"], line["form"]] = number(line, "renormalised_bits")
        seeds[line["arm"], line["form"]].append(bits)
    shown = rich.table.Table("arm", "seed", "form", "bits here", "same seed there", "one more lies in", "")
    outside = compared = 0
    for line in lines_of(parsed.sweep / "results.csv"):
        key = arm, _, form = line["arm"], line["seed"], line["form"]
        if key not in there:
            continue
        bits = number(line, "renormalised_bits")
        low, high = interval_of_one_more(seeds[arm, form])
        said = "same" if abs(bits - there[key]) <= TOLERANCE else "inside" if low <= bits <= high else "OUTSIDE"
        compared, outside = compared + 1, outside + (said == "OUTSIDE")
        shown.add_row(*key, f"{bits:.4f}", f"{there[key]:.4f}", f"{low:.3f} … {high:.3f}", said)
    console = rich.console.Console()
    (console if console.is_terminal else rich.console.Console(width=110)).print(shown)
    print(f"{compared} compared, {outside} outside")
    return int(outside > 0 or compared == 0)


if __name__ == "__main__":
    sys.exit(main())
