"""How fast is the train loop? The package's loop with data and metrics, against the same step written by hand.

    pip install -e '.[bench]' && python experiments/bench/step.py
    python experiments/bench/step.py --json --rounds 9

4 layers of width 256, 4 heads, 8 sequences of 512 tokens, 512 primary tokens, float32. These run in turns in one
process: the body of the package's loop on random documents (grain thread, encoding, packing, device_put, metrics
fetched one step later and written), a pure-JAX step with the same maths (`plain.py`), PyTorch's if it is installed, and
a matrix product. All three steps start from the same parameters and must give the same losses.

The time of the host is measured with a step that computes nothing, so that no computation hides it. Figures are
medians. Ratios are medians over neighbouring runs.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import itertools
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import plain
from random_codes import RandomCodes
from row import Row, report, spread

from omnijax.config import BatchConfig, Config, MeshConfig, ModelConfig, OptimConfig, Task, Writing
from omnijax.data.corpus import Corpus
from omnijax.experiment import load_experiment
from omnijax.model.flops import TRAINING, row_flops
from omnijax.model.transformer import ROWS_MULTIPLE, Transformer
from omnijax.run.writers import Writer
from omnijax.step.sharding import make_mesh, put_batch
from omnijax.step.state import State, init_state, make_step
from omnijax.train import Log, ahead_on_device

sys.path.append(str(Path(__file__).parents[2] / "tests"))
from random_data import batches_of, random_corpus

DIGITS = Path(__file__).parents[1] / "digits.py"
SIDE = 1024  # of the matrix product
EMPTY_STEPS = 40  # of the loop that computes nothing, in a round
BY_HAND, TORCH = "by hand, pure JAX (the reference)", "by hand, PyTorch"
LOOP, PRODUCT, HOST = "the package's loop", "a matrix product", "the package's loop around a step that computes nothing"


def bench_config() -> Config:
    """The shape above; everything else is as in the digits experiment."""
    tasks = (Task(("image", "text"), (1.0, 1.0)), Task(("text", "speech"), (1.0, 1.0)))
    config = load_experiment(DIGITS)
    return dataclasses.replace(
        config,
        data=RandomCodes(sizes=(("image", 2**18), ("speech", 4096))),
        writing=Writing(base=64, positions=128, position="after", t_pad=False),
        batch=BatchConfig(tasks, size=8, sequence_length=513),
        model=ModelConfig(depth=4, width=256, heads=4, kv_heads=4, head_size=64, mlp_width=768, unroll=4),
        optim=OptimConfig(plain.PEAK, plain.WARMUP, plain.FINAL, plain.BETA1, plain.BETA2, plain.DECAY, plain.CLIP),
        train=dataclasses.replace(config.train, steps=plain.STEPS, log_every=20, digit_noise=0.0),
        eval=dataclasses.replace(config.eval, completions=(), targets=(), routes=()),
        mesh=MeshConfig(data=1),
    )


class Seconds(NamedTuple):
    """Durations or times: by the wall clock, of all cores together, and of the thread of the loop."""

    wall: float
    cores: float
    host: float

    @classmethod
    def now(cls) -> Seconds:
        """The time now."""
        return cls(time.perf_counter(), time.process_time(), time.thread_time())

    def until_now(self, steps: int) -> Seconds:
        """The duration of one of the steps since this time."""
        return Seconds(*((end - start) / steps for start, end in zip(self, Seconds.now(), strict=True)))


class Loop:
    """The body of `omnijax.train.train`'s loop, some steps at a time."""

    def __init__(self, config: Config, corpus: Corpus, step: jax.stages.Wrapped, state: State, directory: str):
        mesh = make_mesh(config.mesh, jax.devices()[:1])
        self._writer = Writer(Path(directory), 0, config.train.steps)
        self._log = Log(config, self._writer, {}, lambda step: [0.0])
        self._stream = ahead_on_device(mesh, batches_of(corpus, config.batch), 0, config)
        self._step, self._state, self._done = step, state, 0
        self._pending: Any = None
        self.losses: list[float] = []

    def run(self, steps: int) -> Seconds:
        """Does some steps; returns the duration of one."""
        start = Seconds.now()
        for batch in itertools.islice(self._stream, steps):
            self._state, metrics = self._step(self._state, batch)
            self._done += 1
            if self._pending is not None:
                self._log.add(self._done - 1, self._pending)
            self._pending = metrics
        jax.block_until_ready(self._state)
        seconds = start.until_now(steps)
        self.losses.append(float(self._pending.parts.loss / self._pending.parts.weight))
        return seconds


def empty(step: jax.stages.Wrapped, state: State, batch: Any) -> jax.stages.Wrapped:
    """A step with the arguments and results of `step` that computes nothing."""
    metrics = jax.tree.map(lambda leaf: jnp.ones(leaf.shape, leaf.dtype), jax.eval_shape(step, state, batch)[1])
    return jax.jit(lambda state, batch: (state, metrics), donate_argnums=0, keep_unused=True)


class ByHand:
    """A step that isn't the package's, some steps at a time, over batches that are already on the device."""

    def __init__(self, step: Callable[[Any], Any], batches: list[Any]):
        self._step, self._batches = step, iter(batches)
        self.losses: list[float] = []

    def run(self, steps: int) -> Seconds:
        """Does some steps; returns the duration of one."""
        start = Seconds.now()
        for batch in itertools.islice(self._batches, steps):
            nats = self._step(batch)
        jax.block_until_ready(nats)
        seconds = start.until_now(steps)
        self.losses.append(float(nats))
        return seconds


class Product:
    """Matrix products only."""

    def __init__(self) -> None:
        self._square = jnp.asarray(np.random.default_rng(0).random((SIDE, SIDE)), jnp.float32)
        self._multiply = jax.jit(jnp.matmul)

    def run(self, steps: int) -> Seconds:
        """The duration of the fastest of several products."""
        times = []
        for _ in range(20 * steps):
            start = Seconds.now()
            jax.block_until_ready(self._multiply(self._square, self._square))
            times.append(start.until_now(1))
        return Seconds(*(min(part) for part in zip(*times, strict=True)))


def measure(rounds: int, steps: int) -> dict[str, list[Row]]:
    """The rows of each table, by its title."""
    config = bench_config()
    mesh = make_mesh(config.mesh, jax.devices()[:1])
    model, corpus = Transformer(config.model, config.vocabulary.size), random_corpus(config.vocabulary, 2000, 30)
    step, state = make_step(config, model, mesh), init_state(config, model, mesh)
    source, count = batches_of(corpus, config.batch), 1 + rounds * steps
    batches = [put_batch(mesh, source[number], config.batch.size) for number in range(count)]
    plain_step = plain.Step(state.params, functools.partial(plain.loss, config.vocabulary.size))
    torch_step = plain.make_torch(state.params, config.vocabulary.size, len(os.sched_getaffinity(0)))
    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as other:
        idle = Loop(config, corpus, empty(step, state, batches[0]), jax.tree.map(jnp.copy, state), other)
        runs: dict[str, Any] = {LOOP: Loop(config, corpus, step, state, one), BY_HAND: ByHand(plain_step, batches)}
        if torch_step is not None:
            runs[TORCH] = ByHand(torch_step, batches)
        runs[PRODUCT] = Product()
        seconds: dict[str, list[Seconds]] = {name: [] for name in (*runs, HOST)}
        for number in range(rounds + 1):
            for name, run in runs.items():
                taken = run.run(steps if number else 1)  # the first step compiles
                seconds[name] += [taken] if number else []
            taken = idle.run(EMPTY_STEPS)
            seconds[HOST] += [taken] if number else []
    for name, run in runs.items():
        if name != PRODUCT:
            np.testing.assert_allclose(run.losses, runs[BY_HAND].losses, rtol=2e-3, err_msg=name)
    return tables(config, {name: Seconds(*np.array(times).T) for name, times in seconds.items()})


def line(name: str, values: np.ndarray, ratios: np.ndarray, demand: str = "") -> Row:
    """A row of medians."""
    return Row(name, float(np.median(values)), spread(values), float(np.median(ratios)), demand)


def tables(config: Config, seconds: dict[str, Any]) -> dict[str, list[Row]]:
    """Rows from the times of rounds, `Seconds` of float64[rounds]."""
    rows, t = -(-config.vocabulary.size // ROWS_MULTIPLE) * ROWS_MULTIPLE, config.batch.sequence_length - 1
    flops = TRAINING * config.batch.size * row_flops(config.model, rows, t)
    steps, host = [name for name in seconds if name not in (PRODUCT, HOST)], seconds[HOST]
    hand, demands = seconds[BY_HAND], {LOOP: "≤ 1.05 × by hand"}
    work = {**dict.fromkeys(steps, flops), PRODUCT: 2 * SIDE**3}
    found = {
        "seconds a step; ratio to the step by hand": [
            line(name, seconds[name].wall, seconds[name].wall / hand.wall, demands.get(name, "")) for name in steps
        ],
        "seconds a step of all cores together, which other programs disturb less; ratio to the step by hand": [
            line(name, seconds[name].cores, seconds[name].cores / hand.cores) for name in steps
        ],
    }
    for title, clock in (("a second", "wall"), ("a second of a core", "cores")):
        # Compared with the product of the same round, so that other load affects both.
        rate = {name: done / getattr(seconds[name], clock) / 1e9 for name, done in work.items()}
        found[f"GFLOP {title}; ratio (MFU) to a float32 product of {SIDE} × {SIDE}"] = [
            line(name, value, value / rate[PRODUCT]) for name, value in rate.items()
        ]
    found["milliseconds a step that the host takes; ratio to the package's loop"] = [
        line(f"{HOST}, {what}", 1e3 * value, value / seconds[LOOP].wall, demand)
        for what, value, demand in (("clock", host.wall, "< 5 ms"), ("its core alone", host.host, ""))
    ]
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7, help="turns of each loop; figures are medians over the turns")
    parser.add_argument("--steps", type=int, default=2, help="steps in a turn")
    report(parser, lambda options: measure(options.rounds, options.steps))
