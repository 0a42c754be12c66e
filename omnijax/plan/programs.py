"""The programs of a plan, compiled from shapes alone, without data, parameters or devices."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import re
import time
from collections.abc import Iterator
from typing import Any

import jax
from jax.sharding import Mesh

from omnijax.config import Config, MeshConfig
from omnijax.errors import PlatformError
from omnijax.model.build import model_of
from omnijax.plan.collectives import Collective, collectives_of
from omnijax.plan.cost import segment_items, step_flops
from omnijax.plan.hlo import read_module
from omnijax.plan.needs import Estimate, Memory, cycles_of, estimate, memory_of, tree_bytes
from omnijax.plan.topology import Topology
from omnijax.sample.generate import segment_target
from omnijax.sample.sampler import CHUNK, Sampler, most_tokens
from omnijax.step.sharding import make_mesh
from omnijax.step.state import abstract_batch, abstract_state, make_step
from omnijax.vocab.cost import segment_tokens

_UNITS = {"B": 1, "K": 1024, "M": 1024**2, "G": 1024**3, "T": 1024**4}


@dataclasses.dataclass(frozen=True)
class Lowered:
    """A program before it is compiled.

    Attributes:
        name: `train step`, or `sample NAME`.
        program: with the shapes and shardings of its arguments.
        arguments: abstract arrays by kind, which are names of `Memory`; of a sampler only the parameters.
        tokens: most tokens that one run reads.
        rounds: most rounds of a loop whose end depends on data.
        flops: of the model in one run, without remat; 0 for a sampler.
    """

    name: str
    program: jax.stages.Lowered
    arguments: dict[str, Any]
    tokens: int
    rounds: int = 1
    flops: float = 0.0


@dataclasses.dataclass(frozen=True)
class Program:
    """What a compiled program takes.

    Attributes:
        name: `train step`, or `sample NAME`.
        tokens: most tokens that one run reads.
        memory: bytes on one device.
        seconds: of compiling.
        refusal: the compiler's words if the program doesn't fit the memory of a device; else empty.
        collectives: of the program.
        open_loops: number of loops whose end depends on data; they count with the most rounds that they can take.
        estimate: of its time; None without figures for the chip, and for a sampler without the compiler's cycles.
        text: of the module; empty after a refusal.
    """

    name: str
    tokens: int
    memory: Memory
    seconds: float
    refusal: str = ""
    collectives: tuple[Collective, ...] = ()
    open_loops: int = 0
    estimate: Estimate | None = None
    text: str = ""


def mesh_for(config: MeshConfig, topology: Topology) -> Mesh:
    """The mesh of an experiment over a topology; raises a `ConfigError` if it doesn't fit the devices."""
    if topology.slices > 1 and topology.devices[0].platform == "cpu" and config.data > 0:
        # CPU devices have no slice index: further slices lie along `data`.
        config = dataclasses.replace(config, data=config.data * topology.slices)
    return make_mesh(config, list(topology.devices))


def lower_step(config: Config, mesh: Mesh) -> Lowered:
    """The step of `omnijax.train`; raises a `ConfigError` if the model or the batch doesn't divide over the mesh."""
    model = model_of(config)
    state, batch = abstract_state(config, model, mesh), abstract_batch(config, mesh)
    arguments = {"parameters": state.params, "moments": (state.opt_state, state.step), "batch": batch}
    tokens = config.batch.size * (config.batch.sequence_length - 1)  # the last token of a sequence is only a target
    program = make_step(config, model, mesh).lower(state, batch)
    return Lowered("train step", program, arguments, tokens, flops=float(step_flops(config)))


def lower_sample(config: Config, mesh: Mesh) -> Lowered:
    """A chunk of the sampling loop for the target with the most tokens, with a memory of full size.

    Raises:
        ConfigError: the experiment has no targets.
        VocabularyError: its vocabulary can't write a target.
    """
    vocabulary = config.vocabulary
    targets = [segment_target(config, field, -1) for field in config.generated]
    model = model_of(config, vocabulary)
    longest = max(targets, key=lambda target: most_tokens(vocabulary, target))
    # The longest prompt is the longest segment, and the marker of what is to come.
    prompt = 1 + max(segment_tokens(vocabulary, name, count).most for name, count in segment_items(config).items())
    devices = mesh.shape["data"] * mesh.shape["fsdp"]
    rows = -(-config.eval.batch_size // devices) * devices
    params = abstract_state(config, model, mesh).params
    program = Sampler.of(model, vocabulary, longest).lower(params, rows, prompt)
    return Lowered(f"sample {longest.name}", program, {"parameters": params}, rows * CHUNK, CHUNK)


def compile_program(lowered: Lowered, topology: Topology, mesh: Mesh) -> Program:
    """Compiles a program. That it doesn't fit a device's memory is a result; other failures raise a `PlatformError`."""
    given = {kind: tree_bytes(tree) for kind, tree in lowered.arguments.items()}
    start, available = time.perf_counter(), topology.memory_bytes
    try:
        with unsaved():
            compiled = lowered.program.compile()
    except jax.errors.JaxRuntimeError as error:
        said = str(error)
        refusal, wanted = said.splitlines()[0][:300], _wanted(said, sum(given.values()))
        if wanted is None:
            fix = "try another jax or libtpu, or other knobs"
            raise PlatformError("plan", lowered.name, f"the compiler refused it: {refusal}", fix) from error
        memory = Memory(wanted, available, **given, temporary=max(0, int(wanted) - sum(given.values())))
        return Program(lowered.name, lowered.tokens, memory, time.perf_counter() - start, refusal)
    seconds = time.perf_counter() - start
    if "moments" not in given:  # a sampler casts its parameters
        pairs = zip(lowered.program.args_info[0], compiled.input_shardings[0], strict=False)
        given = dict(zip(("parameters", "cache"), (tree_bytes(*pair) for pair in pairs), strict=False))
    memory, text = memory_of(compiled, given, available), compiled.as_text() or ""
    if topology.devices[0].platform == "cpu":
        memory = dataclasses.replace(memory, peak=None)  # the CPU compiler reports only the arguments
    module = read_module(text, lowered.rounds)
    collectives, cycles, time_taken = collectives_of(module, topology.network(mesh)), cycles_of(module), None
    if topology.chip is not None and (lowered.flops or cycles):
        time_taken = estimate(lowered.flops / mesh.size, cycles, collectives, topology.chip)
    return Program(lowered.name, lowered.tokens, memory, seconds, "", collectives, module.open_loops, time_taken, text)


@contextlib.contextmanager
def unsaved() -> Iterator[None]:
    """Turns JAX's cache on disk off, because older versions fail to write programs for devices that aren't here."""
    name = "jax_persistent_cache_min_compile_time_secs"
    before = getattr(jax.config, name)
    jax.config.update(name, math.inf)
    try:
        yield
    finally:
        jax.config.update(name, before)


def _wanted(said: str, given: int) -> float | None:
    """Bytes that a refused program would need, `given` of them for its arguments.

    None if the compiler's message isn't about memory.
    """
    if "RESOURCE_EXHAUSTED" not in said or not re.search(r"\bhbm\b", said, re.IGNORECASE):
        return None
    in_all = re.search(r"Used ([\d.]+)([BKMGT])\w* of [\d.]+", said)
    found = in_all or re.search(r"\(([\d.]+)([BKMGT])\w*\) exceeds", said)  # on top of the arguments
    return float(found[1]) * _UNITS[found[2]] + (0 if in_all else given) if found else None
