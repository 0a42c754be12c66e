"""From a sweep to jobs: whatever can be wrong is found, and whatever follows is fixed, before anything is trained."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

from omnijax.config import Config, from_dict, modality_of, to_dict
from omnijax.data.corpus import Corpus, read_corpus
from omnijax.data.pipeline import Batches
from omnijax.errors import ConfigError
from omnijax.evaluate.likelihoods import forms_of
from omnijax.plan.cost import padded_rows, step_flops
from omnijax.run.directory import write_json
from omnijax.sample.document_grammar import grammar_of
from omnijax.sweep.arms import naming
from omnijax.sweep.budget import parameters, predicted_bytes
from omnijax.sweep.fairness import Ledger, Seen, check_same, fragments_hash, tokens_per_item
from omnijax.sweep.inputs import SWEEP
from omnijax.sweep.sweep import Sweep
from omnijax.sweep.wanted import check_out, fingerprint, identity
from omnijax.train import load_corpus

ARMS = "arms"
MEASURED_OVER = 200
"""Steps whose rows are long enough for an arm whose speed is measured, before anyone knows how many it will take."""
LARGE = "leave it out with --only, lower batch.size, or use fewer workers"
ANY_LENGTH = 2**30
"""Room of rows that are only counted."""


@dataclasses.dataclass(frozen=True)
class Job:
    """One arm with one seed, ready to be trained.

    Attributes:
        arm: its name.
        seed: of parameters, noise and order.
        config: all of it: steps, rows, seeds and checkpoints follow from the sweep.
        curve: what it has seen at each of its checkpoints, the last step among them.
        step_flops: of a training step, by formula.
        bytes: that it is predicted to take.
        tokens_per_item: of each modality of the tasks.
        cost: what can be said of the cost beforehand, as `result.json` has it.
        data: SHA-256 of the training fragments, of the held-out ones, and of the order of the documents.
    """

    arm: str
    seed: int
    config: Config
    curve: tuple[Seen, ...]
    step_flops: int
    bytes: int
    tokens_per_item: dict[str, float]
    cost: dict[str, float]
    data: dict[str, str]

    @property
    def name(self) -> str:
        """Of its directory, below `OUT/arms`."""
        return f"{self.arm}/seed{self.seed}"

    @property
    def end(self) -> Seen:
        """What it has seen when it is done."""
        return self.curve[-1]

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        parts = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return parts | {"config": to_dict(self.config), "curve": [seen._asdict() for seen in self.curve]}

    @classmethod
    def from_dict(cls, parts: dict[str, Any]) -> Job:
        """What `to_dict` gave."""
        curve = tuple(Seen(**seen) for seen in parts["curve"])
        return cls(**{**parts, "config": from_dict(parts["config"]), "curve": curve})


class Room(NamedTuple):
    """What there is for arms to run in.

    Attributes:
        bytes: memory.
        workers: arms at a time.
    """

    bytes: float
    workers: int


class Found(NamedTuple):
    """An arm with a seed, while it is resolved."""

    config: Config
    ledger: Ledger
    train: Corpus
    heldout: Corpus


def resolve(
    sweep: Sweep,
    names: Iterable[str],
    seeds: Iterable[int],
    out: Path,
    measure: Callable[[str], float],
    room: Room,
    write: bool = True,
) -> list[Job]:
    """The jobs of these arms and seeds, in the order in which they are to run: seed by seed.

    What was resolved before is taken from `OUT/sweep.json`; the rest is added to it. The baseline is always resolved.

    Args:
        sweep: as `adapted` gives it.
        names: of arms.
        seeds: of each.
        out: the directory of the sweep.
        measure: gives the seconds of a step of an arm with this name, where the budget asks for them.
        room: for what they take.
        write: whether `OUT/sweep.json` is written.

    Raises:
        CheckpointError: the directory is another sweep's.
        OmnijaxError: an arm that can't be, by its name; or doesn't fit into memory.
        DataError: arms that don't have the same data.
    """
    names, seeds = list(names), list(seeds)
    wanted = [name for name in sweep.arms if name in names or name == sweep.baseline]
    saved = check_out(sweep, out)
    jobs = {job.name: job for job in map(Job.from_dict, saved.get("jobs", {}).values())}
    for seed in seeds:
        missing = [name for name in wanted if f"{name}/seed{seed}" not in jobs]
        if missing:
            there = [job for job in jobs.values() if job.seed == seed]
            more = _resolve_seed(sweep, missing, seed, there, saved.get("order_steps", 0), measure, room)
            saved["order_steps"], found = more
            jobs |= {job.name: job for job in found}
    chosen = [jobs[f"{name}/seed{seed}"] for seed in seeds for name in names]
    check_memory(chosen, room)
    if write:
        out.mkdir(parents=True, exist_ok=True)
        content = identity(sweep) | {"fingerprint": fingerprint(sweep)}
        content |= {"question": sweep.question, "baseline": sweep.baseline}
        content |= {"order_steps": saved["order_steps"], "seeds": sorted({job.seed for job in jobs.values()})}
        write_json(out / SWEEP, content | {"jobs": {name: job.to_dict() for name, job in jobs.items()}})
    return chosen


def _resolve_seed(
    sweep: Sweep,
    names: list[str],
    seed: int,
    there: list[Job],
    order_steps: int,
    measure: Callable[[str], float],
    room: Room,
) -> tuple[int, list[Job]]:
    """Jobs of one seed, and how many steps their orders are compared over."""
    found: dict[str, Found] = {}
    for name in names:
        with naming(name):
            found[name] = one = _read(_seeded(sweep.arms[name], seed), list(found.values()))
        # Before anything is run to take its time; how long the rows are of all steps, nobody knows yet.
        least = predicted_bytes(_with_rows(one.config, one.ledger.batches, 1), one.ledger.longest_document)
        copies = room.workers if sweep.budget.kind == "seconds" else 1
        _check_bytes(f"arms.{name}", copies * least, room.bytes, LARGE)
    configs = {}
    for name, one in found.items():
        with naming(name):
            configs[name] = _fitted(one, sweep, name, measure)
    order_steps = order_steps or min(config.train.steps for config in configs.values())
    hashes = {job.arm: job.data for job in there}
    for name, one in found.items():
        views = {view for task in one.config.batch.tasks for view in task.segments}
        hashes[name] = {
            "fragments": fragments_hash(one.train, views),
            "heldout": fragments_hash(one.heldout, map(modality_of, views)),
            "order": one.ledger.order(order_steps),
        }
    check_same(hashes)
    jobs = [_job(name, seed, configs[name], one, sweep.points, hashes[name]) for name, one in found.items()]
    return order_steps, jobs


def _seeded(config: Config, seed: int) -> Config:
    return dataclasses.replace(
        config,
        batch=dataclasses.replace(config.batch, seed=seed),
        train=dataclasses.replace(config.train, seed=seed),
    )


def _read(config: Config, others: list[Found]) -> Found:
    """The data of an arm; shared with another arm that has the same."""
    if config.batch.sequence_items < 1:
        rule = "rows of every arm must hold the same documents, whatever these are written in"
        raise ConfigError("batch.sequence_items", config.batch.sequence_items, rule, "set it above 0")
    for form in forms_of(config):
        grammar_of(config, form.order)
    shared = next((one for one in others if _same_data(one.config, config)), None)
    if shared is None:
        train, heldout = load_corpus(config), heldout_corpus(config)
    else:
        train, heldout = (dataclasses.replace(one, vocabulary=config.vocabulary) for one in shared[2:])
    return Found(config, Ledger(train, dataclasses.replace(config.batch, sequence_length=ANY_LENGTH)), train, heldout)


def heldout_corpus(config: Config) -> Corpus:
    """What an arm is measured on."""
    return read_corpus(config.vocabulary, config.data, "heldout", config.batch.seed)


def measurable(sweep: Sweep, name: str) -> tuple[Config, Batches]:
    """An arm with rows for the steps that its speed is measured over, and its batches."""
    found = _read(_seeded(sweep.arms[name], 0), [])
    config = _with_rows(found.config, found.ledger.batches, MEASURED_OVER)
    return config, Batches(found.train, config.batch)


def _same_data(one: Config, other: Config) -> bool:
    def sizes(config: Config) -> Any:
        v = config.vocabulary
        return config.data, v.general, v.control, [(space.name, space.size) for space in v.spaces]

    return bool(sizes(one) == sizes(other))


def _fitted(found: Found, sweep: Sweep, name: str, measure: Callable[[str], float]) -> Config:
    """The configuration with the steps of its budget, rows that hold them, and a checkpoint at each point of the curve.

    Rows are fitted to the steps that there are with rows for one step: these are shorter, so that there are more.
    """
    ledger, budget = found.ledger, sweep.budget
    if budget.kind == "items":
        steps = ledger.steps_for(budget.amount)
        config = _with_rows(found.config, ledger.batches, steps)
    elif budget.kind == "flops":
        config = _with_rows(found.config, ledger.batches, 1)
        config = _with_rows(config, ledger.batches, max(1, int(budget.amount // step_flops(config))))
        steps = max(1, int(budget.amount // step_flops(config)))
    else:
        steps = max(1, int(budget.amount / measure(name)))
        config = _with_rows(found.config, ledger.batches, steps)
    every = -(-steps // sweep.points)
    optim = dataclasses.replace(config.optim, warmup_steps=min(config.optim.warmup_steps, -(-steps // 5)))
    train = dataclasses.replace(
        config.train, steps=steps, checkpoint_every=every, keep_checkpoints=steps, log_every=max(1, steps // 50)
    )
    return dataclasses.replace(config, optim=optim, train=train)


def _with_rows(config: Config, batches: Batches, steps: int) -> Config:
    """Rows as long as the longest of these steps, and so that what is read of them is a multiple of 8."""
    longest = batches.longest_row(steps)
    return dataclasses.replace(
        config, batch=dataclasses.replace(config.batch, sequence_length=-(-(longest - 1) // 8) * 8 + 1)
    )


def _job(name: str, seed: int, config: Config, found: Found, points: int, data: dict[str, str]) -> Job:
    train = config.train
    steps = dict.fromkeys([*range(train.checkpoint_every, train.steps, train.checkpoint_every), train.steps])
    curve = tuple(found.ledger.seen(step) for step in steps)
    end, flops = curve[-1], step_flops(config)
    cost = {
        "parameters": parameters(config),
        "softmax_flops_per_item": 2 * config.model.width * padded_rows(config) * end.tokens / end.items,
        "training_flops_per_item": flops * end.step / end.items,
    }
    needed = predicted_bytes(config, found.ledger.longest_document)
    per_item = tokens_per_item(found.heldout, (name for task in config.batch.tasks for name in task.modalities))
    return Job(name, seed, config, curve, flops, needed, per_item, cost, data)


def check_memory(jobs: list[Job], room: Room) -> None:
    """Holds what jobs are predicted to take against the memory there is.

    Raises:
        ConfigError: the largest of them, as many as run at once, don't fit.
    """
    largest: dict[str, int] = {}
    for job in jobs:
        largest[job.arm] = max(job.bytes, largest.get(job.arm, 0))
    by_size = sorted(largest, key=lambda name: -largest[name])
    for name in by_size[:1]:
        _check_bytes(f"arms.{name}", largest[name], room.bytes, LARGE)
    if room.workers > 1 and len(jobs) > 1:
        together = sum(sorted((job.bytes for job in jobs), reverse=True)[: room.workers])
        _check_bytes("--workers", together, room.bytes, "use fewer workers")


def _check_bytes(field: str, needed: int, memory_bytes: float, fix: str) -> None:
    if needed > memory_bytes:
        rule = f"there are {memory_bytes / 1e9:.1f} GB for what is predicted to take so much"
        fix = f"{fix}; or say with --memory-gb that there is more"
        raise ConfigError(field, f"{needed / 1e9:.1f} GB", rule, fix)
