"""Checkpoints of runs on any mesh, and what some tasks measure of them."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence
from typing import Any

from jax.sharding import Mesh

from omnijax.evaluate import Trained, split_of
from omnijax.evaluate.loading import OpenRun
from omnijax.evaluate.tasks import TASKS, run_tasks
from omnijax.step.sharding import mesh_that_fits


def load_run(run: pathlib.Path, step: int | None = None, mesh: Mesh | None = None) -> Trained:
    """One checkpoint, by default the newest one that is whole, on a mesh, by default the run's own if it fits."""
    with OpenRun(run, mesh_that_fits if mesh is None else lambda _: mesh) as opened:
        return opened.load(step)


def measure(trained: Trained, tasks: Sequence[str] = tuple(TASKS)) -> dict[str, Any]:
    """The figures of some tasks, as `eval.json` has them."""
    found = run_tasks(trained, split_of(trained.config), tasks)
    return {name: figure for one in found.values() for name, figure in one.figures.items()}
