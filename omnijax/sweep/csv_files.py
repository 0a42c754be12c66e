"""The CSV files of a sweep. `experiments/reproduce/` reads the same columns."""

from __future__ import annotations

import csv
import math
import pathlib
from collections.abc import Iterator
from typing import Any

from omnijax.sweep.comparison import COSTS, Row, per_item, rows_of
from omnijax.sweep.results import Results, number_at, read_results
from omnijax.sweep.statistics import Interval

_BITS = {f"{part}_bits": part for part in ("raw", "renormalised", "leak", "digits", "position", "structure")}
_BITS |= {"uniform": "uniform", "exact": "exact", "items_of_segment": "items"}
Line = dict[str, Any]


def write_tables(out: pathlib.Path) -> None:
    """Writes the CSV files of a sweep; numbers have seven digits, and missing ones are empty.

    `results.csv` has a line for every arm, seed and form; `curves.csv` one for every checkpoint, with the renormalised
    bits per item of each form; `table.csv` one for every arm and form, over seeds; `directions.csv` one for every arm,
    seed and route, if the sweep generated any.

    Raises:
        DataError: see `read_results`.
    """
    results = read_results(out)
    made = {
        "results": list(result_lines(results)),
        "curves": list(curve_lines(results)),
        "table": [table_line(row) for form in results.forms for row in rows_of(results, form)],
        "directions": [
            {"arm": run["arm"], "seed": run["seed"], "direction": route, **accuracy}
            for run in results.every
            for route, accuracy in run["accuracies"].items()
        ],
    }
    for name, lines in made.items():
        if lines or name != "directions":
            _write(out / f"{name}.csv", lines)


def result_lines(results: Results) -> Iterator[Line]:
    """The lines of results.csv, by column."""
    places = range(max((len(entry["by_place"]) for run in results.every for entry in run["bits"].values()), default=0))
    for run in results.every:
        for form, entry in run["bits"].items():
            line: Line = {"arm": run["arm"], "seed": run["seed"], "form": form}
            line |= {column: number_at(entry, key) for column, key in _BITS.items()}
            line |= dict.fromkeys(f"digit_{place}_bits" for place in places)
            line |= {f"digit_{place}_bits": bits for place, bits in enumerate(entry["by_place"])}
            line |= {f"digit_{place}_error": number_at(entry, "errors", f"digit_{place}") for place in places}
            line["bits_per_unit"] = number_at(entry, "units", results.unit(form))
            costs = per_item(results, run["arm"], form)
            line |= {column: by_seed.get(run["seed"]) for column, by_seed in costs.items()}
            yield line | {column: number_at(run, *path) for column, path in COSTS.items()}


def curve_lines(results: Results) -> Iterator[Line]:
    """The lines of curves.csv, by column."""
    for run in results.every:
        for point in run["curve"]:
            line = {"arm": run["arm"], "seed": run["seed"]}
            line |= {column: point[column] for column in ("step", "items", "seconds", "flops")}
            yield line | {form: number_at(point, "bits", form) for form in results.forms}


def table_line(row: Row) -> Line:
    """A line of table.csv, by column."""

    def ends(column: str, one: Interval) -> Line:
        return {f"{column}_mean": one.mean, f"{column}_low": one.low, f"{column}_high": one.high}

    line: Line = {"arm": row.arm, "form": row.form, "seeds": row.bits.count}
    line |= ends("bits", row.bits) | ends("difference", row.difference) | {"verdict": row.verdict}
    for axis, places in row.reach.items():
        line |= ends(f"{axis}_to_equal_bits", row.reached(axis))
        line[f"{axis}_to_equal_bits_reached"] = f"{row.reached(axis).count} of {len(places)}"
    for column, one in row.parts.items():
        line |= ends(column, one)
    return line | row.means


def _cell(value: Any) -> Any:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return f"{value:.7g}" if isinstance(value, float) else value


def _write(path: pathlib.Path, lines: list[Line]) -> None:
    """Writes through a temporary file, because other processes of the sweep may read the file."""
    partial = path.with_name(f".{path.name}.partial")
    with partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(lines[0]) if lines else ["arm"], lineterminator="\n")
        writer.writeheader()
        writer.writerows({column: _cell(value) for column, value in line.items()} for line in lines)
    partial.replace(path)
