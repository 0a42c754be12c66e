"""From a sweep to jobs. All checks are made, and all settings are fixed, before anything is trained."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import jax

from omnijax.config import Config, from_dict, to_dict
from omnijax.config.experiment_file import run_file
from omnijax.data.corpus import Corpus, fields_of, read_corpus, views_of
from omnijax.errors import ConfigError
from omnijax.evaluate.likelihoods import forms_of
from omnijax.model.build import model_of
from omnijax.model.transformer import parameter_count
from omnijax.plan.cost import padded_rows, step_flops
from omnijax.run.directory import usable_cores, write_json
from omnijax.sample.document_grammar import grammar_of
from omnijax.sweep.arms import naming
from omnijax.sweep.directory import ARMS, SWEEP, check_out, identity
from omnijax.sweep.fairness import Ledger, Progress, check_same, data_hashes, tokens_per_item
from omnijax.sweep.speed import measured_seconds
from omnijax.sweep.sweep import Sweep
from omnijax.train import load_corpus

MEASURED_OVER = 200
"""Steps whose longest sequence sets `sequence_length` while speed is measured; the number of steps follows from it."""


@dataclasses.dataclass(frozen=True)
class Job:
    """One arm with one seed, ready to be trained.

    Attributes:
        seed: for parameters, noise and order.
        config: complete; the sweep has set steps, `sequence_length`, seeds and checkpoints.
        curve: what the model has been trained on at each checkpoint, the last step included.
        step_flops: FLOPs of a training step, by formula.
        tokens_per_item: of each modality, over the held-out split.
        cost: predicted costs, for `result.json`.
        data: SHA-256 of the parts of the data, `fairness.HASHED`.
    """

    arm: str
    seed: int
    config: Config
    curve: tuple[Progress, ...]
    step_flops: int
    tokens_per_item: dict[str, float]
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
        parts = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return parts | {"config": to_dict(self.config), "curve": [point._asdict() for point in self.curve]}

    @classmethod
    def from_dict(cls, parts: dict[str, Any], experiment: Path) -> Job:
        """The inverse of `to_dict`; executes the experiment file where only it can make a class or the data."""
        curve = tuple(Progress(**point) for point in parts["curve"])
        config = from_dict(parts["config"], functools.partial(run_file, experiment))
        return cls(**{**parts, "config": config, "curve": curve})


class Prepared(NamedTuple):
    """An arm with a seed, and its data."""

    config: Config
    ledger: Ledger
    train: Corpus
    heldout: Corpus


def make_jobs(
    sweep: Sweep, names: Iterable[str], seeds: Iterable[int], out: Path, workers: int = 1, write: bool = True
) -> list[Job]:
    """The jobs of some arms and seeds, seed by seed, in the order in which they run.

    Jobs in `OUT/sweep.json` are read; the others are made, and added to this file. The baseline always gets a job.

    Args:
        sweep: after all overrides.
        names: of arms.
        seeds: for each arm.
        out: the directory of the sweep.
        workers: arms that run at the same time, for a budget in seconds.
        write: whether to write `OUT/sweep.json`.

    Raises:
        CheckpointError: the directory belongs to another sweep.
        OmnijaxError: an arm is invalid; the error names the arm.
        ConfigError: the seconds of other arms were measured with other workers or cores, so they wouldn't be equal.
        DataError: arms don't have the same data.
    """
    names, seeds = list(names), list(seeds)
    wanted = [name for name in sweep.arms if name in names or name == sweep.baseline]
    shares = {"--workers": workers, "cores": usable_cores()}
    saved: dict[str, Any] = {"order_steps": 0, "seconds_per_step": {}, "measured_with": shares, "jobs": {}}
    saved |= check_out(sweep, out)
    jobs = {name: Job.from_dict(job, sweep.experiment) for name, job in saved["jobs"].items()}
    speeds: dict[str, float] = saved["seconds_per_step"]
    for seed in seeds:
        prepared: dict[str, Prepared] = {}
        for name in (name for name in wanted if f"{name}/seed{seed}" not in jobs):
            prepared[name] = naming(name, _prepare, sweep.arms[name], seed, list(prepared.values()))
        if not prepared:
            continue
        if sweep.budget.kind == "seconds":
            _check_shares(saved["measured_with"], shares)
            for name in (name for name in prepared if name not in speeds):
                config = _with_room(prepared[name].config, prepared[name].ledger, MEASURED_OVER)
                speeds[name] = measured_seconds(name, config, workers, sweep.experiment)
        configs = {
            name: naming(name, _fitted, one, sweep, speeds[name] if speeds else math.nan)
            for name, one in prepared.items()
        }
        saved["order_steps"] = saved["order_steps"] or min(config.train.steps for config in configs.values())
        hashes = {job.arm: job.data for job in jobs.values() if job.seed == seed}
        for name, (config, ledger, train, heldout) in prepared.items():
            hashes[name] = data_hashes(config, train, heldout) | {"order": ledger.order(saved["order_steps"])}
        check_same(hashes)
        made = [_job(name, seed, configs[name], one, hashes[name]) for name, one in prepared.items()]
        jobs |= {job.name: job for job in made}
    if write:
        out.mkdir(parents=True, exist_ok=True)
        saved |= identity(sweep) | {"question": sweep.question, "baseline": sweep.baseline}
        saved["seeds"] = sorted({job.seed for job in jobs.values()})
        write_json(out / SWEEP, saved | {"jobs": {name: job.to_dict() for name, job in jobs.items()}})
    return [jobs[f"{name}/seed{seed}"] for seed in seeds for name in names]


def _check_shares(before: dict[str, int], shares: dict[str, int]) -> None:
    """Refuses workers or cores other than those that the seconds of other arms were measured with."""
    for key, here in shares.items():
        if before[key] != here:
            rule = f"other arms of this sweep were measured with {before[key]}, so their seconds aren't comparable"
            raise ConfigError(key, here, rule, f"use {before[key]}, or another --out")


def _prepare(config: Config, seed: int, others: list[Prepared]) -> Prepared:
    """An arm with its data; arms with the same data share them."""
    batch = dataclasses.replace(config.batch, seed=seed)
    config = dataclasses.replace(config, batch=batch, train=dataclasses.replace(config.train, seed=seed))
    if batch.sequence_items < 1:
        rule = "the sequences of every arm must hold the same documents, however they are written"
        raise ConfigError("batch.sequence_items", batch.sequence_items, rule, "set it above 0")
    for form in forms_of(config):
        grammar_of(config, form.order)
    shared = next((one for one in others if _source(one.config) == _source(config)), None)
    if shared is None:
        train, heldout = load_corpus(config), read_corpus(config, config.eval.split, fields_of(config))
    else:
        train, heldout = (dataclasses.replace(one, vocabulary=config.vocabulary) for one in shared[2:])
    return Prepared(config, Ledger(train, batch), train, heldout)


def _source(config: Config) -> Any:
    """Arms for which this is equal read the same fragments."""
    vocabulary = config.vocabulary
    sizes = [(space.name, space.size) for space in vocabulary.spaces]
    read = config.data, config.eval.split, config.batch.seed, sorted(views_of(config.batch.tasks))
    return *read, vocabulary.general, vocabulary.control, sizes


def _fitted(found: Prepared, sweep: Sweep, seconds_per_step: float) -> Config:
    """The configuration with the steps of its budget, sequences that hold them, and checkpoints for the curve.

    FLOPs depend on `sequence_length`, and this on the number of steps. So `sequence_length` is first set for one step,
    and then for the steps that the budget would allow with it. These are at least as many as the final number of steps.
    """
    ledger, amount = found.ledger, sweep.budget.amount
    if sweep.budget.kind == "items":
        steps = ledger.steps_for(amount)
    elif sweep.budget.kind == "seconds":
        steps = max(1, int(amount / seconds_per_step))
    else:
        config = _with_room(found.config, ledger, 1)
        config = _with_room(config, ledger, max(1, int(amount // step_flops(config))))
        steps = max(1, int(amount // step_flops(config)))
    if sweep.budget.kind != "flops":
        config = _with_room(found.config, ledger, steps)
    every = -(-steps // sweep.points)
    optim = dataclasses.replace(config.optim, warmup_steps=min(config.optim.warmup_steps, -(-steps // 5)))
    train = dataclasses.replace(
        config.train, steps=steps, checkpoint_every=every, keep_checkpoints=steps, log_every=max(1, steps // 50)
    )
    return dataclasses.replace(config, optim=optim, train=train)


def _with_room(config: Config, ledger: Ledger, steps: int) -> Config:
    """`sequence_length` for the longest sequence of these steps; the model reads a multiple of 8 tokens."""
    length = -(-(ledger.batches.longest_sequence(steps) - 1) // 8) * 8 + 1
    return dataclasses.replace(config, batch=dataclasses.replace(config.batch, sequence_length=length))


def _job(name: str, seed: int, config: Config, found: Prepared, data: dict[str, str]) -> Job:
    train = config.train
    steps = [*range(train.checkpoint_every, train.steps, train.checkpoint_every), train.steps]
    curve = tuple(found.ledger.after(step) for step in steps)
    end, flops = curve[-1], step_flops(config)
    shapes = jax.eval_shape(model_of(config).init, jax.eval_shape(lambda: jax.random.key(0)))
    cost = {
        "parameters": parameter_count(shapes),
        "softmax_flops_per_item": 2 * config.model.width * padded_rows(config.vocabulary) * end.tokens / end.items,
        "training_flops_per_item": flops * end.step / end.items,
    }
    return Job(name, seed, config, curve, flops, tokens_per_item(found.heldout, config), cost, data)
