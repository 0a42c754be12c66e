"""The slow proofs: what is done stays done, across kills; other code starts a proof again."""

from __future__ import annotations

import json
import os
import pathlib
import signal
import subprocess
import sys
import time
from collections.abc import Sequence

import pytest

from experiments import prove
from experiments.prove import PROOFS, Part, Proof
from omnijax.errors import RESUMABLE

ROOT = pathlib.Path(__file__).parents[1]


def proof(*commands: Sequence[str]) -> Proof:
    parts = [Part(f"part {number}", tuple(command)) for number, command in enumerate(commands)]
    return Proof("a claim", 1, lambda directory, tiny: parts)


def writes(path: pathlib.Path, text: str) -> list[str]:
    return [sys.executable, "-c", f"open({str(path)!r}, 'a').write({text!r}); print('wrote', {text!r})"]


@pytest.fixture
def key(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The fingerprint, which a test can change."""
    found = ["one"]
    monkeypatch.setattr(prove, "fingerprint", lambda: found[0])
    return found


def test_a_part_that_is_done_is_not_run_again(tmp_path: pathlib.Path, key: list[str], capfd) -> None:
    said = tmp_path / "said"
    fails = [sys.executable, "-c", "print('why'); raise SystemExit(3)"]
    assert prove.prove(proof(writes(said, "a"), fails), tmp_path / "p", 20, False) == 1
    found = capfd.readouterr()
    assert "wrote a" in found.out
    assert "part 1: failed with exit status 3" in found.err
    assert (tmp_path / "p" / "part 1.log").read_text() == "why\n"
    whole = proof(writes(said, "a"), writes(said, "b"))
    for _ in range(2):
        assert prove.prove(whole, tmp_path / "p", 20, False) == 0
        assert said.read_text() == "ab"
    assert "all 2 parts are done" in capfd.readouterr().out
    key[0] = "another"
    assert prove.prove(whole, tmp_path / "p", 20, False) == 0
    assert said.read_text() == "abab"
    assert "starts again" in capfd.readouterr().out


def test_a_call_ends_in_time_and_says_what_is_left(tmp_path: pathlib.Path, key: list[str], capfd) -> None:
    said = tmp_path / "said"
    whole = proof(*(writes(said, letter) for letter in "abc"))
    for count in (1, 2):
        assert prove.prove(whole, tmp_path / "p", 0, False) == RESUMABLE, "each call does a part at least"
        assert f"{3 - count} of 3 parts are left" in capfd.readouterr().out
        assert len(said.read_text()) == count
    assert prove.prove(whole, tmp_path / "p", 0, False) == 0


def test_a_proof_that_needs_a_package_says_so(tmp_path: pathlib.Path, key: list[str], capfd) -> None:
    lacking = Proof("a claim", 1, lambda directory, tiny: [], ("no_such_module",))
    assert prove.prove(lacking, tmp_path / "p", 20, False) == 2
    assert "no_such_module: not installed" in capfd.readouterr().err
    missing = proof(["/no/such/program"])
    assert prove.prove(missing, tmp_path / "q", 20, False) == 1
    assert "not found" in capfd.readouterr().err


KILLED = """
import sys
from experiments import prove
parts = [prove.Part("sleeps", (sys.executable, "-c", "import time; print('up', flush=True); time.sleep({seconds})"))]
prove.fingerprint = lambda: "one"
sys.exit(prove.prove(prove.Proof("", 1, lambda directory, tiny: parts), prove.pathlib.Path({place!r}), 20, False))
"""


def test_a_second_call_does_not_run_beside_what_a_killed_one_left(tmp_path: pathlib.Path, key: list[str]) -> None:
    place = tmp_path / "p"
    command = [sys.executable, "-c", KILLED.format(seconds=6, place=str(place))]
    first = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert first.stdout is not None
    while (line := first.stdout.readline()) != "up\n":
        assert line, "it ended too early"
    with first:
        first.send_signal(signal.SIGKILL)
    again = [sys.executable, "-c", KILLED.format(seconds=0, place=str(place))]
    beside = subprocess.run(again, cwd=ROOT, capture_output=True, text=True, check=False)
    assert beside.returncode == 2
    assert "another call still runs" in beside.stderr
    while (after := subprocess.run(again, cwd=ROOT, capture_output=True, text=True, check=False)).returncode == 2:
        time.sleep(0.5)
    assert after.returncode == 0, after.stderr


def test_every_proof_is_listed_with_parts_that_exist(tmp_path: pathlib.Path, capsys) -> None:
    assert prove.main(["--out", str(tmp_path)]) == 0
    listed = capsys.readouterr().out
    assert not list(tmp_path.iterdir())
    for name, one in PROOFS.items():
        assert name in listed
        for tiny in (False, True):
            parts = one.parts(tmp_path, tiny)
            assert len({part.name for part in parts}) == len(parts) > 0
            paths = [word for part in parts for word in part.command if word.endswith(".py")]
            assert all((ROOT / path).is_file() for path in paths)


def test_the_parts_are_the_whole(tmp_path: pathlib.Path) -> None:
    tests = [word for part in PROOFS["py311"].parts(tmp_path, False) for word in part.command if "tests/test_" in word]
    assert sorted(tests) == sorted(str(path.relative_to(ROOT)) for path in (ROOT / "tests").glob("test_*.py"))
    sys.path.insert(0, str(ROOT / "experiments" / "bench"))
    try:
        from parts import pick
    finally:
        sys.path.pop(0)
    for count in (1, 3, 10):
        taken = [one for k in range(1, count + 1) for one in pick(range(25), f"{k}/{count}")]
        assert sorted(taken) == list(range(25))
    for wrong in ("0/3", "4/3", "3", "a/b"):
        with pytest.raises(SystemExit, match="K/N"):
            pick(range(25), wrong)
    parts = PROOFS["fuzz_decode"].parts(tmp_path, False)
    assert [part.command[-1] for part in parts] == [f"{number}/10" for number in range(1, 11)]
    assert all("10000000" in part.command for part in parts)
    assert [part.command[-1] for part in PROOFS["chaos"].parts(tmp_path, False)][-1] == "50"


@pytest.mark.proof
def test_kills_go_on_where_they_stopped(tmp_path: pathlib.Path) -> None:
    """Two kills, each by a call of its own."""
    quick = os.environ | {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1", "JAX_NUM_CPU_DEVICES": "1"}
    for number in (1, 2):
        command = [sys.executable, str(ROOT / "experiments" / "bench" / "chaos.py"), "--cycles", "2", "--until"]
        command += [str(number), "--directory", str(tmp_path)]
        found = subprocess.run(command, env=quick, capture_output=True, text=True, check=False)
        assert found.returncode == 0, found.stdout + found.stderr
        lines = [json.loads(line) for line in found.stdout.splitlines() if line.startswith("{")]
        assert [line["cycle"] for line in lines if "cycle" in line] == [number - 1]
        assert lines[-1]["cycles"] == number
    assert lines[-1]["steps"] == 28
    assert lines[-1]["different"] == []
