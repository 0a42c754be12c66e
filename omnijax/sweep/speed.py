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
from omnijax.data.pipeline import Batches
from omnijax.errors import PlatformError
from omnijax.model.build import model_of
from omnijax.step.sharding import make_mesh
from omnijax.step.state import init_state, make_step
from omnijax.train import ahead_on_device, load_corpus

WARM, TIMED = 3, 15
"""Steps before the measurement, and steps that are measured."""


def measured_seconds(name: str, config: Config, workers: int, experiment: Path) -> float:
    """Seconds of a training step of an arm.

    As many copies run at the same time as there are workers, because workers share the memory bandwidth even if each
    has cores of its own. The slowest copy counts.

    Args:
        name: of the arm, for errors.
        config: with sequences that are long enough for the measured steps.
        workers: arms that run at the same time.
        experiment: the file that the arm came from, for the classes and data that only it can make.

    Raises:
        PlatformError: the measurement failed.
    """
    spawn = multiprocessing.get_context("spawn")
    measure = functools.partial(_measured, to_dict(config), experiment)
    try:
        with concurrent.futures.ProcessPoolExecutor(workers, spawn) as pool:
            return max(pool.map(measure, [share_of_cores(worker, workers) for worker in range(workers)]))
    except RuntimeError as error:  # of XLA, or the process is gone
        rule = f"the time of a step can't be measured ({error})"
        raise PlatformError("speed", name, rule, "fix the cause, or use another kind of budget") from error


def _measured(parts: dict[str, Any], experiment: Path, cores: set[int]) -> float:
    bind(0, cores)
    return seconds_per_step(from_dict(parts, functools.partial(run_file, experiment)))


def seconds_per_step(config: Config) -> float:
    """Median seconds of a training step, without compilation; batches are read ahead as in training."""
    mesh, model = make_mesh(config.mesh), model_of(config)
    step, state = make_step(config, model, mesh), init_state(config, model, mesh)
    config = dataclasses.replace(config, train=dataclasses.replace(config.train, steps=WARM + TIMED))
    taken = []
    for batch in ahead_on_device(mesh, Batches(load_corpus(config), config.batch), 0, config):
        started = time.perf_counter()
        state, metrics = step(state, batch)
        jax.block_until_ready((state, metrics))
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
