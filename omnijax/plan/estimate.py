"""The shortest time that a program can take, from figures of the chip and of the network.

The matrix products of the model take at least their FLOPs at the peak rate; what `remat` computes again isn't counted.
TPU's compiler also estimates the cycles of kernels; if their sum is longer, it counts instead. The compiler's
`optimal_seconds` isn't used: it counts the body of a loop once, and is negative for kernels that the compiler can't
look into. A collective sends its bytes over all links of the torus to its group. In the background it overlaps with
the chip's work; otherwise it adds to it. Latencies and links that rings share don't count. A group that crosses slices
sends all of its bytes over the slower network.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence

from omnijax.plan.collectives import Collective
from omnijax.plan.hlo import Module
from omnijax.plan.topology import Chip

NO_ESTIMATE = 2**62
"""TPU's compiler writes the largest number if it has no estimate."""


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
