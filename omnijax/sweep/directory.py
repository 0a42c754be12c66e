"""The directory of a sweep: whose it is, and which process works on what."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

from omnijax.config import to_dict
from omnijax.errors import CheckpointError
from omnijax.files import read_object
from omnijax.run.directory import differences
from omnijax.sweep.sweep import Sweep

SWEEP, RESULT, ANCHORS = "sweep.json", "result.json", "anchors.csv"
ARMS = "arms"


def identity(sweep: Sweep) -> dict[str, Any]:
    """Everything that the results depend on, except the number of seeds; as JSON gives it back."""
    arms = {name: to_dict(config) for name, config in sweep.arms.items()}
    found = {"arms": arms, "budget": dataclasses.asdict(sweep.budget), "tasks": sweep.tasks, "points": sweep.points}
    return dict(json.loads(json.dumps(found)))


def check_out(sweep: Sweep, out: Path) -> dict[str, Any]:
    """The content of `OUT/sweep.json`; an empty dict if the directory is new.

    Raises:
        CheckpointError: the directory belongs to another sweep, or holds something else.
        DataError: `sweep.json` is damaged.
    """
    path, wanted = out / SWEEP, identity(sweep)
    if not path.exists():
        # A killed process may leave these, which are written before sweep.json.
        strange = [one for one in out.iterdir() if not one.name.startswith(".")] if out.is_dir() else []
        if strange or out.is_file():
            raise CheckpointError("--out", str(out), "it holds something that is no sweep", "choose a new directory")
        return {}
    saved = read_object(path, ("jobs", *wanted), "choose a new --out")
    if differ := differences({key: saved[key] for key in wanted}, wanted):
        rule = f"it belongs to another sweep: {'; '.join(differ[:4])}"
        raise CheckpointError("--out", str(out), rule, "choose another --out, or the sweep that it was started with")
    return saved
