"""Causal attention with grouped key/value heads, normalised queries and keys, and a cache for sampling."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from omnijax.model.layers import RMSNorm, Rotations, normal, rotate


class Cache(NamedTuple):
    """Keys and values of what has been read; slot s holds the token at position s of its row."""

    keys: Float[Array, "b s n k"]
    values: Float[Array, "b s n k"]


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
        self,
        x_btd: Float[Array, "b t d"],
        positions_bt: Int[Array, "b t"],
        rotations: Rotations,
        mask_bts: Bool[Array, "b t s"],
        cache: Cache | None,
    ) -> tuple[Float[Array, "b t d"], Cache | None]:
        """Attends where the mask allows; with a cache, writes the new keys into it and attends to all of it.

        Args:
            x_btd: normalised input.
            positions_bt: place of each token in its document; with a cache, also the slot that it takes.
            rotations: of the positions.
            mask_bts: which keys each token sees; s are the tokens themselves, or the slots of the cache.
            cache: keys and values read before, or None.
        """
        dtype = x_btd.dtype
        q_bthk = self.query_norm(jnp.einsum("btd,dhk->bthk", x_btd, self.query[...].astype(dtype)))
        k_btnk = self.key_norm(jnp.einsum("btd,dnk->btnk", x_btd, self.key[...].astype(dtype)))
        v_btnk = jnp.einsum("btd,dnk->btnk", x_btd, self.value[...].astype(dtype))
        q_bthk, k_btnk = rotate(q_bthk, rotations), rotate(k_btnk, rotations)
        if cache is not None:
            rows_b1 = jnp.arange(x_btd.shape[0])[:, None]
            cache = Cache(
                cache.keys.at[rows_b1, positions_bt].set(k_btnk.astype(cache.keys.dtype)),
                cache.values.at[rows_b1, positions_bt].set(v_btnk.astype(cache.values.dtype)),
            )
            k_btnk, v_btnk = cache.keys.astype(dtype), cache.values.astype(dtype)
        y_bthk = attend(q_bthk, k_btnk, v_btnk, mask_bts)
        return jnp.einsum("bthk,hkd->btd", y_bthk, self.out[...].astype(dtype)), cache


def attend(
    q_bthk: Float[Array, "b t h k"],
    k_bsnk: Float[Array, "b s n k"],
    v_bsnk: Float[Array, "b s n k"],
    mask_bts: Bool[Array, "b t s"],
) -> Float[Array, "b t h k"]:
    """softmax(q·k / √k) v where the mask holds; query heads h share the n key/value heads in groups of h / n."""
    groups = q_bthk.shape[2] // k_bsnk.shape[2]
    # Heads before positions, and keys repeated for their group: plain batched matrix products, a fifth faster on CPU
    # than einsums over the grouped axes.
    q_bhtk = jnp.swapaxes(q_bthk, 1, 2) * q_bthk.shape[-1] ** -0.5
    k_bhsk, v_bhsk = (jnp.repeat(jnp.swapaxes(x, 1, 2), groups, axis=1) for x in (k_bsnk, v_bsnk))
    scores_bhts = jnp.einsum("bhtk,bhsk->bhts", q_bhtk, k_bhsk).astype(jnp.float32)
    scores_bhts = jnp.where(mask_bts[:, None], scores_bhts, jnp.finfo(jnp.float32).min)
    weights_bhts = jax.nn.softmax(scores_bhts, axis=-1).astype(q_bthk.dtype)
    return jnp.swapaxes(jnp.einsum("bhts,bhsk->bhtk", weights_bhts, v_bhsk), 1, 2)
