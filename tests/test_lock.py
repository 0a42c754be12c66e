"""Lock files: one holder at a time, errors name it, dead holders don't block, a lost lock is noticed."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import platform
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest
import random_data

import omnijax.train
from omnijax import lock
from omnijax.errors import CheckpointError, ConfigError
from omnijax.experiment import load_experiment
from omnijax.lock import LOCK, FileLock, locked, training_lock

DIGITS = pathlib.Path(__file__).parents[1] / "experiments" / "digits.py"
HOLDER = """
import pathlib, sys
from omnijax.lock import training_lock
with training_lock(pathlib.Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path: pathlib.Path) -> Iterator[subprocess.Popen]:
    """Another process that holds the lock of this directory."""
    command = [sys.executable, "-c", HOLDER, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def write_lock(path: pathlib.Path, **changes: object) -> None:
    """Writes a lock file as another process would."""
    holder = {"host": platform.node(), "boot": lock._boot(), "pid": 12, "key": "theirs", "since": "2026-01-01 00:00:00"}
    path.write_text(json.dumps(holder | changes))


def test_one_process_at_a_time_holds_a_lock(tmp_path: pathlib.Path) -> None:
    one, other = tmp_path / "seed0.lock", tmp_path / "seed1.lock"
    with locked(one, wait=False) as mine:
        assert mine is not None
        mine.check()
        with locked(one, wait=False) as theirs, locked(other, wait=False) as free:
            assert theirs is None
            assert free is not None
    assert one.read_bytes() == b""
    with locked(one) as again:
        assert again is not None


def test_the_second_process_is_told_who_holds_it(holder: subprocess.Popen, tmp_path: pathlib.Path) -> None:
    rule = rf"process {holder.pid} on {platform.node()} \(since .*\) trains in it"
    with pytest.raises(CheckpointError, match=rule), training_lock(tmp_path):
        pass
    assert holder.stdin is not None
    holder.stdin.close()
    holder.wait()
    assert (tmp_path / LOCK).read_bytes() == b""


def test_the_lock_of_a_dead_holder_is_taken_over(holder: subprocess.Popen, tmp_path: pathlib.Path, capsys) -> None:
    holder.kill()
    holder.wait()
    with training_lock(tmp_path) as mine:
        mine.check()
    said = capsys.readouterr().err
    assert f"taken over: process {holder.pid} on {platform.node()}" in said
    assert "isn't running any more" in said


@pytest.mark.parametrize("content", [b"{", b"[1]"], ids=["half", "strange"])
def test_an_incomplete_lock_file_is_taken_over(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, content: bytes
) -> None:
    monkeypatch.setattr(lock, "DEAD_AFTER_SECONDS", 0.3)
    (tmp_path / LOCK).write_bytes(content)
    with training_lock(tmp_path):
        pass


def test_a_holder_on_another_machine_counts_as_dead_without_touches(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    monkeypatch.setattr(lock, "DEAD_AFTER_SECONDS", 1.0)
    path, ended = tmp_path / LOCK, threading.Event()
    write_lock(path, host="node7", boot="theirs")

    def touch() -> None:
        while not ended.wait(0.1):
            with contextlib.suppress(FileNotFoundError):
                os.utime(path)

    elsewhere = threading.Thread(target=touch)
    elsewhere.start()
    try:
        with pytest.raises(CheckpointError, match="on node7"), training_lock(tmp_path):
            pass
    finally:
        ended.set()
        elsewhere.join()
    started = time.monotonic()
    with training_lock(tmp_path):
        assert time.monotonic() - started > 1
    assert "on node7" in (said := capsys.readouterr().err)
    assert "hasn't touched it for 1 s" in said


def test_a_holder_that_was_taken_for_dead_notices_it(tmp_path: pathlib.Path) -> None:
    with training_lock(tmp_path) as mine:
        write_lock(tmp_path / LOCK, host="node7", boot="theirs")
        with pytest.raises(CheckpointError, match="on node7 .* has taken it over"):
            mine.check()
    assert "node7" in (tmp_path / LOCK).read_text()  # left as it is


def test_a_lock_file_that_somebody_removed_is_written_again(tmp_path: pathlib.Path) -> None:
    with training_lock(tmp_path) as mine:
        (tmp_path / LOCK).unlink()
        mine.check()
        with pytest.raises(CheckpointError, match="trains in it"), training_lock(tmp_path):
            pass
        (tmp_path / LOCK).unlink()
        with training_lock(tmp_path), pytest.raises(CheckpointError, match="has taken it over"):
            mine.check()
    with training_lock(tmp_path):
        pass


def test_touches_count_on_a_file_system_without_locks(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "DEAD_AFTER_SECONDS", 1.0)

    def refuse(*_: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr("fcntl.flock", refuse)
    with training_lock(tmp_path):
        pass
    for boot in ("theirs", lock._boot()):
        write_lock(tmp_path / LOCK, boot=boot)
        with training_lock(tmp_path):
            pass
    monkeypatch.setattr(lock, "TOUCH_SECONDS", 0.1)
    monkeypatch.setattr(lock, "DEAD_AFTER_SECONDS", 60.0)
    with training_lock(tmp_path), pytest.raises(CheckpointError, match="trains in it"), training_lock(tmp_path):
        pass


def test_a_run_that_was_moved_ends(tmp_path: pathlib.Path) -> None:
    (tmp_path / "here").mkdir()
    with training_lock(tmp_path / "here") as mine:
        (tmp_path / "here").rename(tmp_path / "there")
        with pytest.raises(CheckpointError, match="moved or removed"):
            mine.check()
    assert not (tmp_path / "here").exists()
    with training_lock(tmp_path / "there"):
        pass


COUNTING = """
import pathlib, random, sys, time
from omnijax.lock import locked
place, draw = pathlib.Path(sys.argv[1]), random.Random(int(sys.argv[2]))
for _ in range(8):
    with locked(place / "lock"):
        value = int((place / "count").read_text())
        time.sleep(draw.random() / 100)
        (place / "count").write_text(str(value + 1))
"""


def test_processes_that_count_together_lose_nothing(tmp_path: pathlib.Path) -> None:
    (tmp_path / "count").write_text("0")
    command = [sys.executable, "-c", COUNTING, str(tmp_path)]
    every = [subprocess.Popen([*command, str(seed)]) for seed in range(4)]
    assert {process.wait() for process in every} == {0}
    assert (tmp_path / "count").read_text() == "32"


def test_training_holds_the_lock_and_checks_it_before_it_saves(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = random_data.small_config(load_experiment(DIGITS), tmp_path / "data")
    run = tmp_path / "run"

    def claimed(*_: object) -> None:
        with pytest.raises(CheckpointError, match="trains in it"), training_lock(run):
            pass
        raise ConfigError("here", 0, "the test ends", "")

    with monkeypatch.context() as patch:
        patch.setattr(omnijax.train, "claim", claimed)
        with pytest.raises(ConfigError, match="the test ends"):
            omnijax.train.train(config, run)

    def check(self: FileLock) -> None:
        raise CheckpointError("workdir", "", "another process has it", "")

    monkeypatch.setattr(FileLock, "check", check)
    with pytest.raises(CheckpointError, match="another process has it"):
        omnijax.train.train(config, run)
    assert not [path for path in (run / "checkpoints").glob("*") if path.name.isdigit()]
