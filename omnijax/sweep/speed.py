"""Seconds of a training step, measured once for each arm in processes of its own, and the cores of each worker."""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import functools
import multiprocessing
import os
import statistics
import time
from pathlib import Path
from typing import Any

import jax

from omnijax.config import Config, from_dict, to_dict
from omnijax.config.experiment_file import run_file
from omnijax.errors import PlatformError
from omnijax.model.build import model_of
from omnijax.step.sharding import make_mesh
from omnijax.step.state import init_state, make_step
from omnijax.train import ahead_on_device, load_splits, make_batches

WARM, TIMED = 3, 15
"""Steps before the measurement, and steps that are measured."""


def measured_seconds(name: str, config: Config, workers: int, experiment: Path) -> float:
    """Seconds of a training step of an arm, with a configuration whose sequences are long enough.

    As many copies run at the same time as there are workers, because workers share the memory bandwidth even if each
    has cores of its own. The slowest copy counts. Raises a `PlatformError` if the measurement failed.
    """
    measure = functools.partial(seconds_per_step, to_dict(config), experiment)
    shares = [share_of_cores(worker, workers) for worker in range(workers)]
    try:
        with concurrent.futures.ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
            return max(pool.map(measure, shares))
    except RuntimeError as error:  # of XLA, or the process is gone
        rule = f"the time of a step can't be measured ({error})"
        raise PlatformError("speed", name, rule, "fix the cause, or use another kind of budget") from error


def seconds_per_step(parts: dict[str, Any], experiment: Path, cores: set[int]) -> float:
    """Median seconds of a training step on some cores, without compilation; batches are read ahead as in training."""
    bind(0, cores)
    config = from_dict(parts, functools.partial(run_file, experiment))
    mesh, model = make_mesh(config.mesh), model_of(config)
    step, state, taken = make_step(config, model, mesh), init_state(config, model, mesh), []
    config = dataclasses.replace(config, train=dataclasses.replace(config.train, steps=WARM + TIMED))
    for batch in ahead_on_device(mesh, make_batches(config, load_splits(config)), 0, config):
        started = time.perf_counter()
        state, metrics = jax.block_until_ready(step(state, batch))
        taken.append(time.perf_counter() - started)
    return statistics.median(taken[WARM:])


def share_of_cores(worker: int, workers: int) -> set[int]:
    """The cores of a worker, from 0. All workers have equally many, so that the speeds of arms can be compared.

    With more workers than cores, every worker has all cores. The set is empty on systems that can't bind processes.
    """
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    each = len(cores) // workers
    return set(cores[worker * each : (worker + 1) * each] or cores)


def bind(process: int, cores: set[int]) -> None:
    """Restricts a process (0 is this one) and its future children to some cores; an empty set changes nothing.

    XLA starts one thread for each core of the process when its client is created, which is long after the start.
    """
    if cores:
        with contextlib.suppress(ProcessLookupError):  # the process may have ended
            os.sched_setaffinity(process, cores)
