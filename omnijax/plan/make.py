"""Makes a plan: compiles the programs of an experiment for a topology, and finds out what they take."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import importlib.util
import json
from pathlib import Path
from typing import Any

from jax.sharding import Mesh

from omnijax.config import Config, to_dict
from omnijax.plan.advice import advise, advise_sampling
from omnijax.plan.collectives import totals
from omnijax.plan.programs import Program, compile_program, lower_sample, lower_step, mesh_for
from omnijax.plan.topology import Topology, find_topology


@dataclasses.dataclass(frozen=True)
class Plan:
    """What an experiment takes on a topology.

    Attributes:
        config: of the experiment.
        topology: that it was compiled for.
        mesh: over the devices of the topology.
        programs: the train step, then the sampling loop if it was asked for.
        advice: what to change; empty if everything fits.
    """

    config: Config
    topology: Topology
    mesh: Mesh
    programs: tuple[Program, ...]
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
    programs = tuple(compile_program(one, found, mesh) for one in lowered)
    advice = advise(config, programs[0].memory, mesh.shape)
    for program in programs[1:]:
        advice += advise_sampling(config, program.memory, mesh.shape)
    return Plan(config, found, mesh, programs, tuple(advice))


def plan_to_dict(plan: Plan, experiment: str) -> dict[str, Any]:
    """The plan as JSON; `experiment` is the name of the experiment."""
    compilers = [name for name in ("jax", "jaxlib", "libtpu") if importlib.util.find_spec(name)]
    return {
        "experiment": experiment,
        "topology": plan.topology.name,
        "slices": plan.topology.slices,
        "chips": plan.topology.chips,
        "devices": len(plan.topology.devices),
        "mesh": dict(plan.mesh.shape),
        "fits": plan.fits,
        "advice": list(plan.advice),
        "chip": to_dict(plan.topology.chip),
        "programs": [_program_to_dict(program) for program in plan.programs],
        "versions": {name: importlib.metadata.version(name) for name in compilers},
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
        text = directory / f"{name}-{program.name.replace(' ', '-')}.hlo.txt"
        text.write_text(program.text, encoding="utf-8")
    return file


def _program_to_dict(program: Program) -> dict[str, Any]:
    memory, time = program.memory, program.estimate
    return {
        "name": program.name,
        "tokens": program.tokens,
        "memory": to_dict(memory) | {"arguments": memory.arguments, "fits": memory.fits},
        "collectives": totals(program.collectives),
        "open_loops": program.open_loops,
        "estimate": time and to_dict(time) | {"seconds": time.seconds, "utilization": time.utilization},
        "compile_seconds": program.seconds,
        "refusal": program.refusal,
    }
