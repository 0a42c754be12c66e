"""Lock files: one process at a time works in a directory, and the others learn who holds it."""

from __future__ import annotations

import fcntl
import os
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from omnijax.errors import CheckpointError

LOCK = ".lock"


@contextmanager
def locked(path: Path, wait: bool = True) -> Iterator[bool]:
    """Holds a lock file, which names its holder for people. The system releases it when the process ends, however.

    Waits until no other process, on any machine, holds the lock; with `wait=False` it yields False at once instead.

    Yields:
        Whether this process holds the lock.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
            return
        lock.truncate(0)
        since = time.strftime("%Y-%m-%d %H:%M:%S")
        print(f"process {os.getpid()} on {platform.node()}, since {since}", file=lock, flush=True)
        yield True


@contextmanager
def alone(run: Path) -> Iterator[None]:
    """Keeps other processes from training in a run directory, which is made if it isn't there.

    Raises:
        CheckpointError: another process trains in it.
    """
    with locked(run / LOCK, wait=False) as mine:
        if not mine:
            holder = (run / LOCK).read_text().strip() or "another process"
            rule, fix = f"{holder}, trains in it", "wait for its end, stop it, or choose another --workdir"
            raise CheckpointError("workdir", str(run), rule, fix)
        yield
