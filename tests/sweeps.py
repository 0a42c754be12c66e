"""A small sweep for tests: words and the pictures behind them, two documents a row, three arms."""

from __future__ import annotations

import dataclasses
import os
import pathlib
from typing import Any

from omnijax import testing
from omnijax.config import Config, Task
from omnijax.errors import DataError
from omnijax.experiment import load_experiment
from omnijax.sweep.arms import arms_of, bases, chain, flat
from omnijax.sweep.sweep import Budget, Sweep

DIGITS = pathlib.Path(__file__).resolve().parents[1] / "experiments" / "digits.py"
ITEMS = 1500.0


def small_config(directory: str) -> Config:
    """On the small data set of this directory."""
    small = testing.shrink(load_experiment(DIGITS), pathlib.Path(directory))
    tasks = (Task(("text", "image"), weights=(0.1, 1.0)),)
    batch = dataclasses.replace(small.batch, tasks=tasks, sequence_items=52)
    return dataclasses.replace(small, batch=batch, eval=dataclasses.replace(small.eval, routes=()))


def sweep_of(config: Config, **changes: Any) -> Sweep:
    """Two bases, and flat."""
    parts: dict[str, Any] = {
        "arms": arms_of(config, chain(bases(17, 289), flat())),
        "budget": Budget("items", ITEMS),
        "question": "Which?",
        "baseline": "base=17",
        "seeds": 2,
        "points": 3,
    }
    return Sweep(**{**parts, **changes})


def write(file: pathlib.Path, directory: str, changes: str = "") -> None:
    """The sweep as an experiment file; `changes` are keywords of `sweep_of`, as they are written."""
    file.write_text(
        "import sys\n"
        f"sys.path.insert(0, {str(pathlib.Path(__file__).resolve().parent)!r})\n"
        "from sweeps import *\n\n\n"
        "def sweep():\n"
        f"    config = small_config({directory!r})\n"
        f"    return sweep_of(config, {changes})\n"
    )


def leave(*_: Any) -> None:
    """Ends a process at once, as a kill does."""
    os._exit(3)


def measured_by(parts: dict[str, Any], experiment: pathlib.Path, cores: set[int]) -> float:
    """The number of the only core, in place of a measurement."""
    if not cores:
        raise DataError("cores", cores, "there must be one", "give it cores")
    return float(*cores)
