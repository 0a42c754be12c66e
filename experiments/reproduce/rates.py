"""The best rates of a device, and the lines that every part of `accelerator.py` prints."""

from __future__ import annotations

import functools
import importlib.metadata
import json
import os
import platform
import time
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

CUDA = ("jax-cuda13-plugin", "jax-cuda12-plugin", "nvidia-cudnn-cu13")
PACKAGES = ("omnijax", "jax", "jaxlib", *CUDA, "flax", "optax", "orbax-checkpoint", "grain", "numpy")
GB = 1e9


class Figure(NamedTuple):
    """One measurement.

    Attributes:
        name: what was measured.
        value: the median; None if it wasn't measured.
        unit: of the value.
        spread: half the distance between the quartiles, relative to the median; None if counted, or measured once.
        demand: the limit of the value, in words; empty if there is none.
        held: whether the value meets the demand; None if there is no demand for this device.
    """

    name: str
    value: float | None
    unit: str
    spread: float | None = None
    demand: str = ""
    held: bool | None = None


class Measured(NamedTuple):
    """Medians of several measurements, and their relative spread."""

    value: float
    spread: float


def measured(values: Iterable[float]) -> Measured:
    """The median, and half the distance between the quartiles over it."""
    low, middle, high = np.percentile(list(values), [25, 50, 75])
    return Measured(float(middle), float((high - low) / 2 / middle))


def seconds(call: Callable[[], Any], rounds: int, calls: int) -> list[float]:
    """Seconds of one call, of several that are sent to the device one after the other; the first isn't counted."""
    jax.block_until_ready(call())
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        for _ in range(calls):
            result = call()
        jax.block_until_ready(result)
        times.append((time.perf_counter() - start) / calls)
    return times


def matmul_rate(tiny: bool) -> Measured:
    """FLOP/s of large square products of random numbers in bfloat16, for the fastest size."""
    found = []
    for side in (128,) if tiny else (8192, 16384):
        keys = jax.random.split(jax.random.key(0))
        a, b = (jax.random.normal(key, (side, side), jnp.bfloat16) for key in keys)
        times = seconds(functools.partial(jax.jit(jnp.matmul), a, b), 9, 8)
        found.append(measured(2 * side**3 / taken for taken in times))
    return max(found)


def bandwidth(tiny: bool) -> Measured:
    """Bytes a second when large arrays are read, or copied (read and written), whichever is faster."""
    block = jnp.ones(2**18 if tiny else 2**31, jnp.bfloat16)  # 4 GiB
    add, copy = jax.jit(lambda x: jnp.sum(x, dtype=jnp.float32)), jax.jit(lambda x: x + 1)
    read = measured(block.nbytes / taken for taken in seconds(lambda: add(block), 9, 4))
    return max(read, measured(2 * block.nbytes / taken for taken in seconds(lambda: copy(block), 9, 4)))


def say(**what: Any) -> None:
    """Prints a JSON line at once, so that a later failure can't lose it."""
    print(json.dumps(what, ensure_ascii=False), flush=True)


def say_figures(section: str, figures: Iterable[Figure]) -> None:
    """Prints each figure as soon as it is measured."""
    for figure in figures:
        say(section=section, **figure._asdict())


def machine() -> dict[str, Any]:
    """The machine and the versions of the figures."""
    device = jax.devices()[0]
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {
        "device": device.device_kind,
        "platform": device.platform,
        "devices": jax.device_count(),
        "memory_bytes": memory_bytes(),
        "runtime": " ".join(device.client.platform_version.split()),
        "cores": len(os.sched_getaffinity(0)),
        "load": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "versions": versions,
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
    }


def memory_bytes() -> int:
    """Memory of the first device for a program, or of the machine if the device doesn't report it."""
    limit = (jax.devices()[0].memory_stats() or {}).get("bytes_limit")
    return int(limit) if limit else os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
