"""Bytes on one device, by kind, and whether they fit.

`needed` is the sum of arguments, results that don't reuse the memory of an argument, temporary buffers in the
compiler's layout, and the program. `peak` is the compiler's own `peak_memory_in_bytes`, which MaxText prints: the most
bytes that are alive at one time. It leaves out the gaps of the layout, and on TPU includes the 128 MiB of fast memory
on the chip. Parameters, moments and batch are exact: sums over the shards of the abstract state.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax

from omnijax.plan.hlo import Module, Shape
from omnijax.plan.programs import Compiled, Lowered, shard_bytes
from omnijax.plan.trips import Loops, rounds_of


@dataclasses.dataclass(frozen=True)
class Memory:
    """Bytes on one device.

    Attributes:
        parameters: of the model.
        moments: of the optimiser, and the step.
        cache: of a sampler: keys and values, and the rest of its state.
        batch: other arguments.
        padding: of arguments in their layout.
        results: that don't reuse the memory of an argument.
        activations: temporary buffers that loops fill for later, as the forward pass does for the backward pass.
        gradients: temporary buffers of a loop that have the shape of a parameter.
        working: other temporary buffers.
        program: the code.
        peak: see the top of the file; None if the compiler doesn't say.
        needed: sum of all kinds.
        available: memory of the device.
    """

    parameters: int
    moments: int
    cache: int
    batch: int
    padding: int
    results: int
    activations: int
    gradients: int
    working: int
    program: int
    peak: int | None
    needed: float
    available: float

    @property
    def arguments(self) -> int:
        """Bytes that are there before the program runs."""
        return self.parameters + self.moments + self.cache + self.batch + self.padding

    @property
    def temporary(self) -> int:
        """Bytes that are there only while it runs."""
        return self.activations + self.gradients + self.working

    @property
    def fits(self) -> bool:
        """Whether the device has as much as is needed."""
        return self.needed <= self.available


def memory_of(lowered: Lowered, compiled: Compiled, module: Module | None, loops: Loops, available: float) -> Memory:
    """The bytes of a program on one device; if the compiler refused it, only what is known without a program."""
    parameters, moments, batch = (tree_bytes(tree) for tree in (lowered.params, lowered.moments, lowered.batch))
    cache = 0
    if lowered.moments is None and compiled.arguments:  # a sampler casts its parameters
        parameters, cache, *_ = compiled.arguments
    given = parameters + moments + cache + batch
    known = (parameters, moments, cache, batch)
    if module is None:
        assert compiled.wanted_bytes is not None
        wanted = compiled.wanted_bytes + (given if compiled.wanted_besides else 0)
        return Memory(*known, 0, 0, 0, 0, max(0, int(wanted) - given), 0, None, wanted, available)
    stats = compiled.stats
    total, arguments, program = stats["temp_size"], stats["argument_size"], stats["generated_code_size"]
    activations, gradients = stacked(module, loops, shard_shapes(lowered.params))
    activations = min(activations, total)
    gradients = min(gradients, total - activations)
    results = stats["output_size"] - stats["alias_size"]
    temporary = (activations, gradients, total - activations - gradients)
    needed = arguments + results + total + program
    return Memory(*known, arguments - given, results, *temporary, program, stats.get("peak_memory"), needed, available)


def tree_bytes(tree: Any) -> int:
    """Bytes of one device's parts of abstract arrays."""
    return sum(shard_bytes(leaf, leaf.sharding) for leaf in jax.tree.leaves(tree))


def shard_shapes(tree: Any) -> set[tuple[int, ...]]:
    """Shapes of one device's parts of abstract arrays, without axes of size 1."""
    return {_squeezed(leaf.sharding.shard_shape(leaf.shape)) for leaf in jax.tree.leaves(tree)}


def stacked(module: Module, loops: Loops, parameters: set[tuple[int, ...]]) -> tuple[int, int]:
    """Bytes of activations and of gradients: arrays that loops carry and change."""
    activations = gradients = 0
    for call in loops.calls:
        for one in call.computation.instructions.values():
            if one.opcode != "while" or call.fused or isinstance(one.type, Shape):
                continue
            rounds = rounds_of(module, call, one)
            body = module.computations[one.called["body"][0]]
            if rounds is None or rounds < 2 or body.root.opcode != "tuple":
                continue
            for slot, (kind, source) in enumerate(zip(one.type, body.root.operands, strict=True)):
                made = body.instructions[source]
                if not isinstance(kind, Shape) or kind.memory or not kind.sizes:
                    continue
                if made.opcode == "get-tuple-element" and made.number("index") == slot:
                    continue  # the loop only reads it
                if _squeezed(kind.sizes) in parameters:
                    gradients += kind.bytes
                elif kind.sizes[0] == rounds:
                    activations += kind.bytes
    return activations, gradients


def _squeezed(sizes: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(size for size in sizes if size != 1)
