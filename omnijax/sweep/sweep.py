"""What a sweep is: arms, the budget that they are compared at, and what is measured of them."""

from __future__ import annotations

import dataclasses
import difflib
import re
from collections.abc import Mapping
from pathlib import Path

from omnijax.config import Config
from omnijax.errors import ConfigError
from omnijax.evaluate import check_tasks
from omnijax.experiment import run_file
from omnijax.sweep.budget import Budget

NAME = re.compile(r"[A-Za-z0-9=_][A-Za-z0-9.,=+_-]{0,199}")


@dataclasses.dataclass(frozen=True)
class Sweep:
    """A question, and the arms that are to answer it.

    Attributes:
        arms: name -> whole configuration. `train.steps`, `batch.sequence_length`, seeds, checkpoints, lines of the log
            follow from the sweep, and the warm-up takes a fifth of the steps at most; everything else is the
            experiment's. Rows are packed by items. A name is that of a directory, too.
        budget: what every arm may spend.
        question: what is asked, for the page.
        baseline: name of the arm that the others are held against.
        seeds: each arm is trained with the seeds 0 … seeds - 1, for parameters, noise and order alike.
        tasks: what is measured at the end, of `omnijax.evaluate`.
        points: checkpoints along training at which held-out bits are measured, the last one among them.

    Raises:
        ConfigError: a part that can't be.
    """

    arms: Mapping[str, Config]
    budget: Budget
    question: str
    baseline: str
    seeds: int = 3
    tasks: tuple[str, ...] = ("bits",)
    points: int = 8

    def __post_init__(self) -> None:
        if not self.arms:
            raise ConfigError("sweep.arms", dict(self.arms), "there must be something to compare", "add arms")
        for name, config in self.arms.items():
            if not NAME.fullmatch(name):
                rule = "a name is that of a directory: letters, digits and .,=+_- alone, no dot or dash in front"
                raise ConfigError("sweep.arms", name, rule, "rename it")
            if not isinstance(config, Config):
                raise ConfigError(f"arms.{name}", config, "must be a Config", "see omnijax.sweep.arms.arms_of")
        if self.baseline not in self.arms:
            near = difflib.get_close_matches(self.baseline, self.arms, n=1, cutoff=0.3)
            fix = f"did you mean {near[0]!r}?" if near else f"choose one of {', '.join(self.arms)}"
            raise ConfigError("sweep.baseline", self.baseline, "there is no such arm", fix)
        for name, least in (("seeds", 1), ("points", 1)):
            if getattr(self, name) < least:
                raise ConfigError(f"sweep.{name}", getattr(self, name), f"must be at least {least}", "raise it")
        check_tasks(self.tasks)
        if "bits" not in self.tasks:
            raise ConfigError("sweep.tasks", self.tasks, "arms are compared by their bits", "add 'bits'")


def load_sweep(path: Path) -> Sweep:
    """The sweep of an experiment file: a Python file with `sweep()`.

    Raises:
        ConfigError: no such file, or it has no `sweep` that gives a `Sweep`; or one that can't be.
        VocabularyError: an arm has a vocabulary that can't be read back.
    """
    module = run_file(path)
    sweep = module.sweep() if hasattr(module, "sweep") else None
    if not isinstance(sweep, Sweep):
        raise ConfigError("sweep", str(path), "its sweep() must return a Sweep", "see experiments/ablations/")
    return sweep
