"""A sweep: its arms, the budget that each arm may spend, and what is measured; and whose directory one is."""

from __future__ import annotations

import dataclasses
import difflib
import fnmatch
import json
import math
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from omnijax.config import Config, to_dict
from omnijax.config.experiment_file import run_file
from omnijax.errors import CheckpointError, ConfigError
from omnijax.evaluate import check_tasks
from omnijax.files import read_object
from omnijax.plan.cost import step_flops
from omnijax.run.directory import differences
from omnijax.sweep.arms import naming

NAME = re.compile(r"[A-Za-z0-9=_][A-Za-z0-9.,=+_-]{0,199}")
SMOKE_STEPS, SMOKE_SEEDS, SMOKE_POINTS, SMOKE_SECONDS = 12, 2, 2, 0.5
KINDS = ("items", "flops", "seconds")
SWEEP, RESULT, ANCHORS = "sweep.json", "result.json", "anchors.csv"
ARMS = "arms"


@dataclasses.dataclass(frozen=True)
class Budget:
    """What every arm may spend.

    Attributes:
        kind: `items` seen in training; `flops` of training, by formula; or `seconds` of training, by the measured
            time of a step.

    Raises:
        ConfigError: there is no such kind, or the amount isn't a number above 0.
    """

    kind: str
    amount: float

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ConfigError("budget.kind", self.kind, "must be items, flops or seconds", "choose one")
        if not 0 < self.amount < math.inf:
            raise ConfigError("budget.amount", self.amount, "must be a number above 0", "raise it")

    @classmethod
    def parse(cls, text: str) -> Budget:
        """The budget of a command line: `items=400000`, `flops=2e13`, `seconds=60`; else raises a `ConfigError`."""
        kind, _, amount = text.partition("=")
        try:
            return cls(kind, float(amount))
        except ValueError as error:
            rule = "a budget is KIND=AMOUNT"
            raise ConfigError("--budget", text, rule, "write items=400000, flops=2e13 or seconds=60") from error


@dataclasses.dataclass(frozen=True)
class Sweep:
    """A question, and the arms that answer it.

    Attributes:
        arms: name -> whole configuration. The name is also the name of a directory. The sweep sets `train.steps`,
            `batch.sequence_length`, the seeds, checkpoints and log intervals, and limits the warm-up to a fifth of the
            steps. Everything else comes from the experiment. `batch.sequence_items` must be above 0.
        question: the title of the report.
        baseline: name of the arm that the other arms are compared with.
        seeds: each arm is trained with the seeds 0 … seeds - 1, for parameters, noise and order.
        tasks: what is measured at the end: names of `omnijax.evaluate.TASKS`, `bits` among them.
        points: number of checkpoints at which bits are measured, including the last step.
        experiment: the file that the sweep came from, for the classes and data that only it can make.

    Raises:
        ConfigError: an attribute is invalid.
    """

    arms: Mapping[str, Config]
    budget: Budget
    question: str
    baseline: str
    seeds: int = 3
    tasks: tuple[str, ...] = ("bits",)
    points: int = 8
    experiment: Path = Path()

    def __post_init__(self) -> None:
        rule = "the name must be usable as a directory: letters, digits and .,=+_-, no dot or dash at the start"
        for name in self.arms:
            if not NAME.fullmatch(name):
                raise ConfigError("sweep.arms", name, rule, "rename the arm")
        near = difflib.get_close_matches(self.baseline, self.arms, n=1, cutoff=0.3)
        known = f"did you mean {near[0]!r}?" if near else f"choose one of {', '.join(self.arms)}"
        for field, holds, rule, fix in (
            ("arms", bool(self.arms), "a sweep needs at least one arm", "add arms"),
            ("baseline", self.baseline in self.arms, "there is no such arm", known),
            ("seeds", self.seeds >= 1, "must be at least 1", "raise it"),
            ("points", self.points >= 1, "must be at least 1", "raise it"),
            ("tasks", "bits" in check_tasks(self.tasks), "arms are compared by their bits", "add 'bits'"),
        ):
            if not holds:
                raise ConfigError(f"sweep.{field}", getattr(self, field), rule, fix)

    def changed(self, change: Callable[[Config], Config]) -> Sweep:
        """The same sweep with every configuration changed; raises an `OmnijaxError` that names an arm that can't be."""
        return dataclasses.replace(self, arms={name: naming(name, change, one) for name, one in self.arms.items()})

    def small(self) -> Sweep:
        """`--smoke`: the same arms in small, for a few steps; raises an `OmnijaxError` that names an arm that can't."""
        small, kind = self.changed(_shrunk), self.budget.kind
        config = small.arms[small.baseline]
        items = max(config.batch.sequence_items, 1)
        # The number of steps depends on how full the sequences are; two tokens per item are enough for an estimate.
        step = dataclasses.replace(config, batch=dataclasses.replace(config.batch, sequence_length=2 * items + 1))
        flops = SMOKE_STEPS * step_flops(step) * 2 // 3
        amounts = {"items": SMOKE_STEPS * config.batch.size * items, "flops": flops, "seconds": SMOKE_SECONDS}
        seeds = min(self.seeds, SMOKE_SEEDS)
        return dataclasses.replace(small, seeds=seeds, points=SMOKE_POINTS, budget=Budget(kind, amounts[kind]))

    def matching(self, pattern: str | None) -> list[str]:
        """Names of the arms that match a pattern such as `base=*`, None for all; if none does, a `ConfigError`."""
        names = [name for name in self.arms if fnmatch.fnmatchcase(name, pattern or "*")]
        if not names:
            rule = f"no arm has such a name: {', '.join(self.arms)}"
            raise ConfigError("--only", pattern, rule, "give one of these names, or a pattern such as 'base=*'")
        return names


def load_sweep(path: Path) -> Sweep:
    """The sweep of an experiment file: a Python file with `sweep()`.

    Raises:
        ConfigError: there is no such file, it has no `sweep()`, or the sweep is invalid.
        VocabularyError: the vocabulary of an arm can't be decoded.
    """
    module = run_file(path)
    sweep = module.sweep() if hasattr(module, "sweep") else None
    if not isinstance(sweep, Sweep):
        raise ConfigError("sweep", str(path), "its sweep() must return a Sweep", "see experiments/ablations/")
    return dataclasses.replace(sweep, experiment=path)


def _shrunk(config: Config) -> Config:
    """A model with at most two narrow layers, small batches, few evaluated records, and data of the same kind in small.

    Tasks stay the same, and so do the numbers of heads, which a mesh may have to divide.
    """

    def at_most(part: Any, **limits: int) -> Any:
        return dataclasses.replace(part, **{name: min(getattr(part, name), limit) for name, limit in limits.items()})

    return dataclasses.replace(
        config,
        data=config.data.small(f"{config.data.directory}-smoke"),
        model=at_most(config.model, depth=2, width=32, head_size=8, mlp_width=64, unroll=1),
        batch=at_most(config.batch, size=8 * config.optim.accumulate),
        eval=dataclasses.replace(at_most(config.eval, examples=12, show=4), batch_size=12),
    )


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
