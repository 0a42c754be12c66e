"""The programs that a plan is about, compiled ahead of time from shapes alone: no data, no parameters, no device."""

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
from omnijax.errors import ConfigError, PlatformError
from omnijax.model.build import model_of
from omnijax.plan.topology import Topology
from omnijax.sample.sampler import CHUNK, Sampler, most_tokens
from omnijax.step.sharding import make_mesh
from omnijax.step.state import abstract_batch, abstract_state, make_step
from omnijax.vocab.cost import Count, segment_tokens

_UNITS = {"B": 1, "K": 1024, "M": 1024**2, "G": 1024**3, "T": 1024**4}


@dataclasses.dataclass(frozen=True)
class Lowered:
    """A program before it is compiled.

    Attributes:
        name: `train step`, or `sample NAME`.
        program: with the shapes and shardings of its arguments.
        params: of the model, abstract.
        moments: what else the train state has, abstract; None for a sampler.
        batch: of the step, abstract; None for a sampler.
        tokens: that one run reads; at most, where the data decide.
        rounds: of a loop that ends when its data say so, at most.
        seconds: that tracing and lowering took.
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
    """A program as XLA made it, or what it said when it did not.

    Attributes:
        text: of the module; empty where there is none.
        stats: bytes on one device, by the names of `memory_analysis()`.
        arguments: bytes of each of the program's arguments on one device.
        once: `cost_analysis()`, which counts the body of a loop once.
        wanted_bytes: that it would have taken, where the compiler refused it for want of memory; else None.
        wanted_besides: these are besides its arguments.
        refusal: in the compiler's words.
        seconds: that compiling took.
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
        # CPU devices don't say what slice they are in: slices are further rows along `data`.
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
    tokens = config.batch.size * (config.batch.sequence_length - 1)  # the last token of a row is only ever a target
    moments = (state.opt_state, state.step)
    return Lowered("train step", program, state.params, moments, batch, tokens, 1, time.perf_counter() - start)


def lower_sample(config: Config, mesh: Mesh) -> Lowered:
    """The sampling loop of the target with the most tokens, as the sampler runs it: a chunk, its cache full.

    Raises:
        ConfigError: the experiment generates nothing.
        VocabularyError: it can't write what it is to generate.
    """
    start = time.perf_counter()
    targets, vocabulary = config.eval.targets, config.vocabulary
    if not targets:
        raise ConfigError("eval.targets", (), "there is nothing to sample", "add a target, or leave out --sample")
    model = model_of(config, vocabulary)
    longest = max(targets, key=lambda target: most_tokens(vocabulary, target))
    # The longest prompt is the longest segment that a target allows, and the marker of what is to come.
    items = {target.name: Count(target.min_items, target.max_items, target.max_items) for target in targets}
    prompt = 1 + max(segment_tokens(vocabulary, name, count).most for name, count in items.items())
    devices = mesh.shape["data"] * mesh.shape["fsdp"]
    rows = -(-config.eval.batch_size // devices) * devices
    params = abstract_state(config, model, mesh).params
    program = Sampler.of(model, vocabulary, longest).lower(params, rows, prompt)
    seconds = time.perf_counter() - start
    return Lowered(f"sample {longest.name}", program, params, None, None, rows * CHUNK, CHUNK, seconds)


def compile_program(lowered: Lowered) -> Compiled:
    """Compiles a program; one that doesn't fit the memory of a device is an answer, too.

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
    analysis = compiled.memory_analysis()
    names = (name for name in dir(analysis) if name.endswith("_in_bytes"))
    stats = {name.removesuffix("_in_bytes"): int(getattr(analysis, name)) for name in names}
    once = compiled.cost_analysis()
    once = once[0] if isinstance(once, list) else once
    arguments = tuple(map(_bytes, lowered.program.args_info[0], compiled.input_shardings[0]))
    return Compiled(compiled.as_text() or "", stats, arguments, dict(once or {}), None, False, "", seconds)


@contextlib.contextmanager
def unsaved() -> Iterator[None]:
    """No copies in JAX's cache on disk: its older versions fail to write one for devices that aren't here."""
    name = "jax_persistent_cache_min_compile_time_secs"
    before = getattr(jax.config, name)
    jax.config.update(name, math.inf)
    try:
        yield
    finally:
        jax.config.update(name, before)


def _bytes(shapes: Any, shardings: Any) -> int:
    """Of the parts of an argument that one device holds; what the program doesn't read isn't there."""
    parts = jax.tree.map(lambda one, sharding: shard_bytes(one, sharding), shapes, shardings)
    return sum(jax.tree.leaves(parts))


def shard_bytes(leaf: Any, sharding: Any) -> int:
    """Of the part of an array that one device holds."""
    return math.prod(sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize


def _wanted(said: str) -> tuple[float, bool] | None:
    """Bytes that a program would have taken, and whether besides its arguments, out of the compiler's refusal.

    None if that is about something else.
    """
    if "RESOURCE_EXHAUSTED" not in said or not re.search(r"\bhbm\b", said, re.IGNORECASE):
        return None
    in_all = re.search(r"Used ([\d.]+)([BKMGT])\w* of [\d.]+", said)
    found = in_all or re.search(r"\(([\d.]+)([BKMGT])\w*\) exceeds", said)
    return (float(found[1]) * _UNITS[found[2]], in_all is None) if found else None
