"""The train step of `omnijax.step.state`, written by hand for one shape and one device, without code of the package.

It reads the same nested dict of parameters, so that both steps can start from the same parameters and must give the
same losses. The same step in PyTorch is there too, if PyTorch is installed.
"""

from __future__ import annotations

import functools
import importlib.util
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

EPSILON, BLOCK, ROPE_BASE = 1e-6, 128, 10_000.0
BETA1, BETA2, DECAY, CLIP, ADAM_EPSILON = 0.9, 0.98, 0.1, 1.0, 1e-8
PEAK, WARMUP, STEPS, FINAL = 3e-3, 100, 2000, 0.02


def norm(x: jax.Array, scale: jax.Array) -> jax.Array:
    """Normalises by the root mean square."""
    return x * jax.lax.rsqrt(jnp.mean(jnp.square(x), -1, keepdims=True) + EPSILON) * scale


def turn(x: jax.Array, cos: jax.Array, sin: jax.Array) -> jax.Array:
    """Applies rotary positions."""
    a, b = jnp.split(x, 2, axis=-1)
    return jnp.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1)


def attention(q: jax.Array, k: jax.Array, v: jax.Array, documents: jax.Array) -> jax.Array:
    """Causal attention within documents, a block of queries at a time. Returns [b, t, h, k]."""
    q, k, v = (jnp.swapaxes(x, 1, 2) for x in (q * q.shape[-1] ** -0.5, k, v))
    parts = []
    for start in range(0, q.shape[2], BLOCK):
        end = min(start + BLOCK, q.shape[2])
        seen = jnp.arange(start, end)[:, None] >= jnp.arange(end)
        seen = (documents[:, start:end, None] == documents[:, None, :end]) & seen
        scores = jnp.einsum("bhtk,bhsk->bhts", q[:, :, start:end], k[:, :, :end])
        scores = jnp.where(seen[:, None], scores, -1e30)
        weights = jnp.exp(scores - jax.lax.stop_gradient(scores.max(-1, keepdims=True)))
        part = jnp.einsum("bhts,bhsk->bhtk", weights, v[:, :, :end])
        parts.append(part / weights.sum(-1, keepdims=True))
    return jnp.swapaxes(jnp.concatenate(parts, 2), 1, 2)


def hidden(params: Any, batch: Any) -> jax.Array:
    """The normalised output of the last layer, which is the input of the head."""
    ends, stacked = params["ends"], params["layers"]
    depth, _, _, size = stacked["attention"]["query"].shape
    angles = batch["positions"][..., None, None] * ROPE_BASE ** (-jnp.arange(size // 2) / (size // 2))
    cos, sin = jnp.cos(angles), jnp.sin(angles)
    x = ends["embed"][batch["tokens"]]
    for number in range(depth):
        layer = jax.tree.map(lambda leaf: leaf[number], stacked)  # noqa: B023 (used at once)
        a, m = layer["attention"], layer["mlp"]
        h = norm(x, layer["attention_norm"]["scale"])
        q = turn(norm(jnp.einsum("btd,dhk->bthk", h, a["query"]), a["query_norm"]["scale"]), cos, sin)
        k = turn(norm(jnp.einsum("btd,dhk->bthk", h, a["key"]), a["key_norm"]["scale"]), cos, sin)
        v = jnp.einsum("btd,dhk->bthk", h, a["value"])
        x = x + jnp.einsum("bthk,hkd->btd", attention(q, k, v, batch["documents"]), a["out"])
        h = norm(x, layer["mlp_norm"]["scale"])
        x = x + (jax.nn.silu(h @ m["gate"]) * (h @ m["up"])) @ m["down"]
    return norm(x, ends["norm"]["scale"])


def nats_of(x: jax.Array, head: jax.Array, targets: jax.Array) -> jax.Array:
    """The cross-entropy of each target."""
    logits = x @ head
    return jax.nn.logsumexp(logits, -1) - jnp.take_along_axis(logits, targets[..., None], -1)[..., 0]


def loss(tokens: int, params: Any, batch: Any) -> jax.Array:
    """The weighted mean of the cross-entropy, over the first `tokens` rows of the head."""
    nats = nats_of(hidden(params, batch), params["ends"]["head"][:, :tokens], batch["targets"])
    return jnp.sum(nats * batch["weights"]) / jnp.sum(batch["weights"])


def learning_rate(step: jax.Array) -> jax.Array:
    """The learning rate: a linear warm-up, then a cosine."""
    part = jnp.clip((step - WARMUP) / (STEPS - WARMUP), 0, 1)
    cosine = FINAL + (1 - FINAL) * 0.5 * (1 + jnp.cos(jnp.pi * part))
    return PEAK * jnp.where(step < WARMUP, step / WARMUP, cosine)


class Step:
    """The jitted step with its state: `batch -> loss`."""

    def __init__(self, params: Any, loss: Callable[[Any, Any], jax.Array]):
        zeros = jax.tree.map(jnp.zeros_like, params)
        self._state = (jax.tree.map(jnp.copy, params), zeros, jax.tree.map(jnp.copy, zeros), jnp.zeros((), jnp.int32))
        self._step = jax.jit(functools.partial(step, loss), donate_argnums=0)

    def __call__(self, batch: Any) -> jax.Array:
        """Does one step and returns its loss."""
        self._state, nats = self._step(self._state, batch)
        return nats

    def compiled(self, batch: Any) -> Any:
        """The compiled step."""
        return self._step.lower(self._state, batch).compile()


def step(loss: Callable[[Any, Any], jax.Array], state: Any, batch: Any) -> tuple[Any, jax.Array]:
    """From parameters, both moments and the step number to the next ones, and the loss before the step."""
    params, first, second, number = state
    nats, gradients = jax.value_and_grad(loss)(params, batch)
    length = jnp.sqrt(sum(jnp.sum(jnp.square(g)) for g in jax.tree.leaves(gradients)))
    scale, t, rate = jnp.minimum(1.0, CLIP / length), number + 1, learning_rate(number)
    first = jax.tree.map(lambda m, g: BETA1 * m + (1 - BETA1) * scale * g, first, gradients)
    second = jax.tree.map(lambda v, g: BETA2 * v + (1 - BETA2) * jnp.square(scale * g), second, gradients)

    def update(path: Any, p: jax.Array, m: jax.Array, v: jax.Array) -> jax.Array:
        adam = m / (1 - BETA1**t) / (jnp.sqrt(v / (1 - BETA2**t)) + ADAM_EPSILON)
        return p - rate * (adam + (0.0 if path[-1].key in ("scale", "embed") else DECAY) * p)

    params = jax.tree_util.tree_map_with_path(update, params, first, second)
    return (params, first, second, number + 1), nats


def make_torch(params: Any, tokens: int, threads: int) -> Callable[[Any], float] | None:
    """The same step in eager PyTorch from these parameters, `batch -> loss`; None if PyTorch isn't installed."""
    if importlib.util.find_spec("torch") is None:
        return None
    import torch
    from torch.nn import functional as f

    torch.set_num_threads(threads)
    leaves, tree = jax.tree_util.tree_flatten_with_path(params)
    weights = [torch.tensor(np.asarray(leaf)).requires_grad_() for _, leaf in leaves]
    plain = [path[-1].key in ("scale", "embed") for path, _ in leaves]
    groups = [
        {"params": [w for w, is_plain in zip(weights, plain, strict=True) if is_plain == kind], "weight_decay": decay}
        for kind, decay in ((True, 0.0), (False, DECAY))
    ]
    adam = torch.optim.AdamW(groups, lr=PEAK, betas=(BETA1, BETA2), eps=ADAM_EPSILON, fused=True)
    p = jax.tree_util.tree_unflatten(tree, weights)
    done = 0

    def turned(x: Any, cos: Any, sin: Any) -> Any:
        a, b = x.chunk(2, -1)
        return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)

    def step(batch: Any) -> float:
        nonlocal done
        given = {name: torch.tensor(np.asarray(array)) for name, array in batch.items()}
        ends, stacked = p["ends"], p["layers"]
        depth, width, heads, size = stacked["attention"]["query"].shape
        t = given["tokens"].shape[1]
        angles = given["positions"][:, None, :, None] * ROPE_BASE ** (-torch.arange(size // 2) / (size // 2))
        cos, sin = angles.cos(), angles.sin()
        seen = (given["documents"][:, :, None] == given["documents"][:, None]) & torch.ones(t, t, dtype=bool).tril()
        x = ends["embed"][given["tokens"].long()]
        for n in range(depth):
            a, m = stacked["attention"], stacked["mlp"]
            h = f.rms_norm(x, (width,), stacked["attention_norm"]["scale"][n], EPSILON)
            q, k, v = (
                (h @ a[name][n].reshape(width, -1)).unflatten(-1, (-1, size)).transpose(1, 2)
                for name in ("query", "key", "value")
            )
            q = turned(f.rms_norm(q, (size,), a["query_norm"]["scale"][n], EPSILON), cos, sin)
            k = turned(f.rms_norm(k, (size,), a["key_norm"]["scale"][n], EPSILON), cos, sin)
            y = f.scaled_dot_product_attention(q, k, v, attn_mask=seen[:, None])
            x = x + y.transpose(1, 2).flatten(2) @ a["out"][n].reshape(heads * size, width)
            h = f.rms_norm(x, (width,), stacked["mlp_norm"]["scale"][n], EPSILON)
            x = x + (f.silu(h @ m["gate"][n]) * (h @ m["up"][n])) @ m["down"][n]
        logits = (f.rms_norm(x, (width,), ends["norm"]["scale"], EPSILON) @ ends["head"])[..., :tokens]
        nats = f.cross_entropy(logits.flatten(0, 1), given["targets"].flatten().long(), reduction="none")
        mean = (nats * given["weights"].flatten()).sum() / given["weights"].sum()
        adam.zero_grad()
        mean.backward()
        torch.nn.utils.clip_grad_norm_(weights, CLIP)
        part = min(max((done - WARMUP) / (STEPS - WARMUP), 0.0), 1.0)
        rate = done / WARMUP if done < WARMUP else FINAL + (1 - FINAL) * 0.5 * (1 + math.cos(math.pi * part))
        for group in adam.param_groups:
            group["lr"] = PEAK * rate
        adam.step()
        done += 1
        return float(mean.detach())

    return step
