"""The whole evaluation of a run's newest checkpoint: `eval.json`, and the examples that its report shows."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np

from omnijax.errors import CheckpointError
from omnijax.evaluate.directions import through_codebook
from omnijax.evaluate.heldout import heldout_of
from omnijax.evaluate.history import append_row, head_of
from omnijax.evaluate.loading import Meshes, OpenRun
from omnijax.evaluate.report_samples import collect
from omnijax.evaluate.tasks import TASKS, run_tasks
from omnijax.run.directory import device
from omnijax.step.sharding import mesh_that_fits

EVAL, SAMPLES = "eval.json", "samples.npz"


def evaluate(run: Path, meshes: Meshes = mesh_that_fits, again: bool = False) -> dict[str, Any]:
    """Evaluates the newest checkpoint of a run with all tasks; writes `eval.json` and `samples.npz` there, and a row.

    Args:
        run: its directory.
        meshes: the devices to use.
        again: also where these files are already of this checkpoint and configuration.

    Returns:
        What stands in `eval.json`.

    Raises:
        CheckpointError: no run, or one without a checkpoint.
        ConfigError: the model can't be split over the mesh.
        DataError: the data set is damaged.
    """
    with OpenRun(run, meshes) as opened:
        there = None if again else _there(opened)
        if there is not None:
            return there
        trained = opened.newest()
    started = time.perf_counter()
    config = trained.config
    heldout = heldout_of(config)
    count = min(config.eval.examples, len(heldout.records))
    found = run_tasks(trained, heldout, tuple(TASKS))
    head = head_of(config, trained.step, trained.identity)
    result = {**head, "examples": count}
    for one in found.values():
        result |= one.figures
    result |= {"device": device(), "seconds": time.perf_counter() - started}
    made = (found["directions"].made, found["completions"].made)
    examples = collect(config, heldout.records, *made, through_codebook(heldout, count))
    np.savez_compressed(run / SAMPLES, allow_pickle=False, **examples)
    (run / EVAL).write_text(json.dumps(result, indent=2) + "\n")
    append_row(run, head, {name: one.figures for name, one in found.items()}, result["seconds"])
    return result


def _there(opened: OpenRun) -> dict[str, Any] | None:
    """What stands in `eval.json`, if it is of the newest checkpoint as it is now."""
    steps = opened.steps()
    path = opened.run / EVAL
    if not (steps and path.exists() and (opened.run / SAMPLES).exists()):
        return None
    try:
        head = head_of(opened.config, steps[-1], opened.identity(steps[-1]))
        result = json.loads(path.read_text())
    except (CheckpointError, json.JSONDecodeError):
        return None
    same = isinstance(result, dict) and all(
        name in result and result[name] == value for name, value in head.items() if name != "examples"
    )
    return result if same else None
