"""Makes a plan: compiles the programs of an experiment for a topology, and finds out what they take."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.metadata
import json
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh

from omnijax.config import Config, to_dict
from omnijax.plan import hlo
from omnijax.plan.advice import advise, advise_sampling
from omnijax.plan.collectives import Collective, collectives_of, totals
from omnijax.plan.estimate import Estimate, Throughput, estimate, throughput
from omnijax.plan.memory import Memory, memory_of
from omnijax.plan.programs import Compiled, Lowered, compile_program, lower_sample, lower_step, mesh_for
from omnijax.plan.topology import Topology, find_topology
from omnijax.plan.trips import Loops, count_calls
from omnijax.plan.work import kernels_of


@dataclasses.dataclass(frozen=True)
class Program:
    """What one program takes.

    Attributes:
        lowered: the program before it was compiled.
        compiled: what the compiler made of it.
        memory: bytes on one device.
        collectives: of the program.
        flops: of matrix products on one device; the body of a loop counts as often as it runs.
        open_loops: number of loops whose end depends on data; they count with the most rounds that they can take.
        estimate: of its time; None without figures for the chip, or if the compiler refused the program.
    """

    lowered: Lowered
    compiled: Compiled
    memory: Memory
    collectives: tuple[Collective, ...] = ()
    flops: float = 0.0
    open_loops: int = 0
    estimate: Estimate | None = None


@dataclasses.dataclass(frozen=True)
class Plan:
    """What an experiment takes on a topology.

    Attributes:
        config: of the experiment.
        topology: that it was compiled for.
        mesh: over the devices of the topology.
        programs: the train step, then the sampling loop if it was asked for.
        throughput: of the train step; None if its time isn't known.
        advice: what to change; empty if everything fits.
    """

    config: Config
    topology: Topology
    mesh: Mesh
    programs: tuple[Program, ...]
    throughput: Throughput | None
    advice: tuple[str, ...]

    @property
    def fits(self) -> bool:
        """Whether every program fits the memory of a device."""
        return all(program.memory.fits for program in self.programs)


def make_plan(config: Config, topology: str, slices: int = 1, sample: bool = False) -> Plan:
    """Compiles the train step of an experiment for a topology.

    Args:
        config: of the experiment; its data aren't needed.
        topology: a name for `find_topology`.
        slices: number of slices, each with that topology.
        sample: compile the sampling loop, too.

    Raises:
        ConfigError: there is no such topology, or the experiment can't be split over it.
        PlatformError: this machine can't compile for it.
    """
    found = find_topology(topology, slices)
    mesh = mesh_for(config.mesh, found)
    lowered = [lower_step(config, mesh), *([lower_sample(config, mesh)] if sample else [])]
    programs = tuple(_program(one, found, mesh) for one in lowered)
    step, speed = programs[0], None
    if step.estimate is not None and found.chip is not None:
        speed = throughput(config, step.estimate.seconds, len(found.devices), found.chip)
    advice = advise(config, step.memory, mesh.shape)
    for program in programs[1:]:
        advice += advise_sampling(config, program.memory, mesh.shape)
    return Plan(config, found, mesh, programs, speed, tuple(advice))


def _program(lowered: Lowered, topology: Topology, mesh: Mesh) -> Program:
    compiled = compile_program(lowered)
    if not compiled.text:
        return Program(lowered, compiled, memory_of(lowered, compiled, None, Loops((), ()), topology.memory_bytes))
    module = hlo.parse(compiled.text)
    loops = count_calls(module, lowered.rounds)
    kernels = kernels_of(module, loops)
    collectives = collectives_of(module, loops, topology.network(mesh))
    memory = memory_of(lowered, compiled, module, loops, topology.memory_bytes)
    if topology.devices[0].platform == "cpu":
        memory = dataclasses.replace(memory, peak=None)  # the CPU compiler reports only the arguments
    flops = float(sum(kernel.times * kernel.flops for kernel in kernels))
    time = estimate(kernels, collectives, topology.chip) if topology.chip is not None else None
    return Program(lowered, compiled, memory, collectives, flops, len(loops.open_loops), time)


def plan_to_dict(plan: Plan, experiment: str) -> dict[str, Any]:
    """The plan as JSON; `experiment` is the name of the experiment."""
    chip = plan.topology.chip
    return {
        "experiment": experiment,
        "topology": plan.topology.name,
        "slices": plan.topology.slices,
        "chips": plan.topology.chips,
        "devices": len(plan.topology.devices),
        "mesh": dict(plan.mesh.shape),
        "fits": plan.fits,
        "advice": list(plan.advice),
        "chip": None if chip is None else dataclasses.asdict(chip),
        "throughput": None if plan.throughput is None else dataclasses.asdict(plan.throughput),
        "programs": [_program_to_dict(program) for program in plan.programs],
        "versions": versions(),
        "config": to_dict(plan.config),
    }


def save_plan(plan: Plan, experiment: str, directory: Path, with_text: bool = False) -> Path:
    """Writes `DIRECTORY/EXPERIMENT-TOPOLOGY.json`, and with `with_text` the text of the programs beside it."""
    slices = f"-{plan.topology.slices}slices" if plan.topology.slices > 1 else ""
    name = f"{experiment}-{plan.topology.name.replace(':', '-')}{slices}"
    directory.mkdir(parents=True, exist_ok=True)
    file = directory / f"{name}.json"
    file.write_text(json.dumps(plan_to_dict(plan, experiment), indent=1) + "\n", encoding="utf-8")
    for program in plan.programs if with_text else ():
        text = directory / f"{name}-{program.lowered.name.replace(' ', '-')}.hlo.txt"
        text.write_text(program.compiled.text, encoding="utf-8")
    return file


def versions() -> dict[str, str]:
    """Versions of JAX and its compilers."""
    found = {"jax": jax.__version__}
    for name in ("jaxlib", "libtpu"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def _program_to_dict(program: Program) -> dict[str, Any]:
    memory, time = program.memory, program.estimate
    return {
        "name": program.lowered.name,
        "memory": dataclasses.asdict(memory)
        | {"arguments": memory.arguments, "temporary": memory.temporary, "fits": memory.fits},
        "tokens": program.lowered.tokens,
        "flops": program.flops,
        "flops_once": program.compiled.once.get("flops", 0.0),
        "collectives": totals(program.collectives),
        "each_collective": [
            dataclasses.asdict(one) | {"wire_bytes": one.wire_bytes}
            for one in sorted(program.collectives, key=lambda one: -one.times * one.bytes)
        ],
        "open_loops": program.open_loops,
        "estimate": None if time is None else dataclasses.asdict(time) | {"seconds": time.seconds},
        "lower_seconds": program.lowered.seconds,
        "compile_seconds": program.compiled.seconds,
        "refusal": program.compiled.refusal,
    }
