"""Bytes on one device, by kind, and whether they fit.

`needed` is the sum of arguments, results that don't reuse the memory of an argument, temporary buffers in the
compiler's layout, and the program. `peak` is the compiler's own `peak_memory_in_bytes`, which MaxText prints: the most
bytes that are alive at one time. It leaves out the gaps of the layout, and on TPU includes the 128 MiB of fast memory
on the chip. Parameters, moments and batch are exact: sums over the shards of the abstract state.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import jax


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
