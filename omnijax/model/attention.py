"""Causal attention with grouped key/value heads, normalised queries and keys, and a cache for sampling."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from omnijax.model.layers import RMSNorm, Rotations, normal, rotate


class Cache(NamedTuple):
    """Keys and values of what each layer has read; slot s holds the token at position s of its row.

    Heads come before slots, so that attending to the slots is a plain batched matrix product and moves none of them.
    """

    keys: Float[Array, "l b n s k"]
    values: Float[Array, "l b n s k"]

    def write(
        self,
        layer: Int[Array, ""],
        positions_bt: Int[Array, "b t"],
        k_btnk: Float[Array, "b t n k"],
        v_btnk: Float[Array, "b t n k"],
    ) -> Cache:
        """The cache with these keys and values in the slots of their positions; what is beyond the last is dropped."""
        rows, _, heads, _ = k_btnk.shape
        place = (layer, jnp.arange(rows)[:, None, None], jnp.arange(heads)[None, :, None], positions_bt[:, None, :])
        new = (jnp.swapaxes(x, 1, 2).astype(self.keys.dtype) for x in (k_btnk, v_btnk))
        return Cache(*(old.at[place].set(x, mode="drop") for old, x in zip(self, new, strict=True)))


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
        layer: Int[Array, ""],
    ) -> tuple[Float[Array, "b t d"], Cache | None]:
        """Attends where the mask allows; with a cache, writes the new keys into it and attends to its slots.

        Args:
            x_btd: normalised input.
            positions_bt: place of each token in its document; with a cache, also the slot that it takes.
            rotations: of the positions.
            mask_bts: which keys each token sees; s are the tokens themselves, or the slots of the cache.
            cache: keys and values read before, or None.
            layer: number of this layer, whose part of the cache it is.
        """
        dtype = x_btd.dtype
        q_bthk = self.query_norm(jnp.einsum("btd,dhk->bthk", x_btd, self.query[...].astype(dtype)))
        k_btnk = self.key_norm(jnp.einsum("btd,dnk->btnk", x_btd, self.key[...].astype(dtype)))
        v_btnk = jnp.einsum("btd,dnk->btnk", x_btd, self.value[...].astype(dtype))
        q_bthk, k_btnk = rotate(q_bthk, rotations), rotate(k_btnk, rotations)
        if cache is None:
            y_bthk = attend(q_bthk, k_btnk, v_btnk, mask_bts)
        else:
            cache = cache.write(layer, positions_bt, k_btnk, v_btnk)
            y_bthk = attend_cached(q_bthk, cache.keys[layer].astype(dtype), cache.values[layer].astype(dtype), mask_bts)
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


def attend_cached(
    q_bthk: Float[Array, "b t h k"],
    k_bnsk: Float[Array, "b n s k"],
    v_bnsk: Float[Array, "b n s k"],
    mask_bts: Bool[Array, "b t s"],
) -> Float[Array, "b t h k"]:
    """`attend` for few queries and many keys that lie as the cache has them: these aren't moved or repeated.

    The query heads of a group count as further queries. Four times faster than `attend` for a token at a time.
    """
    rows, t, heads, size = q_bthk.shape
    groups = k_bnsk.shape[1]
    shape = (rows, groups, heads // groups, t, k_bnsk.shape[2])
    q_bngtk = jnp.moveaxis(q_bthk.reshape(rows, t, groups, -1, size), 1, 3) * size**-0.5
    scores = jnp.einsum("bnqk,bnsk->bnqs", q_bngtk.reshape(rows, groups, -1, size), k_bnsk).astype(jnp.float32)
    scores = jnp.where(mask_bts[:, None, None], scores.reshape(shape), jnp.finfo(jnp.float32).min)
    weights = jax.nn.softmax(scores, axis=-1).astype(q_bthk.dtype).reshape(rows, groups, -1, shape[-1])
    y_bngtk = jnp.einsum("bnqs,bnsk->bnqk", weights, v_bnsk).reshape(*shape[:-1], size)
    return jnp.moveaxis(y_bngtk, 3, 1).reshape(rows, t, heads, size)
