"""What does each mesh cost? The package's step on 1 to 8 fake CPU devices: time, bytes per device, collectives.

    python experiments/bench/scaling.py
    python experiments/bench/scaling.py --json --rounds 5

4 layers of width 256, 8 heads, 16 sequences of 256 tokens, float32, with the same global batch and parameters on every
mesh. Losses must agree. All fake devices share the cores of this machine, so the time of a step is the work of all
devices. Its ratio to the step on one device is the additional work of the split: 1 is a perfect split, and 1 / ratio
the efficiency that is left before any network. The network isn't measured. Bytes describe it: they are the same on
every platform, except for choices of the compiler (`omnijax plan` asks the TPU's compiler). Bytes sent are those of one
device in one step, in a ring. Figures are medians, ratios medians over neighbouring runs. Takes about five minutes on 2
CPU cores, most of it compiling.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import rich.box
import rich.console
import rich.table
from row import print_machine, spread

from omnijax.config import BatchConfig, Config, MeshConfig, ModelConfig, OptimConfig, Writing
from omnijax.experiment import load_experiment
from omnijax.model.transformer import Transformer
from omnijax.plan.collectives import Network, collectives_of, totals
from omnijax.plan.hlo import read_module
from omnijax.plan.needs import tree_bytes
from omnijax.step.sharding import make_mesh, put_batch
from omnijax.step.state import abstract_batch, abstract_state, init_state, make_step
from omnijax.testing import RandomRecords

sys.path.append(str(Path(__file__).parents[2] / "tests"))
from random_data import batches_of, mixed_tasks, random_corpus

DIGITS = Path(__file__).parents[1] / "digits.py"
MESHES = (
    MeshConfig(1, 1, 1, 1),
    MeshConfig(2, 1, 1, 1),
    MeshConfig(1, 2, 1, 1),
    MeshConfig(1, 1, 2, 1),
    MeshConfig(1, 1, 1, 2),
    MeshConfig(1, 4, 1, 1),
    MeshConfig(1, 2, 1, 2),
    MeshConfig(8, 1, 1, 1),
    MeshConfig(1, 8, 1, 1),
    MeshConfig(1, 2, 2, 2),
)
TINY = (MeshConfig(1, 1, 1, 1), MeshConfig(1, 2, 1, 2))
MODEL = ModelConfig(depth=4, width=256, heads=8, kv_heads=8, head_size=32, mlp_width=768)
TINY_MODEL = ModelConfig(depth=2, width=32, heads=4, kv_heads=4, head_size=8, mlp_width=64)


class Line(NamedTuple):
    """The measurements of one mesh.

    Attributes:
        mesh: sizes of the axes that are larger than 1.
        devices: number of devices.
        step_seconds: median time of a step.
        spread: half the distance between the quartiles of these times, relative to the median.
        ratio: to the step on one device, the median over neighbouring runs.
        state_bytes: parameters and moments on one device.
        bytes: memory of one device in all: arguments, results, temporaries.
        sent_bytes: bytes that one device sends in a step.
        collectives: of a step, by kind and axes: `count`, `bytes`, `wire_bytes`.
    """

    mesh: dict[str, int]
    devices: int
    step_seconds: float
    spread: float
    ratio: float
    state_bytes: int
    bytes: int
    sent_bytes: float
    collectives: list[dict[str, Any]]


class Run:
    """The compiled step on one mesh, with a state of its own."""

    def __init__(self, config: Config, mesh_config: MeshConfig):
        self.sizes = {name: size for name, size in vars(mesh_config).items() if size > 1}
        self.mesh = make_mesh(mesh_config, jax.devices()[: int(np.prod([*self.sizes.values()], dtype=int))])
        model = Transformer(config.model, config.vocabulary.size)
        abstract = abstract_state(config, model, self.mesh)
        step = make_step(config, model, self.mesh)
        self.program = step.lower(abstract, abstract_batch(config, self.mesh)).compile()
        self.state = init_state(config, model, self.mesh)
        self.state_bytes, self._rows = tree_bytes(abstract), config.batch.size
        self.losses: list[float] = []

    def seconds(self, batches: list[Any]) -> float:
        """Seconds of a step, including the transfer of its batch to the devices."""
        start = time.perf_counter()
        for batch in batches:
            self.state, metrics = self.program(self.state, put_batch(self.mesh, batch, self._rows))
        jax.block_until_ready((self.state, metrics))
        taken = (time.perf_counter() - start) / len(batches)
        self.losses.append(float(metrics.parts.loss / metrics.parts.weight))
        return taken

    def line(self, times: np.ndarray, alone: np.ndarray) -> Line:
        """The measurements, and figures of the compiled program."""
        module = read_module(self.program.as_text())
        network = Network(dict(self.mesh.shape), (0,) * self.mesh.size)
        found = totals(collectives_of(module, network))
        memory = self.program.memory_analysis()
        needed = memory.argument_size_in_bytes + memory.output_size_in_bytes - memory.alias_size_in_bytes
        return Line(
            self.sizes,
            self.mesh.size,
            float(np.median(times)),
            spread(times),
            float(np.median(times / alone)),
            self.state_bytes,
            int(needed + memory.temp_size_in_bytes),
            float(sum(row["wire_bytes"] for row in found)),
            [{key: row[key] for key in ("kind", "axes", "count", "bytes", "wire_bytes")} for row in found],
        )


def bench_config(tiny: bool) -> Config:
    """The same batch for all meshes; everything else is as in the digits experiment."""
    config = load_experiment(DIGITS)
    return dataclasses.replace(
        config,
        data=RandomRecords(),
        writing=Writing(base=5, t_pad=False),
        batch=BatchConfig(mixed_tasks(), size=4 if tiny else 16, sequence_length=73 if tiny else 257),
        model=TINY_MODEL if tiny else MODEL,
        optim=OptimConfig(),
        eval=dataclasses.replace(config.eval, completions=(), targets=(), routes=()),
    )


def measure(meshes: tuple[MeshConfig, ...], rounds: int, steps: int, tiny: bool) -> list[Line]:
    """Measures each mesh. Meshes run in turns, and the first turn isn't counted."""
    config = bench_config(tiny)
    corpus = random_corpus(config.vocabulary, 500, 7)
    source = batches_of(corpus, config.batch)
    runs = [Run(config, mesh) for mesh in meshes]
    times = np.empty((len(runs), rounds))
    for number in range(rounds + 1):
        batches = [source[number * steps + step] for step in range(steps)]
        for one, run in enumerate(runs):
            taken = run.seconds(batches)
            if number:
                times[one, number - 1] = taken
    for run in runs:
        np.testing.assert_allclose(run.losses, runs[0].losses, rtol=1e-3, err_msg=str(run.sizes))
    return [run.line(taken, times[0]) for run, taken in zip(runs, times, strict=True)]


def print_lines(console: rich.console.Console, lines: list[Line]) -> None:
    """Prints a table."""
    title = "one global batch on fake devices that share the cores: work of all devices, bytes of one device"
    columns = ("devices", "step", "spread", "ratio", "state", "memory", "sent", "collectives a step")
    table = rich.table.Table("mesh", *columns, title=title, title_justify="left", box=rich.box.SIMPLE_HEAD)
    for line in lines:
        table.add_row(
            " × ".join(f"{name} {size}" for name, size in line.mesh.items()) or "one device",
            str(line.devices),
            f"{1e3 * line.step_seconds:.0f} ms",
            f"± {line.spread:.0%}",
            f"{line.ratio:.2f}",
            *(f"{size / 1e6:.2f} MB" for size in (line.state_bytes, line.bytes, line.sent_bytes)),
            "\n".join(
                f"{row['count']} {row['kind']} over {' '.join(row['axes'])}, {row['bytes'] / 1e6:.3g} MB"
                for row in line.collectives
            ),
        )
    console.print(table)


def main() -> None:
    """Measures, and prints a table and lines."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="no table, only the lines")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each mesh; figures are medians over the turns")
    parser.add_argument("--steps", type=int, default=2, help="steps in a turn")
    parser.add_argument("--tiny", action="store_true", help="two meshes and a toy model, to test that it runs")
    options = parser.parse_args()
    jax.config.update("jax_num_cpu_devices", 8)
    jax.config.update("jax_platforms", "cpu")
    console = rich.console.Console(quiet=options.json, width=None if rich.console.Console().is_terminal else 150)
    machine = print_machine(console)
    lines = measure(TINY if options.tiny else MESHES, options.rounds, options.steps, options.tiny)
    print_lines(console, lines)
    print("\n".join([machine, *(json.dumps({"bench": "scaling", **line._asdict()}) for line in lines)]))
    print(json.dumps({"load after": round(os.getloadavg()[0], 2)}))


if __name__ == "__main__":
    main()
