"""Runs what isn't done yet, one process an arm and seed; any number of workers on any number of machines."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import json
import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import rich.console
import rich.progress

from omnijax.errors import RESUMABLE
from omnijax.run.writers import METRICS
from omnijax.sweep.arm import directory, is_done
from omnijax.sweep.resolve import Job

BUSY = 73
"""Exit status of a job that another process has in hand."""
POLL_SECONDS, ASK_AGAIN_SECONDS = 0.1, 5.0
LAST_LINES = 8
STOPS = signal.SIGTERM, signal.SIGUSR1, signal.SIGINT
MAIN = "import sys; from omnijax.cli import main; sys.exit(main())"


@dataclasses.dataclass
class Outcome:
    """How the jobs ended.

    Attributes:
        done: those whose results are there.
        failed: the last lines of what the others said.
        stopped: a signal asked to stop; the same command goes on.
    """

    done: list[Job] = dataclasses.field(default_factory=list)
    failed: dict[str, str] = dataclasses.field(default_factory=dict)
    stopped: bool = False


def share_of_cores(worker: int, workers: int) -> set[int]:
    """The cores that a worker has to itself, as many as any other, so that arms side by side have the same means.

    Where there are more workers than cores, or processes can't be bound to cores, all have all of them.

    Args:
        worker: its number, from 0.
        workers: how many there are.
    """
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    each = len(cores) // workers
    return set(cores[worker * each : (worker + 1) * each] or cores)


def bind(process: int, cores: set[int]) -> None:
    """Keeps a process, by its number, to these cores, and whatever it starts from now on.

    XLA makes as many threads as a process has cores when its client is made, which is long after the start.
    """
    if cores:
        with contextlib.suppress(ProcessLookupError):  # it has ended already
            os.sched_setaffinity(process, cores)


@contextmanager
def in_hand(out: Path, job: Job) -> Iterator[bool]:
    """Whether this process has a job to itself, for as long as it is in here; a killed one gives it back.

    The lock says, for people, which process on which machine that is.
    """
    run = directory(out, job)
    run.parent.mkdir(parents=True, exist_ok=True)
    with run.with_name(f"{run.name}.lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        lock.truncate(0)
        print(os.getpid(), platform.node(), file=lock, flush=True)
        yield True


def run_jobs(
    jobs: Sequence[Job], out: Path, command: Callable[[Job], list[str]], workers: int, console: rich.console.Console
) -> Outcome:
    """Runs those that aren't done; those that another worker has in hand are waited for.

    SIGTERM, SIGUSR1 and Ctrl-C ask to stop: the jobs save, and the same command goes on.

    Args:
        jobs: in the order in which they are to run.
        out: the directory of the sweep.
        command: arguments of `omnijax` that run a job.
        workers: jobs at a time, here; each has its share of the cores.
        console: for the progress.

    Raises:
        CheckpointError: a directory of a job that belongs to another configuration.
    """
    return _Runner(out, command, workers, console).run(list(jobs))


class _Runner:
    def __init__(self, out: Path, command: Callable[[Job], list[str]], workers: int, console: rich.console.Console):
        self._out, self._command, self._workers, self._console = out, command, workers, console
        self._active: dict[subprocess.Popen[bytes], Job] = {}
        self._numbers: dict[subprocess.Popen[bytes], int] = {}
        self._later: dict[str, float] = {}
        self._outcome = Outcome()

    def run(self, jobs: list[Job]) -> Outcome:
        previous = {number: signal.signal(number, self._stop) for number in STOPS}
        try:
            with self._bars(jobs) as show:
                self._loop(jobs, show)
        finally:
            for process in self._active:
                process.terminate()
            for process in self._active:
                process.wait()
            for number, handler in previous.items():
                signal.signal(number, handler)
        return self._outcome

    def _loop(self, jobs: list[Job], show: Callable[[], None]) -> None:
        waiting = list(jobs)
        while self._active or (waiting and not self._outcome.stopped):
            now = time.monotonic()
            while waiting and len(self._active) < self._workers and not self._outcome.stopped:
                ready = next((job for job in waiting if self._later.get(job.name, 0.0) <= now), None)
                if ready is None:
                    break
                waiting.remove(ready)
                if is_done(self._out, ready):
                    self._outcome.done.append(ready)
                else:
                    self._start(ready)
            for process, job in list(self._active.items()):
                status = process.poll()
                if status is not None:
                    del self._active[process]
                    del self._numbers[process]
                    waiting += self._ended(job, status)
            show()
            time.sleep(POLL_SECONDS)

    def _start(self, job: Job) -> None:
        log = self._log(job)
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as said:
            # A session of its own: what ends this process at the keyboard lets the job save.
            process = subprocess.Popen(
                [sys.executable, "-c", MAIN, *self._command(job)],
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._active[process] = job
        self._numbers[process] = worker = min({*range(self._workers)} - {*self._numbers.values()})
        bind(process.pid, share_of_cores(worker, self._workers))

    def _ended(self, job: Job, status: int) -> list[Job]:
        """What is to be run again of a job that ended."""
        if status == 0 and is_done(self._out, job):
            self._outcome.done.append(job)
            self._say(f"{job.arm}, seed {job.seed}: done")
            return []
        if status in (BUSY, RESUMABLE):  # somebody else has it, or somebody asked it to stop
            self._later[job.name] = time.monotonic() + ASK_AGAIN_SECONDS
            return [job]
        how = f"ended with status {status}" if status >= 0 else f"was killed by {signal.Signals(-status).name}"
        said = self._log(job).read_text(encoding="utf-8", errors="replace").splitlines()[-LAST_LINES:]
        self._outcome.failed[job.name] = "\n".join([f"it {how}; its last lines:", *said])
        self._say(f"{job.arm}, seed {job.seed}: {how}")
        return []

    def _stop(self, number: int, _: FrameType | None) -> None:
        self._outcome.stopped = True
        for process in self._active:
            process.send_signal(signal.SIGTERM if number == signal.SIGINT else number)

    def _log(self, job: Job) -> Path:
        run = directory(self._out, job)
        return run.with_name(f"{run.name}.log")

    def _say(self, what: str) -> None:
        if not self._console.is_terminal:
            self._console.print(what, highlight=False)

    @contextmanager
    def _bars(self, jobs: list[Job]) -> Iterator[Callable[[], None]]:
        """A bar for all jobs, counted in steps, and one for each that runs here."""
        progress = rich.progress.Progress(
            rich.progress.TextColumn("{task.description}"),
            rich.progress.BarColumn(),
            rich.progress.MofNCompleteColumn(),
            rich.progress.TimeRemainingColumn(),
            console=self._console,
            disable=not self._console.is_terminal,
            transient=True,
        )
        whole = progress.add_task("steps of all arms", total=sum(job.end.step for job in jobs))
        bars: dict[str, rich.progress.TaskID] = {}

        def show() -> None:
            if progress.disable:
                return
            running = {job.name: job for job in self._active.values()}
            for name in [name for name in bars if name not in running]:
                progress.remove_task(bars.pop(name))
            steps = {name: _last_step(directory(self._out, job)) for name, job in running.items()}
            for name, job in running.items():
                if name not in bars:
                    bars[name] = progress.add_task(f"{job.arm}, seed {job.seed}", total=job.end.step)
                progress.update(bars[name], completed=steps[name])
            done = sum(job.end.step for job in self._outcome.done)
            progress.update(whole, completed=done + sum(steps.values()))

        with progress:
            yield show


def _last_step(run: Path) -> int:
    """The last step in the log of a run that is being written."""
    path = run / METRICS
    if not path.exists():
        return 0
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 4096))
        whole = [line for line in file.read().splitlines() if line.endswith(b"}") and line.startswith(b"{")]
    last: dict[str, Any] = json.loads(whole[-1]) if whole else {"step": 0}
    return int(last["step"])
