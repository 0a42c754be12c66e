"""Makes a plan: compiles the programs of an experiment for a topology, and reads off what they take."""

from __future__ import annotations

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
from omnijax.plan.work import Kernel, kernels_of


@dataclasses.dataclass(frozen=True)
class Program:
    """What one program takes.

    Attributes:
        name: `train step`, or `sample NAME`.
        memory: bytes on one device.
        tokens: that all devices read in one run, at most.
        flops: of matrix products on one device, loops counted as often as they run.
        flops_once: what the compiler's cost analysis says, which counts the body of a loop once.
        collectives: of the program.
        open_loops: loops that end when their data say so, counted with the most rounds that they can take.
        estimate: of its time; None where the chip's figures aren't known, or there is no program.
        lower_seconds: for tracing.
        compile_seconds: for compiling.
        refusal: why the compiler made none; empty where it did.
        text: of the compiled module.
    """

    name: str
    memory: Memory
    tokens: int
    flops: float
    flops_once: float
    collectives: tuple[Collective, ...]
    open_loops: int
    estimate: Estimate | None
    lower_seconds: float
    compile_seconds: float
    refusal: str
    text: str


@dataclasses.dataclass(frozen=True)
class Plan:
    """What an experiment takes on a topology.

    Attributes:
        config: of the experiment.
        topology: that it was compiled for.
        mesh: over its devices.
        programs: the train step first.
        throughput: of the train step; None where its time isn't known.
        advice: what to change; empty where everything fits.
    """

    config: Config
    topology: Topology
    mesh: Mesh
    programs: tuple[Program, ...]
    throughput: Throughput | None
    advice: tuple[str, ...]

    @property
    def fits(self) -> bool:
        """Every program fits the memory of a device."""
        return all(program.memory.fits for program in self.programs)


def make_plan(config: Config, topology: str, slices: int = 1, sample: bool = False) -> Plan:
    """Compiles the train step of an experiment for a topology.

    Args:
        config: of the experiment; its data aren't needed.
        topology: as `find_topology` takes it.
        slices: of that topology.
        sample: compile the sampling loop, too.

    Raises:
        ConfigError: no such topology, or the experiment can't be split over it.
        PlatformError: this machine can't compile for it.
    """
    found = find_topology(topology, slices)
    mesh = mesh_for(config.mesh, found)
    lowered = [lower_step(config, mesh), *([lower_sample(config, mesh)] if sample else [])]
    programs = tuple(_program(one, found, mesh) for one in lowered)
    step, speed = programs[0], None
    if step.estimate is not None and found.chip is not None:
        speed = throughput(config, step.estimate.seconds, len(found.devices), found.chip)
    advice = [*advise(config, step.memory, mesh.shape)]
    advice += [line for program in programs[1:] for line in advise_sampling(config, program.memory, mesh.shape)]
    return Plan(config, found, mesh, programs, speed, tuple(advice))


def _program(lowered: Lowered, topology: Topology, mesh: Mesh) -> Program:
    compiled: Compiled = compile_program(lowered)
    if not compiled.text:
        memory = memory_of(lowered, compiled, None, Loops((), ()), topology.memory_bytes)
        return Program(
            lowered.name,
            memory,
            lowered.tokens,
            0.0,
            0.0,
            (),
            0,
            None,
            lowered.seconds,
            compiled.seconds,
            compiled.refusal,
            "",
        )
    module = hlo.parse(compiled.text)
    loops = count_calls(module, lowered.rounds)
    kernels: tuple[Kernel, ...] = kernels_of(module, loops)
    collectives = collectives_of(module, loops, topology.network(mesh))
    memory = memory_of(lowered, compiled, module, loops, topology.memory_bytes)
    if topology.devices[0].platform == "cpu":
        memory = dataclasses.replace(memory, peak=None)  # that compiler says what the arguments take
    return Program(
        lowered.name,
        memory,
        lowered.tokens,
        float(sum(kernel.times * kernel.flops for kernel in kernels)),
        compiled.once.get("flops", 0.0),
        collectives,
        len(loops.open_loops),
        estimate(kernels, collectives, topology.chip) if topology.chip is not None else None,
        lowered.seconds,
        compiled.seconds,
        "",
        compiled.text,
    )


def plan_to_dict(plan: Plan, experiment: str) -> dict[str, Any]:
    """As JSON has it.

    Args:
        plan: what was found.
        experiment: its name, for the record.
    """
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
    """Writes a plan as `DIRECTORY/EXPERIMENT-TOPOLOGY.json`, and the text of its programs beside it, if asked to."""
    slices = f"-{plan.topology.slices}slices" if plan.topology.slices > 1 else ""
    name = f"{experiment}-{plan.topology.name.replace(':', '-')}{slices}"
    directory.mkdir(parents=True, exist_ok=True)
    file = directory / f"{name}.json"
    file.write_text(json.dumps(plan_to_dict(plan, experiment), indent=1) + "\n", encoding="utf-8")
    for program in plan.programs if with_text else ():
        (directory / f"{name}-{program.name.replace(' ', '-')}.hlo.txt").write_text(program.text, encoding="utf-8")
    return file


def versions() -> dict[str, str]:
    """Of what compiled it."""
    found = {"jax": jax.__version__}
    for name in ("jaxlib", "libtpu"):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _program_to_dict(program: Program) -> dict[str, Any]:
    memory, time = program.memory, program.estimate
    return {
        "name": program.name,
        "memory": dataclasses.asdict(memory)
        | {"arguments": memory.arguments, "temporary": memory.temporary, "fits": memory.fits},
        "tokens": program.tokens,
        "flops": program.flops,
        "flops_once": program.flops_once,
        "collectives": totals(program.collectives),
        "each_collective": [
            dataclasses.asdict(one) | {"wire_bytes": one.wire_bytes}
            for one in sorted(program.collectives, key=lambda one: -one.times * one.bytes)
        ],
        "open_loops": program.open_loops,
        "estimate": None if time is None else dataclasses.asdict(time) | {"seconds": time.seconds},
        "lower_seconds": program.lower_seconds,
        "compile_seconds": program.compile_seconds,
        "refusal": program.refusal,
    }
