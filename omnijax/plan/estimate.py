"""The shortest time that a step can take, from rooflines of the chip and of the network.

Kernels follow each other. A kernel takes as long as its matrix products at the peak rate, or as its bytes at the
memory's bandwidth, whichever is longer. TPU's compiler also estimates the cycles of kernels; if their sum is longer, it
counts instead. The compiler's `optimal_seconds` isn't used: it counts the body of a loop once, and is negative for
kernels that the compiler can't look into. A collective sends its bytes over all links of the torus to its group. In the
background it overlaps with the chip's work; otherwise it adds to it. Latencies and links that rings share don't count.
A group that crosses slices sends all of its bytes over the slower network.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from omnijax.config import Config
from omnijax.plan.collectives import Collective
from omnijax.plan.cost import cost_of, segment_items, step_flops, task_segments
from omnijax.plan.topology import Chip
from omnijax.plan.work import Kernel


@dataclasses.dataclass(frozen=True)
class Estimate:
    """Time of one run of a program, on every device at once.

    Attributes:
        flops: of matrix products on one device; the body of a loop counts as often as it runs.
        bytes: to and from the memory of one device.
        compute_seconds: for these operations at the peak rate.
        memory_seconds: for these bytes at the memory's bandwidth.
        kernel_seconds: sum over kernels, each at the slower of the two rates.
        compiler_seconds: from the compiler's estimate of cycles; 0 without one.
        background_seconds: of the network while the chip computes.
        foreground_seconds: of the network while the chip waits.
        seconds: of the whole program.
    """

    flops: float
    bytes: float
    compute_seconds: float
    memory_seconds: float
    kernel_seconds: float
    compiler_seconds: float
    background_seconds: float
    foreground_seconds: float

    @property
    def seconds(self) -> float:
        """Of the whole program."""
        return max(self.kernel_seconds, self.compiler_seconds, self.background_seconds) + self.foreground_seconds


@dataclasses.dataclass(frozen=True)
class Throughput:
    """Throughput of training at the estimated speed.

    Attributes:
        tokens: of a step with full sequences.
        model_flops: FLOPs of the model for these tokens, without remat; see `omnijax.model.flops`.
        tokens_per_second: over all chips.
        items_per_second: over all chips.
        utilization: model FLOPs as a share of the peak of all chips.
    """

    tokens: int
    model_flops: float
    tokens_per_second: float
    items_per_second: float
    utilization: float


def estimate(kernels: Sequence[Kernel], collectives: Sequence[Collective], chip: Chip) -> Estimate:
    """The time of a program on a chip."""
    flops = float(sum(kernel.times * kernel.flops for kernel in kernels))
    moved = float(sum(kernel.times * kernel.bytes for kernel in kernels))
    each = sum(k.times * max(k.flops / chip.flops, k.bytes / chip.bandwidth) for k in kernels)
    cycles = sum(kernel.times * (kernel.cycles or 0) for kernel in kernels)
    waits = {True: 0.0, False: 0.0}
    for one in collectives:
        bandwidth = chip.slice_bandwidth if one.between_slices else chip.link_bandwidth * max(1, one.links)
        waits[one.background] += one.times * one.wire_bytes / bandwidth
    by_cycles = cycles / chip.clock_hz if chip.clock_hz else 0.0
    times = (flops / chip.flops, moved / chip.bandwidth, each, by_cycles, waits[True], waits[False])
    return Estimate(flops, moved, *times)


def throughput(config: Config, seconds: float, devices: int, chip: Chip) -> Throughput:
    """Throughput of a train step that takes `seconds` on `devices` devices."""
    length = config.batch.sequence_length - 1  # the last token of a sequence is only a target
    tokens, flops = config.batch.size * length, float(step_flops(config))
    items = items_per_token(config) * tokens
    return Throughput(tokens, flops, tokens / seconds, items / seconds, flops / (seconds * devices * chip.flops))


def items_per_token(config: Config) -> float:
    """Items in a token of the experiment's documents, on average over an epoch."""
    items = segment_items(config)
    documents = cost_of(config, config.vocabulary, items).documents
    read = written = 0.0
    for task in config.batch.tasks:
        name, markers = task_segments(config, task)
        written += task.repeats * documents[name].mean
        read += task.repeats * sum(items[marker].mean for marker in markers)
    return read / written
