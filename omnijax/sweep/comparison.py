"""The results of a sweep, also while it runs; arms compared with the baseline; and the CSV files.

`experiments/reproduce/` reads the same columns.
"""

from __future__ import annotations

import csv
import io
import math
import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from omnijax.files import read_object, write_atomically
from omnijax.sweep.anchors import Anchor, read_anchors
from omnijax.sweep.statistics import Interval, Verdict, interval, verdict
from omnijax.sweep.sweep import ANCHORS, ARMS, RESULT, SWEEP

_SWEEP_KEYS = ("question", "budget", "baseline", "arms", "seeds")
_RESULT_KEYS = ("arm", "seed", "data", "bits", "accuracies", "speed", "cost", "curve", "device", "versions", "command")
_AGAIN = "run `omnijax sweep` with this directory again"
BITS = {f"{part}_bits": part for part in ("raw", "renormalised", "leak", "digits", "position", "structure")}
BITS |= {"uniform": "uniform", "exact": "exact", "items_of_segment": "items", "tokens_per_item": "tokens"}
"""Columns of results.csv, and the same in a result: see `evaluate.likelihoods.bits_per_item`."""
COSTS = (
    *("parameters", "training_flops_per_item", "peak_bytes", "items_per_second", "tokens_per_second"),
    *("steps", "items", "seconds", "flops"),
)
MEANS = ("tokens_per_item", "steps_per_item", *COSTS, "predicted_ratio", "measured_ratio")
"""Columns of table.csv that are means; the ratios of costs are relative to the baseline with the same seed."""
TO_EQUAL_BITS = {axis: f"{axis}_to_equal_bits" for axis in ("seconds", "flops")}
INTERVALS = {"bits": "renormalised_bits"} | {one: f"{one}_bits" for one in ("raw", "leak", "position")}
INTERVALS |= {one: one for one in ("difference", *TO_EQUAL_BITS.values(), "exact", "bits_per_unit")}
"""Columns of table.csv that are intervals, and where results.csv has their values."""
Result = dict[str, Any]


class Results(NamedTuple):
    """The results of a sweep.

    Attributes:
        name: of the directory.
        sweep: what `sweep.json` says.
        runs: arm -> seed -> result, in the order of the sweep, by rising seed.
        anchors: of `anchors.csv`, if there is one.
    """

    name: str
    sweep: dict[str, Any]
    runs: dict[str, dict[int, Result]]
    anchors: list[Anchor]

    @property
    def baseline(self) -> str:
        """Name of the arm that the others are compared with."""
        return str(self.sweep["baseline"])

    @property
    def every(self) -> list[Result]:
        """All results, by arm and seed."""
        return [run for runs in self.runs.values() for run in runs.values()]

    @property
    def forms(self) -> list[str]:
        """Forms of document that at least one arm measured; `b|a` is b, given a in the same document."""
        return list(dict.fromkeys(form for run in self.every for form in run["bits"]))

    def unit(self, form: str) -> str:
        """Name of the natural unit of a lossless form; "" for other forms."""
        return next((unit for run in self.every if form in run["bits"] for unit in run["bits"][form]["units"]), "")


def read_results(out: pathlib.Path) -> Results:
    """Reads sweep.json, arms/NAME/seedK/result.json and anchors.csv from the directory of a sweep.

    Raises a `DataError` if sweep.json is missing, or if a file is damaged or lacks a value.
    """
    sweep = read_object(out / SWEEP, _SWEEP_KEYS, _AGAIN)
    fix = f"delete the directory of this arm and seed, and {_AGAIN}"
    runs: dict[str, dict[int, Result]] = {}
    for arm in sweep["arms"]:
        found = [read_object(path, _RESULT_KEYS, fix) for path in (out / ARMS / arm).glob(f"seed*/{RESULT}")]
        runs[arm] = {result["seed"]: result for result in sorted(found, key=lambda result: result["seed"])}
    anchors = read_anchors(out / ANCHORS) if (out / ANCHORS).is_file() else []
    return Results(out.resolve().name, sweep, runs, anchors)


class Row(NamedTuple):
    """An arm in one form of document: `b|a` is b, given a in the same document. `lines` are those of results.csv."""

    arm: str
    form: str
    lines: list[Result]

    def values(self, column: str) -> list[float]:
        """The values of a column of results.csv, by rising seed; seeds without a value are left out."""
        return [line[column] for line in self.lines if line[column] is not None]

    def over(self, column: str) -> Interval:
        """A column of results.csv over seeds."""
        return interval(self.values(column))

    @property
    def bits(self) -> Interval:
        """Bits per item, renormalised under the grammar."""
        return self.over("renormalised_bits")

    @property
    def difference(self) -> Interval:
        """Paired difference of bits to the baseline, over the seeds that both have."""
        return self.over("difference")

    @property
    def verdict(self) -> Verdict:
        """What the difference shows."""
        return verdict(self.difference)


def rows_of(results: Results, form: str) -> list[Row]:
    """A row for every arm of the sweep, including arms without results."""
    return [
        Row(arm, form, [_line(results, run, form) for run in runs.values() if form in run["bits"]])
        for arm, runs in results.runs.items()
    ]


def _line(results: Results, run: Result, form: str) -> Result:
    """A line of results.csv, by column.

    A generated item takes one step for each token, or one in all if a head writes the whole item.
    """
    entry, base = run["bits"][form], results.runs[results.baseline].get(run["seed"])
    costs = run["cost"] | run["speed"] | run["curve"][-1] | {"steps": run["curve"][-1]["step"]}
    by_token = results.sweep["arms"][run["arm"]]["model"]["head"] == "token"
    line = {"arm": run["arm"], "seed": run["seed"], "form": form, **{key: entry[part] for key, part in BITS.items()}}
    line |= {"steps_per_item": entry["tokens"] if by_token else 1.0} | {key: costs[key] for key in COSTS}
    line |= {"bits_per_unit": entry["units"].get(results.unit(form))}
    line |= dict.fromkeys(("predicted_ratio", "measured_ratio", "difference", *TO_EQUAL_BITS.values()))
    if base is not None:
        line["predicted_ratio"] = line["training_flops_per_item"] / base["cost"]["training_flops_per_item"]
        line["measured_ratio"] = base["speed"]["items_per_second"] / line["items_per_second"]
    if base is not None and form in base["bits"]:
        target = base["bits"][form]["renormalised"]
        line["difference"] = entry["renormalised"] - target
        line |= {column: crossing(curve_of(run, form, axis), target) for axis, column in TO_EQUAL_BITS.items()}
    line |= {f"digit_{place}_bits": bits for place, bits in enumerate(entry["by_place"])}
    return line | {f"{kind}_error": wrong for kind, wrong in entry["errors"].items()}


def curve_of(run: Result, form: str, axis: str) -> list[tuple[float, float]]:
    """(what was spent, bits) at each checkpoint of a result that measured the form."""
    return [(point[axis], point["bits"][form]) for point in run["curve"] if form in point["bits"]]


def crossing(points: Sequence[tuple[float, float]], target: float) -> float | None:
    """The first place where a curve of (place, value), linear between points, comes down to a target, or None.

    A value that equals the target to nine digits reaches it. If the first point is already below the target, its place
    is returned, which is then an upper bound.
    """
    places, values = np.array([one for one in points if math.isfinite(one[1])]).reshape(-1, 2).T
    reached = np.flatnonzero(values <= target + 1e-9 * abs(target))
    if not reached.size:
        return None
    ends = [reached[0], max(reached[0] - 1, 0)]
    return float(np.interp(target, values[ends], places[ends]))


def write_tables(out: pathlib.Path) -> None:
    """Writes the CSV files of a sweep; numbers have seven digits, and missing ones are empty.

    `results.csv` has a line for every arm, seed and form, and what it took to the final bits of the baseline with the
    same seed; `curves.csv` one for every checkpoint, with the renormalised bits per item of each form; `table.csv` one
    for every arm and form, over seeds; `directions.csv` one for every arm, seed and route, if the sweep generated any.
    Raises a `DataError` as `read_results`.
    """
    results = read_results(out)
    rows = [row for form in results.forms for row in rows_of(results, form)]
    _write(out / "results.csv", [line for row in rows for line in row.lines])
    _write(out / "table.csv", [_table_line(row) for row in rows])
    curves, directions = [], []
    for run in results.every:
        arm, spent = {"arm": run["arm"], "seed": run["seed"]}, ("step", "items", *TO_EQUAL_BITS)
        curves += [arm | {key: point[key] for key in spent} | point["bits"] for point in run["curve"]]
        directions += [arm | {"direction": route} | accuracy for route, accuracy in run["accuracies"].items()]
    _write(out / "curves.csv", curves)
    if directions:
        _write(out / "directions.csv", directions)


def _table_line(row: Row) -> Result:
    line: Result = {"arm": row.arm, "form": row.form, "seeds": row.bits.count, "verdict": row.verdict}
    for name, one in ((name, row.over(column)) for name, column in INTERVALS.items()):
        line |= {f"{name}_mean": one.mean, f"{name}_low": one.low, f"{name}_high": one.high}
    for column in TO_EQUAL_BITS.values():
        line[f"{column}_reached"] = f"{len(row.values(column))} of {row.difference.count}"
    return line | {column: row.over(column).mean for column in MEANS}


def _write(path: pathlib.Path, lines: list[Result]) -> None:
    file = io.StringIO()
    writer = csv.DictWriter(file, [*dict.fromkeys(key for line in lines for key in line)], lineterminator="\n")
    writer.writeheader()
    for line in lines:
        cells = {key: f"{value:.7g}" if isinstance(value, float) else value for key, value in line.items()}
        writer.writerow({key: "" if cell == "nan" else cell for key, cell in cells.items()})
    write_atomically(path, file.getvalue())
