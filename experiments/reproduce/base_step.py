"""Trains `base` on one device with the package's own step: tokens a second, and model FLOPs utilization."""

from __future__ import annotations

import dataclasses
import itertools
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from rates import GB, Figure, Measured, matmul_rate, measured, memory_bytes

from omnijax.config import BatchConfig, Config, MeshConfig, ModelConfig, OptimConfig, Task, Writing
from omnijax.experiment import load_experiment
from omnijax.model.flops import TRAINING, backbone_flops, head_flops
from omnijax.model.sizes import SIZES
from omnijax.model.transformer import ROWS_MULTIPLE, Transformer
from omnijax.step.sharding import make_mesh, put_batch
from omnijax.step.state import abstract_batch, abstract_state, init_state, make_step

sys.path += [str(Path(__file__).parents[up] / place) for up, place in ((1, "bench"), (2, "tests"))]
from random_codes import RandomCodes
from random_data import batches_of, random_corpus

DIGITS = Path(__file__).parents[1] / "digits.py"
DEMAND = 0.50
TINY = ModelConfig(depth=2, width=64, heads=2, kv_heads=2, head_size=32, mlp_width=128, compute_dtype="bfloat16")


class Setting(NamedTuple):
    """A setting: batch size, remat policy and kind of attention."""

    rows: int
    remat: Any
    attention: Any = "auto"

    def __str__(self) -> str:
        """The name in the output."""
        return f"{self.rows} rows, remat {self.remat}, attention {self.attention}"


# Batches that should fit into 125 GiB. Parameters, moments and gradients are 26 GB of it. The best setting is probably
# one of the first two. The third has the policy of the preset. The last one needs no cuDNN.
SETTINGS = (Setting(12, "none"), Setting(24, "dots"), Setting(32, "attention"), Setting(12, "attention", "blocks"))


def config_of(setting: Setting, tiny: bool) -> Config:
    """`base` on one device; everything else is as in the digits experiment.

    Two spaces, the larger of 2^32 fragments, are written in 1,542 primary tokens.
    """
    size, config = SIZES["base"], load_experiment(DIGITS)
    model, length = (TINY, 129) if tiny else (size.model, size.sequence_length)
    rows = 2 if tiny else setting.rows
    tasks = (Task(("image", "text"), (1.0, 1.0)), Task(("text", "speech"), (1.0, 1.0)))
    return dataclasses.replace(
        config,
        data=RandomCodes(sizes=(("image", 2**32), ("speech", 4096)), most=255),
        writing=Writing(base=256, positions=1024, t_pad=False),
        batch=BatchConfig(tasks, size=rows, sequence_length=length),
        model=dataclasses.replace(model, remat=setting.remat, attention=setting.attention),
        optim=OptimConfig(1e-2 if tiny else size.learning_rate, warmup_steps=0),
        train=dataclasses.replace(config.train, digit_noise=0.0),
        eval=dataclasses.replace(config.eval, completions=(), targets=(), routes=()),
        mesh=MeshConfig(data=1),
    )


def figures(tiny: bool, until: float) -> Iterator[Figure]:
    """Measures the rate of matrix products, then each setting while time is left.

    Args:
        tiny: toy sizes.
        until: `time.time()` by which all settings must end; a setting that may end later isn't started.
    """
    peak = matmul_rate(tiny)
    yield Figure("matrix product, bf16", peak.value / 1e12, "TFLOP/s", peak.spread)
    best, longest = 0.0, 0.0
    for setting in SETTINGS[: 1 if tiny else None]:
        start = time.time()
        if start + longest > until:
            yield Figure(f"{setting}: left out, no time", None, "")
            continue
        try:
            for figure, utilization in _setting_figures(setting, tiny, peak):
                best = max(best, utilization)
                yield figure
        except jax.errors.JaxRuntimeError as error:  # other settings may work
            said = str(error).split("\n")[0][:300]
            room = "RESOURCE_EXHAUSTED" in said
            yield Figure(f"{setting}: {said}", None, "", None, "" if room else "runs", None if room else False)
        longest = max(longest, time.time() - start)
    demand = f"≥ {DEMAND}"
    yield Figure("model FLOPs utilization, best setting", best, "", None, demand, None if tiny else best >= DEMAND)


def _setting_figures(setting: Setting, tiny: bool, peak: Measured) -> Iterator[tuple[Figure, float]]:
    """The figures of a setting."""
    config = config_of(setting, tiny)
    model, mesh = Transformer(config.model, config.vocabulary.size), make_mesh(config.mesh, jax.devices()[:1])
    start = time.perf_counter()
    state = abstract_state(config, model, mesh)
    lowered = make_step(config, model, mesh).lower(state, abstract_batch(config, mesh))
    program = lowered.compile()
    yield Figure(f"{setting}: compiling", time.perf_counter() - start, "s"), 0.0
    memory = program.memory_analysis()
    needed = memory.argument_size_in_bytes + memory.output_size_in_bytes - memory.alias_size_in_bytes
    needed += memory.temp_size_in_bytes
    yield Figure(f"{setting}: memory needed", needed / GB, "GB"), 0.0
    if needed > memory_bytes():
        yield Figure(f"{setting}: doesn't fit", memory_bytes() / GB, "GB"), 0.0
        return
    rounds, steps = (2, 1) if tiny else (5, 3)
    times, losses, share = train(config, model, mesh, program, rounds, steps)
    step, t = measured(times), config.batch.sequence_length - 1
    rows = -(-config.vocabulary.size // ROWS_MULTIPLE) * ROWS_MULTIPLE
    tokens = config.batch.size * t
    rates = measured(tokens / taken for taken in times)
    head = head_flops(config.model, rows)
    utilization = TRAINING * (backbone_flops(config.model, t) + head) * rates.value / peak.value
    # PaLM's count: whole squares of attention, although kernels skip the half above the diagonal.
    causal = TRAINING * (backbone_flops(config.model, t // 2) + head) * rates.value / peak.value
    yield Figure(f"{setting}: a step", step.value, "s", step.spread), 0.0
    yield Figure(f"{setting}: tokens a second", rates.value, "tokens/s", rates.spread), 0.0
    yield Figure(f"{setting}: tokens that aren't padding", share, ""), 0.0
    yield Figure(f"{setting}: model FLOPs utilization", utilization, "", rates.spread), utilization
    yield Figure(f"{setting}: the same, attention counted by half", causal, "", rates.spread), 0.0
    demand = "falls"
    yield Figure(f"{setting}: loss, last over first", losses[-1] / losses[0], "", None, demand, falls(losses)), 0.0


def falls(losses: list[float]) -> bool:
    """Whether all losses are finite and the last one is lower than the first."""
    return bool(np.isfinite(losses).all() and losses[-1] < losses[0])


def train(
    config: Config, model: Transformer, mesh: Any, program: Any, rounds: int, steps: int
) -> tuple[list[float], list[float], float]:
    """Seconds of a step in each round, losses of all steps, and the share of tokens that aren't padding.

    Batches are packed in advance and put on the device one step before they are needed, as in the package's loop.
    """
    count = 1 + rounds * steps
    items = min(200, (config.batch.sequence_length - 8) // 10)
    corpus = random_corpus(config.vocabulary, 40 if config.batch.sequence_length < 1000 else 1000, items)
    source = batches_of(corpus, config.batch)
    host = [source[number] for number in range(count)]
    ahead = itertools.chain((put_batch(mesh, batch, config.batch.size) for batch in host), [None])
    share = float(np.mean([batch["documents"] >= 0 for batch in host]))
    state, batch = init_state(config, model, mesh), next(ahead)
    times, parts = [], []
    for number in range(rounds + 1):
        start = time.perf_counter()
        for _ in range(steps if number else 1):  # the first step isn't counted
            following = next(ahead)
            state, metrics = program(state, batch)
            parts.append(metrics.parts)
            batch = following
        jax.block_until_ready((state, metrics))
        times.append((time.perf_counter() - start) / steps)
    return times[1:], [float(part.loss / part.weight) for part in parts], share
