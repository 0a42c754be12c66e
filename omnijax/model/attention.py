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
