"""Reads files in child processes, so that no file can kill, hang or exhaust the command that reads it.

A decoder may crash the interpreter, loop for ever or ask for all memory, and no `except` catches that. A child process
can do all of it: it is killed, the file is blamed, and another process reads the next file.
"""

from __future__ import annotations

import contextlib
import dataclasses
import multiprocessing
import multiprocessing.connection
import os
import pathlib
import resource
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from multiprocessing.connection import Connection
from typing import Any, Generic, TypeVar

from omnijax.config.experiment_file import EXPERIMENT_PREFIX, run_file
from omnijax.errors import OmnijaxError, PlatformError
from omnijax.paths import as_path

T = TypeVar("T")
R = TypeVar("R")
SECONDS = 10.0
"""Longest time for one file."""
BYTES = 2**30
"""Most memory for one file, beyond that of an idle child process."""
PRELOADED = ["omnijax.modalities", "omnijax.data.sources.folder"]
"""Modules that are imported once for all child processes."""
AHEAD = 4
"""Results for each child process that wait until an earlier one is there."""


@dataclasses.dataclass(frozen=True)
class Failed:
    """A file that can't be read, and why, in one line."""

    reason: str


class _Child:
    """A child process, what it is working on, and since when."""

    def __init__(self, work: Callable[[Any], Any], modules: Sequence[str]):
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(PRELOADED)
        self._work, self._modules, self.place, self.deadline = work, modules, -1, 0.0
        self._start()

    def _start(self) -> None:
        self.connection, theirs = self._context.Pipe()
        arguments = (theirs, self._modules, BYTES, dict(os.environ))
        self._process = self._context.Process(target=_serve, args=arguments, daemon=True)  # type: ignore[attr-defined]
        self._process.start()
        theirs.close()
        try:
            self.connection.send(self._work)
            self.connection.recv()  # imports take seconds, which are no time of a file
        except (EOFError, OSError) as error:
            main = getattr(sys.modules["__main__"], "__file__", "the main module")
            rule = "a process that reads files ended at its start: it imports this file, which must do nothing then"
            fix = 'begin what it does with if __name__ == "__main__":'
            raise PlatformError("script", str(main), rule, fix) from error

    def begin(self, place: int, task: Any) -> None:
        """Gives the child a task; its result comes through the connection."""
        self.place, self.deadline = place, time.monotonic() + SECONDS
        self.connection.send(task)

    def result(self) -> Any:
        """The result; a `Failed` if the process has died or needs too long, and a new process then."""
        try:
            return self.connection.recv() if self.connection.poll() else self._renewed(f"it takes over {SECONDS:g} s")
        except (EOFError, OSError):
            self._process.join(1)
            name = signal.Signals(-code).name if (code := self._process.exitcode or 0) < 0 else f"exit status {code}"
            return self._renewed(f"the process that read it ended ({name})")

    def _renewed(self, reason: str) -> Failed:
        self.close()
        self._start()
        return Failed(reason)

    def close(self) -> None:
        """Ends the process."""
        self._process.kill()
        self._process.join()
        self.connection.close()


class Reader(contextlib.ExitStack, Generic[T, R]):
    """Calls a function for tasks in child processes; a context manager.

    Args:
        work: a function of one task that can be pickled. What it raises becomes a `Failed`.
        children: number of child processes; by default one for each core that may be used.
        classes: classes that the function needs; those of an experiment file can't be unpickled without it.
        here: work in this process instead, for files that can be trusted.
    """

    def __init__(self, work: Callable[[T], R], children: int = 0, classes: Iterable[type] = (), here: bool = False):
        super().__init__()
        count = children or len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else children or 1
        modules = sorted({kind.__module__ for kind in classes if kind.__module__.startswith(EXPERIMENT_PREFIX)})
        self._files = [str(sys.modules[name].__file__) for name in modules]
        self._work, self._count, self._here = work, count, here
        self._children: list[_Child] = []

    def read(self, tasks: Iterable[T]) -> Iterator[R | Failed]:
        """The results of all tasks, in their order."""
        if self._here:
            yield from (_tried(self._work, task) for task in tasks)
            return
        while len(self._children) < self._count:
            self._children.append(_Child(self._work, self._files))
            self.callback(self._children[-1].close)
        waiting, idle = iter(enumerate(tasks)), list(self._children)
        results, first, left = dict[int, Any](), 0, True
        while left or results or len(idle) < self._count:
            while idle and left and len(results) < AHEAD * self._count:
                if left := (entry := next(waiting, None)) is not None:
                    idle[-1].begin(*entry)
                    idle.pop()
            for child in self._finished(idle):
                results[child.place] = child.result()
                idle.append(child)
            while first in results:
                yield results.pop(first)
                first += 1

    def _finished(self, idle: list[_Child]) -> list[_Child]:
        """The children that have a result, have died, or are late. Waits until there is one."""
        busy = {child.connection: child for child in self._children if child not in idle}
        if not busy:
            return []
        left = min(child.deadline for child in busy.values()) - time.monotonic()
        ready = multiprocessing.connection.wait(list(busy), max(0.0, left))
        late = [child for child in busy.values() if child.deadline <= time.monotonic()]
        return list({id(one): one for one in [*(busy[one] for one in ready), *late]}.values())  # type: ignore[index]


def _serve(connection: Connection, modules: Sequence[str], most_bytes: int, environment: dict[str, str]) -> None:
    """What a child process does: it receives a function, and then tasks."""
    os.environ.update(environment)  # it was forked from a server that may have started earlier
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends its children
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # decoders in C write notes about every odd file
    for module in modules:  # classes of experiment files are unpickled by the names of their modules
        run_file(as_path(module))
    with contextlib.suppress(EOFError, BrokenPipeError):
        work = connection.recv()
        connection.send("ready")
        with contextlib.suppress(OSError, ValueError):  # where there is no /proc, there is no limit
            pages = pathlib.Path("/proc/self/statm").read_text().split()
            resource.setrlimit(resource.RLIMIT_AS, (int(pages[0]) * resource.getpagesize() + most_bytes,) * 2)
        while True:
            task = connection.recv()
            signal.setitimer(signal.ITIMER_REAL, SECONDS + 5)  # ends it even if the parent was killed meanwhile
            found = _tried(work, task, most_bytes)
            signal.setitimer(signal.ITIMER_REAL, 0)
            connection.send(found)


def _tried(work: Callable[[Any], Any], task: Any, most_bytes: int = BYTES) -> Any:
    """The result of a task; a `Failed` if it raises an error."""
    try:
        return work(task)
    except OmnijaxError as error:
        return Failed(error.rule if error.value == "file" else f"{error.value}: {error.rule}")
    except MemoryError:
        return Failed(f"it needs over {most_bytes / 2**30:g} GiB of memory")
    except OSError as error:
        return Failed(error.strerror or str(error))
    except (ValueError, TypeError, LookupError, EOFError, AttributeError, ArithmeticError, RuntimeError) as error:
        return Failed(f"{type(error).__name__}: {error}")
