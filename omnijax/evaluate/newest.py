"""The whole evaluation of a run's newest checkpoint: `eval.json`, and the examples that its report shows."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from omnijax.errors import CheckpointError, DataError
from omnijax.evaluate.history import append_row, head_of
from omnijax.evaluate.loading import Meshes, OpenRun
from omnijax.evaluate.tasks import TASKS, run_tasks
from omnijax.run.directory import device, read_object, write_json
from omnijax.step.sharding import mesh_that_fits

EVAL, EXAMPLES = "eval.json", "examples.json"


def evaluate(run: Path, meshes: Meshes = mesh_that_fits, again: bool = False) -> dict[str, Any]:
    """Evaluates the newest checkpoint of a run with all tasks; writes `eval.json` and `examples.json` there, and a row.

    Args:
        run: its directory.
        meshes: the devices to use.
        again: also if these files are already of this checkpoint and configuration.

    Returns:
        The content of `eval.json`.

    Raises:
        CheckpointError: no run, or one without a checkpoint.
        ConfigError: the model can't be split over the mesh.
        DataError: the data set is damaged.
    """
    with OpenRun(run, meshes) as opened:
        there = None if again else _there(opened)
        if there is not None:
            return there
        trained, split, started = opened.newest(), opened.split, time.perf_counter()
    found = run_tasks(trained, split, tuple(TASKS))
    figures = {name: one.figures for name, one in found.items()}
    head = head_of(trained.config, trained.step, trained.identity)
    data = trained.config.data
    result = {**head, "examples": split.count, "label": data.label, "classes": list(data.classes)}
    for one in figures.values():
        result |= one
    result |= {"device": device(), "seconds": time.perf_counter() - started}
    write_json(run / EXAMPLES, {name: part for one in found.values() for name, part in one.shown.items()})
    write_json(run / EVAL, result)
    append_row(run, head, figures, result["seconds"])
    return result


def _there(opened: OpenRun) -> dict[str, Any] | None:
    """The content of `eval.json`, if it is of the newest checkpoint as it is now."""
    steps = opened.steps()
    if not (steps and (opened.run / EXAMPLES).exists()):
        return None
    try:
        head = head_of(opened.config, steps[-1], opened.identity(steps[-1]))
        result = read_object(opened.run / EVAL, head, "")
    except (CheckpointError, DataError):
        return None
    same = all(result[name] == value for name, value in head.items() if name != "examples")
    return result if same else None
