"""Runs omnijax commands in forked processes. The parent process imports everything once, which saves time."""

from __future__ import annotations

import ctypes
import os
import pathlib
import pickle
import signal
import sys
import time
import traceback
from collections.abc import Callable
from typing import TypeVar

import omnijax.evaluate.sample_command
import omnijax.train  # noqa: F401 (imported once, here, for all processes)
from omnijax.cli import main

T = TypeVar("T")
PATIENCE_SECONDS = 300
PARENT_DEATH_SIGNAL = 1  # of prctl


def die_with_parent() -> None:
    """Asks Linux to kill this process when its parent dies, so that a killed proof leaves no process behind."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PARENT_DEATH_SIGNAL, signal.SIGKILL)


def start(command: list[str], log: pathlib.Path, prepare: Callable[[], object] = lambda: None) -> int:
    """Forks a process that runs `omnijax` with these arguments; returns its id. The caller must not have used a device.

    What it prints is added to `log`, with the traceback of an error that omnijax doesn't catch. `prepare` is called in
    the new process first.
    """
    process = os.fork()
    if process == 0:
        die_with_parent()
        descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        status = 1
        for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):  # as a shell would start it
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
        try:
            prepare()
            sys.argv[1:] = command
            status = main()
        except SystemExit as error:
            status = error.code if isinstance(error.code, int) else 1
        finally:
            try:
                if sys.exception() is not None:
                    traceback.print_exc()
                sys.stdout.flush()
                sys.stderr.flush()
            finally:  # this process must never continue the work of its parent
                os._exit(status)
    return process


def call(function: Callable[[], T]) -> T:
    """Calls a function in a forked process, so that this process uses no device; returns its result."""
    ours, theirs = os.pipe()
    process = os.fork()
    if process == 0:
        die_with_parent()
        try:
            with os.fdopen(theirs, "wb") as pipe:
                pickle.dump(function(), pipe)
        finally:
            try:
                if sys.exception() is not None:
                    traceback.print_exc()
            finally:
                os._exit(0)
    os.close(theirs)
    with os.fdopen(ours, "rb") as pipe:
        found = pipe.read()
    wait(process)
    return pickle.loads(found)


def wait(process: int) -> tuple[int, int]:
    """Waits for a process that must end soon; returns its id and status."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        ended, status = os.waitpid(process, os.WNOHANG)
        if ended:
            return ended, status
        time.sleep(0.005)
    os.kill(process, signal.SIGKILL)
    raise SystemExit(f"a process didn't end within {PATIENCE_SECONDS} s")


def run(command: list[str], log: pathlib.Path) -> tuple[int, str]:
    """Runs a command to its end; returns its exit status and what it printed. The log is overwritten."""
    log.unlink(missing_ok=True)
    _, status = wait(start(command, log))
    return os.waitstatus_to_exitcode(status), log.read_text(errors="replace")
