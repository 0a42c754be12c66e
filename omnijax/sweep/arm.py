"""One arm with one seed: trained in its own run directory, then measured. `result.json` is written last."""

from __future__ import annotations

import os
import statistics
import sys
from pathlib import Path
from typing import Any

import jax

from omnijax.config import Config
from omnijax.errors import RESUMABLE, CheckpointError, ConfigError, DataError
from omnijax.evaluate.loading import OpenRun
from omnijax.evaluate.split import split_of
from omnijax.evaluate.tasks import run_tasks
from omnijax.files import read_lines, write_object
from omnijax.lock import locked
from omnijax.plan.needs import memory_of
from omnijax.plan.programs import lower_step
from omnijax.run.checkpoint import Checkpoints
from omnijax.run.directory import METRICS, check, device, versions
from omnijax.step.sharding import make_mesh
from omnijax.sweep.fairness import HASHED, data_hashes
from omnijax.sweep.jobs import Job
from omnijax.sweep.sweep import RESULT, Sweep
from omnijax.train import load_splits, train

BUSY = 73
"""Exit status if another process works on the job."""


def run_alone(job: Job, sweep: Sweep, out: Path, command: str) -> int:
    """Runs a job unless it is done or another process works on it; gives the exit status.

    Raises an `OmnijaxError` as `run_job`.
    """
    with locked(job.run(out).with_suffix(".lock"), wait=False) as mine:
        if not mine:
            print(f"{job.name}: another process works on it", file=sys.stderr)
            return BUSY
        if is_done(out, job):
            return 0
        print(f"{job.name}: started or resumed", flush=True)
        return 0 if run_job(job, out, sweep.tasks, sweep.experiment, command) else RESUMABLE


def is_done(out: Path, job: Job) -> bool:
    """Whether the job has a result; raises a `CheckpointError` if its directory is of another configuration."""
    run = job.run(out)
    if done := (run / RESULT).exists():
        check(run, job.config)
    return done


def run_job(job: Job, out: Path, tasks: tuple[str, ...], experiment: Path, command: str) -> bool:
    """Trains an arm, or resumes it, and measures it. Only its last checkpoint is kept.

    Returns:
        Whether the job is done; if not, a signal stopped it, and it can be resumed.

    Raises:
        ConfigError: a training step doesn't fit into memory.
        DataError: the data differ from those that the job was made with.
        OmnijaxError: see `omnijax.train.train`.
    """
    run, splits = job.run(out), load_splits(job.config)
    hashes = data_hashes(job.config, [split.corpus() for split in splits], split_of(job.config).corpus)
    for part, found in hashes.items():
        if found != job.data[part]:
            rule = f"{HASHED[part]} must have the hash that the sweep was started with, {job.data[part][:16]}"
            raise DataError(f"arms.{job.arm}.data", found[:16], rule, "use the same data as the other arms")
    needed, there = peak_bytes(job.config), memory_bytes()
    if needed > there:
        rule = f"a training step must fit into the {there / 1e9:.1f} GB of memory"
        fix = "lower batch.size, raise optim.accumulate, or leave the arm out with --only"
        raise ConfigError(f"arms.{job.arm}.memory", f"{needed / 1e9:.1f} GB", rule, fix)
    if train(job.config, run, command, experiment=experiment, splits=splits).stopped:
        return False
    result = measure(job, run, tasks)
    write_object(run / RESULT, result | {"cost": job.cost | {"peak_bytes": needed}, "command": command})
    with Checkpoints(run) as checkpoints:
        checkpoints.keep_only(job.end.step)
    return True


def measure(job: Job, run: Path, tasks: tuple[str, ...]) -> dict[str, Any]:
    """The result of a trained arm: bits at each checkpoint of its curve, and all tasks at the last one.

    Raises a `CheckpointError` if a checkpoint of the curve is missing or damaged.
    """
    curve, figures = [], {}
    with OpenRun(run, config=job.config) as opened:
        if missing := {point.step for point in job.curve} - {*opened.steps()}:
            rule = "checkpoints of the curve were deleted after the measurement, and now the result is missing too"
            raise CheckpointError(f"arms.{job.name}", sorted(missing), rule, f"delete {run} to train the arm again")
        speed = {name: _median(run, name) for name in ("items_per_second", "tokens_per_second")}
        for point in job.curve:
            found = run_tasks(opened.load(point.step), opened.split, tasks if point is job.end else ("bits",))
            figures = {name: value for one in found.values() for name, value in one.figures.items()}
            spent = {"seconds": point.tokens / speed["tokens_per_second"], "flops": job.step_flops * point.step}
            bits = {form: entry["renormalised"] for form, entry in figures["bits_per_item"].items()}
            curve.append({"step": point.step, "items": point.items, **spent, "bits": bits})
    accuracies = {
        route: {name: found[name] for name in ("accuracy", "standard_error")}
        for route, found in figures.get("directions", {}).items()
        if "accuracy" in found
    }
    result = {"arm": job.arm, "seed": job.seed, "data": job.data, "bits": figures.pop("bits_per_item")}
    result |= {"accuracies": accuracies, "figures": figures, "speed": speed, "curve": curve}
    return result | {"device": device(), "versions": versions()}


def peak_bytes(config: Config) -> int:
    """Memory of one training step on a device, according to the compiler: arguments, results and temporaries."""
    return int(memory_of(lower_step(config, make_mesh(config.mesh)).program.compile(), {}, 0.0).needed)


def memory_bytes() -> int:
    """Memory of an accelerator; without accelerators, the main memory that a process may use."""
    if stats := jax.local_devices()[0].memory_stats():
        return int(stats["bytes_limit"])
    group = Path("/sys/fs/cgroup/memory.max")
    allowed = group.read_text().strip() if group.is_file() else "max"
    main = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min(main, int(allowed)) if allowed.isdigit() else main


def _median(run: Path, name: str) -> float:
    """Median of a figure over the intervals of the log; the first tenth is left out, since it includes compilation."""
    values = [float(line[name]) for line in read_lines(run / METRICS)]
    return statistics.median(values[min(len(values) - 1, -(-len(values) // 10)) :])
