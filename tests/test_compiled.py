"""Compiled programs are kept between commands: which directory, how large, and what a damaged entry does."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys

import pytest

from omnijax.run import compiled
from omnijax.run.compiled import SWITCH, keep_compiled, shrink

JAX_DIRECTORY = "JAX_COMPILATION_CACHE_DIR"

# Compiles one program the way a command does, and says how many programs had to be compiled, and what came out.
PROGRAM = """
import json
from omnijax.run.compiled import keep_compiled

keep_compiled()
import jax

seen = {"requests": 0, "hits": 0}

def count(event, **_):
    for name, ending in (("requests", "compile_requests_use_cache"), ("hits", "cache_hits")):
        seen[name] += event == f"/jax/compilation_cache/{ending}"

jax.monitoring.register_event_listener(count)
result = jax.jit(lambda x: (jax.numpy.sin(x) @ x.T).sum(axis=0))(jax.numpy.arange(12.0).reshape(3, 4)).tolist()
print(json.dumps(seen | {"compiled": seen["requests"] - seen["hits"], "result": result}))
"""


@pytest.fixture
def unset(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> pytest.MonkeyPatch:
    """As for a user, with a home of its own; what `keep_compiled` sets is taken back."""
    for name in (JAX_DIRECTORY, SWITCH, "TF_CPP_MIN_LOG_LEVEL"):
        monkeypatch.setenv(name, "")  # so that it is taken back
        monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    return monkeypatch


def run(directory: pathlib.Path, **more: str) -> dict:
    """What the program says in a process of its own."""
    environment = {name: value for name, value in os.environ.items() if name != JAX_DIRECTORY}
    quick = {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    command = [sys.executable, "-c", PROGRAM]
    result = subprocess.run(
        command,
        env=environment | quick | {SWITCH: str(directory)} | more,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    return json.loads(result.stdout)


def entries(directory: pathlib.Path) -> list[pathlib.Path]:
    return sorted(path for path in directory.iterdir() if path.name.endswith("-cache"))


def test_programs_go_to_the_cache_of_the_user(unset: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> None:
    keep_compiled()
    assert os.environ[JAX_DIRECTORY] == str(tmp_path / "home" / "omnijax" / "compiled")
    assert pathlib.Path(os.environ[JAX_DIRECTORY]).is_dir()


def test_the_switch_turns_it_off_or_names_a_directory(unset: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> None:
    unset.setenv(SWITCH, "off")
    keep_compiled()
    assert JAX_DIRECTORY not in os.environ
    assert not (tmp_path / "home").exists()
    unset.setenv(SWITCH, str(tmp_path / "own"))
    keep_compiled()
    assert os.environ[JAX_DIRECTORY] == str(tmp_path / "own")


def test_a_directory_of_jaxs_own_is_left_alone(unset: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> None:
    unset.setenv(JAX_DIRECTORY, str(tmp_path / "jax"))
    keep_compiled()
    assert os.environ[JAX_DIRECTORY] == str(tmp_path / "jax")
    assert not (tmp_path / "home").exists()


def test_a_home_that_can_not_be_written_to_is_no_error(unset: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> None:
    (tmp_path / "file").write_text("in the way")
    unset.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    keep_compiled()
    assert JAX_DIRECTORY not in os.environ


def test_what_was_not_used_for_the_longest_time_goes_first(tmp_path: pathlib.Path) -> None:
    for number, name in enumerate(("old", "read again", "new")):
        (tmp_path / name).write_bytes(b"x" * 100)
        os.utime(tmp_path / name, (10_000 + number, 1000 + number))
    os.utime(tmp_path / "read again", (20_000, 1001))
    shrink(tmp_path, 300)
    assert len(list(tmp_path.iterdir())) == 3
    shrink(tmp_path, 299)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new", "read again"]
    shrink(tmp_path, 100)
    assert [path.name for path in tmp_path.iterdir()] == ["read again"]


def test_the_directory_is_bounded_before_each_command(unset: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> None:
    directory = tmp_path / "home" / "omnijax" / "compiled"
    directory.mkdir(parents=True)
    for number in range(5):
        (directory / f"{number}").write_bytes(b"x" * 100)
        os.utime(directory / f"{number}", (1000 + number, 1000 + number))
    unset.setattr(compiled, "MOST_BYTES", 250)
    keep_compiled()
    assert sorted(path.name for path in directory.iterdir()) == ["3", "4"]


def test_the_second_command_compiles_nothing(tmp_path: pathlib.Path) -> None:
    first, second = run(tmp_path), run(tmp_path)
    assert first["compiled"] == first["requests"] > 0
    assert second["compiled"] == 0
    assert second["requests"] == first["requests"]
    assert second["result"] == first["result"]


def test_with_the_switch_off_nothing_is_kept(tmp_path: pathlib.Path) -> None:
    found = run(tmp_path, XDG_CACHE_HOME=str(tmp_path), **{SWITCH: "off"})
    assert found["hits"] == 0
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_entry_is_compiled_again_without_a_word(tmp_path: pathlib.Path) -> None:
    """Also half of an entry, which another process is about to write."""
    first = run(tmp_path)
    kept = entries(tmp_path)
    assert len(kept) == first["compiled"]
    for number, path in enumerate(kept):
        content = path.read_bytes()
        path.write_bytes((content[: len(content) // 2], b"", b"no program")[number % 3])
    again = run(tmp_path)
    assert again["compiled"] == first["compiled"]
    assert again["result"] == first["result"]
