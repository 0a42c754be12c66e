"""Knobs to change when a program doesn't fit the memory of a device."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

from omnijax.config import Config
from omnijax.plan.needs import Memory

STRONGER = {"none": "dots", "dots": "attention", "attention": "full"}
SMALLER = {
    "float32": ("bfloat16", "a quarter of the moments"),
    "bfloat16": ("factored", "nearly all of the second moment"),
}
GB = 1e9


def advise(config: Config, memory: Memory, axes: Mapping[str, int]) -> list[str]:
    """What would make the train step fit, in order of effect; nothing if it fits.

    Args:
        config: of the experiment.
        memory: of its train step.
        axes: sizes of the mesh.
    """
    if memory.fits:
        return []
    ways = (_temporary, _lasting) if memory.temporary > memory.arguments else (_lasting, _temporary)
    over = f"{(memory.needed - memory.available) / GB:.2f} GB a chip too much."
    return [over, *(line for way in ways for line in way(config, memory, axes))]


def advise_sampling(config: Config, memory: Memory, axes: Mapping[str, int]) -> list[str]:
    """What would make the sampling loop fit; nothing if it fits. Arguments are those of `advise`."""
    if memory.fits:
        return []
    devices, always = axes["data"] * axes["fsdp"], memory.parameters + memory.program
    share = (memory.available - always) / (memory.needed - always)
    rows = int(config.eval.batch_size * share) // devices * devices
    over = f"Sampling takes {(memory.needed - memory.available) / GB:.2f} GB a chip too much."
    if rows < devices:
        return [over, "Parameters leave no room for a document: use more chips along mesh.fsdp or mesh.tensor."]
    return [over, f"--eval.batch_size {rows}: fewer documents side by side, each with its own cache."]


def _temporary(config: Config, memory: Memory, axes: Mapping[str, int]) -> Iterator[str]:
    """Advice against many activations: keep fewer, or read fewer tokens at a time on a chip."""
    share, room = memory.temporary, memory.available - memory.arguments - memory.results - memory.program
    if config.model.remat in STRONGER:
        yield (
            f"--model.remat {STRONGER[config.model.remat]} keeps less for the backward pass than "
            f"{config.model.remat!r} (temporary bytes are {share / GB:.2f} GB); `full` keeps least."
        )
    if config.model.unroll > 1 and config.model.remat != "none":
        yield f"--model.unroll 1 keeps one layer's work at a time, not {config.model.unroll}."
    devices = axes["data"] * axes["fsdp"]
    rows = config.batch.size // devices
    if room > 0 and rows > config.optim.accumulate:
        factor = next((f for f in _divisors(rows) if f > config.optim.accumulate and share / f < room), rows)
        yield (
            f"--optim.accumulate {factor}: a chip reads {rows // factor} of its {rows} sequences at a time, with about "
            f"{share * config.optim.accumulate / factor / GB:.2f} GB of activations; the step stays the same."
        )
    elif rows == config.optim.accumulate:
        length = config.batch.sequence_length - 1
        splits = [n for n in _divisors(devices) if n > 1 and length % (n * axes["context"]) == 0]
        if splits:
            yield (
                f"--mesh.context {splits[0] * axes['context']}: a chip already has one sequence at a time, of {length} "
                f"tokens; split its tokens, use fewer chips along data or fsdp, and divide batch.size by {splits[0]}."
            )
        else:
            yield f"--batch.sequence_length: a chip already has one sequence at a time; use less than {length} tokens."
    if config.batch.size > devices:
        yield f"--batch.size {devices}: one sequence a chip; this changes what is trained."


def _lasting(config: Config, memory: Memory, axes: Mapping[str, int]) -> Iterator[str]:
    """Advice against many parameters and moments: spread them over more chips, or store them in fewer bytes."""
    held = memory.parameters + memory.moments
    room = memory.available - memory.temporary - memory.batch - memory.results - memory.program
    if axes["data"] > 1:
        parts = [n for n in _divisors(axes["data"]) if n > 1]
        factor = next((n for n in parts if room > 0 and held / n < room), parts[-1])
        yield (
            f"--mesh.fsdp {axes['fsdp'] * factor} --mesh.data {axes['data'] // factor}: parameters and moments "
            f"({held / GB:.2f} GB) in {factor} times as many parts, {held / factor / GB:.2f} GB a chip."
        )
    elif held > memory.available / 4:
        factor = 2 ** math.ceil(math.log2(max(2.0, held / max(room, memory.available / 4))))
        yield (
            f"{factor} times as many chips along mesh.fsdp: parameters and moments are {held / GB:.2f} GB a chip, "
            f"and are already in {axes['fsdp']} parts."
        )
    if config.optim.moments in SMALLER:
        kind, saved = SMALLER[config.optim.moments]
        yield f"--optim.moments {kind} saves {saved} ({memory.moments / GB:.2f} GB now)."


def _divisors(number: int) -> list[int]:
    return [n for n in range(1, number + 1) if number % n == 0]
