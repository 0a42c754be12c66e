"""What devices that share a model give each other within a layer: their parts of weights, sums and keys.

Each device runs the same program on its part of the parameters and of the batch (`jax.shard_map`, every axis by hand),
so that all that crosses between devices stands here, and the same bytes cross under every compiler. The transpose of a
gather is a scattered sum: gradients of gathered weights arrive summed and split, and are never whole on any device.
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
"""Name, for `jax.checkpoint`, of what no forward pass keeps: gathering it again is cheaper than holding the model."""


Groups = tuple[tuple[int, ...], ...]


class Shards(NamedTuple):
    """How the model is split over the devices.

    Attributes:
        sizes: devices along each axis of the mesh; empty where nothing is split by hand.
        specs: of each parameter, as a nested dict; those of `layers` without their leading axis.
        platform: of the devices.
        rings: groups of devices along `fsdp`, by their numbers there: sums are scattered over the first groups, what is
            left over the next, and so on; () for one sum over all.
    """

    sizes: Mapping[str, int]
    specs: Mapping[str, Any]
    platform: str
    rings: tuple[Groups, ...] = ()

    @property
    def gathers(self) -> bool:
        """Weights are kept in parts."""
        return self._split("fsdp")

    def whole(self, part: str, params: Any, dtype: Any) -> Any:
        """Parameters of a part with their `fsdp` axes gathered; matrices in the dtype that they are computed in."""

        def gather(weight: Array, spec: PartitionSpec) -> Array:
            if weight.ndim < 2:
                return weight
            weight = weight.astype(dtype)  # before it is gathered: half the bytes in bfloat16
            if "fsdp" in spec and self._split("fsdp"):
                weight = checkpoint_name(_gather(spec.index("fsdp"), self.rings, weight), GATHERED)
            return weight

        return jax.tree.map(gather, params, self.specs[part]) if self.specs else params

    def summed(self, tree: Any, specs: Any) -> Any:
        """Sums over all the axes that a leaf isn't split over: of the gradients of copies, of parts of a loss."""

        def add(leaf: Array, spec: PartitionSpec) -> Array:
            axes = [axis for axis in self.sizes if self._split(axis) and axis not in spec]
            return lax.psum(leaf, axes) if axes else leaf

        return jax.tree.map(add, tree, specs)

    def total(self, x: Float[Array, "..."]) -> Float[Array, "..."]:
        """The sum of what each device along `tensor` has from its heads or hidden units."""
        return lax.psum(x, "tensor") if self._split("tensor") else x

    def row(self, x_bt: Array) -> Array:
        """Whole rows of what is split by token: keys, values, documents."""
        return lax.all_gather(x_bt, "context", axis=1, tiled=True) if self._split("context") else x_bt

    def first(self, tokens: int) -> Array | int:
        """Place in the row of the first of these tokens."""
        return lax.axis_index("context") * tokens if self._split("context") else 0

    def _split(self, axis: str) -> bool:
        return self.sizes.get(axis, 1) > 1


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _gather(axis: int, rings: tuple[Groups, ...], weight: Array) -> Array:
    """The whole of a weight whose parts lie along `fsdp`."""
    # Over three dimensions TPU's compiler would make it an all-reduce, over two it is best at once.
    for groups in reversed(rings) if len(rings) > 2 else (None,):
        weight = lax.all_gather(weight, "fsdp", axis=axis, axis_index_groups=groups, tiled=True)
    return weight


def _gather_forward(axis: int, rings: tuple[Groups, ...], weight: Array) -> tuple[Array, None]:
    return _gather(axis, rings, weight), None


def _gather_backward(axis: int, rings: tuple[Groups, ...], _: None, gradient: Array) -> tuple[Array]:
    """The sum of all devices' gradients, each device its part: ring by ring, and never whole."""
    for groups in rings or (None,):
        gradient = lax.psum_scatter(gradient, "fsdp", scatter_dimension=axis, axis_index_groups=groups, tiled=True)
    return (gradient,)


_gather.defvjp(_gather_forward, _gather_backward)

ALONE = Shards({}, {}, "")
"""Nothing is split by hand: one device, or whatever the compiler makes of sharded arguments."""
