"""The devices that a step is planned for: TPUs that needn't be here, or devices of this machine."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
import re
from collections.abc import Mapping
from typing import Any

import jax
from jax.experimental import topologies
from jax.sharding import Mesh

from omnijax.errors import ConfigError, PlatformError
from omnijax.plan.chips import CHIPS, Chip
from omnijax.plan.collectives import Network
from omnijax.plan.environment import settle_environment

EXAMPLES = "v5e:16x16, v5p:8x8x8, v6e:16x16, v4:4x4x4, tpu7x:4x4x4, cpu:8 or gpu:8"
_OPTIONS: Mapping[str, dict[str, Any]] = {"v4": {"chip_config_name": "megacore"}}


@dataclasses.dataclass(frozen=True)
class Topology:
    """Devices to plan for.

    Attributes:
        name: of one slice, as given by the user.
        slices: number of slices, with a slower network between them.
        devices: slice by slice.
        chip: figures of each device; None if there are none (CPU, unknown kinds).
        memory_bytes: of each device.
        sizes: of a slice along the axes of its torus; () without a torus.
    """

    name: str
    slices: int
    devices: tuple[Any, ...]
    chip: Chip | None
    memory_bytes: float
    sizes: tuple[int, ...] = ()

    @property
    def chips(self) -> int:
        """Number of chips; a chip may have two devices."""
        return len(self.devices) // (self.chip.devices if self.chip is not None else 1)

    def network(self, mesh: Mesh) -> Network:
        """The places of a mesh's devices in the network."""
        devices = list(mesh.devices.flat)
        here = {id(device): number for number, device in enumerate(self.devices)}
        per_slice = len(self.devices) // self.slices
        slices = tuple(here[id(device)] // per_slice for device in devices)
        if not self.sizes or self.chip is None:
            return Network(dict(mesh.shape), slices)
        places = tuple(tuple(device.coords) for device in devices)
        sizes = (*self.sizes, *(1 for _ in range(3 - len(self.sizes))))
        return Network(dict(mesh.shape), slices, places, self.chip.directions(sizes))


def find_topology(name: str, slices: int = 1) -> Topology:
    """The topology with a name.

    Args:
        name: such as `v5e:16x16`, `cpu:8` (fake devices of this machine) or `gpu:8` (GPUs of this machine).
        slices: number of slices, with a slower network between them.

    Raises:
        ConfigError: no such topology.
        PlatformError: this machine can't compile for it.
    """
    kind, _, shape = name.partition(":")
    sizes = tuple(int(size) for size in shape.split("x")) if re.fullmatch(r"\d+(x\d+)*", shape) else ()
    if slices < 1:
        raise ConfigError("--slices", slices, "there is at least one", "leave it out for one slice")
    if kind not in (*CHIPS, "cpu", "gpu") or not sizes or min(sizes) < 1:
        rule = f"a kind of chip ({', '.join(CHIPS)}, cpu, gpu) and a shape"
        raise ConfigError("--topology", name, rule, f"write, for example, {EXAMPLES}")
    if kind == "cpu":
        return _cpu(name, math.prod(sizes), slices)
    if kind == "gpu" or not CHIPS[kind].dimensions:
        return _gpu(name, math.prod(sizes), slices)
    return _tpu(name, kind, sizes, slices)


def _tpu(name: str, kind: str, sizes: tuple[int, ...], slices: int) -> Topology:
    chip = CHIPS[kind]
    if len(sizes) != chip.dimensions:
        rule = f"a slice of {kind} has {chip.dimensions} dimensions"
        raise ConfigError("--topology", name, rule, f"write, for example, {kind}:{'x'.join('4' * chip.dimensions)}")
    several: dict[str, Any] = {"num_slices": slices} if slices > 1 else {}
    options = dict(_OPTIONS[kind]) if kind in _OPTIONS else {}
    if math.prod(sizes) < 4:  # a part of a host
        options["chips_per_host_bounds"] = (*sizes, *(1 for _ in range(3 - len(sizes))))
    settle_environment()  # the compiler reads it when it is loaded
    try:
        found = topologies.get_topology_desc(name, "tpu", **several, **options)
    except RuntimeError as error:  # JAX's own are of this kind, too
        if "INVALID_ARGUMENT" in str(error):
            fix = "sizes are 1, or multiples of 2 up to the pod's: " + EXAMPLES
            raise ConfigError("--topology", name, f"the compiler knows none ({_first_line(error)})", fix) from error
        rule = f"the TPU compiler (libtpu) must be there ({_first_line(error)})"
        raise PlatformError("--topology", name, rule, "pip install 'omnijax[tpu]', or plan for cpu:8") from error
    devices = tuple(sorted(found.devices, key=_slice))
    return Topology(name, slices, devices, chip, chip.memory_bytes, sizes)


def _slice(device: Any) -> int:
    return getattr(device, "slice_index", None) or 0


def _cpu(name: str, count: int, slices: int) -> Topology:
    """Fake devices, as many as this process has or can still make."""
    wanted = count * slices
    with contextlib.suppress(RuntimeError):  # the process has made its devices; there have to be enough
        jax.config.update("jax_num_cpu_devices", wanted)
    devices = jax.devices("cpu")
    if len(devices) < wanted:
        rule = f"this process has made {len(devices)} CPU devices before, and {wanted} are wanted"
        raise PlatformError("--topology", name, rule, f"set JAX_NUM_CPU_DEVICES={wanted}")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / wanted
    return Topology(name, slices, tuple(devices[:wanted]), None, memory)


def _gpu(name: str, count: int, slices: int) -> Topology:
    """GPUs of this machine, because XLA tunes its kernels on the GPU that it compiles for."""
    wanted = count * slices
    try:
        devices = jax.devices("gpu")
    except RuntimeError as error:
        rule = f"XLA compiles for GPUs only where there are some, and jax {jax.__version__} finds none here"
        fix = "run it on a machine with these GPUs and omnijax[cuda], or plan for a TPU topology or cpu:8"
        raise PlatformError("--topology", name, rule, fix) from error
    if len(devices) < wanted:
        rule = f"this machine has {len(devices)} GPUs, and {wanted} are wanted"
        raise PlatformError("--topology", name, rule, f"use gpu:{len(devices)}, or a machine with more")
    found = devices[0].device_kind.lower()
    chip = next((chip for key, chip in CHIPS.items() if key in found), None)
    kind = name.split(":")[0]
    if kind not in ("gpu", chip.name if chip is not None else ""):
        rule = f"the GPUs of this machine are {devices[0].device_kind}, and XLA compiles for those that it finds"
        raise PlatformError("--topology", name, rule, f"use gpu:{len(devices)}")
    limit = (devices[0].memory_stats() or {}).get("bytes_limit")
    memory = float(limit) if limit else (chip.memory_bytes if chip is not None else 0.0)
    return Topology(name, slices, tuple(devices[:wanted]), chip, memory)


def _first_line(error: Exception) -> str:
    return str(error).split("\n")[0][:200].rstrip(".")
