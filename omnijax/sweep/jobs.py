"""From a sweep to jobs. All checks are made, and all settings are fixed, before anything is trained."""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import jax

from omnijax.config import Config, from_dict, to_dict
from omnijax.config.experiment_file import run_file
from omnijax.errors import ConfigError
from omnijax.evaluate.likelihoods import forms_of
from omnijax.evaluate.split import split_of
from omnijax.files import write_object
from omnijax.model.build import model_of
from omnijax.model.transformer import parameter_count
from omnijax.plan.cost import step_flops
from omnijax.run.directory import usable_cores
from omnijax.sample.document_grammar import grammar_of
from omnijax.sweep.arms import naming
from omnijax.sweep.fairness import Ledger, Progress, check_same, data_hashes
from omnijax.sweep.speed import measured_seconds
from omnijax.sweep.sweep import ARMS, SWEEP, Sweep, check_out, identity
from omnijax.train import load_splits

MEASURED_OVER = 200
"""Steps whose longest sequence sets `sequence_length` while speed is measured; the number of steps follows from it."""

Prepared = tuple[Config, Ledger, dict[str, str]]
"""An arm with a seed, what its steps contain, and the SHA-256 of its data."""
Hashes = dict[Any, dict[str, str]]
"""The training split, and the SHA-256 of both splits, by all that they follow from."""


class Job(NamedTuple):
    """One arm with one seed, ready to be trained.

    Attributes:
        arm: its name.
        seed: for parameters, noise and order.
        config: complete; the sweep has set steps, `sequence_length`, seeds and checkpoints.
        curve: what the model has been trained on at each checkpoint, the last step included.
        step_flops: FLOPs of a training step, by formula.
        cost: predicted costs, for `result.json`.
        data: SHA-256 of the parts of the data, `fairness.HASHED`.
    """

    arm: str
    seed: int
    config: Config
    curve: list[Progress]
    step_flops: int
    cost: dict[str, float]
    data: dict[str, str]

    @property
    def name(self) -> str:
        """Its directory in `OUT/arms`."""
        return f"{self.arm}/seed{self.seed}"

    def run(self, out: Path) -> Path:
        """Its run directory."""
        return out / ARMS / self.name

    @property
    def end(self) -> Progress:
        """What the model has been trained on at the end."""
        return self.curve[-1]

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return self._asdict() | {"config": to_dict(self.config)}

    @classmethod
    def from_dict(cls, parts: dict[str, Any], experiment: Path) -> Job:
        """The inverse of `to_dict`; executes the experiment file where only it can make a class or the data."""
        config = from_dict(parts["config"], functools.partial(run_file, experiment))
        return cls(**{**parts, "config": config, "curve": [Progress(*point) for point in parts["curve"]]})


def make_jobs(
    sweep: Sweep, names: Iterable[str], seeds: Iterable[int], out: Path, workers: int = 1, write: bool = True
) -> list[Job]:
    """The jobs of some arms and seeds, seed by seed, in the order in which they run.

    Jobs in `OUT/sweep.json` are read; the others are made, and added to this file if `write` is set. The baseline
    always gets a job. `sweep` is that after all overrides; `workers` arms run at the same time, which matters for a
    budget in seconds.

    Raises:
        CheckpointError: the directory belongs to another sweep.
        OmnijaxError: an arm is invalid; the error names the arm.
        ConfigError: the seconds of other arms were measured with other workers or cores, so they wouldn't be equal.
        DataError: arms don't have the same data.
    """
    names, seeds = list(names), list(seeds)
    shares = {"--workers": workers, "cores": usable_cores()}
    saved: dict[str, Any] = {"seconds_per_step": {}, "measured_with": shares, "jobs": {}} | check_out(sweep, out)
    jobs = {name: Job.from_dict(job, sweep.experiment) for name, job in saved["jobs"].items()}
    speeds: dict[str, float] = saved["seconds_per_step"]
    for seed in seeds:
        same = {job.arm: job for job in jobs.values() if job.seed == seed}
        missing = [name for name in sweep.arms if name in {*names, sweep.baseline} - same.keys()]
        hashes: Hashes = {}
        prepared = {name: naming(name, _prepare, sweep.arms[name], seed, hashes) for name in missing}
        check_same({arm: job.data for arm, job in same.items()} | {arm: data for arm, (*_, data) in prepared.items()})
        if sweep.budget.kind == "seconds" and prepared:
            for key, before in saved["measured_with"].items():
                if before != shares[key]:
                    rule = f"other arms of this sweep were measured with {before}, so their seconds aren't comparable"
                    raise ConfigError(key, shares[key], rule, f"use {before}, or another --out")
            for name in (name for name in prepared if name not in speeds):
                config = _with_room(*prepared[name][:2], MEASURED_OVER)
                speeds[name] = measured_seconds(name, config, workers, sweep.experiment)
        for name, one in prepared.items():
            jobs[f"{name}/seed{seed}"] = naming(name, _job, name, seed, one, sweep, speeds)
    if write:
        out.mkdir(parents=True, exist_ok=True)
        saved |= identity(sweep) | {"question": sweep.question, "baseline": sweep.baseline}
        saved["seeds"] = sorted({job.seed for job in jobs.values()})
        write_object(out / SWEEP, saved | {"jobs": {name: job.to_dict() for name, job in jobs.items()}})
    return [jobs[f"{name}/seed{seed}"] for seed in seeds for name in names]


def _prepare(config: Config, seed: int, hashes: Hashes) -> Prepared:
    """Checks an arm, and reads its data. Arms that read the same fragments share their hashes."""
    batch = dataclasses.replace(config.batch, seed=seed)
    config = dataclasses.replace(config, batch=batch, train=dataclasses.replace(config.train, seed=seed))
    if batch.sequence_items < 1:
        rule = "the sequences of every arm must hold the same documents, however they are written"
        raise ConfigError("batch.sequence_items", batch.sequence_items, rule, "set it above 0")
    for form in forms_of(config):
        grammar_of(config, form.order)
    v, views = config.vocabulary, frozenset(batch.views)
    data = json.dumps(to_dict(config)["data"])  # the fields of a folder can't be hashed
    key = data, config.eval.split, views, v.general, v.control, tuple((one.name, one.size) for one in v.spaces)
    splits = load_splits(config)
    if key not in hashes:
        hashes[key] = data_hashes(config, [split.corpus() for split in splits], split_of(config).corpus)
    ledger = Ledger(config, splits)
    return config, ledger, hashes[key] | {"order": ledger.order()}


def _job(name: str, seed: int, found: Prepared, sweep: Sweep, speeds: dict[str, float]) -> Job:
    """The job with the steps of its budget, sequences that hold them, and checkpoints for the curve.

    FLOPs depend on `sequence_length`, and this on the number of steps. So `sequence_length` is first set for one step,
    and then for the steps that the budget would allow with it. These are at least as many as the final number of steps.
    """
    (config, ledger, data), amount = found, sweep.budget.amount
    if sweep.budget.kind == "flops":
        steps = 1
        for _ in range(2):
            config = _with_room(config, ledger, steps)
            steps = max(1, int(amount // step_flops(config)))
    else:
        steps = ledger.steps_for(amount) if sweep.budget.kind == "items" else max(1, int(amount / speeds[name]))
        config = _with_room(config, ledger, steps)
    every = -(-steps // sweep.points)
    optim = dataclasses.replace(config.optim, warmup_steps=min(config.optim.warmup_steps, -(-steps // 5)))
    train = dataclasses.replace(
        config.train, steps=steps, checkpoint_every=every, keep_checkpoints=steps, log_every=max(1, steps // 50)
    )
    config = dataclasses.replace(config, optim=optim, train=train)
    curve = [ledger.after(step) for step in [*range(every, steps, every), steps]]
    flops = step_flops(config)
    shapes = jax.eval_shape(model_of(config).init, jax.eval_shape(lambda: jax.random.key(0)))
    cost = {"parameters": parameter_count(shapes), "training_flops_per_item": flops * steps / curve[-1].items}
    return Job(name, seed, config, curve, flops, cost, data)


def _with_room(config: Config, ledger: Ledger, steps: int) -> Config:
    """`sequence_length` for the longest sequence of these steps; the model reads a multiple of 8 tokens."""
    length = -(-(ledger.batches.longest_sequence(steps) - 1) // 8) * 8 + 1
    return dataclasses.replace(config, batch=dataclasses.replace(config.batch, sequence_length=length))
