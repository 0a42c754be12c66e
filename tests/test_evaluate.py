"""Many checkpoints of many runs, on any mesh: what is measured, what is named and left out, what isn't done twice."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import threading
import time

import jax
import numpy as np
import pytest
import rich.console
from jobs import MAIN
from loaded import load_run, measure

import omnijax.evaluate.tasks
from omnijax import testing
from omnijax.cli import main
from omnijax.config import Config, MeshConfig
from omnijax.data import manifest
from omnijax.data.prepare import prepare
from omnijax.errors import RESUMABLE, CheckpointError, ConfigError, DataError
from omnijax.evaluate import Session, Trained, check_tasks, evaluate, split, split_of
from omnijax.evaluate.display import PLOT, print_steps, steps_figure
from omnijax.evaluate.history import ROWS, head_of, history, known, mean_bits, read_rows, row_of
from omnijax.evaluate.judging import Finding
from omnijax.evaluate.loading import OpenRun
from omnijax.evaluate.many import parse_steps, watch
from omnijax.evaluate.tasks import TASKS, measure_directions
from omnijax.experiment import load_experiment
from omnijax.files import append_line, digest, read_object, write_object
from omnijax.modalities import Picture, Speech, Text
from omnijax.model.build import model_of
from omnijax.report.inputs import EVAL, EXAMPLES
from omnijax.run.checkpoint import Checkpoints
from omnijax.run.checksums import checksums
from omnijax.run.directory import FOLDER, claim, config_digest, load_config, load_modalities
from omnijax.step.sharding import make_mesh
from omnijax.step.state import init_state
from omnijax.train import train

DIGITS = pathlib.Path(__file__).parents[1] / "experiments" / "digits.py"
SAVED = [4, 8, 12]


@pytest.fixture(scope="module")
def config(small_data) -> Config:
    small = testing.shrink(load_experiment(DIGITS), small_data)
    prepare(small)
    tasks, routes = (tuple(x for n, x in enumerate(xs) if n in (0, 2)) for xs in (small.batch.tasks, small.eval.routes))
    return dataclasses.replace(
        small,
        batch=dataclasses.replace(small.batch, tasks=tasks),
        eval=dataclasses.replace(small.eval, routes=routes),
        train=dataclasses.replace(small.train, steps=SAVED[-1], checkpoint_every=SAVED[0], keep_checkpoints=len(SAVED)),
    )


@pytest.fixture(scope="module")
def trained(config: Config, tmp_path_factory) -> pathlib.Path:
    """A run with three checkpoints, from pictures to words and back."""
    run = tmp_path_factory.mktemp("trained") / "run"
    train(config, run)
    return run


@pytest.fixture
def run(trained: pathlib.Path, tmp_path) -> pathlib.Path:
    """A copy of it."""
    return pathlib.Path(shutil.copytree(trained, tmp_path / "run"))


@pytest.fixture
def counted(monkeypatch) -> list[tuple[int, str]]:
    """Step and name of every task that is done from now on."""
    done: list[tuple[int, str]] = []

    def counting(name, task):
        def counted(trained, split):
            done.append((trained.step, name))
            return task(trained, split)

        return counted

    tasks = omnijax.evaluate.tasks.TASKS
    monkeypatch.setattr(omnijax.evaluate.tasks, "TASKS", {name: counting(name, task) for name, task in tasks.items()})
    return done


def spoil(checkpoint: pathlib.Path) -> None:
    """The parameters aren't what the checkpoint says."""
    path = checkpoint / "_CHECKPOINT_METADATA"
    written = json.loads(path.read_text())
    content = {name: part for name, part in written["custom_metadata"].items() if name != "digest"}
    content["checksums"]["params/ends/head"] ^= 1
    written["custom_metadata"] = content | {"digest": digest(content)}
    path.write_text(json.dumps(written))


def save_foreign(run: pathlib.Path, step: int, config: Config) -> None:
    """A checkpoint of another configuration in this run's directory."""
    state = init_state(config, model_of(config), make_mesh(MeshConfig(), jax.devices()[:1]))
    with Checkpoints(run, keep=100) as checkpoints:
        checkpoints.save(step, state, config)


# ---------------------------------------------------------------------- which checkpoints


def test_all_checkpoints_are_measured_and_each_only_once(config: Config, run: pathlib.Path, counted: list) -> None:
    outcome = evaluate([run], "all", ["bits"])
    assert (outcome.refused, outcome.stopped) == ({}, False)
    assert counted == [(step, "bits") for step in SAVED]
    rows = read_rows(run)
    assert [row["step"] for row in rows] == list(outcome.rows[run]) == SAVED
    assert len({row["checkpoint"] for row in rows}) == len({mean_bits(row) for row in rows}) == 3
    for row in rows:
        assert row["vocabulary"] == config.vocabulary.fingerprint
        assert row["config"] == config_digest(config)
        assert (row["split"], row["examples"], row["seed"], row["tasks"]) == ("validation", 12, 0, ["bits"])
        assert row["versions"]["jax"] == jax.__version__
        assert row["device"].startswith("8 × cpu")
        assert row["seconds"] > 0
        assert {"image", "text|image", "text", "image|text"} == set(row["bits_per_item"])
        image = row["bits_per_item"]["image"]
        assert image["units"]["pixel"] == pytest.approx(image["renormalised"] / 4)
        assert "zlib" in row["anchors"]["image"]

    evaluate([run], "all", ["bits"])
    assert len(counted) == 3
    assert evaluate([run, run], (8,), ["bits"]).rows[run][8] == outcome.rows[run][8]
    assert read_rows(run) == rows
    counted.clear()
    again = evaluate([run], (8,), session=Session(("bits",), again=True))
    assert counted == [(8, "bits")]
    assert again.rows[run][8]["bits_per_item"] == outcome.rows[run][8]["bits_per_item"]


def test_only_tasks_that_are_missing_are_done(run: pathlib.Path, counted: list) -> None:
    evaluate([run], "last", ["completions"])
    outcome = evaluate([run], "last", ["completions", "bits"])
    assert counted == [(12, "completions"), (12, "bits")]
    assert sorted(outcome.rows[run][12]["tasks"]) == ["bits", "completions"]
    assert outcome.rows[run][12]["completions"] == {}


def test_the_best_has_the_least_mean_bits(run: pathlib.Path, counted: list) -> None:
    bits = {step: mean_bits(row) for step, row in evaluate([run], "all", ["bits"]).rows[run].items()}
    best = min(bits, key=lambda step: bits[step])
    counted.clear()
    outcome = evaluate([run], "best", ["bits", "completions"])
    assert counted == [(best, "completions")]
    assert [step for step, row in outcome.rows[run].items() if "completions" in row["tasks"]] == [best]
    # Each form weighs the same, whatever it has of items.
    entries = {"a": {"renormalised": 2.0, "items": 100}, "b": {"renormalised": 5.0, "items": 1}}
    assert mean_bits({"bits_per_item": entries}) == 3.5
    assert mean_bits({}) == np.inf


def test_other_parameters_of_the_same_step_or_another_configuration_are_measured_anew(
    config: Config, run: pathlib.Path, counted: list
) -> None:
    evaluate([run], (12,), ["completions"])
    shutil.rmtree(run / FOLDER / "12")
    save_foreign(run, 12, config)  # as a run begins: of the same shapes
    evaluate([run], (12,), ["completions"])
    seeded = Session(("completions",), overrides=("--eval.seed", "7"))
    assert evaluate([run], (12,), session=seeded).rows[run][12]["seed"] == 7
    resolved = read_object(run / "config.json", (), "")
    resolved["mesh"] = {"data": 16, "fsdp": 4, "context": 1, "tensor": 1}
    write_object(run / "config.json", resolved)
    evaluate([run], (12,), ["completions"])
    assert counted == [(12, "completions")] * 3  # where it is computed changes nothing


@pytest.mark.parametrize("text, steps", [("all", "all"), ("best", "best"), ("400", (400,)), ("8,4,8", (8, 4))])
def test_steps_are_read(text: str, steps: object) -> None:
    assert parse_steps(text) == steps


# ---------------------------------------------------------------------- what can't be evaluated


def test_what_is_damaged_or_foreign_is_named_and_the_rest_evaluated(
    config: Config, run: pathlib.Path, tmp_path, capsys
) -> None:
    wider = dataclasses.replace(config, model=dataclasses.replace(config.model, mlp_width=96))
    other = dataclasses.replace(config, writing=dataclasses.replace(config.writing, positions=64))
    save_foreign(run, 20, wider)
    save_foreign(run, 21, other)
    spoil(run / FOLDER / "8")
    (run / FOLDER / "12" / "_CHECKPOINT_METADATA").write_text("{")
    nothing, unreadable = tmp_path / "nothing", tmp_path / "unreadable"
    nothing.mkdir()
    unreadable.mkdir()
    (unreadable / "config.json").write_text('{"vocabulary": ')
    runs = [str(path) for path in (nothing, run, unreadable)]
    assert main(["evaluate", *runs, "--steps", "all", "--tasks", "bits"]) == 1
    said = capsys.readouterr()
    named = dict(line.split(": not evaluated: ")[1].split(": ", 1) for line in said.err.splitlines()[:-1])
    reasons = {pathlib.Path(name).name: reason for name, reason in named.items()}
    assert sorted(reasons) == ["12", "20", "21", "8", "nothing", "unreadable"]
    assert all(reason.startswith("CheckpointError: ") for reason in reasons.values())
    assert "it has no config.json" in reasons["nothing"]
    assert "config.json: it can't be read" in reasons["unreadable"]
    assert "it is damaged: the checksum of params/ends/head" in reasons["8"]
    assert "its description can't be read" in reasons["12"]
    assert "mlp/down must be float32[2, 64, 32]" in reasons["20"]
    assert "another vocabulary" in reasons["21"]
    assert said.err.splitlines()[-1].startswith("omnijax: 1 evaluated, 6 not")
    assert [row["step"] for row in read_rows(run)] == [4]
    assert (run / PLOT).read_bytes().startswith(b"\x89PNG")


def test_of_a_damaged_last_checkpoint_the_one_before_is_the_last(run: pathlib.Path, counted: list) -> None:
    spoil(run / FOLDER / "12")
    outcome = evaluate([run], "last", ["completions"])
    assert counted == [(8, "completions")]
    assert list(outcome.refused) == [str(run / FOLDER / "12")]


def test_steps_that_are_not_there_are_named(run: pathlib.Path, tmp_path, capsys) -> None:
    outcome = evaluate([run], (4, 5), ["completions"])
    assert list(outcome.rows[run]) == [4]
    assert "the run has checkpoints of steps 4, 8, 12" in str(outcome.refused[str(run / FOLDER / "5")])
    with pytest.raises(CheckpointError, match="checkpoints of steps 4, 8, 12"):
        load_run(run, 5)
    empty = tmp_path / "empty"
    empty.mkdir()
    shutil.copy(run / "config.json", empty)
    outcome = evaluate([empty], "all", ["completions"])
    assert "it has no checkpoint yet" in str(outcome.refused[str(empty)])


def test_a_checkpoint_that_the_training_process_deletes_is_no_damaged_one(run: pathlib.Path, capsys) -> None:
    session = Session(("completions",))
    with OpenRun(run) as opened:
        assert opened.steps() == SAVED
        shutil.rmtree(run / FOLDER / "4")
        assert session.measure(opened, 4) is None
    assert session.refused == {}
    assert f"{run / FOLDER / '4'} is gone" in capsys.readouterr().err


def test_damaged_data_are_named_with_their_run(run: pathlib.Path, tmp_path) -> None:
    whole = shutil.copytree(run, tmp_path / "whole")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "photo").touch()
    resolved = read_object(run / "config.json", (), "")
    resolved["data"]["directory"] = str(tmp_path / "data")
    write_object(run / "config.json", resolved)
    outcome = evaluate([run, whole], "last", ["bits"])
    assert {name: type(error) for name, error in outcome.refused.items()} == {str(run): DataError}
    assert list(outcome.rows[whole]) == [12]


@pytest.mark.parametrize(
    "arguments, said",
    [
        (["--tasks", "colour"], "tasks = 'colour': the tasks are bits, directions, completions"),
        (["--tasks", ""], "the tasks are bits, directions, completions"),
        (["--steps", "newest"], "ConfigError: --steps = 'newest': it must be all, last, best, or steps"),
        (["--steps", "best", "--watch"], "with --watch every checkpoint is evaluated"),
        (["--model.depth", "3"], "only knobs of eval and mesh can be set here"),
        (["--fast"], "only knobs of eval and mesh can be set here"),
        (["--steps", "all", "--mesh.dat", "2"], "there is no such knob. Fix: perhaps you mean mesh.data"),
        (["--steps", "all", "--mesh.data", "3"], "must multiply to the 8 devices"),
        (["--mesh.data=3"], "must multiply to the 8 devices"),
    ],
    ids=lambda part: " ".join(part) if isinstance(part, list) else "",
)
def test_what_can_not_be_asked_for_is_refused_before_anything_is_measured(
    run: pathlib.Path, counted: list, capsys, arguments: list[str], said: str
) -> None:
    assert main(["evaluate", str(run), *arguments]) == 2
    assert said in capsys.readouterr().err
    assert counted == []
    assert not (run / ROWS).exists()


def test_tasks_are_done_in_their_own_order() -> None:
    assert check_tasks(["completions", "bits", "bits"]) == ("bits", "completions")
    with pytest.raises(ConfigError):
        check_tasks([])


# ---------------------------------------------------------------------- meshes


@pytest.fixture(scope="module")
def alone(trained: pathlib.Path) -> Trained:
    """On one device."""
    return load_run(trained, mesh=make_mesh(MeshConfig(), jax.devices()[:1]))


@pytest.fixture(scope="module")
def bits_alone(alone: Trained) -> dict:
    return measure(alone, ["bits"])


@pytest.mark.parametrize(
    "mesh", [(8, 1, 1, 1), (2, 2, 1, 2), pytest.param((2, 4, 1, 1), marks=pytest.mark.proof)], ids=str
)
def test_eight_devices_measure_the_bits_that_one_does(trained: pathlib.Path, bits_alone: dict, mesh: tuple) -> None:
    loaded = load_run(trained, mesh=make_mesh(MeshConfig(*mesh)))
    assert loaded.step == SAVED[-1]
    assert tuple(loaded.generator.params["layers"]["mlp"]["up"].sharding.mesh.shape.values()) == mesh
    found = measure(loaded, ["bits"])
    assert found["bits_per_item"].keys() == bits_alone["bits_per_item"].keys()
    for form, entry in bits_alone["bits_per_item"].items():
        other = found["bits_per_item"][form]
        for part in ("raw", "renormalised", "digits", "position", "by_place", "structure"):
            assert other[part] == pytest.approx(entry[part], rel=1e-5, abs=1e-7), (form, part)
        for part in ("items", "exact", "errors", "uniform"):
            assert other[part] == entry[part], (form, part)
        assert other["units"] == pytest.approx(entry["units"], rel=1e-5)


def test_eight_devices_draw_what_one_does(trained: pathlib.Path, alone: Trained) -> None:
    eight = load_run(trained, mesh=make_mesh(MeshConfig(data=2, fsdp=4)))
    found, expected = (measure_directions(only_pictures(one), split_of(one.config)) for one in (eight, alone))
    assert found.figures == expected.figures
    assert list(found.shown["directions"]) == ["text->image"]
    assert found.shown == expected.shown


def only_pictures(trained: Trained) -> Trained:
    """To be measured in one direction, in which tokens are drawn: words are the likeliest ones."""
    routes = tuple(route for route in trained.config.eval.routes if route.name == "text->image")
    config = dataclasses.replace(trained.config, eval=dataclasses.replace(trained.config.eval, routes=routes))
    return trained._replace(config=config)


def test_parameters_are_told_from_others_on_any_mesh(trained: pathlib.Path) -> None:
    with OpenRun(trained) as opened:
        said = [opened.identity(step) for step in opened.steps()]
    assert len(set(said)) == 3
    for mesh in (make_mesh(MeshConfig(), jax.devices()[:1]), make_mesh(MeshConfig(data=2, fsdp=4))):
        params = [load_run(trained, step, mesh).generator.params for step in SAVED]
        assert [digest(checksums({"params": one})) for one in params] == said


def test_the_command_line_gives_the_mesh(run: pathlib.Path, monkeypatch) -> None:
    shapes = []

    def spy(trained, split):
        mesh = trained.generator.params["ends"]["head"].sharding.mesh
        shapes.append(tuple(mesh.shape.values()))
        return Finding({})

    monkeypatch.setitem(omnijax.evaluate.tasks.TASKS, "completions", spy)
    command = ["evaluate", str(run), "--steps", "4", "--tasks", "completions", "--mesh.data", "2", "--mesh.fsdp", "-1"]
    assert main(command) == 0
    assert shapes == [(2, 4, 1, 1)]


# ---------------------------------------------------------------------- the newest, whole


def test_the_whole_evaluation_of_several_runs(run: pathlib.Path, trained, tmp_path, counted: list, capsys) -> None:
    other = shutil.copytree(trained, tmp_path / "other")
    assert main(["evaluate", str(run), str(tmp_path), str(other)]) == 1
    said = capsys.readouterr()
    assert f"not evaluated: {tmp_path}: CheckpointError" in said.err
    assert counted == [(12, name) for name in TASKS] * 2
    for one in (run, other):
        assert (one / "report.html").exists()
        assert len(read_rows(one)) == 1
    counted.clear()
    assert main(["evaluate", str(run)]) == 0
    evaluate([run], "last")
    assert counted == []
    (run / EVAL).unlink()
    assert main(["evaluate", str(run)]) == 0
    assert (run / EVAL).exists()
    assert counted == []
    (run / EXAMPLES).unlink()
    assert main(["evaluate", str(run)]) == 0
    assert main(["evaluate", str(run), "--again"]) == 0
    assert len(counted) == 2 * len(TASKS)


def test_a_run_is_measured_on_two_splits_and_keeps_both(
    config: Config, run: pathlib.Path, counted: list, capsys
) -> None:
    assert main(["evaluate", str(run), "--split", "testing"]) == 2
    said = capsys.readouterr().err
    assert "ConfigError: eval.split = 'testing': the splits are train, validation" in said
    assert counted == []
    assert main(["evaluate", str(run)]) == 0
    assert main(["evaluate", str(run), "--split", "train"]) == 0
    assert main(["evaluate", str(run), "--split", "validation"]) == 0  # its own, which is there
    assert len(counted) == 2 * len(TASKS)
    assert [row["split"] for row in read_rows(run)] == ["validation", "train"]
    for name, of in (("eval", "validation"), ("eval-train", "train")):
        assert json.loads((run / f"{name}.json").read_text())["split"] == of
        report = (run / f"{name.replace('eval', 'report')}.html").read_text()
        assert f"records of the {of} split" in report
    assert main(["evaluate", str(run), "--split", "train", "--steps", "4,12", "--tasks", "bits"]) == 0
    assert counted[2 * len(TASKS) :] == [(4, "bits")]
    assert (run / "evaluations-train.png").exists()
    assert not (run / PLOT).exists()
    assert [row["step"] for row in history(run, config)] == [12]


def test_one_evaluation_hashes_each_file_once_and_encodes_no_signal(
    config: Config, run: pathlib.Path, monkeypatch
) -> None:
    """Whatever the number of tasks and routes; the next evaluation in the process does neither. Items are stored."""
    hashed: list[str] = []
    encoded: collections.Counter[str] = collections.Counter()
    sha256 = manifest.digest_of_file
    monkeypatch.setattr(manifest, "digest_of_file", lambda path: (hashed.append(path.name), sha256(path))[1])
    for kind in (Picture, Speech, Text):

        def counting(self, signals, encode=kind.encode):
            encoded[self.name] += len(signals)
            return encode(self, signals)

        monkeypatch.setattr(kind, "encode", counting)
    manifest._verify_files.cache_clear()
    split._KEPT.clear()
    evaluate([run], "last", session=Session(whole=True))
    files = manifest.read_manifest(config.data.directory)["files"]
    assert sorted(hashed) == sorted(pathlib.PurePath(name).name for name in files)
    evaluate([run], "last", session=Session(whole=True, again=True))
    evaluate([run], "all", ["bits"])
    assert len(hashed) == len(files)
    assert not encoded


# ---------------------------------------------------------------------- other knobs, other places


def test_sampling_knobs_can_be_set_and_are_recorded_in_the_row(run: pathlib.Path, counted: list, capsys) -> None:
    before = (run / "config.json").read_bytes()
    knobs = ["--eval.targets.image.top_p", "0.5", "--eval.targets.text.temperature=0"]
    command = ["evaluate", str(run), "--tasks", "directions", *knobs]
    assert main(command) == 0
    assert main(command) == 0
    assert main([*command[:4], "--mesh.data", "8"]) == 0
    assert counted == [(12, "directions")] * 2
    drawn, own = read_rows(run)
    assert drawn["overrides"] == knobs
    assert (drawn["sampling"]["image"]["top_p"], drawn["sampling"]["text"]["temperature"]) == (0.5, 0.0)
    assert "overrides" not in own
    assert (run / "config.json").read_bytes() == before
    assert main(["evaluate", str(run), *knobs]) == 0
    assert not (run / EVAL).exists()  # written only with the run's own knobs


@pytest.mark.parametrize(
    "knob, said",
    [
        ("--eval.targets.picture.top_p=0.5", "--eval.targets = 'picture': the fields are text, image, speech"),
        ("--eval.targets.image.top-q=0.5", "the knobs of a target are temperature, top_k, top_p, grammar, order"),
        ("--eval.targets.image.top_p=2", "eval.targets.image.top_p = 2.0: must be above 0 and at most 1"),
        ("--eval.targets.image.top-p=x", "eval.targets.image.top_p = 'x': could not convert"),
        ("--eval.targets.image.sample.top_p=x", "eval.targets.image.top_p = 'x': could not convert"),
        ("--eval.examples=none", "invalid literal for int"),
        ("--model.depth=2", "only knobs of eval and mesh can be set here"),
    ],
)
def test_a_knob_that_cannot_be_set_is_named_before_anything_is_measured(
    run: pathlib.Path, counted: list, capsys, knob: str, said: str
) -> None:
    assert main(["evaluate", str(run), knob]) == 2
    assert said in capsys.readouterr().err
    assert counted == []


def test_figures_go_where_they_are_asked_for(run: pathlib.Path, tmp_path, counted: list) -> None:
    before = sorted(path.name for path in run.iterdir())
    out = tmp_path / "new" / "figures"
    command = ["evaluate", str(run), "--out", str(out), "--eval.targets.image.top_p=0.5"]
    assert main(command) == 0
    assert main(command) == 0
    assert len(counted) == len(TASKS)
    assert {ROWS, EVAL, EXAMPLES, "report.html"} <= {path.name for path in out.iterdir()}
    assert sorted(path.name for path in run.iterdir()) == before
    assert main(["evaluate", str(run), str(out), "--out", str(out)]) == 2
    other = pathlib.Path(shutil.copytree(run, tmp_path / "other"))
    assert main(["evaluate", str(run), "--out", str(other)]) == 2
    (tmp_path / "file").touch()
    assert main(["evaluate", str(run), "--out", str(tmp_path / "file" / "x")]) == 2
    assert len(counted) == len(TASKS)
    assert main(["evaluate", str(run), "--out", str(run), "--eval.targets.image.top_p=0.5", "--tasks", "bits"]) == 0
    assert not (run / PLOT).exists()  # written only with the run's own knobs


def test_figures_that_cannot_be_written_are_printed(run: pathlib.Path, monkeypatch, capsys, counted: list) -> None:
    """The run belongs to someone else, or the disk is full."""

    def refuse(path: pathlib.Path, row: object) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("omnijax.evaluate.many.append_line", refuse)
    assert main(["evaluate", str(run), "--tasks", "bits"]) == 1
    said = capsys.readouterr()
    assert "bits/item" in said.out
    assert "figures aren't written, only printed" in said.err
    assert "choose a directory with --out" in said.err
    assert counted == [(12, "bits")]
    monkeypatch.undo()
    (run / EVAL).mkdir()
    assert main(["evaluate", str(run)]) == 1
    said = capsys.readouterr()
    assert "Is a directory" in said.err
    assert "bits per item" in said.out
    assert "Traceback" not in said.err


def test_the_data_of_a_run_are_found_from_any_current_directory(config: Config, tmp_path, monkeypatch) -> None:
    """The data are found relative to the run. If they aren't there, the directory of the configuration is kept."""
    project, other = tmp_path / "project", tmp_path / "other"
    for place in (project / "data", other):
        place.mkdir(parents=True)
    monkeypatch.chdir(project)
    relative = dataclasses.replace(config, data=dataclasses.replace(config.data, directory="data"))
    claim(pathlib.Path("run"), relative, {"head": jax.ShapeDtypeStruct((2, 3), "float32")}, "", {})
    assert load_config(pathlib.Path("run")) == relative
    monkeypatch.chdir(other)
    assert load_config(project / "run").data.directory == str(project / "data")
    (other / "link").symlink_to(project / "run")
    assert load_config(pathlib.Path("link")).data.directory == str(project / "data")
    shutil.move(project, other / "moved")
    assert load_config(other / "moved" / "run").data.directory == str(other / "moved" / "data")
    shutil.move(other / "moved" / "run", tmp_path / "alone")
    assert load_config(tmp_path / "alone") == relative


def test_another_codebook_in_the_run_is_named(config: Config, run: pathlib.Path) -> None:
    before = load_modalities(run, config)
    (path,) = (run / "fitted").glob("*.npz")
    with np.load(path) as arrays:
        np.savez(path, **{name: array[::-1] for name, array in arrays.items()})
    with pytest.raises(DataError, match="was changed after it was written"):
        load_modalities(run, config)
    assert before["speech"].arrays


# ---------------------------------------------------------------------- the file, the table, the plot


def test_a_partial_line_is_skipped(config: Config, tmp_path) -> None:
    head = head_of(config, 4, "abc")
    append_line(tmp_path / ROWS, row_of(head, {"bits": {"anchors": {"image": 1.0}}}, 1.0))
    with (tmp_path / ROWS).open("a") as file:
        file.write('{"step": 4, "checkp')
    append_line(
        tmp_path / ROWS, row_of(head, {"completions": {"completions": {}}, "bits": {"anchors": {"image": 2.0}}}, 1.0)
    )
    with (tmp_path / ROWS).open("a") as file:
        file.write('[1]\n{"step": 9}\n')
    rows = read_rows(tmp_path)
    assert [row["tasks"] for row in rows] == [["bits"], ["completions", "bits"]]
    merged = known(rows, head)
    assert (merged["tasks"], merged["anchors"]) == (["bits", "completions"], {"image": 2.0})
    assert known(rows, head | {"checkpoint": "def"}) == {"tasks": ()}
    assert [row["step"] for row in history(tmp_path, config)] == [4]


def rows_of(bits: dict[int, float]) -> dict[int, dict]:
    def entry(value: float) -> dict:
        return {"renormalised": value, "leak": 0.25, "exact": 0.5}

    return {
        step: {
            "step": step,
            "split": "validation",
            "bits_per_item": {"image": entry(value), "text|image": entry(value + 2)},
        }
        for step, value in bits.items()
    }


def test_the_table_marks_the_best_of_each_run() -> None:
    console = rich.console.Console(width=110, record=True)
    rows = {pathlib.Path("a"): rows_of({1: 5.0, 2: 3.0, 3: 4.0}), pathlib.Path("b"): rows_of({7: 9.0})}
    rows[pathlib.Path("b")][8] = {
        "step": 8,
        "directions": {"image->text": {"accuracy": 0.25}, "text->image": {"accuracy": 0.75}},
    }
    print_steps(rows, console)
    lines = [[part.strip() for part in line.split("│")[1:-1]] for line in console.export_text().splitlines()]
    assert [line for line in lines if line] == [
        ["a", "1", "6.000", "0.250", "0.500", "—", "—"],
        ["a", "2 *", "4.000", "0.250", "0.500", "—", "—"],
        ["a", "3", "5.000", "0.250", "0.500", "—", "—"],
        ["b", "7 *", "10.000", "0.250", "0.500", "—", "—"],
        ["b", "8", "—", "—", "—", "0.500", "—"],
    ]


def test_the_plot_shows_every_form_over_the_steps() -> None:
    rows = [row | {"directions": {"text->image": {"accuracy": 0.5}}} for row in rows_of({1: 5.0, 2: 3.0}).values()]
    bits, shares = steps_figure(rows).axes
    lines = {tuple(map(tuple, line.get_xydata())) for line in bits.lines}
    assert lines == {((1, 6), (2, 4)), ((1, 5), (2, 3)), ((1, 7), (2, 5))}
    assert [label.get_text() for label in bits.texts] == ["mean 4.00", "image 3.00", "text|image 5.00"]
    assert [label.get_text() for label in shares.texts] == ["text → image 0.50"]
    assert steps_figure([]).axes


# ---------------------------------------------------------------------- watching


def test_watching_evaluates_checkpoints_as_they_come_and_ends_with_the_last(
    run: pathlib.Path, tmp_path, counted: list
) -> None:
    later = {step: shutil.move(run / FOLDER / str(step), tmp_path / str(step)) for step in SAVED[1:]}
    first = shutil.move(run / FOLDER, tmp_path / "first")
    met = threading.Semaphore(0)

    def come() -> None:
        shutil.move(first, run / FOLDER)
        for step in SAVED[1:]:
            met.acquire(timeout=60)
            os.rename(later[step], run / FOLDER / str(step))

    training = threading.Thread(target=come)
    seen: list[pathlib.Path] = []
    session = Session(
        ("completions",), say=lambda opened, row, now: met.release(), after=lambda opened: seen.append(opened.run)
    )
    training.start()
    outcome = watch([run], session, poll_seconds=0.05)
    training.join()
    assert counted == [(step, "completions") for step in SAVED]
    assert (outcome.refused, outcome.stopped) == ({}, False)
    assert seen == [run] * 3


def test_watching_goes_on_where_it_was_and_past_what_is_damaged(run: pathlib.Path, counted: list) -> None:
    evaluate([run], (4,), ["completions"])
    spoil(run / FOLDER / "12")
    outcome = watch([run], Session(("completions",)), poll_seconds=0.05)
    assert counted == [(4, "completions"), (8, "completions")]
    assert list(outcome.refused) == [str(run / FOLDER / "12")]
    assert not outcome.stopped


def test_between_two_tasks_it_can_be_stopped(run: pathlib.Path, counted: list) -> None:
    session = Session(("bits", "completions"), stop=lambda: len(counted) > 2)
    assert evaluate([run], "all", session=session).stopped
    assert counted == [(4, "bits"), (4, "completions"), (8, "bits")]
    assert [row["tasks"] for row in read_rows(run)] == [["bits", "completions"], ["bits"]]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
@pytest.mark.usefixtures("interruptible")
def test_a_signal_ends_watching(run: pathlib.Path, tmp_path, number: signal.Signals) -> None:
    shutil.rmtree(run / FOLDER / "12")
    command = [sys.executable, "-c", MAIN, "evaluate", str(run), "--watch", "--tasks", "completions"]
    with (tmp_path / "log").open("w+") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd=tmp_path)
        try:
            deadline = time.monotonic() + 240
            while len(read_rows(run)) < 2:
                assert process.poll() is None, (tmp_path / "log").read_text()
                assert time.monotonic() < deadline
                time.sleep(0.05)
            process.send_signal(number)
            assert process.wait(60) == RESUMABLE
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            process.wait()
    said = (tmp_path / "log").read_text()
    assert "stopped; the same command goes on" in said
    assert [row["step"] for row in read_rows(run)] == [4, 8]
