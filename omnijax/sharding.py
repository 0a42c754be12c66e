"""One mesh, and one table from the path of a parameter to how it is split over the mesh."""

from __future__ import annotations

import re
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from omnijax.config import MeshConfig
from omnijax.errors import ConfigError

AXES = ("data", "fsdp", "tensor")

# Path of a parameter (its last two names) -> its axes; the leading axis of `layers` is the layer and is never split.
# `tensor` splits heads and hidden units, so that a layer sums over it once for attention and once for the MLP;
# `fsdp` splits the other axis of a matrix, which is gathered where it is used.
RULES: tuple[tuple[str, PartitionSpec], ...] = (
    (r"ends/embed", PartitionSpec("tensor", "fsdp")),
    (r"ends/head", PartitionSpec("fsdp", "tensor")),
    (r"attention/(query|key|value)", PartitionSpec("fsdp", "tensor", None)),
    (r"attention/out", PartitionSpec("tensor", None, "fsdp")),
    (r"mlp/(gate|up)", PartitionSpec("fsdp", "tensor")),
    (r"mlp/down", PartitionSpec("tensor", "fsdp")),
    (r"(norm|query_norm|key_norm|attention_norm|mlp_norm)/scale", PartitionSpec()),
)
BATCH = PartitionSpec(("data", "fsdp"))


def make_mesh(config: MeshConfig, devices: list[jax.Device] | None = None) -> Mesh:
    """The mesh `data × fsdp × tensor` over all devices.

    Raises:
        ConfigError: the axes don't multiply to the number of devices.
    """
    devices = jax.devices() if devices is None else devices
    sizes = [config.data, config.fsdp, config.tensor]
    if sizes.count(-1) == 1:
        rest = int(np.prod([size for size in sizes if size != -1]))
        sizes[sizes.index(-1)] = len(devices) // max(rest, 1)
    if min(sizes) < 1 or int(np.prod(sizes)) != len(devices):
        field, value = "mesh", f"{config.data}×{config.fsdp}×{config.tensor}"
        raise ConfigError(
            field, value, f"must multiply to the {len(devices)} devices (one axis may be -1)", "adjust an axis"
        )
    return jax.make_mesh(tuple(sizes), AXES, axis_types=(AxisType.Auto,) * len(AXES), devices=devices)


def parameter_spec(path: str, shape: tuple[int, ...]) -> PartitionSpec:
    """How the parameter at a path like `layers/mlp/up` is split.

    Raises:
        ConfigError: no rule, or more than one, holds for the path, or the rule is for another number of axes.
    """
    found = [spec for rule, spec in RULES if re.search(rf"(^|/){rule}$", path)]
    if len(found) != 1:
        rule = f"exactly one rule of omnijax/sharding.py must hold for it, and {len(found)} do"
        raise ConfigError("parameter", path, rule, "add or narrow a rule")
    spec = PartitionSpec(None, *found[0]) if path.startswith("layers/") and len(found[0]) else found[0]
    if len(spec) not in (0, len(shape)):
        raise ConfigError("parameter", f"{path} {shape}", f"its rule {spec} is for {len(spec)} axes", "mend the rule")
    return spec


def path_of(keys: tuple[Any, ...]) -> str:
    """The path of a leaf of a nested dict, its keys joined by `/`."""
    return "/".join(str(key.key) for key in keys)


def parameter_shardings(mesh: Mesh, params: Any) -> Any:
    """A `NamedSharding` for each parameter (or its shape).

    Raises:
        ConfigError: see `parameter_spec`; or an axis of the mesh does not divide one of the parameter.
    """

    def sharding(keys: tuple[Any, ...], leaf: Any) -> NamedSharding:
        path = path_of(keys)
        spec = parameter_spec(path, leaf.shape)
        for size, axis in zip(leaf.shape, spec, strict=False):
            if axis is not None and size % mesh.shape[axis]:
                rule = f"its size {size} must divide by the {mesh.shape[axis]} devices of mesh.{axis}"
                raise ConfigError("parameter", path, rule, f"use a smaller mesh.{axis}, or a wider model")
        return NamedSharding(mesh, spec)

    return jax.tree_util.tree_map_with_path(sharding, params)


def like_parameters(mesh: Mesh, params: Any, tree: Any) -> Any:
    """Shardings for a tree that holds copies of the parameters' tree (an optimiser state): theirs; else replicated.

    A leaf belongs to the parameter whose path its own path ends with, if the shapes agree.
    """
    shapes = {}
    for keys, leaf in jax.tree_util.tree_leaves_with_path(params):
        shapes[path_of(keys)] = leaf.shape
    shardings = parameter_shardings(mesh, params)
    flat = {path_of(keys): leaf for keys, leaf in jax.tree_util.tree_leaves_with_path(shardings)}

    def sharding(keys: tuple[Any, ...], leaf: Any) -> NamedSharding:
        named = [str(key.key) for key in keys if hasattr(key, "key")]
        for start in range(len(named)):
            path = "/".join(named[start:])
            if shapes.get(path) == leaf.shape:
                return flat[path]
        return NamedSharding(mesh, PartitionSpec())

    return jax.tree_util.tree_map_with_path(sharding, tree)


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Rows over `data` and `fsdp`."""
    return NamedSharding(mesh, BATCH)


def put_batch(mesh: Mesh, batch: Any) -> Any:
    """The global batch, of which each process gives its rows, on the devices."""
    sharding = batch_sharding(mesh)
    return jax.tree.map(lambda rows: jax.make_array_from_process_local_data(sharding, rows), batch)
