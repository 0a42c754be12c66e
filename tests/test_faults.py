"""Mistakes of users and accidents: each gives an error in one line, before anything is lost or trained."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import errno
import fcntl
import json
import math
import os
import pathlib
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import jax
import pytest
import random_data

from omnijax import testing
from omnijax.cli import main
from omnijax.config import Config, SampleConfig, Target, Task, to_dict
from omnijax.config.evaluation import SEEDS
from omnijax.config.experiment_file import run_stored, trust
from omnijax.errors import CheckpointError, ConfigError, DataError, OmnijaxError
from omnijax.evaluate.command import _drawn
from omnijax.evaluate.sample_command import sample
from omnijax.experiment import load_experiment, override
from omnijax.files import append_line, check_writable, read_lines, read_object, write_atomically, write_object
from omnijax.lock import LOCK
from omnijax.run.compiled import SWITCH, keep_compiled
from omnijax.run.directory import check, differences, load_config
from omnijax.run.writers import Writer
from omnijax.train import train

EXPERIMENTS = pathlib.Path(__file__).parents[1] / "experiments"
TINY = "--model.depth 1 --model.unroll 1 --model.width 16 --model.heads 2 --model.kv_heads 1 --model.head_size 8"
TINY += " --model.mlp_width 16 --batch.size 8 --data.copies 1 --train.checkpoint_every 1"


@pytest.fixture(scope="module")
def config(tmp_path_factory) -> Config:
    return random_data.small_config(load_experiment(EXPERIMENTS / "digits.py"), tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> pathlib.Path:
    """A run with checkpoints after steps 1 and 2."""
    config = override(load_experiment(EXPERIMENTS / "lookup.py"), [*TINY.split(), "--train.steps", "2"])
    run = tmp_path_factory.mktemp("small") / "run"
    train(config, run)
    return run


# ---------------------------------------------------------------------- run directories


def test_a_directory_is_new_while_another_process_of_the_run_begins_it(
    config: Config, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def other_process(path: pathlib.Path, name: str) -> None:
        write_object(path / "config.json", to_dict(config))

    monkeypatch.setattr("omnijax.run.directory.check_writable", other_process)
    check(tmp_path, config)
    assert (tmp_path / "config.json").exists()


def test_a_broken_link_in_place_of_the_configuration_is_no_new_run(config: Config, tmp_path: pathlib.Path) -> None:
    (tmp_path / "config.json").symlink_to(tmp_path / "nowhere")
    with pytest.raises(CheckpointError, match=r"no run: config\.json"):
        check(tmp_path, config)


def test_a_new_run_directory_may_hold_logs_but_no_other_files(config: Config, tmp_path: pathlib.Path) -> None:
    for name in ("123.log", "slurm-7.out", "log.txt", ".DS_Store", "config.tmp", LOCK):
        (tmp_path / name).touch()
    check(tmp_path, config)
    (tmp_path / "photo.png").touch()
    with pytest.raises(CheckpointError, match="no run: photo.png"):
        check(tmp_path, config)


@pytest.mark.parametrize("place", ["dangling", "file/run", "file"])
def test_a_path_that_cannot_become_a_directory_is_refused(config: Config, tmp_path: pathlib.Path, place: str) -> None:
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere" / "run")
    (tmp_path / "file").touch()
    with pytest.raises(OmnijaxError, match="broken symbolic link|must be a directory that can be written to"):
        check(tmp_path / place, config)


def set_knob(path: str, value: object) -> Callable[[bytes], bytes]:
    """Edits a knob in the JSON of a configuration."""

    def edit(content: bytes) -> bytes:
        parts = json.loads(content)
        *names, last = path.split(".")
        inner = parts
        for name in names:
            inner = inner[name]
        inner[last] = value
        return json.dumps(parts).encode()

    return edit


DAMAGE: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "empty": (lambda content: b"", "can't be read"),
    "zeros": (lambda content: bytes(900), "can't be read"),
    "cut": (lambda content: content[:300], "can't be read"),
    "latin-1": (lambda content: content.replace(b'"model"', b'"mod\xe9l"'), "can't be read"),
    "a list": (lambda content: b"[1]", "has no digest"),
    "another number": (set_knob("batch.size", 5), "edited or damaged"),
    "another type": (set_knob("model", None), "edited or damaged"),
    "one more knob": (set_knob("model.more", 1), "edited or damaged"),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_configuration_is_named(config: Config, tmp_path: pathlib.Path, kind: str, capsys) -> None:
    damage, rule = DAMAGE[kind]
    write_object(tmp_path / "config.json", to_dict(config))
    path = tmp_path / "config.json"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises((CheckpointError, ConfigError), match=rule):
        load_config(tmp_path)
    assert main(["evaluate", str(tmp_path)]) == 2
    assert "Traceback" not in capsys.readouterr().err


def test_a_directory_in_place_of_the_configuration_is_named(config: Config, tmp_path: pathlib.Path) -> None:
    (tmp_path / "config.json").mkdir()
    with pytest.raises(CheckpointError, match="can't be read"):
        load_config(tmp_path)
    with pytest.raises(CheckpointError, match="can't be read"):
        check(tmp_path, config)


def test_a_file_is_synced_before_it_replaces_another(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    monkeypatch.setattr("os.fsync", lambda descriptor: done.append("synced"))
    replace = pathlib.Path.replace
    monkeypatch.setattr(pathlib.Path, "replace", lambda *paths: (done.append("replaced"), replace(*paths))[1])
    write_atomically(tmp_path / "a.json", "text")
    assert (tmp_path / "a.json").read_text() == "text"
    assert done == ["synced", "replaced", "synced"]


def test_a_damaged_line_of_a_log_is_reported_and_left_out(tmp_path: pathlib.Path, capsys) -> None:
    log = tmp_path / "log.jsonl"
    assert read_lines(log) == []
    rows = [{"step": step, "loss": 0.1 * step, "nan": math.inf} for step in range(4)]
    for row in rows:
        append_line(log, row)
    assert read_lines(log) == rows
    with log.open("ab") as file:
        file.write(b'{"step": 9, "lo')  # a kill
    assert read_lines(log) == rows
    append_line(log, {"step": 4})
    assert read_lines(log) == [*rows, {"step": 4}]
    assert capsys.readouterr().err == ""
    lines = log.read_bytes().splitlines(keepends=True)
    edited = lines[1].replace(b'"loss": 0.1', b'"loss": 0.2')
    assert edited != lines[1]
    log.write_bytes(lines[0] + edited + b"\xff\n" + b'{"step": 7}\n' + b"[1]\n" + lines[2])
    assert read_lines(log) == [rows[0], rows[2]]
    said = capsys.readouterr().err.splitlines()
    assert said == [f"omnijax: {log}: line {n} was edited or damaged, and is left out" for n in (2, 3, 4, 5)]
    with pytest.raises(DataError, match="can't be read"):
        read_lines(tmp_path)


APPENDS = """
import pathlib, sys
from omnijax.files import append_line
for number in range(300):
    append_line(pathlib.Path(sys.argv[1]), {"process": sys.argv[2], "number": number})
"""


def test_processes_that_write_one_log_lose_no_line(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command = [sys.executable, "-c", APPENDS, str(tmp_path / "log.jsonl")]
    every = [subprocess.Popen([*command, str(number)]) for number in range(3)]
    assert [process.wait() for process in every] == [0, 0, 0]
    assert len(read_lines(tmp_path / "log.jsonl")) == 900
    asked: list[int] = []
    monkeypatch.setattr("fcntl.flock", lambda file, operation: asked.append(operation))
    append_line(tmp_path / "log.jsonl", {})
    assert asked == [fcntl.LOCK_EX]  # they take turns


def test_damaged_lines_of_the_metrics_are_kept_aside(tmp_path: pathlib.Path) -> None:
    log = tmp_path / "metrics.jsonl"
    for step in (1, 2, 3):
        append_line(log, {"step": step, "seconds": step})
    damaged = log.read_bytes().replace(b'"step": 2', b'"step": 7')
    log.write_bytes(damaged)
    with Writer(tmp_path, 3, 4):
        pass
    assert [line["step"] for line in read_lines(log)] == [1, 3]
    assert (tmp_path / "metrics-damaged-at-3.jsonl").read_bytes() == damaged


@pytest.mark.parametrize("content", [{}, {"a": [1, 2.5, None, math.nan, "ü"], "b": {"10": 1, "9": 2}}, {"t": (1, 2)}])
def test_an_object_is_read_as_written_or_refused(tmp_path: pathlib.Path, content: dict[str, Any]) -> None:
    path = tmp_path / "a.json"
    write_object(path, content)
    back = read_object(path, content.keys(), "")
    assert json.dumps(back) == json.dumps(content)
    write_object(path, back | {"digest": "an older one"})
    assert json.dumps(read_object(path, (), "")) == json.dumps(content)
    write_object(path, {1: "a key that is no text"})
    assert read_object(path, (), "") == {"1": "a key that is no text"}
    path.write_text(path.read_text().replace("no text", "text"))
    with pytest.raises(DataError, match="edited or damaged"):
        read_object(path, (), "")
    path.write_text("[" * 100_000)
    with pytest.raises(DataError, match="can't be read"):
        read_object(path, (), "")


def test_a_difference_inside_a_tuple_is_shown_alone(config: Config) -> None:
    targets = (Target("text"), Target("image", SampleConfig(top_p=0.9)))
    other = dataclasses.replace(config, eval=dataclasses.replace(config.eval, targets=targets))
    same = dataclasses.replace(config, eval=dataclasses.replace(config.eval, targets=(Target("text"), Target("image"))))
    assert differences(to_dict(same), to_dict(other)) == ["eval.targets.1.sample.top_p is 1.0 there and 0.9 here"]


# ---------------------------------------------------------------------- knobs that can't work


def changed(config: Config, part: str, **knobs: Any) -> Config:
    return dataclasses.replace(config, **{part: dataclasses.replace(getattr(config, part), **knobs)})


def drawn(**knobs: Any) -> dict[str, Any]:
    return {"targets": (Target("image", SampleConfig(**knobs)),)}


@pytest.mark.parametrize(
    "part, knobs, field",
    [
        ("eval", drawn(top_p=0.0), "eval.targets.image.top_p"),
        ("eval", drawn(top_p=math.nan), "eval.targets.image.top_p"),
        ("eval", drawn(temperature=math.nan), "eval.targets.image.temperature"),
        ("eval", drawn(temperature=math.inf), "eval.targets.image.temperature"),
        ("eval", drawn(temperature=-1.0), "eval.targets.image.temperature"),
        ("eval", drawn(top_k=2**31), "eval.targets.image.top_k"),
        ("eval", {"seed": SEEDS}, "eval.seed"),
        ("train", {"seed": -1}, "train.seed"),
        ("batch", {"seed": 10**20}, "batch.seed"),
        ("train", {"steps": 10**20}, "train.steps"),
        ("model", {"head_size": 0}, "model.head_size"),
        ("model", {"rope_base": 0.0}, "model.rope_base"),
        ("model", {"rope_base": math.nan}, "model.rope_base"),
        ("batch", {"tasks": (Task(("text",), (math.nan,)),)}, "batch.tasks.0.weights"),
        ("batch", {"tasks": (Task(("text",), (math.inf,)),)}, "batch.tasks.0.weights"),
        ("batch", {"tasks": (Task(("text",), (1e39,)),)}, "batch.tasks.0.weights"),
        ("batch", {"tasks": (Task(("text", "image"), (0.0, 1e-46)),)}, "batch.tasks.0.weights"),
        ("batch", {"tasks": (Task(("text",), (0.0,)),)}, "batch.tasks.0.weights"),
        ("batch", {"tasks": (Task(("text",), (1.0,), repeats=0),)}, "batch.tasks.0.repeats"),
        ("batch", {"tasks": (Task(("text",), (1.0,), draws=0),)}, "batch.tasks.0.draws"),
        ("batch", {"tasks": (Task(("text",), (1.0,), draws=2**31 - 1),)}, "batch.tasks.0.draws"),
        ("optim", {"learning_rate": math.inf}, "optim.learning_rate"),
        ("optim", {"learning_rate": 1e308}, "optim.learning_rate"),
        ("optim", {"weight_decay": 1e308}, "optim.weight_decay"),
        ("batch", {"tasks": (Task(("a" * 5000,), (1.0, 1.0)),)}, "batch.tasks.0.weights"),
    ],
)
def test_a_knob_that_cannot_work_is_refused_when_it_is_set(
    config: Config, part: str, knobs: dict[str, Any], field: str
) -> None:
    with pytest.raises(ConfigError) as refused:
        changed(config, part, **knobs)
    assert refused.value.field == field
    assert len(str(refused.value)) < 1000


def test_stages_that_no_list_can_hold_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"data\.speech\.stages"):
        override(load_experiment(EXPERIMENTS / "digits.py"), ["--data.speech.stages", str(2**63)])


def test_what_cannot_be_sampled_is_not_trained(config: Config, tmp_path: pathlib.Path) -> None:
    """Samplers are built before anything is compiled, and before the directory is claimed."""
    writing = dataclasses.replace(config.writing, position="none")
    tasks = tuple(dataclasses.replace(task, random_order=()) for task in config.batch.tasks)
    batch = dataclasses.replace(config.batch, tasks=tasks)
    unordered = dataclasses.replace(config, writing=writing, batch=batch)
    any_order = changed(unordered, "eval", targets=(Target("image", order="any"),), completions=())
    with pytest.raises(OmnijaxError, match="position"):
        train(any_order, tmp_path / "run")
    completed = testing.shrink(load_experiment(EXPERIMENTS / "any_order.py"), tmp_path / "data")
    completed = changed(completed, "writing", width="minimal")
    with pytest.raises(ConfigError, match="writing.width"):
        train(completed, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_directory_without_a_step_belongs_to_nobody(config: Config, tmp_path: pathlib.Path) -> None:
    """Such as that of a run that was too large for the machine."""
    write_object(tmp_path / "config.json", to_dict(config))
    other = changed(config, "model", width=2 * config.model.width)
    for name in ("", "metrics.jsonl"):
        if name:
            (tmp_path / name).touch()
        check(tmp_path, other)
    append_line(tmp_path / "metrics.jsonl", {"step": 1})
    with pytest.raises(CheckpointError, match="model.width"):
        check(tmp_path, other)


def test_a_lost_configuration_is_read_from_a_checkpoint(small: pathlib.Path, tmp_path: pathlib.Path, capsys) -> None:
    """The error about a damaged configuration advises to delete the file, and this works."""
    run = tmp_path / "run"
    shutil.copytree(small, run)
    written = load_config(run)
    (run / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match="delete it: a checkpoint has a copy"):
        load_config(run)
    (run / "config.json").unlink()
    check(run, written)
    assert load_config(run) == written
    assert f"{run}/config.json is missing: its copy in {run}/checkpoints/2 is used" in capsys.readouterr().err
    with pytest.raises(CheckpointError, match="train.seed"):
        check(run, changed(written, "train", seed=5))
    record = run / "checkpoints" / "2" / "_CHECKPOINT_METADATA"
    record.write_text(record.read_text().replace('"step":', '"Step":'))
    assert load_config(run) == written
    assert f"its copy in {run}/checkpoints/1 is used" in capsys.readouterr().err
    shutil.rmtree(run / "checkpoints")
    with pytest.raises(CheckpointError, match="it has no config.json"):
        load_config(run)
    with pytest.raises(CheckpointError, match="no run: metrics.jsonl, run.json"):
        check(run, written)
    (run / "metrics.jsonl").unlink()
    check(run, written)


OWN = """
from omnijax.data.sources.lookup import Lookup
from omnijax.experiment import load_experiment, override
import dataclasses, pathlib

@dataclasses.dataclass(frozen=True, kw_only=True)
class Own(Lookup):
    pass

def get_config():
    config = override(load_experiment(pathlib.Path({lookup!r})), {knobs!r})
    return dataclasses.replace(config, data=Own(copies=1))
"""


def test_a_run_goes_on_only_with_its_own_experiment_file(tmp_path: pathlib.Path, capsys, monkeypatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc/self/nowhere")  # nothing can be noted there
    path, run = tmp_path / "own.py", tmp_path / "run"
    knobs = [*TINY.split(), "--train.steps", "1"]
    path.write_text(OWN.format(lookup=str(EXPERIMENTS / "lookup.py"), knobs=knobs))
    train_it = ["train", str(path), "--workdir", str(run)]
    assert main(train_it) == 0
    before = path.read_bytes()
    path.write_bytes(before + b"# an edit\n")
    assert main(train_it) == 2
    assert "the run was trained with another version of it" in capsys.readouterr().err
    assert (run / "experiment.py").read_bytes() == before


# ---------------------------------------------------------------------- commands


def raise_at(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("omnijax.train.make_step", fail)


def test_too_little_memory_is_told_in_one_line(tmp_path: pathlib.Path, monkeypatch, capsys) -> None:
    for text in ("RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes.\nmore", "INTERNAL: Out of memory allocating 9"):
        raise_at(monkeypatch, jax.errors.JaxRuntimeError(text))
        assert main(["train", str(EXPERIMENTS / "lookup.py"), "--workdir", str(tmp_path / "run")]) == 2
        said = capsys.readouterr().err
        assert "PlatformError: memory" in said
        assert "Out of memory allocating 9" in said
        assert len(said.splitlines()) == 1
    raise_at(monkeypatch, jax.errors.JaxRuntimeError("INTERNAL: a bug"))
    with pytest.raises(jax.errors.JaxRuntimeError, match="a bug"):
        main(["train", str(EXPERIMENTS / "lookup.py"), "--workdir", str(tmp_path / "run")])


def test_without_a_home_directory_nothing_is_kept(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_home() -> None:
        raise RuntimeError("Could not determine home directory.")

    for name in ("XDG_CACHE_HOME", "JAX_COMPILATION_CACHE_DIR", SWITCH):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pathlib.Path, "home", no_home)
    keep_compiled()
    assert "JAX_COMPILATION_CACHE_DIR" not in os.environ
    (tmp_path / "experiment.py").write_text("x = 1\n")
    trust(tmp_path / "experiment.py")
    with pytest.raises(ConfigError, match="comes from elsewhere"):
        run_stored(tmp_path / "experiment.py", False)


def test_calls_from_python_leave_signals_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a notebook, Ctrl-C must not end the process."""
    found: list[Any] = []

    def look(*_: object, **__: object) -> None:
        found.append(signal.getsignal(signal.SIGINT))
        raise ConfigError("here", 0, "the test ends", "")

    monkeypatch.setattr("omnijax.evaluate.sample_command.sample", look)
    line = ["sample", "run", "--to", "text"]
    before = signal.getsignal(signal.SIGINT)
    monkeypatch.setattr(sys, "argv", ["omnijax", *line])
    for arguments in (line, None):
        assert main(arguments) == 2
    assert found[0] is before
    assert found[1] is not before or before is signal.SIG_IGN
    assert signal.getsignal(signal.SIGINT) is before


def test_a_report_can_be_drawn_in_a_thread() -> None:
    with concurrent.futures.ThreadPoolExecutor() as pool:
        assert pool.submit(_drawn, "none", lambda: "report.html").result() == "report.html"


def test_a_full_disk_ends_the_log(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It mustn't wait for a thread that has died of it."""
    with Writer(tmp_path, 0, 10) as writer:

        def full(*_: object) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        with monkeypatch.context() as patch:
            patch.setattr("tensorboardX.record_writer.RecordWriter.write", full)
            with pytest.raises(OSError, match="No space left"):
                writer.write(1, {"loss": 1.0, "tokens_per_second": 1.0, "items_per_second": 1.0})


def test_processes_that_write_one_file_do_not_meet(tmp_path: pathlib.Path) -> None:
    program = "import pathlib, sys; from omnijax.files import write_atomically\n"
    program += "for _ in range(200): write_atomically(pathlib.Path(sys.argv[1]), sys.argv[2])"
    command = [sys.executable, "-c", program, str(tmp_path / "file")]
    both = [subprocess.Popen([*command, text], stderr=subprocess.PIPE, text=True) for text in "ab"]
    for one in both:
        assert one.communicate(timeout=60)[1] == ""
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


MISTAKES = {
    "syntax": ("def get_config(:\n", "SyntaxError"),
    "import": ("import no_such_library\n", "No module named 'no_such_library'"),
    "name": ("def get_config():\n    return nothing_here\n", "name 'nothing_here' is not defined"),
    "no function": ("x = 1\n", "get_config() must return a Config"),
    "exit": ("import sys\nsys.exit()\n", "SystemExit"),
    "exit with a word": ("def get_config():\n    raise SystemExit('set FOO')\n", "SystemExit: set FOO"),
}


@pytest.mark.parametrize("kind", MISTAKES)
def test_errors_in_an_experiment_file_show_the_file(kind: str, tmp_path: pathlib.Path, capsys) -> None:
    content, said = MISTAKES[kind]
    path = tmp_path / "mine.py"
    path.write_text(content)
    assert main(["train", str(path), "--workdir", str(tmp_path / "run")]) == 2
    err = capsys.readouterr().err
    assert said in err
    assert str(path) in err
    assert "omnijax/experiment" not in err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("platform", ["cuda", "gpu", "CPU", "mistyped"])
def test_a_missing_platform_is_named_in_the_error(platform: str, tmp_path: pathlib.Path) -> None:
    program = (
        f"import os; os.environ['JAX_PLATFORMS'] = {platform!r}; from omnijax.cli import main; raise SystemExit(main())"
    )
    command = [sys.executable, "-c", program, "train", str(EXPERIMENTS / "lookup.py"), "--workdir", str(tmp_path / "r")]
    found = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert found.returncode == 2, found.stderr
    assert f"PlatformError: JAX_PLATFORMS = '{platform}'" in found.stderr
    assert "Traceback" not in found.stderr
    assert not (tmp_path / "r").exists()


def test_an_output_that_cannot_be_written_is_refused_before_the_run_is_read(tmp_path: pathlib.Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="must be a directory that can be written to"):
        sample(tmp_path / "no run", ["text=seven"], "image", tmp_path / "file" / "x.png")
    check_writable(tmp_path / "new" / "folder", "--out")
    with pytest.raises(ConfigError, match="/proc must be a directory that can be written to"):
        check_writable(pathlib.Path("/proc"), "--out")


@pytest.mark.parametrize("seed", [-1, SEEDS, SEEDS + 5, 2**63, 10**20])
def test_seeds_beyond_32_bits_are_refused(seed: int, tmp_path: pathlib.Path) -> None:
    with pytest.raises(ConfigError, match="--seed"):
        sample(tmp_path, ["text=seven"], "text", None, seed=seed)


def test_text_that_is_not_valid_unicode_is_refused(tmp_path: pathlib.Path) -> None:
    with pytest.raises(ConfigError, match="UTF-8"):
        sample(tmp_path, ["text=sev\udcffen"], "text", None)
