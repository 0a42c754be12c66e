"""Checksums of arrays, computed on the devices that hold them. They are the same on any mesh.

A checkpoint stores them, so that a bit that flips on a disk or on the way to it is found.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, UInt32

from omnijax.step.sharding import path_of


def checksums(tree: Any) -> dict[str, int]:
    """A number below 2**32 for each array of nested dicts, by its path.

    It is the sum, modulo 2**32, of the bits of each element times an odd number that depends on the element's place. So
    any change of one element changes it, and any other change leaves it alone in one case of 2**32.
    """
    sums = jax.device_get(_sums(tree))
    return {path_of(keys): int(number) for keys, number in jax.tree_util.tree_leaves_with_path(sums)}


@jax.jit
def _sums(tree: Any) -> Any:
    return jax.tree.map(_sum, tree)


def _sum(array: Array) -> UInt32[Array, ""]:
    bits = lax.bitcast_convert_type(array, jnp.dtype(f"uint{8 * array.dtype.itemsize}")).astype(jnp.uint32)
    place, stride = jnp.zeros((), jnp.uint32), 1
    for axis in reversed(range(array.ndim)):
        place = place + lax.broadcasted_iota(jnp.uint32, array.shape, axis) * jnp.uint32(stride % 2**32)
        stride *= array.shape[axis]
    return jnp.sum(bits * (2 * place + 1), dtype=jnp.uint32)
