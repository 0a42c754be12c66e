"""Sweeps before anything runs: arms, budgets, what every arm must share, and what is refused."""

from __future__ import annotations

import dataclasses
import json
import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from sweeps import DIGITS, ITEMS, leave, measured_by, small_config, sweep_of, write

from omnijax.cli import main
from omnijax.config import BatchConfig, Config, EvalConfig, Task
from omnijax.data.pipeline import Batches
from omnijax.data.prepare import prepare
from omnijax.data.sources.folder import Folder
from omnijax.errors import CheckpointError, ConfigError, DataError, OmnijaxError, PlatformError, VocabularyError
from omnijax.experiment import override
from omnijax.files import read_object, write_object
from omnijax.modalities import Text
from omnijax.model.flops import TRAINING
from omnijax.plan.cost import step_flops
from omnijax.sweep import jobs as job_module
from omnijax.sweep import speed
from omnijax.sweep.arms import arms_of, assignments, bases, chain, flat, heads, knob, positions, product
from omnijax.sweep.fairness import Ledger
from omnijax.sweep.jobs import Job, make_jobs
from omnijax.sweep.sweep import Budget, Sweep, check_out, load_sweep
from omnijax.train import load_splits
from omnijax.vocab.assignment import Random, Tree


@pytest.fixture(scope="module")
def config(small_data) -> Config:
    config = small_config(str(small_data))
    prepare(config)
    return config


def refused(kind: type[OmnijaxError], function: Callable[..., Any], *arguments: Any) -> OmnijaxError:
    with pytest.raises(kind) as caught:
        function(*arguments)
    return caught.value


def overridden(sweep: Sweep, *arguments: str) -> Sweep:
    return sweep.changed(lambda config: override(config, arguments))


@pytest.fixture(autouse=True)
def measured(monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """Seconds per step that arms are found to take; no other arm may be measured."""
    speeds: dict[str, float] = {}
    monkeypatch.setattr(job_module, "measured_seconds", lambda name, *_: speeds[name])
    return speeds


# ------------------------------------------------------------------ arms


def test_choices_combine(config: Config) -> None:
    made = arms_of(config, product(bases(17, (64, 1310)), knob("writing.width", "minimal", "fixed", name="width")))
    assert list(made) == [
        "base=17,width=minimal",
        "base=17,width=fixed",
        "base=64x1310,width=minimal",
        "base=64x1310,width=fixed",
    ]
    mixed = made["base=64x1310,width=minimal"].vocabulary
    assert (mixed.base, mixed.digits, mixed.width) == ((64, 1310), 1310, "minimal")
    made = arms_of(config, product(knob("model.depth", 1), knob("batch.tasks.0.repeats", 3, name="repeats")))
    assert [(one.model.depth, one.batch.tasks[0].repeats) for one in made.values()] == [(1, 3)]
    made = arms_of(config, chain(knob("train.digit_noise", 0.05, name="noise"), heads("depth"), positions("none")))
    assert list(made) == ["noise=0.05", "head=depth", "position=none"]
    assert made["noise=0.05"].train.digit_noise == 0.05
    assert made["position=none"].vocabulary.size == config.vocabulary.size - config.vocabulary.positions
    assert made["head=depth"].model.head == "depth"


def test_flat_is_one_token_an_item(config: Config) -> None:
    (made,) = arms_of(config, flat()).values()
    largest = max(space.size for space in config.vocabulary.spaces)
    assert (made.vocabulary.most_digits, made.vocabulary.base, made.vocabulary.position) == (2, largest, "none")
    assert made.vocabulary.contexts.widths[1:].tolist() == [1] * len(config.vocabulary.spaces)


def test_an_assignment_may_depend_on_the_base(config: Config) -> None:
    speech, image = (config.vocabulary.space_index(name) for name in ("speech", "image"))
    features = [[number] for number in range(config.vocabulary.spaces[speech].size)]
    kinds = {"random": Random(key=1), "tree": lambda one: Tree.of(features, one.vocabulary.base)}
    made = arms_of(config, product(bases(17, 289), assignments("speech", kinds)))
    assert list(made) == ["base=17,ids=random", "base=17,ids=tree", "base=289,ids=random", "base=289,ids=tree"]
    trees = [one.vocabulary.spaces[speech].assignment for name, one in made.items() if "tree" in name]
    assert [tree.radices for tree in trees if isinstance(tree, Tree)] == [(17, 17), (289,)]
    assert made["base=17,ids=random"].vocabulary.spaces[image] == config.vocabulary.spaces[image]
    assert refused(VocabularyError, arms_of, config, assignments("smell", kinds)).field.startswith("arms.ids=random.")


@pytest.mark.parametrize(
    "make",
    [
        lambda: chain(bases(2, 4), bases(4)),
        lambda: knob("model.depth", 2, 2),
        lambda: product(bases(2), knob("vocabulary.base", 2, 2, name="base")),
    ],
)
def test_two_arms_of_one_name_are_refused(make: Callable[[], Any]) -> None:
    assert "two arms" in refused(ConfigError, make).rule


def test_what_an_arm_cannot_be_is_said_with_its_name(config: Config) -> None:
    minimal = dataclasses.replace(config, writing=dataclasses.replace(config.writing, width="minimal"))
    error = refused(VocabularyError, arms_of, minimal, positions("before", "none"))
    assert error.field == "arms.position=none.vocabulary.position"
    assert "where an id ends" in error.rule
    assert refused(ConfigError, arms_of, config, knob("model.wings", 2)).field == "arms.model.wings=2.override"


# ------------------------------------------------------------------ what a sweep can't be


@pytest.mark.parametrize(
    ("changes", "field", "said"),
    [
        ({"arms": {}}, "sweep.arms", "at least one arm"),
        ({"baseline": "base=18"}, "sweep.baseline", "did you mean 'base=17'"),
        ({"seeds": 0}, "sweep.seeds", "at least 1"),
        ({"points": 0}, "sweep.points", "at least 1"),
        ({"tasks": ("bits", "smell")}, "tasks", "directions"),
        ({"tasks": ("directions",)}, "sweep.tasks", "bits"),
        ({"tasks": ()}, "tasks", "bits"),
    ],
)
def test_a_sweep_that_cannot_be_is_refused(config: Config, changes: dict[str, Any], field: str, said: str) -> None:
    error = refused(ConfigError, lambda: sweep_of(config, **changes))
    assert error.field == field
    assert said in str(error)


@pytest.mark.parametrize("name", ["", "a/b", "..", ".a", "-a", "a b", "ä", "x" * 201])
def test_a_name_that_is_none_of_a_directory_is_refused(config: Config, name: str) -> None:
    assert refused(ConfigError, lambda: sweep_of(config, arms={name: config}, baseline=name)).value == name


@pytest.mark.parametrize(
    ("kind", "amount"), [("items", 0), ("flops", -1.0), ("seconds", float("nan")), ("items", float("inf")), ("days", 1)]
)
def test_a_budget_that_cannot_be_is_refused(kind: Any, amount: float) -> None:
    refused(ConfigError, Budget, kind, amount)


def test_a_budget_on_the_command_line() -> None:
    assert Budget.parse("flops=2e13") == Budget("flops", 2e13)
    for text in ("items", "items=", "items=many", "days=3", "seconds=0"):
        refused(ConfigError, Budget.parse, text)


def test_a_file_without_a_sweep_is_refused(tmp_path: pathlib.Path) -> None:
    assert "sweep() must return" in refused(ConfigError, load_sweep, DIGITS).rule
    assert "no such file" in refused(ConfigError, load_sweep, tmp_path / "none.py").rule


def test_overrides_go_to_every_arm_and_what_they_break_is_named(config: Config) -> None:
    changed = overridden(sweep_of(config), "--model.depth", "1")
    assert {one.model.depth for one in changed.arms.values()} == {1}
    assert changed.budget == Budget("items", ITEMS)
    error = refused(ConfigError, overridden, sweep_of(config), "--model.wings", "2")
    assert (error.field, error.value) == ("arms.base=17.override", "--model.wings")
    error = refused(OmnijaxError, overridden, sweep_of(config), "--writing.width", "minimal")
    assert error.field.startswith("arms.flat.")
    assert "where an id ends" in error.rule


def test_smoke_is_small_in_everything_but_the_arms(config: Config) -> None:
    whole = dataclasses.replace(config, model=dataclasses.replace(config.model, width=512, depth=9, mlp_width=2048))
    small = sweep_of(whole, seeds=3, points=8, budget=Budget("items", 1e9)).small()
    assert list(small.arms) == ["base=17", "base=289", "flat"]
    for name, one in small.arms.items():
        assert (one.model.width, one.model.depth, one.model.mlp_width) == (32, 2, 64)
        assert (one.model.heads, one.batch.tasks) == (whole.model.heads, whole.batch.tasks)
        assert one.data == config.data.small(f"{config.data.directory}-smoke")
        assert one.vocabulary == sweep_of(whole).arms[name].vocabulary
    assert (small.seeds, small.points) == (2, 2)
    assert small.budget.amount < 1e4


def test_only_arms_whose_names_fit(config: Config) -> None:
    assert sweep_of(config).matching("base=*") == ["base=17", "base=289"]
    assert sweep_of(config).matching(None) == ["base=17", "base=289", "flat"]
    assert "flat" in refused(ConfigError, sweep_of(config).matching, "bass*").rule


# ------------------------------------------------------------------ jobs


@pytest.fixture(scope="module")
def jobs(config: Config, tmp_path_factory) -> list[Job]:
    out = tmp_path_factory.mktemp("resolved")
    return make_jobs(sweep_of(config), ["base=289", "flat"], [0, 1], out)


def test_jobs_have_the_same_documents_in_every_step(jobs: list[Job]) -> None:
    assert [job.name for job in jobs] == ["base=289/seed0", "flat/seed0", "base=289/seed1", "flat/seed1"]
    for one, other in (jobs[:2], jobs[2:]):
        assert one.data == other.data
        assert [seen[:2] for seen in one.curve] == [seen[:2] for seen in other.curve]
        assert one.end.documents == other.end.documents
        assert one.end.tokens > other.end.tokens
    assert jobs[0].data["order"] != jobs[2].data["order"]
    assert jobs[0].data["heldout"] == jobs[2].data["heldout"]


def test_a_folder_of_files_can_be_swept(config: Config, tmp_path: pathlib.Path) -> None:
    files = tmp_path / "files"
    files.mkdir()
    for number in range(40):
        (files / f"{number}.txt").write_text(f"text {number}")
    source = Folder(directory=str(tmp_path / "data"), folder=str(files), fields={"caption": Text(most=9)})
    batch = BatchConfig((Task(("caption",), (1.0,)),), size=8, sequence_items=16)
    arms = {"a": dataclasses.replace(config, data=source, batch=batch, eval=EvalConfig(examples=4))}
    prepare(arms["a"])
    (job,) = make_jobs(Sweep(arms, Budget("items", 200), "Does it work?", "a"), ["a"], [0], tmp_path / "out")
    assert job.end.items >= 200


def test_a_job_follows_from_its_budget_and_seed(config: Config, jobs: list[Job]) -> None:
    for job in jobs:
        batch, train = job.config.batch, job.config.train
        assert (batch.seed, train.seed) == (job.seed, job.seed)
        assert job.end.step == train.steps
        assert job.end.items >= ITEMS > job.curve[-2].items
        assert (batch.sequence_length - 1) % 8 == 0
        assert len(job.curve) == 3
        assert all(seen.step % train.checkpoint_every == 0 for seen in job.curve[:-1])
        assert train.keep_checkpoints >= len(job.curve)
        assert Job.from_dict(json.loads(json.dumps(job.to_dict())), DIGITS) == job
    assert jobs[1].cost["training_flops_per_item"] > 2 * jobs[0].cost["training_flops_per_item"]
    # A step of flat: three passes over the rows, most of it the softmax.
    rows = jobs[1].config.batch.size * (jobs[1].config.batch.sequence_length - 1)
    assert jobs[1].step_flops > TRAINING * rows * 2 * 32 * 17**4
    assert jobs[1].cost["parameters"] > 2 * 32 * 17**4


def test_what_was_resolved_is_kept_and_seeds_are_added(config: Config, tmp_path: pathlib.Path) -> None:
    sweep = sweep_of(config)
    first = make_jobs(sweep, ["base=289"], [0], tmp_path / "out")
    assert set(read_object(tmp_path / "out/sweep.json", (), "")["jobs"]) == {"base=17/seed0", "base=289/seed0"}
    again = make_jobs(sweep, list(sweep.arms), [0, 1], tmp_path / "out")
    assert again[1] == first[0]
    saved = read_object(tmp_path / "out/sweep.json", (), "")
    assert (saved["seeds"], saved["baseline"]) == ([0, 1], "base=17")
    assert list(saved["arms"]) == ["base=17", "base=289", "flat"]
    make_jobs(sweep, ["flat"], [0], tmp_path / "other", write=False)
    assert not (tmp_path / "other").exists()


def test_equal_flops_are_fewer_steps_of_what_costs_more(config: Config, tmp_path: pathlib.Path) -> None:
    sweep = sweep_of(config, budget=Budget("flops", 3e11))
    found = {job.arm: job for job in make_jobs(sweep, sweep.arms, [0], tmp_path)}
    for job in found.values():
        assert job.step_flops * job.end.step <= 3e11 < job.step_flops * (job.end.step + 1)
        assert job.step_flops == step_flops(job.config)
        Batches(load_splits(job.config), job.config.batch).check(job.end.step)
    assert found["flat"].end.step < found["base=17"].end.step
    assert found["flat"].data == found["base=17"].data


def test_equal_seconds_are_steps_at_the_measured_speed(config: Config, tmp_path: pathlib.Path, measured) -> None:
    sweep = sweep_of(config, budget=Budget("seconds", 10))
    measured |= {"base=17": 0.5, "base=289": 0.25, "flat": 100.0}
    steps = [job.end.step for job in make_jobs(sweep, sweep.arms, [0, 1], tmp_path)]
    assert steps == [20, 40, 1] * 2
    measured.clear()
    again = make_jobs(sweep, sweep.arms, [2], tmp_path)
    assert [job.end.step for job in again] == [20, 40, 1], "each arm is measured once"
    error = refused(ConfigError, make_jobs, sweep, sweep.arms, [3], tmp_path, 2)
    assert (error.field, error.value) == ("--workers", 2)
    saved = read_object(tmp_path / "sweep.json", (), "")
    saved["measured_with"]["cores"] = 999
    write_object(tmp_path / "sweep.json", saved)
    assert "999" in refused(ConfigError, make_jobs, sweep, sweep.arms, [3], tmp_path).fix


def test_the_speed_of_a_step_is_measured(jobs: list[Job], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speed, "WARM", 1)
    monkeypatch.setattr(speed, "TIMED", 2)
    assert 0 < speed.seconds_per_step(jobs[0].to_dict()["config"], DIGITS, set()) < 60


def test_speed_is_measured_by_as_many_processes_as_workers(jobs: list[Job], monkeypatch) -> None:
    monkeypatch.setattr(speed, "share_of_cores", lambda worker, workers: {workers - worker})
    monkeypatch.setattr(speed, "seconds_per_step", measured_by)
    assert speed.measured_seconds("base=289", jobs[0].config, 2, DIGITS) == 2
    monkeypatch.setattr(speed, "share_of_cores", lambda worker, workers: set())
    assert refused(DataError, speed.measured_seconds, "base=289", jobs[0].config, 1, DIGITS).fix == "give it cores"


def test_a_process_that_is_gone_measures_nothing(jobs: list[Job], monkeypatch) -> None:
    monkeypatch.setattr(speed, "seconds_per_step", leave)
    refused(PlatformError, speed.measured_seconds, "base=289", jobs[0].config, 1, DIGITS)


@pytest.mark.parametrize("repeats", [1, 2])
def test_the_ledger_counts_what_the_batches_hold(jobs: list[Job], repeats: int) -> None:
    batch = jobs[0].config.batch
    tasks = (dataclasses.replace(batch.tasks[0], repeats=repeats), Task(("text",), weights=(1.0,)))
    batch = dataclasses.replace(batch, tasks=tasks, sequence_length=300)
    splits = load_splits(jobs[0].config)
    ledger, batches = Ledger(dataclasses.replace(jobs[0].config, batch=batch), splits), Batches(splits, batch)
    made = [batches[step] for step in range(3)]
    assert ledger.after(3).items == sum(int(batch["items"].sum()) for batch in made)
    assert ledger.after(3).documents == sum(int(np.sum(np.max(batch["documents"], axis=1) + 1)) for batch in made)
    tokens = sum(int((batch["documents"] >= 0).sum()) for batch in made)
    assert tokens <= ledger.after(3).tokens <= tokens + 3 * batch.size
    assert ledger.after(0)[1:] == (0, 0, 0)
    assert ledger.steps_for(ledger.after(2).items) == 2
    assert ledger.steps_for(ledger.after(2).items + 1) == 3


# ------------------------------------------------------------------ what is refused before anything runs


@pytest.mark.parametrize(
    ("change", "part"),
    [
        (knob("batch.tasks.0.repeats", 2), "sweep.order"),
        (knob("batch.sequence_items", 80), "sweep.order"),
        (knob("batch.tasks.0.fields", ("text", "speech")), "sweep.fragments"),
    ],
)
def test_arms_with_other_documents_are_refused(config: Config, tmp_path, change: Any, part: str) -> None:
    (other,) = arms_of(config, change).values()
    sweep = sweep_of(config, arms={"base=17": config, "other": other})
    error = refused(DataError, make_jobs, sweep, sweep.arms, [0], tmp_path / "out")
    assert error.field == part
    assert "'base=17' and 'other'" in error.rule
    assert not (tmp_path / "out").exists()


def test_rows_packed_by_tokens_are_refused(config: Config, tmp_path) -> None:
    sweep = sweep_of(config, arms=arms_of(config, knob("batch.sequence_items", 0, name="a")), baseline="a=0")
    assert refused(ConfigError, make_jobs, sweep, ["a=0"], [0], tmp_path).field == "arms.a=0.batch.sequence_items"


def test_a_directory_of_another_sweep_is_refused(config: Config, tmp_path: pathlib.Path) -> None:
    sweep = sweep_of(config)
    make_jobs(sweep, ["flat"], [0], tmp_path)
    assert check_out(dataclasses.replace(sweep, seeds=9, question="?"), tmp_path)
    for other, said in (
        (dataclasses.replace(sweep, budget=Budget("items", 99)), "budget.amount"),
        (dataclasses.replace(sweep, points=4), "points is 3 there and 4 here"),
        (overridden(sweep, "--model.depth", "1"), "arms.base=17.model.depth is 2 there and 1 here"),
        (dataclasses.replace(sweep, arms={**sweep.arms, "new": config}), "arms.new"),
    ):
        assert said in refused(CheckpointError, check_out, other, tmp_path).rule
    (tmp_path / "strange").mkdir()
    (tmp_path / "strange" / "file").touch()
    assert "no sweep" in refused(CheckpointError, check_out, sweep, tmp_path / "strange").rule
    assert check_out(sweep, tmp_path / "new") == {}
    (tmp_path / "killed").mkdir()
    for name in (".lock", ".sweep.json.tmp"):
        (tmp_path / "killed" / name).touch()
    assert check_out(sweep, tmp_path / "killed") == {}, "a process was killed before it wrote sweep.json"
    assert check_out(dataclasses.replace(sweep, baseline="flat"), tmp_path), "results don't depend on the baseline"
    for damaged in ("{}", "[]", '{"jobs": '):
        (tmp_path / "sweep.json").write_text(damaged)
        assert refused(DataError, check_out, sweep, tmp_path).field.startswith("sweep.json")


def test_the_command_line_refuses_before_anything_runs(config: Config, tmp_path, capsys) -> None:
    file = tmp_path / "small.py"
    write(file, config.data.directory)
    for arguments, said in (
        (["--only", "bass"], "--only"),
        (["--model.wings", "2"], "arms.base=17.override"),
        (["--writing.width", "minimal"], "arms.flat."),
        (["--arm", "flat"], "give both"),
        (["--arm", "flap", "--seed", "0"], "--arm"),
        (["--seeds", "0"], "--seeds"),
        (["--workers", "0"], "--workers"),
        (["--budget", "days=3"], "budget.kind"),
    ):
        assert main(["sweep", str(file), "--out", str(tmp_path / "out"), *arguments]) == 2, arguments
        assert said in capsys.readouterr().err
    assert not list((tmp_path / "out").glob("arms/*"))


def test_a_dry_run_says_what_would_be_run(config: Config, tmp_path, capsys) -> None:
    file, out = tmp_path / "small.py", tmp_path / "out"
    write(file, config.data.directory)
    assert main(["sweep", str(file), "--out", str(out), "--dry-run", "--seeds", "1", "--model.depth", "1"]) == 0
    said = capsys.readouterr().out
    assert f"omnijax sweep {file} --out {out} --arm flat --seed 0 --model.depth 1" in said
    assert not out.exists()
