"""Compares every attention of this device with the reference on packed sequences: kernels, then losses."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from base_step import SETTINGS, TINY, config_of, train
from rates import Figure

from omnijax.config import Config
from omnijax.model.attend import AttentionInputs, attend, resolve
from omnijax.model.transformer import Transformer
from omnijax.step.sharding import make_mesh
from omnijax.step.state import make_step

WORST = 0.03
"""The largest error of an attention kernel in bfloat16 that is rounding, relative to the largest value."""
WORST_LOSS = 0.01
"""The largest relative difference of losses in bfloat16 that is rounding."""


def figures(tiny: bool, until: float) -> Iterator[Figure]:
    """Errors of each kernel and of its gradients, then of the losses of a small model that is trained with it.

    Args:
        tiny: toy sizes.
        until: losses are left out if `time.time()` is later.
    """
    yield from attention_figures(tiny)
    if time.time() < until:
        yield from loss_figures(tiny)


def kinds(config: Config) -> list[Any]:
    """The kinds of attention of this device without the reference; the fused one, if it exists, is first."""
    model = config.model
    fused = resolve("auto", jax.devices()[0].platform, model.head_size, model.compute_dtype)
    return list(dict.fromkeys([fused, "blocks"]))


def attention_figures(tiny: bool) -> Iterator[Figure]:
    """Compares each kind of attention and its gradients, on packed sequences in bf16, with the reference in float32.

    As a control, also the error of attention across all documents of a sequence.
    """
    rows, t, heads, size = (2, 130, 2, 32) if tiny else (4, 1024, 8, 128)
    random = np.random.default_rng(0)
    q, k, v, pull = (random.standard_normal((rows, t, heads, size), np.float32) for _ in range(4))
    documents = jnp.asarray(np.sort(random.integers(0, 5, (rows, t)), axis=1).astype(np.int32))
    documents = documents.at[0, -t // 8 :].set(-1)

    def look(kind: str, dtype: Any, documents: jax.Array) -> list[np.ndarray]:
        def total(q: jax.Array, k: jax.Array, v: jax.Array) -> tuple[jax.Array, jax.Array]:
            y = attend(kind, AttentionInputs(q, k, v, documents, documents))
            return jnp.sum(y.astype(jnp.float32) * pull), y

        gradients, y = jax.jit(jax.grad(total, (0, 1, 2), has_aux=True))(*(jnp.asarray(x, dtype) for x in (q, k, v)))
        return [np.asarray(x, np.float32) for x in (y, *gradients)]

    with jax.default_matmul_precision("highest"):
        wanted = look("reference", jnp.float32, documents)
        blind = look("reference", jnp.float32, jnp.zeros_like(documents))
    for kind in kinds(config_of(SETTINGS[0], tiny)):
        found = look(kind, jnp.bfloat16, documents)
        worst = max(_error(one, other) for one, other in zip(found, wanted, strict=True))
        yield Figure(f"{kind}: error on packed sequences", worst, "of the largest", None, f"≤ {WORST}", worst <= WORST)
    error = min(_error(one, other) for one, other in zip(blind, wanted, strict=True))
    yield Figure("control: error if it saw other documents", error, "of the largest", None, f"> {WORST}", error > WORST)


def _error(found: np.ndarray, wanted: np.ndarray) -> float:
    return float(np.abs(found - wanted).max() / np.abs(wanted).max())


def loss_figures(tiny: bool) -> Iterator[Figure]:
    """Compares the losses of four steps of a small model with each kind of attention and with the reference."""
    steps, found = 4, {}
    small = dataclasses.replace(TINY, width=256, head_size=128)
    base = config_of(SETTINGS[0], True)
    for kind in ("reference", *kinds(config_of(SETTINGS[0], tiny))):
        model_config = dataclasses.replace(TINY if tiny else small, attention=kind)
        config = dataclasses.replace(base, model=model_config)
        model, mesh = Transformer(config.model, config.vocabulary.size), make_mesh(config.mesh, jax.devices()[:1])
        step = make_step(config, model, mesh)
        found[kind] = train(config, model, mesh, step, steps - 1, 1)[1]
    for kind, losses in found.items():
        if kind != "reference":
            worst = float(np.abs(np.array(losses) / found["reference"] - 1).max())
            yield Figure(
                f"{kind}: losses against the reference", worst, "relative", None, f"≤ {WORST_LOSS}", worst <= WORST_LOSS
            )
