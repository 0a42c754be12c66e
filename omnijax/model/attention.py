"""Attention with grouped key/value heads, and normalised queries and keys."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Float, PRNGKeyArray

from omnijax.model.layers import PRODUCT, RMSNorm, Rotations, linear, normal, rotate

Look = Callable[[Float[Array, "b t h k"], Float[Array, "b t n k"], Float[Array, "b t n k"]], tuple[Array, Any]]
"""From queries, keys and values of some tokens to what they saw, float[b, t, h, k], and what to keep of it."""


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
        """Projects, normalises, turns, and leaves it to `look` who sees whom.

        Args:
            x_btd: normalised input.
            rotations: of the tokens' positions.
            look: where the keys and values go, and what the queries see of those that are there.

        Returns:
            The update, and what `look` keeps.
        """
        dtype = x_btd.dtype
        q_bthk = self.query_norm(linear(x_btd, self.query[...].astype(dtype)))
        k_btnk = self.key_norm(linear(x_btd, self.key[...].astype(dtype)))
        v_btnk = linear(x_btd, self.value[...].astype(dtype))
        y_bthk, kept = look(rotate(q_bthk, rotations), rotate(k_btnk, rotations), v_btnk)
        # Not flattened: TPU's compiler would keep another copy of the gathered weight (8 % of a 7B step's peak).
        update_btd = jnp.einsum("bthk,hkd->btd", y_bthk, self.out[...].astype(dtype))
        return checkpoint_name(update_btd, PRODUCT), kept
