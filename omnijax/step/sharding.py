"""The mesh of devices, and a table that says how each parameter is split over it."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from omnijax.config import Config, MeshConfig
from omnijax.errors import ConfigError
from omnijax.model.shards import Groups, Shards

AXES = ("data", "fsdp", "context", "tensor")

# From the last two names in the path of a parameter to its axes. The leading axis of `layers` is never split.
# `tensor` splits heads and hidden units: each layer sums over it once for attention and once for the MLP. `fsdp` splits
# the other axis of a matrix, which is gathered where it is used. Embedding and head of a primary vocabulary are small:
# they aren't split over `tensor`, which would cost a sum over all logits.
RULES: tuple[tuple[str, PartitionSpec], ...] = (
    (r"ends/embed", PartitionSpec(None, "fsdp")),
    (r"ends/head", PartitionSpec("fsdp", None)),
    (r"attention/(query|key|value)", PartitionSpec("fsdp", "tensor", None)),
    (r"attention/out", PartitionSpec("tensor", None, "fsdp")),
    (r"mlp/(gate|up)", PartitionSpec("fsdp", "tensor")),
    (r"mlp/down", PartitionSpec("tensor", "fsdp")),
    (r"item/into", PartitionSpec(None, "fsdp", None)),
    (r"item/place", PartitionSpec(None, "fsdp")),
    (r"(norm|query_norm|key_norm|attention_norm|mlp_norm)/scale", PartitionSpec()),
)
ROWS = PartitionSpec(("data", "fsdp"))
TOKENS = PartitionSpec(("data", "fsdp"), "context")


def make_mesh(config: MeshConfig, devices: Sequence[Any] | None = None) -> Mesh:
    """The mesh `data × fsdp × context × tensor` over all devices; slices follow each other along `data`.

    Args:
        config: devices along each axis in one slice.
        devices: real devices or those of a topology; all devices of this job by default.

    Raises:
        ConfigError: the product of the axes isn't the number of devices in a slice.
    """
    devices = jax.devices() if devices is None else devices
    slices = len({getattr(device, "slice_index", 0) for device in devices})
    here = len(devices) // slices
    sizes = [config.data, config.fsdp, config.context, config.tensor]
    rest = math.prod(size for size in sizes if size != -1)
    if sizes.count(-1) == 1:
        sizes[sizes.index(-1)] = here // max(rest, 1)
    if min(sizes) < 1 or math.prod(sizes) != here:
        value = "×".join(str(getattr(config, axis)) for axis in AXES)
        counted = f"the {here} devices" + (f" of each of the {slices} slices" if slices > 1 else "")
        fix = f"for example mesh.fsdp = {math.gcd(max(config.fsdp, 1), here)} with mesh.data = -1, the others 1"
        raise ConfigError("mesh", value, f"{' × '.join(AXES)} must multiply to {counted} (one axis may be -1)", fix)
    types = (AxisType.Auto,) * len(AXES)
    if slices == 1:
        return jax.make_mesh(tuple(sizes), AXES, axis_types=types, devices=devices)
    between = (slices, *(1 for _ in sizes[1:]))
    return Mesh(mesh_utils.create_hybrid_device_mesh(sizes, between, devices), AXES, axis_types=types)


def mesh_that_fits(config: Config) -> Mesh:
    """The mesh of a configuration if it fits the devices of this job; otherwise as many along `fsdp` as possible."""
    try:
        return make_mesh(config.mesh)
    except ConfigError:
        return make_mesh(MeshConfig(fsdp=math.gcd(config.model.width, jax.device_count())))


def mesh_of(params: Any) -> Mesh | None:
    """The mesh that parameters are split over; None for one device."""
    mesh = getattr(getattr(jax.tree.leaves(params)[0], "sharding", None), "mesh", None)
    return mesh if isinstance(mesh, Mesh) and mesh.size > 1 else None


def divisible(rows: int, mesh: Mesh | None) -> int:
    """`rows`, rounded up so that each device along `data` and `fsdp` has the same number."""
    devices = 1 if mesh is None else mesh.shape["data"] * mesh.shape["fsdp"]
    return -(-rows // devices) * devices


def parameter_spec(path: str, shape: tuple[int, ...]) -> PartitionSpec:
    """How the parameter at a path like `layers/mlp/up` is split; raises a `ConfigError` unless just one rule fits."""
    found = [spec for rule, spec in RULES if re.search(rf"(^|/){rule}$", path)]
    if len(found) != 1:
        rule = f"exactly one rule of omnijax/step/sharding.py must match it, and {len(found)} do"
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

    Raises a `ConfigError` as `parameter_spec`, or if an axis of the mesh does not divide one of the parameter.
    """

    def sharding(keys: tuple[Any, ...], leaf: Any) -> NamedSharding:
        path = path_of(keys)
        spec = parameter_spec(path, leaf.shape)
        for size, axis in zip(leaf.shape, spec, strict=False):
            if axis is not None and size % mesh.shape[axis]:
                rule = f"its size {size} must divide by the {mesh.shape[axis]} devices of mesh.{axis}"
                fix = f"use mesh.{axis} = {math.gcd(size, mesh.shape[axis])}, or a wider model"
                raise ConfigError("parameter", path, rule, fix)
        return NamedSharding(mesh, spec)

    return jax.tree_util.tree_map_with_path(sharding, params)


def batch_shardings(mesh: Mesh, batch: Any) -> Any:
    """Shardings of a batch: sequences are split over `data` and `fsdp`, and their tokens over `context`."""
    return jax.tree.map(lambda array: NamedSharding(mesh, TOKENS if array.ndim > 1 else ROWS), batch)


def rows_here(mesh: Mesh, rows: int) -> list[int]:
    """Indices of the sequences of a batch that the devices of this process hold, and that it therefore has to make.

    Devices that share the tokens or heads of a sequence may belong to several processes, which then all make it.
    """
    held = NamedSharding(mesh, ROWS).addressable_devices_indices_map((rows,)).values()
    return sorted({row for index in held if index is not None for row in range(*index[0].indices(rows))})


def put_batch(mesh: Mesh, batch: Any, rows: int | None = None) -> Any:
    """Puts a global batch on the devices.

    Args:
        mesh: the devices.
        batch: all sequences; if `rows` is given, only those of `rows_here`, in that order.
        rows: number of sequences in the global batch.
    """
    if rows is None:
        return jax.device_put(batch, batch_shardings(mesh, batch))
    number = {row: place for place, row in enumerate(rows_here(mesh, rows))}

    def put(array: Any, sharding: NamedSharding) -> jax.Array:
        def part(index: tuple[slice, ...] | None) -> Any:
            assert index is not None
            start, stop, _ = index[0].indices(rows)
            return array[(slice(number[start], number[start] + stop - start), *index[1:])]

        return jax.make_array_from_callback((rows, *array.shape[1:]), sharding, part)

    return jax.tree.map(put, batch, batch_shardings(mesh, batch))


def shards_of(mesh: Mesh, params: Any) -> Shards:
    """How the model is split over a mesh; for the program that each device runs."""
    specs = jax.tree.map(lambda sharding: sharding.spec, parameter_shardings(mesh, params))
    layers = jax.tree.map(lambda spec: PartitionSpec(*spec[1:]), specs["layers"])
    return Shards(dict(mesh.shape), specs | {"layers": layers}, mesh.devices.flat[0].platform, rings_of(mesh))


def rings_of(mesh: Mesh) -> tuple[Groups, ...]:
    """The rings of a TPU torus along `fsdp`, those of the slowest dimension first; () for one ring or no torus.

    TPU's compiler keeps a reduce-scatter over one ring. It replaces one over a plane by an all-reduce, which moves
    twice the bytes (libtpu 0.0.42, v5e, v5p).
    """
    along = np.moveaxis(mesh.devices, AXES.index("fsdp"), 0).reshape(mesh.shape["fsdp"], -1)[:, 0]
    if along[0].platform != "tpu":
        return ()
    coords = np.array([device.coords for device in along])
    sizes: list[int] = []
    while (unit := math.prod(sizes)) < along.size:
        steps = coords[::unit] != coords[0]
        fixed = ~steps[1]
        inside = ~steps[:, fixed].any(axis=1)
        sizes.insert(0, int(inside.size if inside.all() else np.argmin(inside)))
        if along.size % math.prod(sizes):
            return ()
    return rings(*sizes) if len(sizes) > 1 else ()


def rings(*sizes: int) -> tuple[Groups, ...]:
    """The lines along each dimension of a grid of these sizes, whose points are numbered row by row."""
    grid = np.arange(math.prod(sizes)).reshape(sizes)
    lines = (np.moveaxis(grid, axis, -1).reshape(-1, size).tolist() for axis, size in enumerate(sizes))
    return tuple(tuple(tuple(line) for line in along) for along in lines)
