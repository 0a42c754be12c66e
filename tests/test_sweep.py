"""Sweeps before anything runs: arms, budgets, what every arm must share, and what is refused."""

from __future__ import annotations

import dataclasses
import json
import pathlib
from collections.abc import Callable
from typing import Any

import pytest
from sweeps import DIGITS, ITEMS, small_config, sweep_of, write

from omnijax import testing
from omnijax.cli import main
from omnijax.config import Config
from omnijax.data.prepare import prepare
from omnijax.errors import CheckpointError, ConfigError, DataError, OmnijaxError, VocabularyError
from omnijax.model.flops import TRAINING
from omnijax.plan.cost import step_flops
from omnijax.sweep import budget as budgets
from omnijax.sweep import resolve as resolving
from omnijax.sweep.arms import (
    arms_of,
    assignments,
    bases,
    chain,
    digit_noise,
    flat,
    heads,
    knob,
    layouts,
    positions,
    product,
    widths,
    zipped,
)
from omnijax.sweep.budget import Budget, parse_budget
from omnijax.sweep.fairness import Ledger
from omnijax.sweep.resolve import Job, Room, check_memory, measurable, resolve
from omnijax.sweep.sweep import load_sweep
from omnijax.sweep.wanted import adapted, check_out, chosen, fingerprint
from omnijax.vocab.assignment import Random, Tree


@pytest.fixture(scope="module")
def config(tmp_path_factory) -> Config:
    config = small_config(str(tmp_path_factory.getbasetemp() / "spoken_digits"))
    prepare(config.data)
    return config


def refused(kind: type[OmnijaxError], function: Callable[..., Any], *arguments: Any) -> OmnijaxError:
    with pytest.raises(kind) as caught:
        function(*arguments)
    return caught.value


ROOM = Room(1e12, 1)


def never(name: str) -> float:
    raise AssertionError(f"{name} was measured")


# ------------------------------------------------------------------ arms


def test_choices_combine(config: Config) -> None:
    made = arms_of(config, product(bases(17, (64, 1310)), widths("minimal", "fixed")))
    assert list(made) == [
        "base=17,width=minimal",
        "base=17,width=fixed",
        "base=64x1310,width=minimal",
        "base=64x1310,width=fixed",
    ]
    mixed = made["base=64x1310,width=minimal"].vocabulary
    assert (mixed.base, mixed.digits, mixed.width) == ((64, 1310), 1310, "minimal")
    made = arms_of(config, zipped(knob("model.depth", 1, 2), knob("batch.tasks.0.repeats", 3, 1, name="repeats")))
    assert list(made) == ["model.depth=1,repeats=3", "model.depth=2,repeats=1"]
    assert [(one.model.depth, one.batch.tasks[0].repeats) for one in made.values()] == [(1, 3), (2, 1)]
    made = arms_of(config, chain(layouts("inline"), digit_noise(0.05), heads("depth"), positions("none")))
    assert list(made) == ["layout=inline", "noise=0.05", "head=depth", "position=none"]
    assert made["position=none"].vocabulary.size == config.vocabulary.size - config.vocabulary.positions
    assert made["head=depth"].model.head == "depth"


def test_flat_is_one_token_an_item(config: Config) -> None:
    (made,) = arms_of(config, flat()).values()
    largest = max(space.size for space in config.vocabulary.spaces)
    assert (made.vocabulary.most_digits, made.vocabulary.base, made.vocabulary.position) == (2, largest, "none")
    assert made.vocabulary.contexts.widths[1:].tolist() == [1] * len(config.vocabulary.spaces)


def test_an_assignment_may_depend_on_the_base(config: Config) -> None:
    pixels = [[number] for number in range(testing.SPEECH_CODES)]
    kinds = {"random": Random(key=1), "tree": lambda one: Tree.of(pixels, one.vocabulary.base)}
    made = arms_of(config, product(bases(17, 289), assignments("speech", kinds)))
    assert list(made) == ["base=17,ids=random", "base=17,ids=tree", "base=289,ids=random", "base=289,ids=tree"]
    trees = [one.vocabulary.spaces[2].assignment for name, one in made.items() if "tree" in name]
    assert [tree.radices for tree in trees if isinstance(tree, Tree)] == [(17, 17), (289,)]
    assert made["base=17,ids=random"].vocabulary.spaces[1] == config.vocabulary.spaces[1]
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
    minimal = dataclasses.replace(config, vocabulary=dataclasses.replace(config.vocabulary, width="minimal"))
    error = refused(VocabularyError, arms_of, minimal, positions("before", "none"))
    assert error.field == "arms.position=none.vocabulary.position"
    assert "where an id ends" in error.rule
    assert refused(ConfigError, arms_of, config, knob("model.wings", 2)).field == "arms.model.wings=2.knob"
    assert "5, 6" not in str(refused(ConfigError, zipped, bases(2, 3), bases(4)))


# ------------------------------------------------------------------ what a sweep can't be


@pytest.mark.parametrize(
    ("changes", "field", "said"),
    [
        ({"arms": {}}, "sweep.arms", "something to compare"),
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
    assert parse_budget("flops=2e13") == Budget("flops", 2e13)
    for text in ("items", "items=", "items=many", "days=3", "seconds=0"):
        refused(ConfigError, parse_budget, text)


def test_a_file_without_a_sweep_is_refused(tmp_path: pathlib.Path) -> None:
    assert "sweep() must return" in refused(ConfigError, load_sweep, DIGITS).rule
    assert "no such file" in refused(ConfigError, load_sweep, tmp_path / "none.py").rule


def test_overrides_go_to_every_arm_and_what_they_break_is_named(config: Config) -> None:
    changed = adapted(sweep_of(config), ["--model.depth", "1"], smoke=False)
    assert {one.model.depth for one in changed.arms.values()} == {1}
    assert changed.budget == Budget("items", ITEMS)
    error = refused(ConfigError, adapted, sweep_of(config), ["--model.wings", "2"], False)
    assert (error.field, error.value) == ("arms.base=17.override", "--model.wings")
    error = refused(OmnijaxError, adapted, sweep_of(config), ["--vocabulary.width", "minimal"], False)
    assert error.field.startswith("arms.flat.")
    assert "where an id ends" in error.rule


def test_smoke_is_small_in_everything_but_the_arms(config: Config) -> None:
    whole = dataclasses.replace(config, model=dataclasses.replace(config.model, width=512), data=config.data)
    small = adapted(sweep_of(whole, seeds=3, points=8, budget=Budget("items", 1e9)), [], smoke=True)
    assert list(small.arms) == ["base=17", "base=289", "flat"]
    assert {one.model.width for one in small.arms.values()} == {32}
    assert small.arms["flat"].data.directory == f"{config.data.directory}-smoke"
    assert (small.seeds, small.points) == (2, 2)
    assert small.budget.amount < 1e4


def test_only_arms_whose_names_fit(config: Config) -> None:
    assert chosen(sweep_of(config), "base=*") == ["base=17", "base=289"]
    assert chosen(sweep_of(config), None) == ["base=17", "base=289", "flat"]
    assert "flat" in refused(ConfigError, chosen, sweep_of(config), "bass*").rule


# ------------------------------------------------------------------ jobs


@pytest.fixture(scope="module")
def jobs(config: Config, tmp_path_factory) -> list[Job]:
    out = tmp_path_factory.mktemp("resolved")
    return resolve(sweep_of(config), ["base=289", "flat"], [0, 1], out, never, ROOM)


def test_jobs_have_the_same_documents_in_every_step(jobs: list[Job]) -> None:
    assert [job.name for job in jobs] == ["base=289/seed0", "flat/seed0", "base=289/seed1", "flat/seed1"]
    for one, other in (jobs[:2], jobs[2:]):
        assert one.data == other.data
        assert [seen[:2] for seen in one.curve] == [seen[:2] for seen in other.curve]
        assert one.end.documents == other.end.documents
        assert one.end.tokens > other.end.tokens
    assert jobs[0].data["order"] != jobs[2].data["order"]
    assert jobs[0].data["heldout"] == jobs[2].data["heldout"]


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
        assert Job.from_dict(json.loads(json.dumps(job.to_dict()))) == job
    assert jobs[1].tokens_per_item == {"image": 1.0, "text": 1.0}
    assert jobs[0].tokens_per_item == {"image": 3.0, "text": 1.0}
    assert jobs[1].cost["training_flops_per_item"] > 2 * jobs[0].cost["training_flops_per_item"]
    # A step of flat: three passes over the rows, most of it the softmax.
    rows = jobs[1].config.batch.size * (jobs[1].config.batch.sequence_length - 1)
    assert jobs[1].step_flops > TRAINING * rows * 2 * 32 * 17**4
    assert jobs[1].cost["parameters"] > 2 * 32 * 17**4


def test_what_was_resolved_is_kept_and_seeds_are_added(config: Config, tmp_path: pathlib.Path) -> None:
    sweep = sweep_of(config)
    first = resolve(sweep, ["base=289"], [0], tmp_path / "out", never, ROOM)
    assert set(json.loads((tmp_path / "out/sweep.json").read_text())["jobs"]) == {"base=17/seed0", "base=289/seed0"}
    again = resolve(sweep, list(sweep.arms), [0, 1], tmp_path / "out", never, ROOM)
    assert again[1] == first[0]
    saved = json.loads((tmp_path / "out/sweep.json").read_text())
    assert (saved["seeds"], saved["baseline"], saved["fingerprint"]) == ([0, 1], "base=17", fingerprint(sweep))
    assert list(saved["arms"]) == ["base=17", "base=289", "flat"]
    resolve(sweep, ["flat"], [0], tmp_path / "other", never, ROOM, write=False)
    assert not (tmp_path / "other").exists()


def test_equal_flops_are_fewer_steps_of_what_costs_more(config: Config, tmp_path: pathlib.Path) -> None:
    sweep = sweep_of(config, budget=Budget("flops", 3e11))
    found = {job.arm: job for job in resolve(sweep, sweep.arms, [0], tmp_path, never, ROOM)}
    for job in found.values():
        assert job.step_flops * job.end.step <= 3e11 < job.step_flops * (job.end.step + 1)
        assert job.step_flops == step_flops(job.config)
        resolving._read(job.config, [])[1].batches.check(job.end.step)
    assert found["flat"].end.step < found["base=17"].end.step
    assert found["flat"].data == found["base=17"].data


def test_equal_seconds_are_steps_at_the_measured_speed(config: Config, tmp_path: pathlib.Path) -> None:
    speeds = {"base=17": 0.5, "base=289": 0.25, "flat": 100.0}
    sweep = sweep_of(config, budget=Budget("seconds", 10))
    steps = [job.end.step for job in resolve(sweep, sweep.arms, [0, 1], tmp_path, lambda name: speeds[name], ROOM)]
    assert steps == [20, 40, 1] * 2


@pytest.mark.usefixtures("quick_compiler")
def test_the_speed_of_a_step_is_measured(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budgets, "WARM", 1)
    monkeypatch.setattr(budgets, "TIMED", 2)
    assert 0 < budgets.seconds_a_step(*measurable(sweep_of(config), "base=289")) < 60


def test_the_ledger_counts_what_the_batches_hold(config: Config) -> None:
    measured, batches = measurable(sweep_of(config), "base=17")
    ledger = Ledger(batches._corpus, measured.batch)
    made = [batches[step] for step in range(3)]
    assert ledger.seen(3).items == sum(int(batch["items"].sum()) for batch in made)
    tokens = sum(int((batch["documents"] >= 0).sum()) for batch in made)
    assert tokens <= ledger.seen(3).tokens <= tokens + 3 * measured.batch.size
    assert ledger.seen(0)[1:] == (0, 0, 0)
    assert ledger.steps_for(ledger.seen(2).items) == 2
    assert ledger.steps_for(ledger.seen(2).items + 1) == 3


# ------------------------------------------------------------------ what is refused before anything runs


@pytest.mark.parametrize(
    ("change", "part"),
    [
        (knob("batch.tasks.0.repeats", 2), "sweep.order"),
        (knob("batch.sequence_items", 80), "sweep.order"),
        (knob("batch.tasks.0.segments", ("text", "speech")), "sweep.fragments"),
    ],
)
def test_arms_with_other_documents_are_refused(config: Config, tmp_path, change: Any, part: str) -> None:
    (other,) = arms_of(config, change).values()
    sweep = sweep_of(config, arms={"base=17": config, "other": other})
    error = refused(DataError, resolve, sweep, sweep.arms, [0], tmp_path / "out", never, ROOM)
    assert error.field == part
    assert "'base=17' and 'other'" in error.rule
    assert not (tmp_path / "out").exists()


def test_rows_packed_by_tokens_are_refused(config: Config, tmp_path) -> None:
    sweep = sweep_of(config, arms=arms_of(config, knob("batch.sequence_items", 0, name="a")), baseline="a=0")
    assert (
        refused(ConfigError, resolve, sweep, ["a=0"], [0], tmp_path, never, ROOM).field
        == "arms.a=0.batch.sequence_items"
    )


def test_a_directory_of_another_sweep_is_refused(config: Config, tmp_path: pathlib.Path) -> None:
    sweep = sweep_of(config)
    resolve(sweep, ["flat"], [0], tmp_path, never, ROOM)
    assert check_out(dataclasses.replace(sweep, seeds=9, question="?"), tmp_path)
    for other, said in (
        (dataclasses.replace(sweep, budget=Budget("items", 99)), "budget.amount"),
        (dataclasses.replace(sweep, points=4), "points is 3 there and 4 here"),
        (adapted(sweep, ["--model.depth", "1"], False), "arms.base=17.model.depth is 2 there and 1 here"),
        (dataclasses.replace(sweep, arms={**sweep.arms, "new": config}), "arms.new"),
    ):
        assert said in refused(CheckpointError, check_out, other, tmp_path).rule
    (tmp_path / "strange").mkdir()
    (tmp_path / "strange" / "file").touch()
    assert "no sweep" in refused(CheckpointError, check_out, sweep, tmp_path / "strange").rule
    assert check_out(sweep, tmp_path / "new") == {}
    assert check_out(dataclasses.replace(sweep, baseline="flat"), tmp_path), "results don't depend on the baseline"
    for damaged in ("{}", "[]", '{"fingerprint": '):
        (tmp_path / "sweep.json").write_text(damaged)
        assert refused(DataError, check_out, sweep, tmp_path).field.startswith("sweep.json")


def test_too_little_memory_is_said_beforehand(jobs: list[Job]) -> None:
    check_memory(jobs, Room(2e9, 1))
    error = refused(ConfigError, check_memory, jobs, Room(0.1e9, 1))
    assert error.field == "arms.flat"
    assert "--memory-gb" in error.fix
    largest = max(job.bytes for job in jobs)
    check_memory(jobs, Room(1.5 * largest, 1))
    assert refused(ConfigError, check_memory, jobs, Room(1.5 * largest, 2)).field == "--workers"
    assert budgets.machine_bytes() > 1e8


@pytest.mark.parametrize("kind", ["items", "flops", "seconds"])
def test_too_little_memory_is_said_before_anything_is_measured_or_written(config: Config, tmp_path, kind) -> None:
    sweep = sweep_of(config, budget=Budget(kind, 1e4))
    error = refused(ConfigError, resolve, sweep, sweep.arms, [0], tmp_path / "out", never, Room(0.1e9, 1))
    assert error.field == "arms.flat"
    assert not (tmp_path / "out").exists()


def test_the_command_line_refuses_before_anything_runs(config: Config, tmp_path, capsys) -> None:
    file = tmp_path / "small.py"
    write(file, config.data.directory)
    for arguments, said in (
        (["--only", "bass"], "--only"),
        (["--memory-gb", "0.05"], "arms.flat"),
        (["--model.wings", "2"], "arms.base=17.override"),
        (["--vocabulary.width", "minimal"], "arms.flat."),
        (["--arm", "flat"], "give both"),
        (["--arm", "flap", "--seed", "0"], "--arm"),
        (["--seeds", "0"], "--seeds"),
        (["--workers", "0"], "--workers"),
        (["--budget", "days=3"], "budget.kind"),
        (["--arm", "flat", "--seed", "0", "--resolved", "0123"], "leave --resolved out"),
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
