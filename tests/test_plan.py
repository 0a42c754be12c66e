"""`omnijax plan`: the real train step, compiled for devices that aren't here."""

import contextlib
import dataclasses
import importlib.metadata
import json
import math
import pathlib
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from goldens import check_golden
from jax.sharding import NamedSharding, PartitionSpec
from test_plan_reading import needs_libtpu

from omnijax.cli import main
from omnijax.config import Config, MeshConfig, ModelConfig
from omnijax.errors import ConfigError, OmnijaxError, PlatformError
from omnijax.experiment import load_experiment
from omnijax.model.transformer import parameter_count
from omnijax.plan import topology as topologies
from omnijax.plan.advice import advise, advise_sampling
from omnijax.plan.collectives import Collective, totals
from omnijax.plan.cost import items_per_token
from omnijax.plan.make import Plan, make_plan, plan_to_dict
from omnijax.plan.needs import Memory, estimate, tree_bytes
from omnijax.plan.programs import Lowered, compile_program, lower_step, mesh_for
from omnijax.plan.topology import CHIPS, Topology, find_topology
from omnijax.sample.generate import segment_target
from omnijax.sample.sampler import CHUNK, most_tokens

HERE = pathlib.Path(__file__).parent
DIGITS = HERE.parent / "experiments" / "digits.py"
LIBTPU = "0.0.42"  # whose choices the goldens of TPUs are
GOLDEN = HERE / "golden" / "plan"
pytestmark = pytest.mark.usefixtures("optimised")
SMALL = ModelConfig(3, 64, 4, 4, 16, 128, compute_dtype="bfloat16", remat="full")
MESHES = {
    "data 2, fsdp 4": MeshConfig(2, 4, 1, 1),
    "fsdp 2, context 2, tensor 2": MeshConfig(1, 2, 2, 2),
}


@pytest.fixture(scope="module")
def small() -> Config:
    """The shape of a large size in small: layers in a scan, everything computed again, bfloat16."""
    config = load_experiment(DIGITS)
    batch = dataclasses.replace(config.batch, size=16, sequence_length=97)
    return dataclasses.replace(config, model=SMALL, batch=batch)


@contextlib.contextmanager
def quickly() -> Iterator[None]:
    """What devices say to each other doesn't depend on how well one of them computes."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture(scope="module")
def plans(small: Config) -> dict[str, Plan]:
    """On eight devices of this machine."""
    with quickly():
        return {name: make_plan(dataclasses.replace(small, mesh=mesh), "cpu:8") for name, mesh in MESHES.items()}


def on_one_device(config: Config) -> Lowered:
    one = dataclasses.replace(config, mesh=MeshConfig(1, 1, 1, 1))
    return lower_step(one, mesh_for(one.mesh, find_topology("cpu:1")))


def counts(plan: Plan) -> list[dict[str, Any]]:
    """Collectives of a plan as a golden has them: those of a kilobyte and more.

    The others are sums of metrics and norms, and XLA's versions differ in how many of these go in one.
    """
    rows = totals([one for one in plan.programs[0].collectives if one.bytes >= 1000])
    return sorted(
        ({key: row[key] for key in ("kind", "axes", "between_slices", "count", "bytes")} for row in rows),
        key=lambda row: (row["kind"], row["axes"]),
    )


REFRESH = "the step, the model or the mesh were meant to say more or less to other devices, or XLA combines otherwise"


@pytest.mark.parametrize("name", MESHES)
def test_collectives_of_the_step_are_those_of_the_golden(plans: dict[str, Plan], name: str) -> None:
    file = GOLDEN / f"cpu_8_{name.replace(', ', '_').replace(' ', '_')}.json"
    check_golden(file, counts(plans[name]), REFRESH)


@needs_libtpu
@pytest.mark.parametrize("slices", [1, 2])
def test_collectives_of_the_step_on_a_tpu_are_those_of_the_golden(small: Config, slices: int) -> None:
    topology, mesh = ("v5e:2x4", MeshConfig(2, 4)) if slices == 1 else ("v5e:2x2", MeshConfig(1, 4))
    plan = make_plan(dataclasses.replace(small, mesh=mesh), topology, slices)
    assert plan.fits
    assert plan.programs[0].estimate is not None
    if importlib.metadata.version("libtpu").startswith(LIBTPU):
        check_golden(GOLDEN / f"v5e_8_{slices}_slices.json", counts(plan), REFRESH)
    crossing = [row for row in counts(plan) if row["between_slices"]]
    assert {tuple(row["axes"]) for row in crossing} <= {("data",)}
    assert bool(crossing) == (slices > 1)
    # Only gradients cross, each in the parts that `fsdp` makes, and sums of the metrics.
    assert sum(row["count"] for row in crossing) <= len(jax.tree.leaves(on_one_device(small).arguments["parameters"]))


def test_bytes_of_a_plan_are_those_of_the_state(small: Config, plans: dict[str, Plan]) -> None:
    plan = plans["data 2, fsdp 4"]
    memory = plan.programs[0].memory
    whole = on_one_device(small)
    params = parameter_count(whole.arguments["parameters"])
    assert tree_bytes(whole.arguments["parameters"]) == 4 * params
    assert 8 * params <= tree_bytes(whole.arguments["moments"]) <= 8 * params + 64
    assert 0.25 <= memory.parameters / (4 * params) < 0.30  # norms are whole everywhere
    assert 0.25 <= memory.moments / (8 * params) < 0.30
    assert memory.batch == 16 * (5 * 96 * 4 + 96 + 4) / 8  # kinds of tokens take a byte each
    assert memory.arguments + memory.results + memory.temporary + memory.program == memory.needed
    assert memory.fits
    assert memory.results < 0.01 * memory.parameters  # the new state takes the place of the old one
    kept = SMALL.depth * (16 // 8) * 96 * SMALL.width * 2  # what each layer begins with, in bfloat16
    assert kept + memory.parameters <= memory.temporary  # and gradients, at least


def test_shards_are_summed_exactly() -> None:
    mesh = mesh_for(MeshConfig(2, 4, 1, 1), find_topology("cpu:8"))
    split = NamedSharding(mesh, PartitionSpec("fsdp", None))
    whole = NamedSharding(mesh, PartitionSpec())
    tree = {
        "a": jax.ShapeDtypeStruct((8, 3), jnp.float32, sharding=split),
        "b": jax.ShapeDtypeStruct((5,), jnp.bfloat16, sharding=whole),
    }
    assert tree_bytes(tree) == 2 * 3 * 4 + 5 * 2


def test_a_step_that_does_not_fit_says_what_to_change(small: Config, plans: dict[str, Plan]) -> None:
    plan = plans["data 2, fsdp 4"]
    memory = dataclasses.replace(plan.programs[0].memory, available=plan.programs[0].memory.arguments + 1000)
    kept = dataclasses.replace(small, model=dataclasses.replace(small.model, remat="none"))
    said = advise(kept, memory, plan.mesh.shape)
    assert "--model.remat dots" in said[1]
    assert any("--optim.accumulate" in line for line in said)
    held = dataclasses.replace(memory, temporary=0, available=memory.parameters)
    said = advise(small, dataclasses.replace(held, needed=memory.arguments), plan.mesh.shape)
    assert said[1].startswith("--mesh.fsdp 8 --mesh.data 1")
    assert any("--optim.moments bfloat16" in line for line in said)
    assert advise(small, plan.programs[0].memory, plan.mesh.shape) == []
    cached = dataclasses.replace(held, cache=10**6, available=held.parameters + 6 * 10**5)
    cached = dataclasses.replace(cached, needed=cached.parameters + cached.cache)
    assert advise_sampling(small, cached, plan.mesh.shape)[1].startswith("--eval.batch_size 72:")  # of 120
    tight = dataclasses.replace(cached, available=cached.parameters)
    assert "mesh.fsdp" in advise_sampling(small, tight, plan.mesh.shape)[1]
    assert advise_sampling(small, plan.programs[0].memory, plan.mesh.shape) == []


@needs_libtpu
def test_what_the_compiler_refuses_for_want_of_memory_is_an_answer() -> None:
    topology = find_topology("v5e:2x2")
    mesh = mesh_for(MeshConfig(1, 4), topology)
    x = jax.ShapeDtypeStruct((20, 2**30), jnp.float32, sharding=NamedSharding(mesh, PartitionSpec()))
    program = compile_program(Lowered("sort", jax.jit(jnp.sort).lower(x), {"batch": x}, 0), topology, mesh)
    assert program.text == ""
    assert "HBM" in program.refusal
    assert program.memory.temporary > CHIPS["v5e"].memory_bytes  # besides the argument
    assert program.memory.needed == program.memory.temporary + 4 * 20 * 2**30
    assert not program.memory.fits


# ---------------------------------------------------------------------- time


def test_time_adds_up_from_the_chip_and_the_network() -> None:
    chip = dataclasses.replace(CHIPS["v5e"], flops=100.0, clock_hz=10.0, link_bandwidth=2.0, slice_bandwidth=1.0)
    behind = Collective("all-gather", 2, 40, 4, ("fsdp",), False, True, 2)
    between = Collective("all-reduce", 1, 8, 2, ("data",), True, False, 0)
    found = estimate(600.0, 20, (behind, between), chip)
    assert (found.compute_seconds, found.compiler_seconds) == (6.0, 2.0)
    assert found.background_seconds == 2 * 40 * 0.75 / 4
    assert found.foreground_seconds == 8.0
    assert found.seconds == max(6.0, 2.0, 15.0) + 8.0
    assert found.utilization == 6.0 / 23.0


def test_cycles_of_the_compiler_count_where_they_are_more() -> None:
    found = estimate(100.0, 200, (), dataclasses.replace(CHIPS["v5e"], flops=100.0, clock_hz=10.0))
    assert found.compiler_seconds == found.seconds == 20.0


def test_items_of_a_token_come_from_the_limits_of_the_modalities(small: Config) -> None:
    share = items_per_token(small)
    assert 0.1 < share < 0.5  # an image of the demo is 16 items in 16 positions and 64 digits


def test_a_chip_may_be_several_devices() -> None:
    devices = tuple(range(8))
    assert Topology("tpu7x:2x2x1", 1, devices, CHIPS["tpu7x"], 1.0, (2, 2, 1)).chips == 4
    assert Topology("v5e:2x4", 1, devices, CHIPS["v5e"], 1.0, (2, 4)).chips == 8


@pytest.mark.parametrize(
    ("chip", "sizes", "directions"),
    [
        ("v5e", (16, 16, 1), (2, 2, 1)),
        ("v5e", (8, 16, 1), (1, 2, 1)),
        ("v5p", (8, 8, 8), (2, 2, 2)),
        ("v5p", (2, 2, 4), (1, 1, 1)),
    ],
)
def test_ends_of_a_torus_are_joined_in_whole_pods_and_cubes(chip: str, sizes: tuple, directions: tuple) -> None:
    assert CHIPS[chip].directions(sizes) == directions


# ---------------------------------------------------------------------- bad input, and the command


@pytest.mark.parametrize(
    ("name", "slices", "says"),
    [
        ("v5e", 1, "kind of chip"),
        ("v9:2x2", 1, "kind of chip"),
        ("v5e:2x", 1, "kind of chip"),
        ("cpu:0", 1, "kind of chip"),
        ("v5p:4x4", 1, "3 dimensions"),
        ("v5e:2x2", 0, "at least one"),
        pytest.param("v5e:3x3", 1, "compiler knows none", marks=needs_libtpu),
        ("cpu:16", 1, "16 are wanted"),
        ("cpu:8", 2, "16 are wanted"),
        ("gpu:1", 1, "GPUs"),
        ("h100:8", 1, "GPUs"),
    ],
)
def test_topologies_that_cannot_be_are_refused(name: str, slices: int, says: str) -> None:
    with pytest.raises((ConfigError, PlatformError), match=says):
        find_topology(name, slices)


def test_gpus_are_those_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    class Gpu:
        platform, device_kind = "gpu", "NVIDIA H200"

        def memory_stats(self) -> dict[str, int]:
            return {"bytes_limit": 10**11}

    gpus = [Gpu() for _ in range(8)]
    monkeypatch.setattr(topologies.jax, "devices", lambda kind: {"gpu": gpus}[kind])
    found = find_topology("gpu:4", slices=2)
    assert (found.chips, found.chip, found.memory_bytes) == (8, CHIPS["h200"], 1e11)
    assert find_topology("h200:2").devices == (gpus[0], gpus[1])
    with pytest.raises(PlatformError, match="use gpu:8"):
        find_topology("gpu:16")
    with pytest.raises(PlatformError, match="NVIDIA H200"):
        find_topology("a100:1")


def test_without_the_compiler_of_tpus_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: object, **__: object) -> None:
        raise RuntimeError("JAX TPU support not installed")

    monkeypatch.setattr(topologies.topologies, "get_topology_desc", missing)
    with pytest.raises(PlatformError, match=r"omnijax\[tpu\]"):
        find_topology("v5e:2x2")


@pytest.mark.parametrize(
    ("mesh", "change", "says"),
    [
        (MeshConfig(3, 1, 1, 1), {}, "multiply to the 8 devices"),
        (MeshConfig(8, 1, 1, 1), {"batch": 12}, "use 16"),
        (MeshConfig(1, 1, 8, 1), {"length": 99}, "use 105"),
        (MeshConfig(1, 1, 1, 8), {}, "mesh.tensor"),
    ],
)
def test_a_mesh_that_does_not_fit_says_what_would(small: Config, mesh: MeshConfig, change: dict, says: str) -> None:
    batch = small.batch
    if "batch" in change:
        batch = dataclasses.replace(batch, size=change["batch"])
    if "length" in change:
        batch = dataclasses.replace(batch, sequence_length=change["length"])
    with pytest.raises(OmnijaxError, match=says):
        lower_step(dataclasses.replace(small, batch=batch, mesh=mesh), mesh_for(mesh, find_topology("cpu:8")))


def test_slices_of_cpu_devices_are_rows_along_data(small: Config) -> None:
    found = find_topology("cpu:4", slices=2)
    mesh = mesh_for(MeshConfig(2, 2, 1, 1), found)
    assert dict(mesh.shape) == {"data": 4, "fsdp": 2, "context": 1, "tensor": 1}
    assert found.network(mesh).slices == (0, 0, 0, 0, 1, 1, 1, 1)


@pytest.fixture
def experiment(tmp_path: pathlib.Path) -> pathlib.Path:
    """The demo with a model that compiles in a second."""
    file = tmp_path / "tiny.py"
    file.write_text(
        "import dataclasses\nfrom pathlib import Path\n"
        "from omnijax.config import ModelConfig\nfrom omnijax.experiment import load_experiment\n\n\n"
        "def get_config():\n"
        f"    config = load_experiment(Path({str(DIGITS)!r}))\n"
        "    batch = dataclasses.replace(config.batch, size=8)\n"
        "    return dataclasses.replace(config, batch=batch, model=ModelConfig(1, 32, 2, 2, 16, 64))\n"
    )
    return file


def test_the_command_prints_saves_and_says_whether_it_fits(
    experiment: pathlib.Path, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ["plan", str(experiment), "--topology", "cpu:2", "--out", str(tmp_path), "--mesh.fsdp", "2"]
    with quickly():
        assert main([*command, "--hlo"]) == 0
    said = capsys.readouterr().out
    for word in ("cpu:2: 2 chips", "fsdp 2", "parameters", "all-gather", "It fits", "no figures for the chips"):
        assert word in said
    saved = json.loads((tmp_path / "tiny-cpu-2.json").read_text())
    assert saved["fits"] is True
    assert saved["mesh"] == {"data": 1, "fsdp": 2, "context": 1, "tensor": 1}
    assert saved["versions"]["jax"] == jax.__version__
    assert (tmp_path / "tiny-cpu-2-train-step.hlo.txt").read_text().startswith("HloModule")

    monkeypatch.setattr(topologies.os, "sysconf", lambda name: 1 if name == "SC_PAGE_SIZE" else 2 * 10**5)
    with quickly():
        assert main([*command, "--json"]) == 1
    printed = json.loads(capsys.readouterr().out)
    assert printed["fits"] is False
    assert printed["advice"]
    assert printed["programs"][0]["memory"]["available"] == 10**5

    assert main([*command[:3], "moon:4", *command[4:]]) == 2
    assert "--topology = 'moon:4'" in capsys.readouterr().err


def test_the_sampling_loop_is_planned_as_well(small: Config) -> None:
    config = dataclasses.replace(small, model=dataclasses.replace(SMALL, depth=1), mesh=MeshConfig(2, 4))
    with quickly():
        step, sample = make_plan(config, "cpu:8", sample=True).programs
    assert (step.name, sample.name) == ("train step", "sample speech")
    assert step.tokens == 16 * 96
    assert sample.tokens == config.eval.batch_size * CHUNK
    assert sample.open_loops > 0
    bfloat16 = tree_bytes(on_one_device(config).arguments["parameters"]) / 2
    assert 0.25 * bfloat16 <= sample.memory.parameters <= 0.3 * bfloat16
    rows, slots = config.eval.batch_size / 8, most_tokens(config.vocabulary, segment_target(config, "speech", -1))
    assert sample.memory.cache >= rows * slots * 2 * SMALL.kv_heads * SMALL.head_size * 2
    assert sample.memory.moments == sample.memory.batch == 0


def test_a_plan_is_json_with_nothing_that_is_no_number(plans: dict[str, Plan]) -> None:
    for plan in plans.values():
        text = json.dumps(plan_to_dict(plan, "small"), allow_nan=False)
        assert json.loads(text)["programs"][0]["name"] == "train step"
        assert math.isfinite(plan.programs[0].memory.needed)
        assert isinstance(plan.programs[0].memory, Memory)
