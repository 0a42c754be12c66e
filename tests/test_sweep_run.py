"""Sweeps that run: killed and repeated, by several workers, with arms that fail."""

from __future__ import annotations

import contextlib
import csv
import json
import os
import pathlib
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import jax
import pytest
import rich.console
from jobs import MAIN
from sweeps import DIGITS, small_config, sweep_of, write

from omnijax.cli import main
from omnijax.config import MeshConfig
from omnijax.data.prepare import prepare
from omnijax.errors import CheckpointError, ConfigError, DataError
from omnijax.files import append_line, read_object, write_object
from omnijax.model.build import model_of
from omnijax.run.checkpoint import Checkpoints
from omnijax.step.sharding import make_mesh
from omnijax.step.state import init_state
from omnijax.sweep import arm, runner
from omnijax.sweep.arm import BUSY, is_done, measure, run_job
from omnijax.sweep.jobs import Job, make_jobs
from omnijax.sweep.runner import Runner
from omnijax.sweep.speed import share_of_cores


@pytest.fixture(scope="module")
def data(small_data) -> str:
    directory = str(small_data)
    prepare(small_config(directory))
    return directory


# ------------------------------------------------------------------ the runner by itself


@pytest.fixture
def jobs(data: str, tmp_path) -> list[Job]:
    config = small_config(data)
    return make_jobs(sweep_of(config), ["base=17", "base=289"], [0, 1], tmp_path / "resolved")


def play(monkeypatch: pytest.MonkeyPatch, jobs: list[Job], out: pathlib.Path, script: str, workers: int = 2) -> Any:
    """Runs jobs whose processes do what a script says, with the name of the job and a file that makes it done."""
    script = f"import pathlib, sys, time\nname, done = sys.argv[1:]\n{script}"
    monkeypatch.setattr(runner, "is_done", lambda out, job: (out / job.name.replace("/", "-")).exists())
    monkeypatch.setattr(runner, "RETRY_SECONDS", 0.2)
    out.mkdir(exist_ok=True)
    console = rich.console.Console(quiet=True)
    process = [sys.executable, "-c", script]
    made = Runner(out, lambda job: [*process, job.name, str(out / job.name.replace("/", "-"))], workers, console)
    made.run(jobs)
    return made


def test_a_failing_arm_is_told_and_the_others_go_on(monkeypatch, jobs: list[Job], tmp_path) -> None:
    script = (
        "if name == 'base=17/seed1': print('it', 'broke'); sys.exit(3)\n"
        "if name == 'base=289/seed1': import os; os.kill(os.getpid(), 9)\n"
        "pathlib.Path(done).touch()"
    )
    outcome = play(monkeypatch, jobs, tmp_path / "out", script)
    assert sorted(job.name for job in outcome.done) == ["base=17/seed0", "base=289/seed0"]
    assert set(outcome.failed) == {"base=17/seed1", "base=289/seed1"}
    assert outcome.failed["base=17/seed1"].endswith("status 3; its last lines:\nit broke")
    assert "SIGKILL" in outcome.failed["base=289/seed1"]
    assert not outcome.stopped


def test_what_is_done_is_left_alone_and_what_another_has_is_waited_for(monkeypatch, jobs: list[Job], tmp_path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "base=17-seed0").touch()
    script = (
        "asked = pathlib.Path(done + '.asked')\n"
        "assert name != 'base=17/seed0'\n"
        f"if name == 'base=289/seed0' and not asked.exists(): asked.touch(); sys.exit({BUSY})\n"
        "pathlib.Path(done).touch()"
    )
    outcome = play(monkeypatch, jobs, out, script)
    assert not outcome.failed
    assert {job.name for job in outcome.done} == {job.name for job in jobs}


def test_only_so_many_run_at_a_time(monkeypatch, jobs: list[Job], tmp_path) -> None:
    script = (
        "room = pathlib.Path(done).parent / 'running'\n"
        "room.mkdir(exist_ok=True); mine = room / name.replace('/', '-'); mine.touch()\n"
        "time.sleep(0.3); assert len(list(room.iterdir())) <= 2; mine.unlink()\n"
        "pathlib.Path(done).touch()"
    )
    assert not play(monkeypatch, jobs, tmp_path / "out", script).failed


@pytest.mark.parametrize(
    "workers, shares", [(1, [{1, 3, 5}]), (2, [{1}, {3}]), (3, [{1}, {3}, {5}]), (4, [{1, 3, 5}] * 4)]
)
def test_workers_share_the_cores(monkeypatch, workers: int, shares: list[set[int]]) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {5, 1, 3})
    assert [share_of_cores(worker, workers) for worker in range(workers)] == shares


def test_a_job_is_bound_to_the_cores_of_its_worker(monkeypatch, jobs: list[Job], tmp_path) -> None:
    script = (
        "import os\n"
        "for _ in range(100):\n"
        "    time.sleep(0.1)\n"
        "    if len(os.sched_getaffinity(0)) == 1: pathlib.Path(done).touch(); break"
    )
    core = min(os.sched_getaffinity(0))
    monkeypatch.setattr(runner, "share_of_cores", lambda worker, workers: {core})
    assert not play(monkeypatch, jobs, tmp_path / "out", script).failed


@pytest.mark.usefixtures("interruptible")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_is_handed_on_and_nothing_more_is_begun(number, monkeypatch, jobs: list[Job], tmp_path) -> None:
    script = (
        "import os, signal\n"
        "def leave(*_): pathlib.Path(done + '.told').touch(); sys.exit(75)\n"
        f"signal.signal(signal.SIGTERM, leave); os.kill(os.getppid(), {int(number)}); time.sleep(60)"
    )
    before = signal.getsignal(number)
    outcome = play(monkeypatch, jobs, tmp_path / "out", script, workers=1)
    assert outcome.stopped
    assert not outcome.done
    assert not outcome.failed
    assert [path.name for path in (tmp_path / "out").glob("*.told")] == ["base=17-seed0.told"]
    assert signal.getsignal(number) == before


def test_an_arm_is_trained_on_what_was_resolved(jobs: list[Job], tmp_path) -> None:
    for part, said in (("fragments", "the fragments of the training split"), ("heldout", "the held-out split")):
        other = jobs[0]._replace(data=jobs[0].data | {part: "0" * 64})
        with pytest.raises(DataError, match=said):
            run_job(other, tmp_path / "out", ("bits",), DIGITS, "")
    assert not (tmp_path / "out").exists()


def test_an_arm_that_is_too_large_is_refused_before_it_is_trained(monkeypatch, jobs: list[Job], tmp_path) -> None:
    assert arm.memory_bytes() > 1e8
    monkeypatch.setattr(arm, "memory_bytes", lambda: 1e5)
    with pytest.raises(ConfigError, match="arms.base=17.memory.*fit into"):
        run_job(jobs[0], tmp_path / "out", ("bits",), DIGITS, "")
    assert not (tmp_path / "out").exists()


def test_what_was_measured_and_lost_its_result_is_to_be_trained_anew(jobs: list[Job], tmp_path) -> None:
    job = jobs[0]
    write_object(tmp_path / "config.json", job.to_dict()["config"])
    model, one_device = model_of(job.config), make_mesh(MeshConfig(), jax.devices()[:1])
    with Checkpoints(tmp_path, 1) as checkpoints:
        checkpoints.save(job.end.step, init_state(job.config, model, one_device), job.config)
    with pytest.raises(CheckpointError, match="the result is missing too.*train the arm again"):
        measure(job, tmp_path, ("bits",))


def test_a_result_of_another_configuration_is_no_result(jobs: list[Job], tmp_path) -> None:
    run = tmp_path / "arms" / jobs[0].name
    assert not is_done(tmp_path, jobs[0])
    run.mkdir(parents=True)
    write_object(run / "config.json", jobs[2].to_dict()["config"])
    (run / "result.json").write_text("{}")
    append_line(run / "metrics.jsonl", {"step": 1})
    with pytest.raises(CheckpointError, match="another configuration"):
        is_done(tmp_path, jobs[0])
    write_object(run / "config.json", jobs[0].to_dict()["config"])
    assert is_done(tmp_path, jobs[0])


# ------------------------------------------------------------------ whole sweeps


class Command:
    """`omnijax sweep` in a process of its own, on one device."""

    def __init__(self, file: pathlib.Path, out: pathlib.Path, script: str = MAIN):
        self.out = out
        arguments = ["sweep", str(file), "--out", str(out)]
        environment = os.environ | {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1", "JAX_NUM_CPU_DEVICES": "1"}
        self.log = out.with_name(f"{out.name}-{time.monotonic_ns()}.log")
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", script, *arguments], env=environment, stdout=log, stderr=subprocess.STDOUT
            )

    def end(self) -> int:
        status = self.process.wait(900)
        assert status == 0 or self.log.read_text()
        return status

    def wait_until(self, holds: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 600
        while not holds():
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline
            time.sleep(0.02)

    def kill(self) -> None:
        """The process, then the arm that it has begun: nobody gets to tidy up."""
        self.process.kill()
        self.process.wait()
        for lock in self.out.glob("arms/*/*.lock"):
            with contextlib.suppress(ProcessLookupError):
                os.kill(json.loads(lock.read_text())["pid"], signal.SIGKILL)


def results(out: pathlib.Path) -> dict[str, Any]:
    """All that is the same whenever and wherever the same arms are trained."""
    found = {}
    for path in sorted(out.glob("arms/*/*/result.json")):
        result = read_object(path, (), "")
        for point in result["curve"]:
            del point["seconds"]
        del result["speed"], result["command"]
        found[f"{result['arm']}/{result['seed']}"] = result
    return found


def table(path: pathlib.Path) -> list[dict[str, str]]:
    """Without what a clock has measured."""
    with path.open(encoding="utf-8") as file:
        return [
            {key: row[key] for key in row if "second" not in key and "measured" not in key}
            for row in csv.DictReader(file)
        ]


ONE_BY_ONE = """
import sys
from omnijax.cli import main
for arm in ("base=17", "base=289"):
    assert main([*sys.argv[1:], "--arm", arm, "--seed", "0"]) == 0
sys.exit(main())
"""


def begun(out: pathlib.Path) -> dict[str, int]:
    """How many processes each arm has had."""
    return {path.parent.name: path.read_text().count("started or resumed") for path in out.glob("arms/*/seed0.log")}


@pytest.mark.proof
def test_killed_and_repeated_by_two_workers_it_gives_the_same_table(data: str, tmp_path) -> None:
    file = tmp_path / "small.py"
    write(file, data, "arms=arms_of(config, bases(17, 289)), seeds=1, points=2, budget=Budget('items', 6000)")
    whole, broken = tmp_path / "a" / "small", tmp_path / "b" / "small"
    for out in (whole, broken):
        out.parent.mkdir()
    first = Command(file, broken)
    first.wait_until(lambda: any((broken / "arms/base=17/seed0/checkpoints").glob("[0-9]*")))
    first.kill()
    assert not list(broken.glob("arms/*/*/result.json"))
    again = [Command(file, broken), Command(file, broken)]
    assert [one.end() for one in again] == [0, 0], [one.log.read_text() for one in again]
    # Each of the two arms once, but for the one that was killed; the other worker left it alone.
    assert begun(broken) == {"base=17": 2, "base=289": 1}

    undisturbed = Command(file, whole, ONE_BY_ONE)
    assert undisturbed.end() == 0, undisturbed.log.read_text()
    assert set(results(whole)) == {"base=17/0", "base=289/0"}
    assert results(broken) == results(whole)
    for name in ("results.csv", "curves.csv", "table.csv"):
        assert table(broken / name) == table(whole / name)
        assert len(table(whole / name)) > 1
    assert (broken / "report.html").exists()
    result = next(iter(results(whole).values()))
    assert result["cost"]["peak_bytes"] > 1e5
    assert [set(point) for point in result["curve"]] == [{"step", "items", "flops", "bits"}] * 2
    assert result["curve"][-1]["bits"]["image|text"] == result["bits"]["image|text"]["renormalised"]
    assert (result["bits"]["image|text"]["tokens"], result["bits"]["text"]["tokens"]) == (5.0, 1.0)
    assert result["bits"]["text"]["units"] == {"byte": pytest.approx(result["bits"]["text"]["renormalised"])}
    (kept,) = whole.glob("arms/base=17/seed0/checkpoints/[0-9]*")
    assert int(kept.name) == result["curve"][-1]["step"]

    # Nothing is left to be done, so that nothing is run.
    for out in (whole, broken):
        assert main(["sweep", str(file), "--out", str(out)]) == 0
    assert begun(whole) == {}
    assert begun(broken) == {"base=17": 2, "base=289": 1}
