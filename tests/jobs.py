"""Starts several processes of `omnijax` as one job, each told of the others by the environment, and ends them."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

MAIN = "import sys; from omnijax.cli import main; sys.exit(main())"


@dataclasses.dataclass
class Job:
    """Processes that run, and the files that take what they print."""

    processes: list[subprocess.Popen]
    logs: list[pathlib.Path]

    def wait(self, seconds: float) -> list[int]:
        """The exit statuses of all, within a time."""
        deadline = time.monotonic() + seconds
        return [process.wait(max(0.1, deadline - time.monotonic())) for process in self.processes]

    def wait_until(self, holds: Callable[[], bool], seconds: float = 240) -> None:
        """Waits for something that the processes do; they must all be alive when it is done."""
        deadline = time.monotonic() + seconds
        while not holds():
            ended = [process.args for process in self.processes if process.poll() is not None]
            assert not ended, self.said()
            assert time.monotonic() < deadline, self.said()
            time.sleep(0.01)

    def said(self, process: int | None = None) -> str:
        logs = self.logs if process is None else [self.logs[process]]
        return "\n".join(f"--- {log.name}\n{log.read_text(errors='replace')}" for log in logs)


@contextlib.contextmanager
def job(
    directory: pathlib.Path, processes: int, devices: int, arguments: list[str], main: str = MAIN, **more: str
) -> Iterator[Job]:
    """Runs a command in each of several processes; whatever still lives at the end is killed."""
    directory.mkdir(parents=True, exist_ok=True)
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    started, logs = [], []
    try:
        for process in range(processes):
            logs.append(directory / f"process{process}.log")
            environment = os.environ | {
                "JAX_NUM_CPU_DEVICES": str(devices),
                "OMNIJAX_COORDINATOR": address,
                "OMNIJAX_PROCESSES": str(processes),
                "OMNIJAX_PROCESS": str(process),
                **more,
            }
            with logs[-1].open("w") as log:
                started.append(
                    subprocess.Popen(
                        [sys.executable, "-c", main, *arguments],
                        env=environment,
                        stdout=log,
                        stderr=subprocess.STDOUT,
                        start_new_session=True,
                    )
                )
        yield Job(started, logs)
    finally:
        for process in started:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
