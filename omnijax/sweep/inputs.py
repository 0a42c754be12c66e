"""What tables and page are made of: sweep.json, and the result of every arm and seed that there is."""

from __future__ import annotations

import dataclasses
import json
import pathlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from omnijax.anchors.anchor import Anchor, read_anchors
from omnijax.errors import DataError

SWEEP, ANCHORS, RESULT = "sweep.json", "anchors.csv", "result.json"
_SWEEP_KEYS = ("question", "budget", "baseline", "arms", "seeds")
_RESULT_KEYS = (
    *("arm", "seed", "step", "items", "tokens", "documents", "seconds", "flops", "budget", "data", "bits"),
    *("bits_per_unit", "speed", "cost", "curve", "device", "versions", "command"),
)
_OTHER = "choose the directory of a sweep"
_AGAIN = "run `omnijax sweep` with this directory again"
_ANEW = f"delete the directory of that arm and seed, and {_AGAIN}"


@dataclasses.dataclass(frozen=True)
class Results:
    """A sweep as far as it has come.

    Attributes:
        name: of its directory.
        question: what is asked.
        budget: `kind` and `amount`.
        baseline: the arm that others are held against.
        arms: names, in the order of the sweep.
        seeds: of every arm.
        configs: the configuration of each arm, before the budget set its steps.
        runs: arm -> seed -> result; those that there are.
        started: arms and seeds that have a directory and no result.
        anchors: outside figures, where `anchors.csv` lies beside `sweep.json`.
    """

    name: str
    question: str
    budget: dict[str, Any]
    baseline: str
    arms: list[str]
    seeds: list[int]
    configs: dict[str, dict[str, Any]]
    runs: dict[str, dict[int, dict[str, Any]]]
    started: list[tuple[str, int]]
    anchors: list[Anchor]

    @property
    def missing(self) -> list[tuple[str, int]]:
        """Arms and seeds that have no result."""
        return [(arm, seed) for arm in self.arms for seed in self.seeds if seed not in self.runs[arm]]

    @property
    def every(self) -> list[dict[str, Any]]:
        """All results, by arm and seed."""
        return [self.runs[arm][seed] for arm in self.arms for seed in sorted(self.runs[arm])]

    @property
    def forms(self) -> list[str]:
        """Forms of document that some arm measured, like `image|text`, in the order in which they are first met."""
        return list(dict.fromkeys(form for run in self.every for form in run["bits"]))

    def values(self, arm: str, *path: str) -> dict[int, float]:
        """A number of every seed of an arm, by its path in the result; seeds that don't have it are left out."""
        return self.computed(arm, lambda run: _at(run, path))

    def computed(self, arm: str, of: Callable[[dict[str, Any]], float | None]) -> dict[int, float]:
        """What a function makes of the result of every seed of an arm; seeds for which it is None are left out."""
        found = {seed: of(run) for seed, run in sorted(self.runs[arm].items())}
        return {seed: float(value) for seed, value in found.items() if value is not None}


def _at(run: Mapping[str, Any], path: tuple[str, ...]) -> float | None:
    value: Any = run
    for key in path:
        if not isinstance(value, Mapping) or key not in value:
            return None
        value = value[key]
    return value if isinstance(value, int | float) else None


def read_results(out: pathlib.Path) -> Results:
    """Reads the directory of a sweep, whether it has ended or not.

    Args:
        out: holds sweep.json, and arms/NAME/seedK/result.json of what is done.

    Raises:
        DataError: sweep.json is missing; or a file is damaged, or lacks a value.
    """
    sweep = read_object(out / SWEEP, _SWEEP_KEYS, _AGAIN)
    if not isinstance(sweep["arms"], dict) or not isinstance(sweep["seeds"], list):
        raise DataError(SWEEP, str(out / SWEEP), "arms must be an object, seeds a list", _OTHER)
    arms = list(sweep["arms"])
    runs: dict[str, dict[int, dict[str, Any]]] = {arm: {} for arm in arms}
    started = []
    for arm in arms:
        for directory in sorted((out / "arms" / arm).glob("seed*")):
            number = directory.name.removeprefix("seed")
            if not number.isdecimal():
                continue
            if (directory / RESULT).is_file():
                runs[arm][int(number)] = read_object(directory / RESULT, _RESULT_KEYS, _ANEW)
            else:
                started.append((arm, int(number)))
    seeds = sorted({*sweep["seeds"], *(seed for found in runs.values() for seed in found)})
    table = out / ANCHORS
    return Results(
        name=out.resolve().name,
        question=sweep["question"],
        budget=sweep["budget"],
        baseline=sweep["baseline"],
        arms=arms,
        seeds=seeds,
        configs=sweep["arms"],
        runs=runs,
        started=sorted(started, key=lambda pair: (arms.index(pair[0]), pair[1])),
        anchors=read_anchors(table) if table.is_file() else [],
    )


def read_object(path: pathlib.Path, keys: Iterable[str], fix: str) -> dict[str, Any]:
    """A file that holds one JSON object with at least these keys.

    Raises:
        DataError: it is missing, or holds something else; with this fix.
    """
    if not path.is_file():
        raise DataError(path.name, str(path), "this file is needed", fix)
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(path.name, str(path), f"must be JSON ({error})", fix) from error
    for key in keys:
        if not isinstance(value, dict) or key not in value:
            raise DataError(f"{path.name}:{key}", str(path), "this value is needed", fix)
    return dict(value)
