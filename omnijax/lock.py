"""Lock files: one process at a time works in a directory. The others learn who holds it, and the dead block nobody.

A holder keeps the file locked with `flock`, which the system ends with the process, and touches it every few seconds.
So the holder of a file that isn't locked is a dead process of this machine, or, where a disk doesn't pass locks on, a
process of another machine. The latter counts as dead after a minute without a touch, by the clock here. If it was only
suspended, it finds out when it checks its lock, which training does before it saves.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import platform
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from omnijax.errors import CheckpointError

LOCK = ".lock"
TOUCH_SECONDS, SILENT_SECONDS, POLL_SECONDS, QUIET_SECONDS = 10.0, 60.0, 0.1, 3.0


class Lock:
    """A lock file that this process holds.

    Attributes:
        path: of the file.
    """

    def __init__(self, path: Path, descriptor: int):
        self.path, self._descriptor, self._key, self._free = path, descriptor, uuid.uuid4().hex, threading.Event()
        holder = {"host": platform.node(), "boot": _boot(), "pid": os.getpid(), "key": self._key}
        self._content = json.dumps(holder | {"since": time.strftime("%Y-%m-%d %H:%M:%S")}).encode()
        self._write(self._content)
        threading.Thread(target=self._touch, daemon=True).start()

    def check(self) -> None:
        """Makes sure that no other process has taken the lock. A file that somebody has removed is written again.

        Raises:
            CheckpointError: another process has taken it.
        """
        try:
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError:  # nothing is known then
            return
        if os.fstat(descriptor).st_ino != os.fstat(self._descriptor).st_ino and _flock(descriptor):
            os.dup2(descriptor, self._descriptor)
            self._write(self._content)
        holder = _holder(_content(descriptor))
        os.close(descriptor)
        if holder and holder["key"] != self._key:
            rule = f"{told(holder)} has taken this directory over, because this process was silent"
            raise CheckpointError("workdir", str(self.path.parent), rule, "let that process go on, or stop it")

    def release(self) -> None:
        """Empties the file, if it is still that of this process."""
        self._free.set()
        if _holder(_content(self._descriptor)).get("key") == self._key:
            self._write(b"")

    def _write(self, content: bytes) -> None:
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, content, 0)

    def _touch(self) -> None:
        while not self._free.wait(TOUCH_SECONDS):
            with contextlib.suppress(OSError):
                os.utime(self._descriptor)


@contextlib.contextmanager
def locked(path: Path, wait: bool = True) -> Iterator[Lock | None]:
    """Holds a lock file.

    Waits while another process holds it; with `wait=False` it yields None instead. That takes as long as the next touch
    if the holder may be on another machine.

    Yields:
        The lock, or None if another process holds it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        holder = _win(path, descriptor, wait)
        if holder is None:
            yield None
            return
        lock = Lock(path, descriptor)
        try:
            yield lock
        finally:
            lock.release()
    finally:
        os.close(descriptor)


def _win(path: Path, descriptor: int, wait: bool) -> dict[str, Any] | None:
    """Waits until the lock can be taken; returns what the file says of its last holder, {} for none.

    Without `wait` it returns None when the holder is known to be alive.
    """
    seen, since, started, said = None, 0.0, time.monotonic(), False
    while True:
        free, content, touched = _flock(descriptor), _content(descriptor), os.fstat(descriptor).st_mtime_ns
        holder, alive = _holder(content), not free
        if seen != (content, touched):
            alive |= seen is not None
            seen, since = (content, touched), time.monotonic()
        here = holder.get("boot") == _boot()
        silent = time.monotonic() > since + SILENT_SECONDS
        if free and (not content or here or silent):
            if content:
                why = "isn't running any more" if here else f"was silent for {SILENT_SECONDS:g} s"
                print(f"omnijax: {path}: taken over: {told(holder)} {why}", file=sys.stderr)
            return holder
        if alive and not wait:
            return None
        if not said and time.monotonic() > started + QUIET_SECONDS:
            print(f"omnijax: {path}: held by {told(holder)}; waiting …", file=sys.stderr)
            said = True
        time.sleep(POLL_SECONDS)


@contextlib.contextmanager
def alone(run: Path) -> Iterator[Lock]:
    """Keeps other processes from training in a run directory, which is made if it isn't there.

    Raises:
        CheckpointError: another process trains in it.
    """
    with locked(run / LOCK, wait=False) as mine:
        if mine is None:
            rule = f"{told(_holder((run / LOCK).read_bytes()))} trains in it"
            fix = "wait for its end, stop it, or choose another --workdir"
            raise CheckpointError("workdir", str(run), rule, fix)
        yield mine


def told(holder: dict[str, Any]) -> str:
    """Names the holder of a lock for people."""
    if not holder:
        return "another process"
    return f"process {holder.get('pid')} on {holder.get('host')} (since {holder.get('since')})"


def _holder(content: bytes) -> dict[str, Any]:
    """What a lock file says; {} if it is empty, or not written to its end."""
    try:
        found = json.loads(content)
    except ValueError:
        return {}
    return found if isinstance(found, dict) and "key" in found else {}


def _content(descriptor: int) -> bytes:
    return os.pread(descriptor, 10_000, 0)


def _flock(descriptor: int) -> bool:
    """Locks an open file; False if another process has it. Where a disk has no such locks, only touches count."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


def _boot() -> str:
    """Tells this start of this machine from others, where the system says it."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return platform.node()
