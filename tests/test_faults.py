"""Mistakes and accidents that a user can meet: each ends in one typed line, before anything is lost or trained."""

from __future__ import annotations

import dataclasses
import fcntl
import json
import math
import pathlib
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from omnijax import testing
from omnijax.cli import main
from omnijax.config import Config, SampleConfig, Target, Task, to_dict
from omnijax.config.evaluation import SEEDS
from omnijax.errors import CheckpointError, ConfigError
from omnijax.evaluate.sample_command import check_out, sample
from omnijax.experiment import load_experiment
from omnijax.run.directory import check, differences, load_config, write_json, write_whole
from omnijax.run.lock import LOCK, alone

EXPERIMENTS = pathlib.Path(__file__).parents[1] / "experiments"


@pytest.fixture(scope="module")
def config(tmp_path_factory) -> Config:
    return testing.small_config(load_experiment(EXPERIMENTS / "digits.py"), tmp_path_factory.mktemp("data"))


# ---------------------------------------------------------------------- two processes in one directory


def test_the_second_process_in_a_run_is_told_who_holds_it(tmp_path: pathlib.Path) -> None:
    with alone(tmp_path), pytest.raises(CheckpointError, match="process [0-9]+ on .*, since .*, trains in it"):
        alone(tmp_path).__enter__()
    with alone(tmp_path):
        pass


HOLDER = """
import pathlib, sys
from omnijax.run.lock import alone
with alone(pathlib.Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_dead_holder_blocks_nobody(tmp_path: pathlib.Path) -> None:
    command = [sys.executable, "-c", HOLDER, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(CheckpointError, match=f"process {holder.pid} on"):
            alone(tmp_path).__enter__()
        holder.kill()
        holder.wait()
        with alone(tmp_path):
            assert "process" in (tmp_path / LOCK).read_text()


def test_training_holds_the_lock(config: Config, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import omnijax.train

    def claimed(run: pathlib.Path, *_: object) -> None:
        with (run / LOCK).open() as lock, pytest.raises(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        raise ConfigError("here", 0, "the test ends", "")

    monkeypatch.setattr(omnijax.train, "claim", claimed)
    with pytest.raises(ConfigError, match="the test ends"):
        omnijax.train.train(config, tmp_path / "run")


# ---------------------------------------------------------------------- run directories


def test_logs_may_lie_in_a_new_directory_and_what_may_not_is_named(config: Config, tmp_path: pathlib.Path) -> None:
    for name in ("123.log", "slurm-7.out", "log.txt", ".DS_Store", "config.tmp", LOCK):
        (tmp_path / name).touch()
    check(tmp_path, config)
    (tmp_path / "photo.png").touch()
    with pytest.raises(CheckpointError, match="no run: photo.png"):
        check(tmp_path, config)


@pytest.mark.parametrize("place", ["dangling", "file/run", "file"])
def test_a_place_where_no_directory_can_be_is_refused(config: Config, tmp_path: pathlib.Path, place: str) -> None:
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere" / "run")
    (tmp_path / "file").touch()
    with pytest.raises(CheckpointError, match="link to nothing|must be a directory that can be written to"):
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
    "a list": (lambda content: b"[1]", "can't be read"),
    "words for numbers": (set_knob("batch.size", "four"), "batch.size = 'four': must be int"),
    "a fraction": (set_knob("model.depth", 1.5), "model.depth = 1.5: must be int"),
    "true for a number": (set_knob("train.steps", True), "train.steps = True: must be int"),
    "nothing": (set_knob("model", None), "model = None: must be ModelConfig"),
    "a number for a word": (set_knob("eval.split", 3), "eval.split = 3: must be str"),
    "no such choice": (set_knob("model.head", "tree"), "model.head = 'tree': must be Literal"),
    "a word for a list": (set_knob("batch.tasks", "all"), "batch.tasks = 'all': must be tuple"),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_configuration_is_named(config: Config, tmp_path: pathlib.Path, kind: str, capsys) -> None:
    damage, rule = DAMAGE[kind]
    write_json(tmp_path / "config.json", to_dict(config))
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


def test_a_file_is_on_the_disk_before_it_takes_the_place_of_another(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    monkeypatch.setattr("os.fsync", lambda descriptor: done.append("synced"))
    replace = pathlib.Path.replace
    monkeypatch.setattr(pathlib.Path, "replace", lambda *paths: (done.append("replaced"), replace(*paths))[1])
    write_whole(tmp_path / "a.json", "text")
    assert (tmp_path / "a.json").read_text() == "text"
    assert done == ["synced", "replaced", "synced"]


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
        ("eval", drawn(top_p=0.0), "eval.targets.0.sample.top_p"),
        ("eval", drawn(top_p=math.nan), "eval.targets.0.sample.top_p"),
        ("eval", drawn(temperature=math.nan), "eval.targets.0.sample.temperature"),
        ("eval", drawn(temperature=math.inf), "eval.targets.0.sample.temperature"),
        ("eval", drawn(temperature=-1.0), "eval.targets.0.sample.temperature"),
        ("eval", drawn(top_k=2**31), "eval.targets.0.sample.top_k"),
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
        ("optim", {"learning_rate": math.inf}, "optim.learning_rate"),
    ],
)
def test_a_knob_that_cannot_work_is_refused_when_it_is_set(
    config: Config, part: str, knobs: dict[str, Any], field: str
) -> None:
    with pytest.raises(ConfigError) as refused:
        changed(config, part, **knobs)
    assert refused.value.field == field


# ---------------------------------------------------------------------- commands


MISTAKES = {
    "syntax": ("def get_config(:\n", "SyntaxError"),
    "import": ("import no_such_library\n", "No module named 'no_such_library'"),
    "name": ("def get_config():\n    return nothing_here\n", "name 'nothing_here' is not defined"),
    "no function": ("x = 1\n", "get_config() must return a Config"),
}


@pytest.mark.parametrize("kind", MISTAKES)
def test_mistakes_in_an_experiment_file_are_shown_where_they_are(kind: str, tmp_path: pathlib.Path, capsys) -> None:
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
def test_a_platform_that_is_not_there_is_named(platform: str, tmp_path: pathlib.Path) -> None:
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
    check_out(tmp_path / "new" / "folder" / "x.png")


@pytest.mark.parametrize("seed", [-1, SEEDS, SEEDS + 5, 2**63, 10**20])
def test_seeds_that_would_stand_for_another_are_refused(seed: int, tmp_path: pathlib.Path) -> None:
    with pytest.raises(ConfigError, match="--seed"):
        sample(tmp_path, ["text=seven"], "text", None, seed=seed)


def test_text_that_is_no_unicode_is_refused(tmp_path: pathlib.Path) -> None:
    with pytest.raises(ConfigError, match="UTF-8"):
        sample(tmp_path, ["text=sev\udcffen"], "text", None)
