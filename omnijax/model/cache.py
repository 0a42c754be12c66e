"""Keys and values of the tokens that a model has read, so that it can read on token by token."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

# The functions of this module take any tree of arrays as a cache. Its first leaf is an array [rows, heads, slots, ...];
# leaves with fewer than three axes have no slots.
_SLOTS = 2


class Cache(NamedTuple):
    """Keys and values of each layer; slot s holds the token at position s of its row, which has `length` tokens so far.

    Each layer has an array of its own, so that attention reads it in place; a slice of a larger array would be copied.
    Heads come before slots, so that attention is a batched matrix product without transpositions.
    """

    keys: tuple[Float[Array, "b n s k"], ...]
    values: tuple[Float[Array, "b n s k"], ...]
    length: Int[Array, " b"]

    def write(
        self, layer: int, positions_bt: Int[Array, "b t"], k_btnk: Float[Array, "b t n k"], v_btnk: Float[Array, "..."]
    ) -> Cache:
        """The cache with these keys and values in the slots of their positions, as far as it has these slots."""

        def put(old_nsk: Array, new_tnk: Array, positions_t: Array) -> Array:
            return old_nsk.at[:, positions_t].set(jnp.swapaxes(new_tnk, 0, 1).astype(old_nsk.dtype), mode="drop")

        def replaced(old: tuple[Array, ...], new_btnk: Array) -> tuple[Array, ...]:
            return (*old[:layer], jax.vmap(put)(old[layer], new_btnk, positions_bt), *old[layer + 1 :])

        return self._replace(keys=replaced(self.keys, k_btnk), values=replaced(self.values, v_btnk))


def slots(cache: Any) -> int:
    """Number of slots of each row."""
    return int(jax.tree.leaves(cache)[0].shape[_SLOTS])


def grown(cache: Any, room: int) -> Any:
    """The cache with `room` slots."""

    def pad(old: Array) -> Array:
        return jnp.pad(old, [(0, room - old.shape[axis] if axis == _SLOTS else 0) for axis in range(old.ndim)])

    return jax.tree.map(pad, cache)


def put(cache: Any, rows_g: Int[Array, " g"], new: Any) -> Any:
    """The cache with rows `rows_g` replaced by those of another one, which has as many slots or fewer."""

    def replace(old: Array, rows: Array) -> Array:
        if old.ndim <= _SLOTS:
            return old.at[rows_g].set(rows, mode="drop")
        return old.at[rows_g, :, : rows.shape[_SLOTS]].set(rows, mode="drop")

    return jax.tree.map(replace, cache, new)


def attend_cached(
    q_bthk: Float[Array, "b t h k"],
    k_bnsk: Float[Array, "b n s k"],
    v_bnsk: Float[Array, "b n s k"],
    mask_bts: Bool[Array, "b t s"],
) -> Float[Array, "b t h k"]:
    """Attention of few queries to many keys in the layout of the cache; keys are neither moved nor repeated.

    The query heads of a group are treated as further queries. For one token at a time this is four times as fast as
    `reference` of `attend.py`.
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
