"""Bytes on one device, by kind, and whether they fit.

`needed` is what has to be there: arguments, results that don't take an argument's place, temporary buffers as the
compiler laid them out, and the program. `peak` is the compiler's own `peak_memory_in_bytes`, the figure that MaxText
prints: the most that is alive at one time, without the gaps of that layout, but with what lies in the chip's own 128
MiB of fast memory (TPU). Parameters, moments and batch are exact, summed over the shards of the abstract state.
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
        cache: of a sampler: keys and values, and what else goes on from chunk to chunk.
        batch: other arguments.
        padding: of arguments, by their layout.
        results: that don't take the place of an argument.
        activations: of the temporary ones those that loops stack up for later, as the forward pass over the layers
            does for the backward pass.
        gradients: of the temporary ones those that have the shape of a parameter and are stacked or carried by a loop.
        working: the other temporary ones.
        program: the code.
        peak: see the top of the file; None where the compiler doesn't say.
        needed: all of these.
        available: what the device has.
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
        """What is there before the program runs."""
        return self.parameters + self.moments + self.cache + self.batch + self.padding

    @property
    def temporary(self) -> int:
        """What is there only while it runs."""
        return self.activations + self.gradients + self.working

    @property
    def fits(self) -> bool:
        """All of it is there."""
        return self.needed <= self.available


def memory_of(lowered: Lowered, compiled: Compiled, module: Module | None, loops: Loops, available: float) -> Memory:
    """Where the bytes of one device go; of a program that wasn't made only what is known without it."""
    parameters, moments, batch = (tree_bytes(tree) for tree in (lowered.params, lowered.moments, lowered.batch))
    cache = 0
    if lowered.moments is None and compiled.arguments:  # a sampler casts its parameters
        parameters, cache, *_ = compiled.arguments
    given = parameters + moments + cache + batch
    if module is None:
        assert compiled.wanted_bytes is not None
        wanted = compiled.wanted_bytes + (given if compiled.wanted_besides else 0)
        working = max(0, int(wanted) - given)
        return Memory(parameters, moments, cache, batch, 0, 0, 0, 0, working, 0, None, wanted, available)
    stats = compiled.stats
    activations, gradients = stacked(module, loops, shard_shapes(lowered.params))
    total = stats["temp_size"]
    activations = min(activations, total)
    gradients = min(gradients, total - activations)
    results, program = stats["output_size"] - stats["alias_size"], stats["generated_code_size"]
    return Memory(
        parameters,
        moments,
        cache,
        batch,
        stats["argument_size"] - given,
        results,
        activations,
        gradients,
        total - activations - gradients,
        program,
        stats.get("peak_memory"),
        stats["argument_size"] + results + total + program,
        available,
    )


def tree_bytes(tree: Any) -> int:
    """Bytes of the parts of abstract arrays that one device holds."""
    return sum(shard_bytes(leaf, leaf.sharding) for leaf in jax.tree.leaves(tree))


def shard_shapes(tree: Any) -> set[tuple[int, ...]]:
    """Shapes of the parts that one device holds, axes of size 1 left out."""
    return {_squeezed(leaf.sharding.shard_shape(leaf.shape)) for leaf in jax.tree.leaves(tree)}


def stacked(module: Module, loops: Loops, parameters: set[tuple[int, ...]]) -> tuple[int, int]:
    """Bytes of activations and of gradients that loops carry and change: what has a place for each round."""
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
