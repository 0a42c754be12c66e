"""Runs the jobs that aren't done yet, one process for each; any number of workers on any number of machines."""

from __future__ import annotations

import dataclasses
import json
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType

import rich.console
import rich.progress

from omnijax.errors import RESUMABLE
from omnijax.files import write_atomically
from omnijax.paths import is_remote
from omnijax.run.directory import METRICS
from omnijax.sweep.arm import BUSY, is_done
from omnijax.sweep.jobs import Job
from omnijax.sweep.speed import bind, share_of_cores

POLL_SECONDS, RETRY_SECONDS = 0.1, 5.0
LAST_LINES = 8
STOPS = signal.SIGTERM, signal.SIGUSR1, signal.SIGINT, signal.SIGHUP


@dataclasses.dataclass
class Runner:
    """Runs jobs, and waits for jobs that another process works on.

    Attributes:
        command: the process of each job, as arguments.
        workers: number of jobs that run here at the same time; each has its own share of the cores.
        done: jobs that have a result.
        failed: name of a job -> the last lines that it printed.
        stopped: whether a signal asked to stop; the same command resumes.
    """

    out: Path
    command: Callable[[Job], list[str]]
    workers: int
    console: rich.console.Console
    done: list[Job] = dataclasses.field(default_factory=list)
    failed: dict[str, str] = dataclasses.field(default_factory=dict)
    stopped: bool = False
    _active: dict[int, tuple[subprocess.Popen[bytes], Job]] = dataclasses.field(default_factory=dict)  # by worker
    _logs: str = ""

    def run(self, jobs: list[Job]) -> None:
        """Runs these jobs, in this order.

        SIGTERM, SIGUSR1, SIGINT and SIGHUP ask to stop: the jobs save their state, and the same command resumes. Raises
        a `CheckpointError` if the directory of a job belongs to another configuration.
        """
        caught = [number for number in STOPS if signal.getsignal(number) is not signal.SIG_IGN]  # SIGHUP under `nohup`
        previous = {number: signal.signal(number, self._stop) for number in caught}
        hidden = not self.console.is_terminal
        try:
            bars = rich.progress.Progress(console=self.console, disable=hidden, transient=True)
            with tempfile.TemporaryDirectory() as self._logs, bars as progress:
                self._loop(jobs, progress, progress.add_task("", total=sum(job.end.step for job in jobs)))
        finally:
            for process, _ in self._active.values():
                process.terminate()
            for process, _ in self._active.values():
                process.wait()
            for number, handler in previous.items():
                signal.signal(number, handler)

    def _loop(self, jobs: list[Job], progress: rich.progress.Progress, bar: rich.progress.TaskID) -> None:
        waiting = [(0.0, job) for job in jobs]  # with the time before which it isn't tried
        while self._active or (waiting and not self.stopped):
            for worker in range(self.workers):
                if worker in self._active and (status := self._active[worker][0].poll()) is not None:
                    job = self._active.pop(worker)[1]
                    if status in (BUSY, RESUMABLE):  # another process works on it, or it was asked to stop
                        waiting.append((time.monotonic() + RETRY_SECONDS, job))
                    else:
                        self._ended(job, status)
                for ready in [one for one in waiting if one[0] <= time.monotonic()]:
                    if worker not in self._active and not self.stopped:
                        waiting.remove(ready)
                        self._begin(worker, ready[1])
            if not progress.disable:
                running = [job for _, job in self._active.values()]
                steps = sum(job.end.step for job in self.done) + sum(_last_step(job.run(self.out)) for job in running)
                progress.update(bar, completed=steps, description=", ".join(job.name for job in running))
            time.sleep(POLL_SECONDS)

    def _begin(self, worker: int, job: Job) -> None:
        """Starts a job, unless it is done."""
        if is_done(self.out, job):
            self.done.append(job)
            return
        with self._log(job).open("ab") as said:
            # In its own session, so that Ctrl-C at the keyboard doesn't reach the job: `_stop` asks it to save.
            process = subprocess.Popen(
                self.command(job),
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._active[worker] = process, job
        bind(process.pid, share_of_cores(worker, self.workers))

    def _ended(self, job: Job, status: int) -> None:
        how = "is done"
        if is_remote(self.out):
            write_atomically(job.run(self.out).with_suffix(".log"), self._log(job).read_bytes())
        if status == 0 and is_done(self.out, job):
            self.done.append(job)
        else:
            how = f"ended with status {status}" if status >= 0 else f"was killed by {signal.Signals(-status).name}"
            said = self._log(job).read_text(encoding="utf-8", errors="replace")
            self.failed[job.name] = "\n".join([f"it {how}; its last lines:", *said.splitlines()[-LAST_LINES:]])
        if not self.console.is_terminal:
            self.console.print(f"{job.arm}, seed {job.seed}, {how}", highlight=False)

    def _log(self, job: Job) -> Path:
        """The local file with what a job printed; that of a sweep on a store is copied there when the job ends."""
        out = Path(self._logs) if is_remote(self.out) else self.out
        log = job.run(out).with_suffix(".log")
        log.parent.mkdir(parents=True, exist_ok=True)
        return log

    def _stop(self, number: int, _: FrameType | None) -> None:
        self.stopped = True
        for process, _job in self._active.values():
            process.send_signal(signal.SIGTERM)


def _last_step(run: Path) -> int:
    """The last step in the log of a run, which may be growing."""
    lines = (run / METRICS).read_bytes().splitlines() if (run / METRICS).exists() else []
    return max((int(json.loads(line)["step"]) for line in lines[-2:] if line.endswith(b"}")), default=0)
