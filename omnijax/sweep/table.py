"""Figures of a sweep: bits with intervals, differences to the baseline, what equal bits take; and the CSV files."""

from __future__ import annotations

import csv
import dataclasses
import math
import pathlib
import re
from collections.abc import Iterator, Sequence
from typing import Any, Literal

from omnijax.sweep.inputs import Results, read_results
from omnijax.sweep.statistics import Interval, Verdict, interval, paired, verdict

Axis = Literal["seconds", "flops"]
PARTS = ("raw", "renormalised", "leak", "digits", "position", "structure", "items", "uniform", "exact")
"""Numbers of a form that go into results.csv as they are."""
COSTS = {
    "parameters": ("cost", "parameters"),
    "softmax_flops_per_item": ("cost", "softmax_flops_per_item"),
    "training_flops_per_item": ("cost", "training_flops_per_item"),
    "peak_bytes": ("cost", "peak_bytes"),
    "items_per_second": ("speed", "items_per_second"),
    "tokens_per_second": ("speed", "tokens_per_second"),
    "steps": ("step",),
    "items": ("items",),
    "seconds": ("seconds",),
    "flops": ("flops",),
}
"""What a run took, and where its result says so."""


@dataclasses.dataclass(frozen=True)
class Reach:
    """What an arm spent until it had the baseline's final bits.

    Attributes:
        spent: over the seeds that got there.
        reached: how many did.
        seeds: how many could be looked at.
    """

    spent: Interval
    reached: int
    seeds: int


@dataclasses.dataclass(frozen=True)
class Row:
    """An arm in one form of document; bits are those per item, renormalised under the grammar.

    Attributes:
        arm: its name.
        form: like `image|text`, an image given its text.
        bits: over seeds.
        difference: to the baseline, over the seeds that both have.
        verdict: what that allows to say.
        seconds_to: training time until it had the baseline's final bits.
        flops_to: FLOPs, likewise.
    """

    arm: str
    form: str
    bits: Interval
    difference: Interval
    verdict: Verdict
    seconds_to: Reach
    flops_to: Reach


def rows_of(results: Results, form: str) -> list[Row]:
    """A row for every arm of the sweep, those without results too."""
    baseline = results.values(results.baseline, "bits", form, "renormalised")
    rows = []
    for arm in results.arms:
        bits = results.values(arm, "bits", form, "renormalised")
        difference = paired(bits, baseline)
        rows.append(
            Row(
                arm,
                form,
                interval(list(bits.values())),
                difference,
                verdict(difference),
                reach(results, arm, form, "seconds"),
                reach(results, arm, form, "flops"),
            )
        )
    return rows


def reach(results: Results, arm: str, form: str, axis: Axis) -> Reach:
    """What an arm spent until it had the bits that the baseline of the same seed ended with."""
    targets = results.values(results.baseline, "bits", form, "renormalised")
    spent, seeds = [], 0
    for seed, run in sorted(results.runs[arm].items()):
        points = [(point[axis], point["bits"][form]) for point in run["curve"] if form in point["bits"]]
        if seed in targets and points:
            seeds += 1
            at = crossing(points, targets[seed])
            spent += [] if at is None else [at]
    return Reach(interval(spent), len(spent), seeds)


def crossing(points: Sequence[tuple[float, float]], target: float) -> float | None:
    """Where a curve first comes down to a target.

    Between two points it is taken to be straight. If the first point is below already, its place is the answer, which
    is then too large; None if no point comes down so far.

    Args:
        points: (place, value), by rising place.
        target: value to come down to; reached when it is met to nine digits.
    """
    before: tuple[float, float] | None = None
    for place, value in points:
        if not math.isfinite(value):
            continue
        if value <= target + 1e-9 * abs(target):
            if before is None or before[1] <= value:
                return place
            share = (before[1] - target) / (before[1] - value)
            return before[0] + min(share, 1.0) * (place - before[0])
        before = (place, value)
    return None


def measured_ratio(results: Results, arm: str) -> dict[int, float]:
    """Seconds an item, in units of the baseline of the same seed."""
    own = results.values(arm, "speed", "items_per_second")
    base = results.values(results.baseline, "speed", "items_per_second")
    return {seed: base[seed] / own[seed] for seed in own if seed in base and own[seed] > 0}


def predicted_ratio(results: Results, arm: str) -> dict[int, float]:
    """Training FLOPs an item, in units of the baseline of the same seed: what the ratio above was predicted to be."""
    own = results.values(arm, "cost", "training_flops_per_item")
    base = results.values(results.baseline, "cost", "training_flops_per_item")
    return {seed: own[seed] / base[seed] for seed in own if seed in base}


def tokens_per_item(results: Results, arm: str, form: str) -> dict[int, float]:
    """Tokens of an item of the modality that a form is of."""
    modality = re.split(r"[|,]", form)[0]
    return results.values(arm, "speed", "tokens_per_item", modality)


def steps_per_item(results: Results, arm: str, form: str) -> dict[int, float]:
    """How often the backbone steps to generate an item: once for each token, or once where a head emits all of them."""
    if results.configs[arm]["model"]["head"] == "token":
        return tokens_per_item(results, arm, form)
    return dict.fromkeys(tokens_per_item(results, arm, form), 1.0)


def accuracies(results: Results, arm: str, form: str) -> list[Interval]:
    """Share of the digits that the model guesses right when all before are, by place, the most significant first."""
    found: list[Interval] = []
    while values := results.values(arm, "bits", form, "errors", f"digit_{len(found)}"):
        found.append(interval([1 - one for one in values.values()]))
    return found


PER_ITEM = {"tokens_per_item": tokens_per_item, "steps_per_item": steps_per_item}


def write_tables(out: pathlib.Path) -> list[pathlib.Path]:
    """Writes a directory's CSV files; their numbers have seven digits.

    `results.csv` has a line for every arm, seed and form; `curves.csv` one for every checkpoint, with the bits per item
    of each form, renormalised; `table.csv` one for every arm and form. Where directions were generated,
    `directions.csv` has a line for every arm, seed and direction.

    Returns:
        Their paths.

    Raises:
        DataError: see `read_results`.
    """
    results = read_results(out)
    lines = {"results": result_lines, "curves": curve_lines, "table": table_lines, "directions": direction_lines}
    made = {out / f"{name}.csv": list(of(results)) for name, of in lines.items()}
    written = [path for path, found in made.items() if found or path.stem != "directions"]
    for path in written:
        _write(path, made[path])
    return written


def result_lines(results: Results) -> Iterator[dict[str, Any]]:
    """What results.csv holds, by column."""
    places = max((len(entry["by_place"]) for run in results.every for entry in run["bits"].values()), default=0)
    for run in results.every:
        for form, entry in run["bits"].items():
            line: dict[str, Any] = {"arm": run["arm"], "seed": run["seed"], "form": form}
            line |= {f"{part}_bits" if part in PARTS[:6] else part: _number(entry, part) for part in PARTS}
            line["items_of_segment"] = line.pop("items")
            errors = entry["errors"]
            bits = dict(enumerate(entry["by_place"]))
            line |= {f"digit_{place}_bits": _number(bits, place) for place in range(places)}
            line |= {f"digit_{place}_error": _number(errors, f"digit_{place}") for place in range(places)}
            line["bits_per_unit"] = _number(run["bits_per_unit"], form)
            for name, of in PER_ITEM.items():
                line[name] = of(results, run["arm"], form).get(run["seed"], "")
            line |= {name: _number_at(run, path) for name, path in COSTS.items()}
            yield line


def curve_lines(results: Results) -> Iterator[dict[str, Any]]:
    """What curves.csv holds, by column."""
    for run in results.every:
        for point in run["curve"]:
            line: dict[str, Any] = {"arm": run["arm"], "seed": run["seed"]}
            line |= {name: point[name] for name in ("step", "items", "seconds", "flops")}
            yield line | {form: _number(point["bits"], form) for form in results.forms}


def direction_lines(results: Results) -> Iterator[dict[str, Any]]:
    """What directions.csv holds, by column."""
    for run in results.every:
        for name, accuracy in (run["directions"] or {"directions": {}})["directions"].items():
            error = run["directions"]["standard_errors"][name]
            line = {"arm": run["arm"], "seed": run["seed"], "direction": name}
            yield line | {"accuracy": accuracy, "standard_error": error}


def table_lines(results: Results) -> Iterator[dict[str, Any]]:
    """What table.csv holds, by column; arms without results have no figures."""
    for form in results.forms:
        for row in rows_of(results, form):
            line: dict[str, Any] = {"arm": row.arm, "form": form, "seeds": row.bits.count}
            line |= _interval("bits", row.bits) | _interval("difference", row.difference) | {"verdict": row.verdict}
            for name, found in (("seconds_to_equal_bits", row.seconds_to), ("flops_to_equal_bits", row.flops_to)):
                line |= _interval(name, found.spent) | {f"{name}_reached": f"{found.reached} of {found.seeds}"}
            for part in ("raw", "leak", "position", "exact"):
                line |= _interval(part, interval(list(results.values(row.arm, "bits", form, part).values())))
            line |= _interval("bits_per_unit", interval(list(results.values(row.arm, "bits_per_unit", form).values())))
            for name, of in PER_ITEM.items():
                line[name] = _finite(interval(list(of(results, row.arm, form).values())).mean)
            for name, path in COSTS.items():
                line[name] = _finite(interval(list(results.values(row.arm, *path).values())).mean)
            line["predicted_ratio"] = _finite(interval(list(predicted_ratio(results, row.arm).values())).mean)
            line["measured_ratio"] = _finite(interval(list(measured_ratio(results, row.arm).values())).mean)
            yield line


def _interval(name: str, one: Interval) -> dict[str, Any]:
    return {f"{name}_mean": _finite(one.mean), f"{name}_low": _finite(one.low), f"{name}_high": _finite(one.high)}


def _finite(value: float) -> float | str:
    return "" if math.isnan(value) else value


def _number(entry: dict[Any, Any], key: Any) -> float | str:
    return entry[key] if key in entry and isinstance(entry[key], int | float) else ""


def _number_at(run: dict[str, Any], path: tuple[str, ...]) -> float | str:
    for key in path[:-1]:
        run = run[key]
    return _number(run, path[-1])


def _write(path: pathlib.Path, lines: list[dict[str, Any]]) -> None:
    """Writes atomically: other processes of the sweep may look at the file."""
    columns = list(lines[0]) if lines else ["arm"]
    partial = path.with_name(f".{path.name}.partial")
    with partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        for line in lines:
            writer.writerow({name: f"{one:.7g}" if isinstance(one, float) else one for name, one in line.items()})
    partial.replace(path)
