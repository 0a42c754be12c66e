"""Lock files: one process at a time works in a directory, others learn who holds it, and dead holders don't block it.

A holder locks the file with `flock`, which the system releases when the process ends, and touches it every 10 seconds.
If a lock file isn't locked, its holder is dead, or runs on another machine and the file system doesn't share locks.
A holder on another machine counts as dead after 60 seconds without a touch, measured here; so does any holder where the
file system has no locks. If it was only suspended, it finds out when it calls `Lock.check`, as training does before
each checkpoint.
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
TOUCH_SECONDS, DEAD_AFTER_SECONDS, POLL_SECONDS, REPORT_AFTER_SECONDS = 10.0, 60.0, 0.1, 3.0


class Lock:
    """A lock file that this process holds.

    Attributes:
        path: path of the file.
    """

    def __init__(self, path: Path, descriptor: int):
        self.path, self._descriptor, self._key, self._free = path, descriptor, uuid.uuid4().hex, threading.Event()
        holder = {"host": platform.node(), "boot": _boot(), "pid": os.getpid(), "key": self._key}
        self._content = json.dumps(holder | {"since": time.strftime("%Y-%m-%d %H:%M:%S")}).encode()
        self._write(self._content)
        threading.Thread(target=self._touch, daemon=True).start()

    def check(self) -> None:
        """Checks that no other process has taken the lock over. If the file was removed, writes it again.

        Raises:
            CheckpointError: another process has taken it, or the directory was moved or removed.
        """
        try:
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o644)
        except FileNotFoundError as error:
            rule, fix = "its directory was moved or removed in the meantime", "run the command again where it is now"
            raise CheckpointError("lock", str(self.path), rule, fix) from error
        except OSError:  # the state of the lock is unknown
            return
        removed = os.fstat(descriptor).st_ino != os.fstat(self._descriptor).st_ino
        if removed and _flock(descriptor) is not False and not _content(descriptor):
            os.dup2(descriptor, self._descriptor)
            self._write(self._content)
        holder = _holder(_content(descriptor))
        os.close(descriptor)
        if holder.get("key") != self._key:
            rule = f"{describe(holder)} has taken it over, because this process lost it"
            raise CheckpointError("lock", str(self.path), rule, "let that process continue, or stop it")

    def release(self) -> None:
        """Empties the file, unless another process has taken it over."""
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

    Waits while another process holds it; with `wait=False` it yields None instead. If the holder may be on another
    machine, this takes until its next touch, or, if it is dead, 60 seconds.

    Yields:
        The lock, or None if another process holds it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        holder = _acquire(path, descriptor, wait)
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


def _acquire(path: Path, descriptor: int, wait: bool) -> dict[str, Any] | None:
    """Waits until this process has the lock; returns the entry of its last holder, {} if there was none.

    Without `wait` it returns None as soon as the holder is known to be alive.
    """
    seen, since, started, said = None, 0.0, time.monotonic(), False
    while True:
        ours, content, touched = _flock(descriptor), _content(descriptor), os.fstat(descriptor).st_mtime_ns
        holder, alive = _holder(content), ours is False
        if seen != (content, touched):
            alive |= seen is not None
            seen, since = (content, touched), time.monotonic()
        dead = ours is True and holder.get("boot") == _boot()
        silent = time.monotonic() > since + DEAD_AFTER_SECONDS
        if ours is not False and (not content or dead or silent):
            if content:
                why = "isn't running any more" if dead else f"hasn't touched it for {DEAD_AFTER_SECONDS:g} s"
                print(f"omnijax: {path}: taken over: {describe(holder)} {why}", file=sys.stderr)
            return holder
        if alive and not wait:
            return None
        if not said and time.monotonic() > started + REPORT_AFTER_SECONDS:
            print(f"omnijax: {path}: held by {describe(holder)}; waiting …", file=sys.stderr)
            said = True
        time.sleep(POLL_SECONDS)


@contextlib.contextmanager
def training_lock(run: Path) -> Iterator[Lock]:
    """Keeps other processes from training in a run directory. The directory is created if needed.

    Raises:
        CheckpointError: another process trains in it.
    """
    with locked(run / LOCK, wait=False) as mine:
        if mine is None:
            rule = f"{describe(_holder((run / LOCK).read_bytes()))} trains in it"
            fix = "wait until it ends, stop it, or choose another --workdir"
            raise CheckpointError("workdir", str(run), rule, fix)
        yield mine


def describe(holder: dict[str, Any]) -> str:
    """Names the holder of a lock in a message: its process id, its machine and its start time."""
    if not holder:
        return "another process"
    return f"process {holder.get('pid')} on {holder.get('host')} (since {holder.get('since')})"


def _holder(content: bytes) -> dict[str, Any]:
    """The holder that a lock file names; {} if the file is empty or incomplete."""
    try:
        found = json.loads(content)
    except ValueError:
        return {}
    return found if isinstance(found, dict) and "key" in found else {}


def _content(descriptor: int) -> bytes:
    return os.pread(descriptor, 10_000, 0)


def _flock(descriptor: int) -> bool | None:
    """Locks an open file; False if another process has locked it, None where the file system has no locks."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def _boot() -> str:
    """Identifies the current boot of this machine; the host name where the system has no boot id."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return platform.node()
