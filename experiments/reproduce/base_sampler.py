"""Samples from `base` on one device: tokens a second, against the time to read the weights and the cache."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from base_step import TINY
from random_codes import prompt  # of experiments/bench, which base_step puts on the path
from rates import Figure, bandwidth, measured

from omnijax.config import ModelConfig
from omnijax.model.sizes import SIZES
from omnijax.model.transformer import Transformer
from omnijax.sample.sampler import Sampler, SegmentTarget
from omnijax.vocab.vocabulary import Space, Vocabulary

DEMAND = 2.0
BATCHES = (16, 64)


def vocabulary() -> Vocabulary:
    """512 primary tokens, and fragments of three digits without a position, so that every token is drawn."""
    return Vocabulary(
        general=187,
        positions=64,
        digits=256,
        base=256,
        spaces=(Space("image", 2**24),),
        control=("text", "image", "eos"),
        layout="inline",
        position="none",
        width="fixed",
    )


def step_bytes(model: ModelConfig, weights: Any, rows: int, slots: float) -> float:
    """Bytes that one token of each sequence reads: the weights once, one embedding row each, and the cache.

    Args:
        model: its shape.
        weights: the arrays that the sampler reads, or their shapes.
        rows: number of documents side by side.
        slots: number of used slots of the cache.
    """
    parts = jax.tree.leaves({"layers": weights["layers"], "ends": weights["ends"] | {"embed": None}})
    item = jnp.dtype(model.compute_dtype).itemsize
    cache = 2 * model.depth * rows * model.kv_heads * model.head_size * slots * item
    return sum(leaf.size * leaf.dtype.itemsize for leaf in parts) + rows * model.width * item + cache


def figures(tiny: bool, until: float) -> Iterator[Figure]:
    """Measures whole calls of the sampler with the grammar, including the prompts and the cast of the weights.

    Args:
        tiny: toy sizes.
        until: `time.time()` by which all batches must end; a batch that may end later isn't started.
    """
    model = TINY if tiny else SIZES["base"].model
    length, items, rounds = (8, 5, 2) if tiny else (32, 85, 3)
    v = vocabulary()
    transformer = Transformer(model, v.size)
    params = jax.jit(transformer.init)(jax.random.key(0))
    weights = jax.eval_shape(transformer.unstacked, params)
    speed = bandwidth(tiny)
    yield Figure("memory bandwidth", speed.value / 1e9, "GB/s", speed.spread)
    sampler = Sampler.of(transformer, v, SegmentTarget("image", items, items, "fragments"))
    random, longest = np.random.default_rng(0), 0.0
    for rows in (2,) if tiny else BATCHES:
        begun = time.time()
        if begun + longest > until:
            yield Figure(f"batch {rows}: left out, no time", None, "")
            continue
        prompts = prompt(v, "text", [random.integers(0, v.general, length - 2) for _ in range(rows)], "image")
        times, new = [], 0
        for seed in range(rounds + 1):  # the first one compiles
            start = time.perf_counter()
            tokens = sampler(params, *prompts, jax.random.key(seed))
            times.append(time.perf_counter() - start)
            new = int((tokens > 0).sum(axis=1).max())
        token = measured(taken / new for taken in times[1:])
        bound = step_bytes(model, weights, rows, length + new / 2) / speed.value
        ratio = token.value / bound
        yield Figure(f"batch {rows}: first call, with compiling", times[0], "s")
        yield Figure(f"batch {rows}: tokens a second", rows / token.value, "tokens/s", token.spread)
        yield Figure(f"batch {rows}: tokens a second, the bound", rows / bound, "tokens/s", speed.spread)
        held = None if tiny else ratio <= DEMAND
        yield Figure(f"batch {rows}: time over the bound", ratio, "×", token.spread, f"≤ {DEMAND:g}", held)
        longest = max(longest, time.time() - begun)
