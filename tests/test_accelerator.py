"""The scripts that measure a device and a mesh: they run at tiny sizes on CPU, and figures of a part aren't lost."""

import argparse
import importlib
import json
import os
import pathlib
import subprocess
import sys
import time
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import jax
import pytest
import rich.console

from omnijax.experiment import load_experiment
from omnijax.model.transformer import Transformer

ROOT = pathlib.Path(__file__).parents[1]
REPRODUCE, BENCH = ROOT / "experiments" / "reproduce", ROOT / "experiments" / "bench"
FIGURE = {"name", "value", "unit", "spread", "demand", "held"}
NAMES = ("accelerator", "attention", "base_sampler", "base_step", "digits_demo", "scaling")


@pytest.fixture
def parts(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, ModuleType]]:
    """The scripts as modules, which are removed afterwards."""
    before = set(sys.modules)
    monkeypatch.syspath_prepend(BENCH)
    monkeypatch.syspath_prepend(REPRODUCE)
    yield {name: importlib.import_module(name) for name in NAMES}
    for name in set(sys.modules) - before:
        if pathlib.Path(vars(sys.modules[name]).get("__file__") or "").is_relative_to(ROOT / "experiments"):
            del sys.modules[name]


def check(found: list[dict[str, Any]], demand: str) -> None:
    """Checks that all figures are there. At toy sizes, a required speed is not judged."""
    assert all(set(figure) == FIGURE for figure in found)
    (asked,) = [figure for figure in found if figure["name"] == demand]
    assert asked["demand"]
    assert asked["held"] is None
    assert asked["value"] > 0
    others = [figure["held"] for figure in found if figure["demand"] and figure is not asked]
    assert all(others)


def test_the_cpu_form_of_the_card_runs(tmp_path: pathlib.Path) -> None:
    script, env = str(REPRODUCE / "accelerator.py"), os.environ | {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
    call = [sys.executable, script, "--tiny", "--only", "decode", "--minutes", "60", "--out", str(tmp_path)]
    done = subprocess.run(call, env=env, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads((tmp_path / "cpu-tiny.json").read_text())
    assert report["form"] == "tiny"
    assert report["machine"]["device"] == report["machine"]["platform"] == "cpu"
    assert report["machine"]["versions"]["jax"] == jax.__version__
    (section,) = [report["sections"]["decode"]]
    assert (section["status"], section["said"]) == ("ran", "")
    assert {figure.pop("section") for figure in section["figures"]} == {"decode"}
    check(section["figures"], "decoder: time over the pass, slowest vocabulary")
    # The machine, the figures, and how the part ended.
    assert sum(line.startswith("{") for line in done.stdout.splitlines()) == 1 + len(section["figures"]) + 1


@pytest.mark.parametrize(
    ("name", "demand"),
    [("base_step", "model FLOPs utilization, best setting"), ("base_sampler", "batch 2: time over the bound")],
)
def test_each_part_has_its_figures(parts: dict[str, ModuleType], name: str, demand: str) -> None:
    check([figure._asdict() for figure in parts[name].figures(True, time.time() + 600)], demand)


def test_attention_is_held_against_the_reference(parts: dict[str, ModuleType]) -> None:
    found = {figure.name: figure.held for figure in parts["attention"].figures(True, time.time() + 600)}
    assert found == {
        "blocks: error on packed sequences": True,
        "control: error if it saw other documents": True,
        "blocks: losses against the reference": True,
    }


def test_full_sizes_are_refused_without_a_gpu(parts: dict[str, ModuleType], capsys: pytest.CaptureFixture[str]) -> None:
    options = argparse.Namespace(section="machine", tiny=False, until=0.0)
    assert parts["accelerator"].run_section(options) == 1
    assert "need a GPU" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("end", "seconds", "status"),
    [
        ("raise SystemExit(3)", 60, "failed with status 3"),
        ("import time; time.sleep(60)", 3, "out of time"),
        ("", 60, "ran"),
    ],
)
def test_lines_of_a_part_that_ends_early_stay(
    parts: dict[str, ModuleType],
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
    end: str,
    seconds: int,
    status: str,
) -> None:
    part = tmp_path / "part.py"
    said = "import sys; print('{\"value\": 1}'); print('{\"val', end='', flush=True); print('why', file=sys.stderr)\n"
    part.write_text(said + end)
    monkeypatch.setattr(parts["accelerator"], "__file__", str(part))
    ran = parts["accelerator"].call(argparse.Namespace(tiny=True), "train", time.time() + seconds)
    assert ran["status"] == status
    assert ran["figures"] == [{"value": 1}]
    assert ran["said"] == ("" if status == "ran" else "why\n")
    assert ran["seconds"] < 30


def test_one_demand_that_does_not_hold_is_the_exit_status(parts: dict[str, ModuleType]) -> None:
    def status(held: bool | None, ended: str) -> int:
        figure = {"name": "a", "value": 1.0, "unit": "", "demand": "≥ 2", "held": held}
        machine = {"device": "x", "runtime": "y", "versions": {"jax": "0"}}
        sections = {"train": {"status": ended, "figures": [figure]}}
        report = {"machine": machine, "sections": sections}
        found: int = parts["accelerator"].print_table(report, rich.console.Console(quiet=True))
        return found

    assert status(True, "ran") == status(None, "ran") == 0
    assert status(False, "ran") == status(True, "out of time") == 1


def test_parts_are_chosen_by_name(parts: dict[str, ModuleType]) -> None:
    def chosen(*arguments: str) -> Any:
        return parts["accelerator"].parse(list(arguments)).sections

    assert chosen() == list(parts["accelerator"].SECTIONS)
    assert chosen("--only", "sample,train") == ["train", "sample"]
    assert chosen("--skip", "demo,attention") == ["train", "sample", "decode"]
    with pytest.raises(SystemExit):
        chosen("--only", "trian")


def test_the_card_of_the_demo_has_an_accuracy_for_each_route(parts: dict[str, ModuleType]) -> None:
    demo = parts["digits_demo"]
    found = demo.accuracies_of_card(demo.DIGITS.read_text(encoding="utf-8"))
    routes = load_experiment(demo.DIGITS).eval.routes
    assert set(found) == {f"{route.through[0]}->{route.through[-1]}" for route in routes}
    assert min(found.values()) > 0.9


def test_the_bound_counts_what_a_step_reads(parts: dict[str, ModuleType]) -> None:
    tiny, rows, slots = parts["base_step"].TINY, 3, 10
    model = Transformer(tiny, 100)
    weights = jax.eval_shape(lambda: model.unstacked(model.init(jax.random.key(0))))
    cache = jax.eval_shape(lambda: model.empty_memory(rows, slots)[:2])
    embedded = jax.ShapeDtypeStruct((rows, tiny.width), tiny.compute_dtype)
    arrays = jax.tree.leaves([weights["layers"], weights["ends"]["norm"], weights["ends"]["head"], cache, embedded])
    wanted = sum(array.size * array.dtype.itemsize for array in arrays)
    assert parts["base_sampler"].step_bytes(tiny, weights, rows, slots) == wanted


def test_scaling_says_what_each_mesh_costs(parts: dict[str, ModuleType]) -> None:
    scaling = parts["scaling"]
    lines = scaling.measure(scaling.TINY, 1, 1, True)
    alone, split = (json.loads(json.dumps(line._asdict())) for line in lines)
    scaling.print_lines(rich.console.Console(quiet=True), lines)
    assert (alone["mesh"], alone["devices"], alone["ratio"], alone["collectives"]) == ({}, 1, 1.0, [])
    assert (split["mesh"], split["devices"]) == ({"fsdp": 2, "tensor": 2}, 4)
    # Matrices are split over both axes, norms and the step aren't; nor, over `tensor`, embedding and head.
    assert alone["state_bytes"] / 4 < split["state_bytes"] < alone["state_bytes"] / 3
    assert 0 < split["bytes"] < alone["bytes"]
    assert split["sent_bytes"] == pytest.approx(sum(row["wire_bytes"] for row in split["collectives"]))
    kinds = {(row["kind"], *row["axes"]) for row in split["collectives"]}
    assert kinds >= {("all-gather", "fsdp"), ("reduce-scatter", "fsdp"), ("all-reduce", "tensor")}
    assert all(line["step_seconds"] > 0 for line in (alone, split))
