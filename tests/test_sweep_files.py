"""Contracts of every experiment file with a sweep: found by looking, each of its arms made and held to them."""

from __future__ import annotations

import ast
import functools
import pathlib

import pytest
from goldens import check_golden

from omnijax.cli import main
from omnijax.evaluate.likelihoods import forms_of
from omnijax.model.build import model_of
from omnijax.run.directory import config_digest
from omnijax.sample.document_grammar import grammar_of
from omnijax.sweep.sweep import Sweep, load_sweep

ROOM = pathlib.Path(__file__).parents[1] / "experiments"
GOLDENS = pathlib.Path(__file__).parent / "golden" / "sweeps"


def has_sweep(path: pathlib.Path) -> bool:
    body = ast.parse(path.read_text(encoding="utf-8")).body
    return any(isinstance(node, ast.FunctionDef) and node.name == "sweep" for node in body)


SWEEPS = [path for path in sorted(ROOM.rglob("*.py")) if has_sweep(path)]
each = pytest.mark.parametrize("path", SWEEPS, ids=[path.relative_to(ROOM).as_posix() for path in SWEEPS])


@functools.cache
def made(path: pathlib.Path) -> Sweep:
    return load_sweep(path)


@each
def test_arms_are_those_of_the_golden(path: pathlib.Path) -> None:
    sweep = made(path)
    found = {
        "budget": [sweep.budget.kind, sweep.budget.amount],
        "baseline": sweep.baseline,
        "tasks": list(sweep.tasks),
        "arms": {name: [config_digest(config), config.vocabulary.fingerprint] for name, config in sweep.arms.items()},
    }
    when = "the sweep, or a default of omnijax/config/, was meant to change; published figures then need a new run"
    check_golden(GOLDENS / path.relative_to(ROOM).with_suffix(".json"), found, when)


def test_no_golden_is_left_over() -> None:
    goldens = {path.relative_to(GOLDENS).with_suffix(".py") for path in GOLDENS.rglob("*.json")}
    assert goldens == {path.relative_to(ROOM) for path in SWEEPS}
    assert pathlib.Path("ablations/base_size.py") in goldens


@each
def test_every_arm_has_a_model_and_a_grammar_in_full_and_in_small(path: pathlib.Path) -> None:
    for sweep in (made(path), made(path).small()):
        for name, config in sweep.arms.items():
            assert model_of(config).tokens == config.vocabulary.size, name
            assert config.batch.sequence_items > 0, name
            for form in forms_of(config):
                grammar_of(config, form.order)


@each
def test_the_card_has_the_command(path: pathlib.Path) -> None:
    card = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    assert f"omnijax sweep {path.relative_to(ROOM.parent).as_posix()}" in card


def test_a_file_of_a_sweep_can_be_tried_without_running(tmp_path, capsys, monkeypatch) -> None:
    """`--smoke --dry-run`, on the small data set that other tests share."""
    monkeypatch.chdir(tmp_path)
    heads = ROOM / "ablations" / "heads_8.py"
    assert main(["sweep", str(heads), "--smoke", "--dry-run", "--budget", "flops=1e9", "--seeds", "1"]) == 0
    said = capsys.readouterr().out
    assert f"omnijax sweep {heads} --out sweeps/heads_8-flops-smoke --smoke --budget flops=1e9 --arm flat" in said
    assert not list(tmp_path.iterdir())
