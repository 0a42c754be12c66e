"""How long a step takes, at best: rooflines of the chip and of the network.

On the chip every kernel takes the longer of its matrix products at the peak rate and its bytes at the memory's
bandwidth; kernels follow each other. TPU's compiler also writes how many cycles it thinks a kernel takes; where these
make more, they count. Its `optimal_seconds` is left out: it counts the body of a loop once, and comes out negative
where a kernel is opaque to it. A collective sends its bytes over all links of the torus that lead to its group; one
in the background hides behind the chip's work as long as that lasts, any other adds to it. Latencies, and rings that
share a link, are not counted, and a group that crosses slices is taken to send all of its bytes over the slower
network.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from omnijax.config import Config
from omnijax.errors import ConfigError
from omnijax.plan.chips import Chip
from omnijax.plan.collectives import Collective
from omnijax.plan.cost import cost_of, segment_items, step_flops
from omnijax.plan.work import Kernel


@dataclasses.dataclass(frozen=True)
class Estimate:
    """Time of one run of a program, on every device at once.

    Attributes:
        flops: of matrix products on one device, loops counted as often as they run.
        bytes: to and from the memory of one device.
        compute_seconds: of these operations at the peak rate.
        memory_seconds: of these bytes at the memory's bandwidth.
        kernel_seconds: of the kernels one after the other, each the longer of its two.
        compiler_seconds: the cycles that the compiler estimates; 0 where it doesn't.
        background_seconds: of the network, behind other work.
        foreground_seconds: of the network, while nothing else goes on.
        seconds: in all.
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
    """What a step at the estimated speed comes to.

    Attributes:
        tokens: read in a step, rows taken to be full.
        model_flops: that the model needs for them, remat not counted; see `omnijax.model.flops`.
        tokens_per_second: over all chips.
        items_per_second: likewise; None where `eval.targets` don't say how many items documents have.
        utilization: model FLOPs over what all chips could have done in the time.
    """

    tokens: int
    model_flops: float
    tokens_per_second: float
    items_per_second: float | None
    utilization: float


def estimate(kernels: Sequence[Kernel], collectives: Sequence[Collective], chip: Chip) -> Estimate:
    """The time of a program on a chip."""
    flops = float(sum(kernel.times * kernel.flops for kernel in kernels))
    moved = float(sum(kernel.times * kernel.bytes for kernel in kernels))
    each = sum(k.times * max(k.flops / chip.flops, k.bytes / chip.bandwidth) for k in kernels)
    cycles = sum(kernel.times * (kernel.cycles or 0) for kernel in kernels)
    waits = {True: 0.0, False: 0.0}
    for one in collectives:
        waits[one.background] += one.times * one.wire_bytes / bandwidth(one, chip)
    return Estimate(
        flops,
        moved,
        flops / chip.flops,
        moved / chip.bandwidth,
        each,
        cycles / chip.clock_hz if chip.clock_hz else 0.0,
        waits[True],
        waits[False],
    )


def bandwidth(one: Collective, chip: Chip) -> float:
    """Bytes a second that a device can send to others of its group."""
    return chip.slice_bandwidth if one.between_slices else chip.link_bandwidth * max(1, one.links)


def throughput(config: Config, seconds: float, devices: int, chip: Chip) -> Throughput:
    """Tokens, items and utilization of a train step that takes so long."""
    length = config.batch.sequence_length - 1  # the last token of a row is only ever a target
    tokens = config.batch.size * length
    flops = float(step_flops(config))
    items = items_per_token(config)
    return Throughput(
        tokens,
        flops,
        tokens / seconds,
        None if items is None else items * tokens / seconds,
        flops / (seconds * devices * chip.flops),
    )


def items_per_token(config: Config) -> float | None:
    """Items in a token of the experiment's documents, on average over an epoch; None where nothing says how many."""
    try:
        items = segment_items(config)
    except ConfigError:
        return None
    documents = cost_of(config, config.vocabulary, items).documents
    read = written = 0.0
    for task in config.batch.tasks:
        written += task.repeats * documents["->".join(task.modalities)].mean
        read += task.repeats * sum(items[name].mean for name in task.modalities)
    return read / written
