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
from omnijax.plan.cost import segment_items
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
        params: of the model, abstract.
        moments: the rest of the train state, abstract; None for a sampler.
        batch: of the step, abstract; None for a sampler.
        tokens: most tokens that one run reads.
        rounds: most rounds of a loop whose end depends on data.
        seconds: of tracing and lowering.
    """

    name: str
    program: jax.stages.Lowered
    params: Any
    moments: Any
    batch: Any
    tokens: int
    rounds: int
    seconds: float


@dataclasses.dataclass(frozen=True)
class Compiled:
    """A compiled program, or the compiler's refusal.

    Attributes:
        text: of the module; empty after a refusal.
        stats: bytes on one device, by the names of `memory_analysis()`.
        arguments: bytes of each argument of the program on one device.
        once: `cost_analysis()`, which counts the body of a loop once.
        wanted_bytes: bytes that a refused program would need; None if the compiler made the program.
        wanted_besides: whether these bytes come on top of the arguments.
        refusal: the compiler's words; empty if it made the program.
        seconds: of compiling.
    """

    text: str
    stats: dict[str, int]
    arguments: tuple[int, ...]
    once: dict[str, float]
    wanted_bytes: float | None
    wanted_besides: bool
    refusal: str
    seconds: float


def mesh_for(config: MeshConfig, topology: Topology) -> Mesh:
    """The mesh of an experiment over a topology.

    Raises:
        ConfigError: it doesn't fit the devices.
    """
    if topology.slices > 1 and topology.devices[0].platform == "cpu" and config.data > 0:
        # CPU devices have no slice index: further slices lie along `data`.
        config = dataclasses.replace(config, data=config.data * topology.slices)
    return make_mesh(config, list(topology.devices))


def lower_step(config: Config, mesh: Mesh) -> Lowered:
    """The train step, as `omnijax.train` runs it.

    Raises:
        ConfigError: the model or the batch doesn't divide over the mesh.
    """
    start = time.perf_counter()
    model = model_of(config)
    state = abstract_state(config, model, mesh)
    batch = abstract_batch(config, mesh)
    program = make_step(config, model, mesh).lower(state, batch)
    tokens = config.batch.size * (config.batch.sequence_length - 1)  # the last token of a sequence is only a target
    moments = (state.opt_state, state.step)
    return Lowered("train step", program, state.params, moments, batch, tokens, 1, time.perf_counter() - start)


def lower_sample(config: Config, mesh: Mesh) -> Lowered:
    """A chunk of the sampling loop for the target with the most tokens, with a memory of full size.

    Raises:
        ConfigError: the experiment has no targets.
        VocabularyError: its vocabulary can't write a target.
    """
    start = time.perf_counter()
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
    seconds = time.perf_counter() - start
    return Lowered(f"sample {longest.name}", program, params, None, None, rows * CHUNK, CHUNK, seconds)


def compile_program(lowered: Lowered) -> Compiled:
    """Compiles a program. A refusal because it doesn't fit the memory of a device is a result, too.

    Raises:
        PlatformError: the compiler fails for another reason.
    """
    start = time.perf_counter()
    try:
        with unsaved():
            compiled = lowered.program.compile()
    except jax.errors.JaxRuntimeError as error:
        said = str(error)
        wanted = _wanted(said)
        if wanted is None:
            rule = f"the compiler refused it: {said.splitlines()[0][:300]}"
            raise PlatformError("plan", lowered.name, rule, "try another jax or libtpu, or other knobs") from error
        return Compiled("", {}, (), {}, *wanted, said.splitlines()[0][:300], time.perf_counter() - start)
    seconds = time.perf_counter() - start
    analysis, once = compiled.memory_analysis(), compiled.cost_analysis()
    names = (name for name in dir(analysis) if name.endswith("_in_bytes"))
    stats = {name.removesuffix("_in_bytes"): int(getattr(analysis, name)) for name in names}
    once = once[0] if isinstance(once, list) else once
    pairs = zip(lowered.program.args_info[0], compiled.input_shardings[0], strict=False)
    arguments = tuple(sum(jax.tree.leaves(jax.tree.map(shard_bytes, *pair))) for pair in pairs)
    return Compiled(compiled.as_text() or "", stats, arguments, dict(once or {}), None, False, "", seconds)


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


def shard_bytes(leaf: Any, sharding: Any) -> int:
    """Bytes of one device's part of an array."""
    return math.prod(sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize


def _wanted(said: str) -> tuple[float, bool] | None:
    """Bytes that a refused program would need, and whether they come on top of its arguments.

    None if the compiler's message isn't about memory.
    """
    if "RESOURCE_EXHAUSTED" not in said or not re.search(r"\bhbm\b", said, re.IGNORECASE):
        return None
    in_all = re.search(r"Used ([\d.]+)([BKMGT])\w* of [\d.]+", said)
    found = in_all or re.search(r"\(([\d.]+)([BKMGT])\w*\) exceeds", said)
    return (float(found[1]) * _UNITS[found[2]], in_all is None) if found else None
