"""The results of a sweep, also while it runs: `sweep.json`, and the result of every arm and seed that has one."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Any

from omnijax.run.directory import read_object
from omnijax.sweep.anchors import Anchor, read_anchors
from omnijax.sweep.directory import ANCHORS, ARMS, RESULT, SWEEP

_SWEEP_KEYS = ("question", "budget", "baseline", "arms", "seeds")
_RESULT_KEYS = (
    *("arm", "seed", "step", "items", "seconds", "flops", "data", "bits", "accuracies"),
    *("speed", "cost", "curve", "device", "versions", "command"),
)
_AGAIN = "run `omnijax sweep` with this directory again"
Result = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Results:
    """The results of a sweep.

    Attributes:
        seeds: those of `sweep.json`, and those that have a result.
        configs: arm -> its configuration before the budget set its steps, in the order of the sweep.
        runs: arm -> seed -> result, by rising seed.
    """

    name: str
    question: str
    budget: dict[str, Any]
    baseline: str
    seeds: list[int]
    configs: dict[str, dict[str, Any]]
    runs: dict[str, dict[int, Result]]
    anchors: list[Anchor]

    @property
    def arms(self) -> list[str]:
        """Names of all arms."""
        return list(self.configs)

    @property
    def every(self) -> list[Result]:
        """All results, by arm and seed."""
        return [run for arm in self.arms for run in self.runs[arm].values()]

    @property
    def forms(self) -> list[str]:
        """Forms of document that at least one arm measured; `b|a` is b, given a in the same document."""
        return list(dict.fromkeys(form for run in self.every for form in run["bits"]))

    def unit(self, form: str) -> str:
        """Name of the natural unit of a lossless form; "" for other forms."""
        found = (unit for run in self.every if form in run["bits"] for unit in run["bits"][form].get("units", ()))
        return next(found, "")

    def values(self, arm: str, *path: str) -> dict[int, float]:
        """The number at a path of keys in each result of an arm, by seed; results without it are left out."""
        found = {seed: number_at(run, *path) for seed, run in self.runs[arm].items()}
        return {seed: float(value) for seed, value in found.items() if value is not None}


def number_at(run: Mapping[str, Any], *path: str) -> float | None:
    """The number at a path of keys; None if there is none."""
    value: Any = run
    for key in path:
        if not isinstance(value, Mapping) or key not in value:
            return None
        value = value[key]
    return value if isinstance(value, int | float) else None


def read_results(out: pathlib.Path) -> Results:
    """Reads sweep.json, arms/NAME/seedK/result.json and anchors.csv from the directory of a sweep.

    Raises:
        DataError: sweep.json is missing, or a file is damaged or lacks a value.
    """
    sweep = read_object(out / SWEEP, _SWEEP_KEYS, _AGAIN)
    runs: dict[str, dict[int, Result]] = {}
    for arm in sweep["arms"]:
        fix = f"delete the directory of this arm and seed, and {_AGAIN}"
        found = [read_object(path, _RESULT_KEYS, fix) for path in (out / ARMS / arm).glob(f"seed*/{RESULT}")]
        runs[arm] = {result["seed"]: result for result in sorted(found, key=lambda result: result["seed"])}
    return Results(
        out.resolve().name,
        sweep["question"],
        sweep["budget"],
        sweep["baseline"],
        sorted({*sweep["seeds"], *(seed for found in runs.values() for seed in found)}),
        configs=sweep["arms"],
        runs=runs,
        anchors=read_anchors(out / ANCHORS) if (out / ANCHORS).is_file() else [],
    )
