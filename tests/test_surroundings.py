"""Commands keep working with a closed pipe, a limited terminal, ignored signals, or outside the main thread."""

from __future__ import annotations

import os
import pathlib
import signal
import subprocess
import sys
import threading
import types
from typing import Any

import pytest

from omnijax.run.stopping import SIGNALS, Stop
from omnijax.run.streams import _report

ROOT = pathlib.Path(__file__).parents[1]
PROGRAM = """
import sys
from omnijax.run.streams import keep_streams
keep_streams()
for number in range(10_000):
    print("→", number)
print("· done", file=sys.stderr)
"""


def run(redirect: str, after: str = "", **environment: str) -> subprocess.CompletedProcess[bytes]:
    command = ["bash", "-c", f'set -o pipefail; "$0" -c "$1" {redirect}', sys.executable, PROGRAM + after]
    return subprocess.run(command, cwd=ROOT, env=os.environ | environment, capture_output=True, timeout=60)


@pytest.mark.parametrize("redirect", ["| head -n 1", ">&-", "</dev/null >&- 2>&-", "> /dev/null"])
def test_a_program_continues_when_its_output_is_closed(redirect: str) -> None:
    found = run(redirect)
    assert found.returncode == 0, found.stderr
    assert found.stderr.decode() == ("" if "2>&-" in redirect else "· done\n")


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "latin-1"])
def test_characters_that_the_encoding_lacks_become_question_marks(encoding: str) -> None:
    found = run("", PYTHONIOENCODING=encoding)
    assert found.returncode == 0, found.stderr
    assert found.stdout.splitlines()[5] == b"? 5"


def test_a_full_disk_of_the_output_ends_no_work_but_is_reported() -> None:
    reported = "from omnijax.run.streams import lost_output\nprint(lost_output(), file=sys.stderr)"
    found = run("> /dev/full", after=reported)
    assert found.returncode == 0
    assert found.stderr.decode() == "· done\n[Errno 28] No space left on device\n"
    assert run("> /dev/null", after=reported).stderr.decode() == "· done\n\n"


def test_output_that_was_lost_makes_a_command_fail() -> None:
    program = "import sys; from omnijax.cli import main; sys.exit(main())"
    options = ["vocab", "example"]
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-c", program, *options]
        found = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, timeout=120)
    assert found.returncode == 1
    assert (
        found.stderr
        == "omnijax: some output was lost: [Errno 28] No space left on device. Fix: make room where it goes.\n"
    )


def test_reads_that_are_broken_off_are_not_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[Any] = []
    monkeypatch.setattr(sys, "__unraisablehook__", told.append)
    closed, bug = (
        types.SimpleNamespace(exc_value=RuntimeError(text), object=None) for text in ("Event loop is closed", "a bug")
    )
    _report(closed)
    _report(bug)
    assert told == [bug]


def test_another_thread_trains_without_signals_and_says_so() -> None:
    said: list[str] = []

    def work() -> None:
        with pytest.warns(RuntimeWarning, match="no signal is caught"), Stop() as stop:
            said.append(f"asked: {stop.asked}")

    before = [signal.getsignal(number) for number in SIGNALS]
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert said == ["asked: False"]
    assert [signal.getsignal(number) for number in SIGNALS] == before


def test_a_signal_that_the_caller_ignores_stays_ignored() -> None:
    """`nohup` ignores SIGHUP, and a shell ignores SIGINT for its background jobs."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Stop() as stop:
            stop.begin()
            os.kill(os.getpid(), signal.SIGHUP)
            assert not stop.asked
            os.kill(os.getpid(), signal.SIGTERM)
            assert stop.asked
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("begun", [False, True])
def test_control_c_in_a_notebook_raises_keyboard_interrupt(monkeypatch: pytest.MonkeyPatch, begun: bool) -> None:
    """Before the first step, and the second time."""
    monkeypatch.setattr("omnijax.run.stopping.SAME_SECONDS", 0.0)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with Stop() as stop:
            if begun:
                stop.begin()
                os.kill(os.getpid(), signal.SIGINT)
                assert stop.asked
            with pytest.raises(KeyboardInterrupt):
                os.kill(os.getpid(), signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)
