"""The collectives of training: what devices that share a model exchange within a layer.

Each device runs the same program on its part of the parameters and the batch (`jax.shard_map`, with every axis manual).
So every collective is written here, and each compiler moves the same bytes. The transpose of a gather is a scattered
sum: gradients of gathered weights are summed and split at once, and no device ever holds a whole one.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
from jax import lax
from jax.ad_checkpoint import checkpoint_name
from jax.sharding import PartitionSpec
from jaxtyping import Array, Float

GATHERED = "gathered weights"
"""Name, for `jax.checkpoint`, of gathered weights. No forward pass keeps them; they are gathered again instead."""


Groups = tuple[tuple[int, ...], ...]


class Shards(NamedTuple):
    """How the model is split over the devices.

    Attributes:
        sizes: devices along each axis of the mesh; empty if nothing is split by hand.
        specs: of each parameter, as a nested dict; those of `layers` without their leading axis.
        platform: of the devices.
        rings: groups of devices along `fsdp`, by their numbers there. A sum is scattered over the first groups, then
            over the next, and so on; () for one sum over all devices.
    """

    sizes: Mapping[str, int]
    specs: Mapping[str, Any]
    platform: str
    rings: tuple[Groups, ...] = ()

    def split(self, axis: str) -> bool:
        """Whether something is split over an axis of the mesh."""
        return self.sizes.get(axis, 1) > 1

    def whole(self, part: str, params: Any, dtype: Any) -> Any:
        """Parameters of a part, gathered along their `fsdp` axes; matrices have the compute dtype."""

        def gather(weight: Array, spec: PartitionSpec) -> Array:
            if weight.ndim < 2:
                return weight
            weight = weight.astype(dtype)  # before it is gathered: half the bytes in bfloat16
            if "fsdp" in spec and self.split("fsdp"):
                weight = checkpoint_name(_gather(spec.index("fsdp"), self.rings, weight), GATHERED)
            return weight

        return jax.tree.map(gather, params, self.specs[part]) if self.specs else params

    def summed(self, tree: Any, specs: Any) -> Any:
        """Sums each leaf over the axes that it isn't split over, such as gradients of copies or parts of a loss."""

        def add(leaf: Array, spec: PartitionSpec) -> Array:
            axes = [axis for axis in self.sizes if self.split(axis) and axis not in spec]
            return lax.psum(leaf, axes) if axes else leaf

        return jax.tree.map(add, tree, specs)

    def total(self, x: Float[Array, "..."]) -> Float[Array, "..."]:
        """The sum over devices along `tensor`, each of which has some of the heads or hidden units."""
        return lax.psum(x, "tensor") if self.split("tensor") else x

    def row(self, x_bt: Array) -> Array:
        """Whole sequences of what is split by token: keys, values, documents."""
        return lax.all_gather(x_bt, "context", axis=1, tiled=True) if self.split("context") else x_bt

    def first(self, tokens: int) -> Array | int:
        """Place in the sequence of the first of this device's tokens."""
        return lax.axis_index("context") * tokens if self.split("context") else 0


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _gather(axis: int, rings: tuple[Groups, ...], weight: Array) -> Array:
    """The whole weight, gathered along `fsdp`."""
    # Over three dimensions TPU's compiler would make this an all-reduce; over two, one gather is best.
    for groups in reversed(rings) if len(rings) > 2 else (None,):
        weight = lax.all_gather(weight, "fsdp", axis=axis, axis_index_groups=groups, tiled=True)
    return weight


def _gather_forward(axis: int, rings: tuple[Groups, ...], weight: Array) -> tuple[Array, None]:
    return _gather(axis, rings, weight), None


def _gather_backward(axis: int, rings: tuple[Groups, ...], _: None, gradient: Array) -> tuple[Array]:
    """Each device's part of the sum of all devices' gradients, summed ring by ring."""
    for groups in rings or (None,):
        gradient = lax.psum_scatter(gradient, "fsdp", scatter_dimension=axis, axis_index_groups=groups, tiled=True)
    return (gradient,)


_gather.defvjp(_gather_forward, _gather_backward)

ALONE = Shards({}, {}, "")
"""Nothing is split by hand: for one device, or where the compiler splits sharded arguments."""
