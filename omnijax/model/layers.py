"""The parts of a layer: norm, gated MLP, rotary positions, attention."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Float, Int, PRNGKeyArray

NORM_EPSILON = 1e-6
PRODUCT = "product"
"""Name, for `jax.checkpoint`, of products with parameters, which its own policies don't find behind a custom rule."""


def normal(key: PRNGKeyArray, shape: tuple[int, ...], fan_in: int, scale: float = 1.0) -> nnx.Param:
    """A parameter drawn with variance scale² / fan_in, float32."""
    return nnx.Param(jax.random.normal(key, shape, jnp.float32) * (scale * fan_in**-0.5))


class RMSNorm(nnx.Module):
    """Divides by the root mean square over the last axis, and scales (Zhang & Sennrich 2019, arXiv:1910.07467)."""

    def __init__(self, width: int):
        self.scale = nnx.Param(jnp.ones(width, jnp.float32))

    def __call__(self, x: Float[Array, "*b d"]) -> Float[Array, "*b d"]:
        """Computes in float32, returns the dtype of `x`."""
        x32 = x.astype(jnp.float32)
        inverse = jax.lax.rsqrt(jnp.mean(jnp.square(x32), axis=-1, keepdims=True) + NORM_EPSILON)
        scale = self.scale[...].reshape((1,) * (x.ndim - 1) + (-1,))
        return (x32 * inverse * scale).astype(x.dtype)


def linear(x: Float[Array, "*b d"], weight: Float[Array, "d ..."]) -> Float[Array, "*b ..."]:
    """Product over the last axis of `x` and the first one of `weight`; named `PRODUCT` for `jax.checkpoint`.

    The gradient of the weight is computed by the product that transposes the smaller of the two operands. JAX's own
    rule transposes the gradient of the result, which makes a training step 1.1 times as long on CPU.
    """
    named: Array = checkpoint_name(_linear(x, weight), PRODUCT)
    return named


@jax.custom_vjp
def _linear(x: Array, weight: Array) -> Array:
    return jnp.tensordot(x, weight, 1)


def _linear_forward(x: Array, weight: Array) -> tuple[Array, tuple[Array, Array]]:
    return _linear(x, weight), (x, weight)


def _linear_backward(operands: tuple[Array, Array], gradient: Array) -> tuple[Array, Array]:
    x, weight = operands
    outer, inner = x.ndim - 1, weight.ndim - 1
    rows = (list(range(outer)), list(range(outer)))
    by_x = jnp.tensordot(gradient, weight, (list(range(outer, gradient.ndim)), list(range(1, weight.ndim))))
    if weight.size <= weight.shape[0] ** 2:  # no more output than input features
        return by_x, jnp.moveaxis(jnp.tensordot(gradient, x, rows), inner, 0)
    return by_x, jnp.tensordot(x, gradient, rows)


_linear.defvjp(_linear_forward, _linear_backward)


class GatedMLP(nnx.Module):
    """down(silu(gate(x)) · up(x)) (Shazeer 2020, arXiv:2002.05202)."""

    def __init__(self, key: PRNGKeyArray, width: int, mlp_width: int, out_scale: float):
        gate, up, down = jax.random.split(key, 3)
        self.gate = normal(gate, (width, mlp_width), width)
        self.up = normal(up, (width, mlp_width), width)
        self.down = normal(down, (mlp_width, width), mlp_width, out_scale)

    def __call__(self, x_btd: Float[Array, "b t d"]) -> Float[Array, "b t d"]:
        """Returns the dtype of `x_btd`."""
        dtype = x_btd.dtype
        h_btf = jax.nn.silu(linear(x_btd, self.gate[...].astype(dtype))) * linear(x_btd, self.up[...].astype(dtype))
        return linear(h_btf, self.down[...].astype(dtype))


Rotations = tuple[Float[Array, "b t 1 k"], Float[Array, "b t 1 k"]]
"""Cosine and sine of the rotation angles, float32[b, t, 1, k / 2]; they are the same for all layers."""


def rotations_at(positions_bt: Int[Array, "b t"], head_size: int, base: float) -> Rotations:
    """Rotary positions: pair i turns by position · base^(-2i / head_size) (Su et al. 2021, arXiv:2104.09864)."""
    half = head_size // 2
    frequencies = jnp.exp(-jnp.log(base) * jnp.arange(half, dtype=jnp.float32) / half)
    angles = positions_bt[..., None, None].astype(jnp.float32) * frequencies[None, None, None, :]
    return jnp.cos(angles), jnp.sin(angles)


def rotate(x_bthk: Float[Array, "b t h k"], rotations: Rotations) -> Float[Array, "b t h k"]:
    """Turns the pairs (i, i + k / 2) of each head."""
    first, second = jnp.split(x_bthk.astype(jnp.float32), 2, axis=-1)
    cos, sin = rotations
    turned = jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)
    return turned.astype(x_bthk.dtype)


Look = Callable[[Float[Array, "b t h k"], Float[Array, "b t n k"], Float[Array, "b t n k"]], tuple[Array, Any]]
"""Takes queries, keys and values; gives the attended values, float[b, t, h, k], and what the caller keeps."""


class Attention(nnx.Module):
    """Grouped-query attention (arXiv:2305.13245) with normalised queries and keys (arXiv:2010.04245)."""

    def __init__(self, key: PRNGKeyArray, width: int, heads: int, kv_heads: int, head_size: int, out_scale: float):
        query, keys, value, out = jax.random.split(key, 4)
        self.query = normal(query, (width, heads, head_size), width)
        self.key = normal(keys, (width, kv_heads, head_size), width)
        self.value = normal(value, (width, kv_heads, head_size), width)
        self.out = normal(out, (heads, head_size, width), heads * head_size, out_scale)
        self.query_norm = RMSNorm(head_size)
        self.key_norm = RMSNorm(head_size)

    def __call__(
        self, x_btd: Float[Array, "b t d"], rotations: Rotations, look: Look
    ) -> tuple[Float[Array, "b t d"], Any]:
        """Projects to queries, keys and values, normalises and rotates them, and attends by means of `look`.

        Args:
            x_btd: normalised input.
            rotations: for the positions of the tokens.
            look: stores keys and values, and lets the queries attend.

        Returns:
            The residual update, and what `look` keeps.
        """
        dtype = x_btd.dtype
        q_bthk = self.query_norm(linear(x_btd, self.query[...].astype(dtype)))
        k_btnk = self.key_norm(linear(x_btd, self.key[...].astype(dtype)))
        v_btnk = linear(x_btd, self.value[...].astype(dtype))
        y_bthk, kept = look(rotate(q_bthk, rotations), rotate(k_btnk, rotations), v_btnk)
        # If this were flattened, TPU's compiler would keep another copy of the weight (8 % of a 7B step's peak).
        update_btd = jnp.einsum("bthk,hkd->btd", y_bthk, self.out[...].astype(dtype))
        return checkpoint_name(update_btd, PRODUCT), kept


def token_keys(key: PRNGKeyArray, rows_b: Int[Array, " b"], places_t: Int[Array, " t"]) -> PRNGKeyArray:
    """A key for each token of a batch, key[b, t], from its sequence and its place, so that devices don't matter."""
    fold = jax.random.fold_in
    keys_b = jax.vmap(fold, (None, 0))(key, rows_b)
    return jax.vmap(jax.vmap(fold, (None, 0)), (0, None))(keys_b, places_t)
