"""How fast is the train loop? The package's own, data and metrics included, against the same step written by hand.

    pip install -e '.[bench]' && python experiments/bench/step.py
    python experiments/bench/step.py --json --rounds 9

4 layers of width 256, 4 heads, 8 rows of 512 tokens, 512 primary rows, float32. In one process, in turns: the body of
the package's loop on random documents (grain thread, encoding, packing, device_put, metrics fetched one step late and
written), a pure-JAX step of the same maths (`plain.py`), PyTorch's where it is installed, and a matrix product. All
three steps begin with the same parameters and have to give the same losses.

The host's part is what the loop takes around a step that computes nothing: everything the host does for a step, with
nothing to hide it behind. Figures are medians, ratios medians of those of neighbouring runs.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import itertools
import json
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import plain
import rich.console
from row import Row, print_machine, print_table, spread

from omnijax.config import BatchConfig, Config, MeshConfig, ModelConfig, OptimConfig, Task
from omnijax.data.corpus import Corpus
from omnijax.data.pipeline import Batches
from omnijax.experiment import load_experiment
from omnijax.model.flops import TRAINING, token_flops
from omnijax.model.transformer import ROWS_MULTIPLE, Transformer
from omnijax.run.writers import Writer
from omnijax.step.sharding import make_mesh, put_batch
from omnijax.step.state import State, Step, init_state, make_step
from omnijax.testing import random_corpus
from omnijax.train import Log, ahead_on_device
from omnijax.vocab.vocabulary import Space, Vocabulary

DIGITS = Path(__file__).parents[1] / "digits.py"
SIDE = 1024  # of the matrix product
EMPTY_STEPS = 40  # of the loop that computes nothing, in a round
BY_HAND, TORCH = "by hand, pure JAX (the reference)", "by hand, PyTorch"
LOOP, PRODUCT, HOST = "the package's loop", "a matrix product", "the package's loop around a step that computes nothing"


def bench_config() -> Config:
    """The shape that the table names; all that isn't said here is the digits experiment's."""
    vocabulary = Vocabulary(
        general=128,
        positions=256,
        digits=64,
        base=64,
        spaces=(Space("image", 2**18), Space("speech", 4096)),
        control=("text", "image", "speech", "eos"),
        width="fixed",
    )
    tasks = (Task(("image", "text"), (1.0, 1.0)), Task(("text", "speech"), (1.0, 1.0)))
    config = load_experiment(DIGITS)
    return dataclasses.replace(
        config,
        vocabulary=vocabulary,
        batch=BatchConfig(tasks, size=8, sequence_length=513),
        model=ModelConfig(depth=4, width=256, heads=4, kv_heads=4, head_size=64, mlp_width=768, unroll=4),
        optim=OptimConfig(plain.PEAK, plain.WARMUP, plain.FINAL, plain.BETA1, plain.BETA2, plain.DECAY, plain.CLIP),
        train=dataclasses.replace(config.train, steps=plain.STEPS, log_every=20, digit_noise=0.0),
        eval=dataclasses.replace(config.eval, completions=(), targets=(), routes=()),
        mesh=MeshConfig(data=1),
    )


class Seconds(NamedTuple):
    """What was taken, or when it began: on the clock, of all cores, and of the core that the loop runs on."""

    wall: float
    cores: float
    host: float

    @classmethod
    def now(cls) -> Seconds:
        """By the clocks."""
        return cls(time.perf_counter(), time.process_time(), time.thread_time())

    def until_now(self, steps: int) -> Seconds:
        """A step's part of what it took since."""
        return Seconds(*((end - start) / steps for start, end in zip(self, Seconds.now(), strict=True)))


class Loop:
    """The body of `omnijax.train.train`'s loop, some steps at a time."""

    def __init__(self, config: Config, corpus: Corpus, step: Step, state: State, directory: str):
        mesh = make_mesh(config.mesh, jax.devices()[:1])
        self._writer = Writer(Path(directory), 0, config.train.steps)
        self._log = Log(config, self._writer, {})
        self._stream = ahead_on_device(mesh, Batches(corpus, config.batch), 0, config)
        self._step, self._state, self._done = step, state, 0
        self._pending: Any = None
        self.losses: list[float] = []

    def run(self, steps: int) -> Seconds:
        """What a step takes."""
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


def empty(step: Step, state: State, batch: Any) -> Step:
    """A step that takes and gives what `step` does, and computes nothing."""
    metrics = jax.tree.map(lambda leaf: jnp.ones(leaf.shape, leaf.dtype), jax.eval_shape(step, state, batch)[1])
    return jax.jit(lambda state, batch: (state, metrics), donate_argnums=0, keep_unused=True)


class ByHand:
    """A step that isn't the package's, some steps at a time, over batches that are on the device already."""

    def __init__(self, step: Callable[[Any], Any], batches: list[Any]):
        self._step, self._batches = step, iter(batches)
        self.losses: list[float] = []

    def run(self, steps: int) -> Seconds:
        """What a step takes."""
        start = Seconds.now()
        for batch in itertools.islice(self._batches, steps):
            nats = self._step(batch)
        jax.block_until_ready(nats)
        seconds = start.until_now(steps)
        self.losses.append(float(nats))
        return seconds


class Product:
    """Matrix products alone."""

    def __init__(self) -> None:
        self._square = jnp.asarray(np.random.default_rng(0).random((SIDE, SIDE)), jnp.float32)
        self._multiply = jax.jit(jnp.matmul)

    def run(self, steps: int) -> Seconds:
        """What one takes, the best of some."""
        times = []
        for _ in range(20 * steps):
            start = Seconds.now()
            jax.block_until_ready(self._multiply(self._square, self._square))
            times.append(start.until_now(1))
        return Seconds(*(min(part) for part in zip(*times, strict=True)))


def measure(rounds: int, steps: int) -> dict[str, list[Row]]:
    """The tables, by their titles."""
    config = bench_config()
    mesh = make_mesh(config.mesh, jax.devices()[:1])
    model, corpus = Transformer(config.model, config.vocabulary.size), random_corpus(config.vocabulary, 2000, 30)
    step, state = make_step(config, model, mesh), init_state(config, model, mesh)
    source, count = Batches(corpus, config.batch), 1 + rounds * steps
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
                taken = run.run(steps if number else 1)  # the first one compiles
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
    flops = TRAINING * config.batch.size * t * token_flops(config.model, rows, t)
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
        # Against the product of the same round: what else the machine does meets both.
        rate = {name: done / getattr(seconds[name], clock) / 1e9 for name, done in work.items()}
        found[f"GFLOP {title}; ratio (MFU) to a float32 product of {SIDE} × {SIDE}"] = [
            line(name, value, value / rate[PRODUCT]) for name, value in rate.items()
        ]
    found["milliseconds a step that the host takes; ratio to the package's loop"] = [
        line(f"{HOST}, {what}", 1e3 * value, value / seconds[LOOP].wall, demand)
        for what, value, demand in (("clock", host.wall, "< 5 ms"), ("its core alone", host.host, ""))
    ]
    return found


def main() -> None:
    """Measures, and prints tables and lines."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="no tables, only the lines")
    parser.add_argument("--rounds", type=int, default=7, help="turns of each; medians are over them")
    parser.add_argument("--steps", type=int, default=2, help="steps in a turn")
    arguments = parser.parse_args()
    console = rich.console.Console(quiet=arguments.json)
    lines = [print_machine(console)]
    for title, rows in measure(arguments.rounds, arguments.steps).items():
        lines += print_table(console, title, rows, unit=title.split(";")[0])
    print("\n".join([*lines, json.dumps({"load after": round(os.getloadavg()[0], 2)})]))


if __name__ == "__main__":
    main()
