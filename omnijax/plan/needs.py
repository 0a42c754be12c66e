"""What a program needs: bytes on one device, by kind, and the shortest time that it can take.

`needed` is the sum of arguments, results that don't reuse the memory of an argument, temporary buffers in the
compiler's layout, and the program. `peak` is the compiler's own `peak_memory_in_bytes`, which MaxText prints: the most
bytes that are alive at one time. It leaves out the gaps of the layout, and on TPU includes the 128 MiB of fast memory
on the chip. Parameters, moments and batch are exact: sums over the shards of the abstract state.

The matrix products of the model take at least their FLOPs at the peak rate; what `remat` computes again isn't counted.
TPU's compiler also estimates the cycles of kernels; if their sum is longer, it counts instead. The compiler's
`optimal_seconds` isn't used: it counts the body of a loop once, and is negative for kernels that the compiler can't
look into. A collective sends its bytes over all links of the torus to its group. In the background it overlaps with
the chip's work; otherwise it adds to it. Latencies and links that rings share don't count. A group that crosses slices
sends all of its bytes over the slower network.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import jax

from omnijax.plan.collectives import Collective
from omnijax.plan.hlo import Module
from omnijax.plan.topology import Chip

NO_ESTIMATE = 2**62
"""The TPU compiler gives the largest integer where it has no estimate."""


@dataclasses.dataclass(frozen=True)
class Memory:
    """Bytes on one device.

    Attributes:
        needed: sum of all kinds.
        available: memory of the device.
        parameters: of the model.
        moments: of the optimiser, and the step.
        cache: of a sampler: keys and values, and the rest of its state.
        batch: other arguments.
        padding: of arguments in their layout.
        results: that don't reuse the memory of an argument.
        temporary: buffers that are there only while the program runs, such as activations and gradients.
        program: the code.
        peak: see the top of the file; None if the compiler doesn't say.
    """

    needed: float
    available: float
    parameters: int = 0
    moments: int = 0
    cache: int = 0
    batch: int = 0
    padding: int = 0
    results: int = 0
    temporary: int = 0
    program: int = 0
    peak: int | None = None

    @property
    def arguments(self) -> int:
        """Bytes that are there before the program runs."""
        return self.parameters + self.moments + self.cache + self.batch + self.padding

    @property
    def fits(self) -> bool:
        """Whether the device has as much as is needed."""
        return self.needed <= self.available


def memory_of(compiled: jax.stages.Compiled, given: Mapping[str, int], available: float) -> Memory:
    """The bytes of a program on one device; `given` are those of its arguments, by kind."""
    found = compiled.memory_analysis()
    assert found is not None
    arguments, temporary = found.argument_size_in_bytes, found.temp_size_in_bytes
    results, program = found.output_size_in_bytes - found.alias_size_in_bytes, found.generated_code_size_in_bytes
    return Memory(
        needed=arguments + results + temporary + program,
        available=available,
        **given,
        padding=arguments - sum(given.values()),
        results=results,
        temporary=temporary,
        program=program,
        peak=getattr(found, "peak_memory_in_bytes", None),
    )


def tree_bytes(tree: Any, shardings: Any = None) -> int:
    """Bytes of one device's parts of abstract arrays, which have shardings of their own if none are given."""
    leaves = jax.tree.leaves(tree)
    parts = [leaf.sharding for leaf in leaves] if shardings is None else jax.tree.leaves(shardings)
    sizes = (math.prod(part.shard_shape(leaf.shape)) for leaf, part in zip(leaves, parts, strict=True))
    return sum(size * leaf.dtype.itemsize for size, leaf in zip(sizes, leaves, strict=True))


@dataclasses.dataclass(frozen=True)
class Estimate:
    """Time of one run of a program, on every device at once.

    Attributes:
        compute_seconds: for the model's matrix products at the peak rate; 0 for sampling.
        compiler_seconds: from the compiler's estimate of cycles; 0 without one.
        background_seconds: of the network while the chip computes.
        foreground_seconds: of the network while the chip waits.
    """

    compute_seconds: float
    compiler_seconds: float
    background_seconds: float
    foreground_seconds: float

    @property
    def seconds(self) -> float:
        """Of the whole program."""
        return max(self.compute_seconds, self.compiler_seconds, self.background_seconds) + self.foreground_seconds

    @property
    def utilization(self) -> float:
        """Model FLOPs as a share of the peak of all chips."""
        return self.compute_seconds / self.seconds


def estimate(flops: float, cycles: int, collectives: Sequence[Collective], chip: Chip) -> Estimate:
    """The time of a program on a chip.

    Args:
        flops: of the model's matrix products, on one device.
        cycles: by the compiler, on one device.
        collectives: of the program.
        chip: to run on.
    """
    waits = {True: 0.0, False: 0.0}
    for one in collectives:
        bandwidth = chip.slice_bandwidth if one.between_slices else chip.link_bandwidth * max(1, one.links)
        waits[one.background] += one.times * one.wire_bytes / bandwidth
    by_cycles = cycles / chip.clock_hz if chip.clock_hz else 0.0
    return Estimate(flops / chip.flops, by_cycles, waits[True], waits[False])


def cycles_of(module: Module) -> int:
    """Sum of the cycles that TPU's compiler estimates for kernels; 0 from other compilers."""
    total = 0
    for call in module.calls:
        for one in call.computation.instructions.values() if not call.fused else ():
            cycles = re.search(r'"estimated_cycles":"(\d+)"', one.attributes)
            total += call.times * int(cycles[1]) if cycles and int(cycles[1]) < NO_ESTIMATE else 0
    return total
