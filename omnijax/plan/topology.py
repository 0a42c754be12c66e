"""The devices that a step is planned for: TPUs that needn't be here, or devices of this machine.

Where the figures of the chips come from. Memory: the limit that the compiler (`libtpu` 0.0.42) names when it refuses a
larger program. The rest: the tables "System architecture" of https://docs.cloud.google.com/tpu/docs/ v4, v5e, v5p, v6e
and tpu7x: peak bf16 FLOPs; the inter-chip bandwidth of a chip in both directions, of which one link in one direction is
an eighth in two dimensions (v5e 400 GB/s, v6e 800 GB/s), a twelfth in three (v4 600, v5p 1200, tpu7x 1200); between
slices the data-center network of a chip (v5p 50 Gb/s, tpu7x 100 Gb/s), or of a pod divided by its 256 chips (v5e 6.4
Tb/s, v6e 25.6 Tb/s), of v4 taken to be v5p's. Clock: peak rate over what the matrix units do in a cycle, which is how
the compiler's estimated cycles become seconds. NVIDIA: the data sheets of A100 80GB, H100 and H200 as SXM: dense bf16,
NVLink in one direction, a network card of 200 or 400 Gb/s for each.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
import re
from typing import Any

import jax
from jax.experimental import topologies
from jax.sharding import Mesh

from omnijax.errors import ConfigError, PlatformError
from omnijax.plan.collectives import Network

EXAMPLES = "v5e:16x16, v5p:8x8x8, v6e:16x16, v4:4x4x4, tpu7x:4x4x4, cpu:8 or gpu:8"
WITHOUT_A_TPU = {
    "TPU_SKIP_MDS_QUERY": "1",  # don't ask the cloud what machine this is
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",  # no process here uses a chip, so that several may compile
    # The library asks for these; a topology that is given by name doesn't depend on them.
    "TPU_ACCELERATOR_TYPE": "v5litepod-4",
    "TPU_WORKER_HOSTNAMES": "localhost",
}
"""Environment variables that TPU's compiler reads when it is loaded."""
GiB = 1024**3


@dataclasses.dataclass(frozen=True)
class Chip:
    """One device as a program sees it.

    Attributes:
        name: used in the names of topologies.
        memory_bytes: that a program can use.
        flops: peak rate of matrix products in bfloat16, per second.
        link_bandwidth: of one link to a neighbour in one direction, bytes per second.
        slice_bandwidth: between slices (or nodes), bytes per second.
        clock_hz: of the matrix units; 0 if no compiler estimates cycles.
        dimensions: of the torus; 0 if the links go through a switch.
        full: size of an axis at which its ends are joined; in three dimensions also multiples of it.
        devices: number of JAX devices of a chip.
    """

    name: str
    memory_bytes: float
    flops: float
    link_bandwidth: float
    slice_bandwidth: float
    clock_hz: float = 0.0
    dimensions: int = 0
    full: int = 0
    devices: int = 1

    def directions(self, sizes: tuple[int, ...]) -> tuple[int, ...]:
        """Directions in which a device can send along each axis of a slice: 2 if the ends are joined, else 1."""
        cube = all(size % self.full == 0 for size in sizes)
        return tuple(2 if (cube if self.dimensions == 3 else size == self.full) else 1 for size in sizes)


CHIPS = {
    "v4": Chip("v4", 30.75 * GiB, 275e12, 50e9, 6.25e9, 1.05e9, 3, 4),
    "v5e": Chip("v5e", 15.75 * GiB, 197e12, 50e9, 3.125e9, 1.50e9, 2, 16),
    "v5p": Chip("v5p", 95.74 * GiB, 459e12, 100e9, 6.25e9, 1.75e9, 3, 4),
    "v6e": Chip("v6e", 31.25 * GiB, 918e12, 100e9, 12.5e9, 1.75e9, 2, 16),
    # A chip has two devices: the figures are those of half a chip.
    "tpu7x": Chip("tpu7x", 94.75 * GiB, 1153.5e12, 50e9, 6.25e9, 0.0, 3, 4, devices=2),
    "a100": Chip("a100", 80e9, 312e12, 300e9, 25e9),
    "h100": Chip("h100", 80e9, 989e12, 450e9, 50e9),
    "h200": Chip("h200", 141e9, 989e12, 450e9, 50e9),
}
"""By the name before the colon of a topology."""


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
    if kind in CHIPS and CHIPS[kind].dimensions:
        return _tpu(name, kind, sizes, slices)
    return (_cpu if kind == "cpu" else _gpu)(name, math.prod(sizes) * slices, slices)


def _tpu(name: str, kind: str, sizes: tuple[int, ...], slices: int) -> Topology:
    chip = CHIPS[kind]
    if len(sizes) != chip.dimensions:
        rule = f"a slice of {kind} has {chip.dimensions} dimensions"
        raise ConfigError("--topology", name, rule, f"write, for example, {kind}:{'x'.join('4' * chip.dimensions)}")
    several = {"num_slices": slices} if slices > 1 else {}
    options: dict[str, Any] = {"chip_config_name": "megacore"} if kind == "v4" else {}
    if math.prod(sizes) < 4:  # a part of a host
        options["chips_per_host_bounds"] = (*sizes, *(1 for _ in range(3 - len(sizes))))
    for variable, value in WITHOUT_A_TPU.items():
        os.environ.setdefault(variable, value)
    try:
        found = topologies.get_topology_desc(name, "tpu", **several, **options)
    except RuntimeError as error:  # JAX's own are of this kind, too
        said = str(error).split("\n")[0][:200].rstrip(".")
        if "INVALID_ARGUMENT" in str(error):
            fix = "sizes are 1, or multiples of 2 up to the pod's: " + EXAMPLES
            raise ConfigError("--topology", name, f"the compiler knows none ({said})", fix) from error
        rule = f"the TPU compiler (libtpu) must be there ({said})"
        raise PlatformError("--topology", name, rule, "pip install 'omnijax[tpu]', or plan for cpu:8") from error
    devices = tuple(sorted(found.devices, key=lambda device: getattr(device, "slice_index", None) or 0))
    return Topology(name, slices, devices, chip, chip.memory_bytes, sizes)


def _cpu(name: str, wanted: int, slices: int) -> Topology:
    """Fake devices, as many as this process has or can still make."""
    with contextlib.suppress(RuntimeError):  # the process has made its devices; there have to be enough
        jax.config.update("jax_num_cpu_devices", wanted)
    devices = jax.devices("cpu")
    if len(devices) < wanted:
        rule = f"this process has made {len(devices)} CPU devices before, and {wanted} are wanted"
        raise PlatformError("--topology", name, rule, f"set JAX_NUM_CPU_DEVICES={wanted}")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / wanted
    return Topology(name, slices, tuple(devices[:wanted]), None, memory)


def _gpu(name: str, wanted: int, slices: int) -> Topology:
    """GPUs of this machine, because XLA tunes its kernels on the GPU that it compiles for."""
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
