"""What is wanted of a sweep, by the command line, and whether a directory is that of this sweep."""

from __future__ import annotations

import dataclasses
import fcntl
import fnmatch
import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from omnijax import testing
from omnijax.config import Config, to_dict
from omnijax.errors import CheckpointError, ConfigError
from omnijax.experiment import override
from omnijax.plan.cost import step_flops
from omnijax.run.directory import differences
from omnijax.sweep.arms import changed
from omnijax.sweep.budget import Budget
from omnijax.sweep.inputs import SWEEP, read_object
from omnijax.sweep.sweep import Sweep

LOCK, SPEEDS = ".lock", "speeds"
SMOKE_STEPS, SMOKE_SEEDS, SMOKE_POINTS, SMOKE_SECONDS = 12, 2, 2, 0.5


def adapted(sweep: Sweep, overrides: list[str], smoke: bool) -> Sweep:
    """The sweep with its knobs as the command line has them; `smoke` makes it as small as it can be.

    Raises:
        OmnijaxError: an override that an arm can't have, by the name of the arm.
    """
    if smoke:
        arms = {name: changed(name, config, _shrunk) for name, config in sweep.arms.items()}
        sweep = dataclasses.replace(sweep, arms=arms, seeds=min(sweep.seeds, SMOKE_SEEDS))
        sweep = dataclasses.replace(sweep, points=SMOKE_POINTS, budget=_smoke_budget(sweep))
    arms = {name: changed(name, one, lambda config: override(config, overrides)) for name, one in sweep.arms.items()}
    return dataclasses.replace(sweep, arms=arms)


def _shrunk(config: Config) -> Config:
    return testing.shrink(config, Path(f"{config.data.directory}-smoke"))


def _smoke_budget(sweep: Sweep) -> Budget:
    """Enough for a few steps of the baseline: how many depends on how far its rows are filled, and with what."""
    config, kind = sweep.arms[sweep.baseline], sweep.budget.kind
    rows = dataclasses.replace(config.batch, sequence_length=2 * max(config.batch.sequence_items, 1) + 1)
    amount = {
        "items": SMOKE_STEPS * config.batch.size * config.batch.sequence_items,
        "flops": SMOKE_STEPS * step_flops(dataclasses.replace(config, batch=rows)) * 2 // 3,
        "seconds": SMOKE_SECONDS,
    }[kind]
    return Budget(kind, max(amount, 1))


def chosen(sweep: Sweep, only: str | None) -> list[str]:
    """The arms whose names fit a pattern; all without one.

    Raises:
        ConfigError: there are none.
    """
    names = [name for name in sweep.arms if only is None or fnmatch.fnmatchcase(name, only)]
    if not names:
        rule = f"no arm has such a name: {', '.join(sweep.arms)}"
        raise ConfigError("--only", only, rule, "give one of these, or a pattern such as 'base=*'")
    return names


def fingerprint(sweep: Sweep) -> str:
    """16 hexadecimal digits that change with whatever the results depend on; seeds can be added."""
    return hashlib.sha256(json.dumps(identity(sweep), sort_keys=True).encode()).hexdigest()[:16]


def identity(sweep: Sweep) -> dict[str, Any]:
    """All that the results depend on, as JSON has it."""
    return {
        "arms": {name: to_dict(config) for name, config in sweep.arms.items()},
        "budget": dataclasses.asdict(sweep.budget),
        "tasks": list(sweep.tasks),
        "points": sweep.points,
    }


def check_out(sweep: Sweep, out: Path) -> dict[str, Any]:
    """What stands in `OUT/sweep.json`; nothing where the directory is new.

    Raises:
        CheckpointError: the directory is another sweep's, or holds something that is none.
        DataError: `sweep.json` is damaged, or that of something else.
    """
    path = out / SWEEP
    if not path.exists():
        # Speeds are measured before the rest is known, and may be all that a killed process left.
        strange = [entry for entry in out.iterdir() if entry.name not in (LOCK, SPEEDS)] if out.is_dir() else []
        if strange or out.is_file():
            raise CheckpointError("--out", str(out), "it holds something that is no sweep", "choose a new directory")
        return {}
    saved = read_object(path, ("fingerprint", "jobs", *identity(sweep)), "choose a new --out")
    if saved["fingerprint"] != fingerprint(sweep):
        there = {key: saved[key] for key in identity(sweep)}
        differ = differences(there, json.loads(json.dumps(identity(sweep))))
        rule = f"it belongs to another sweep: {'; '.join(differ[:4])}"
        raise CheckpointError("--out", str(out), rule, "choose another --out, or the sweep that it was begun with")
    return saved


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Waits until no other process of any machine is in here."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
