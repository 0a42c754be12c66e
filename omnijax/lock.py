"""Lock files: one process at a time works in a directory, others learn who holds it, and dead holders don't block it.

A holder locks the file with `flock`, which the system releases when the process ends, and touches it every 10 seconds.
If a lock file isn't locked, its holder is dead, or runs on another machine and the file system doesn't share locks.
A holder on another machine counts as dead after 60 seconds without a touch, measured here; so does any holder where the
file system has no locks. If it was only suspended, it finds out by `check`, as training does before each checkpoint.

On a store the lock is an object, which is replaced only if it still is what was read. A holder on this machine is dead
when its process isn't there any more, one on another machine after 60 seconds without a touch.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import multiprocessing
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
from omnijax.paths import is_remote, read_version, swap

LOCK = ".lock"
HOLDS, RUNS, DEAD = "holds", "runs", "dead"
"""State of the holder of a lock: it holds the lock, its process still runs, or its process has ended."""
TOUCH_SECONDS, DEAD_AFTER_SECONDS, POLL_SECONDS, REPORT_AFTER_SECONDS = 10.0, 60.0, 0.1, 3.0


class FileLock:
    """A local lock file, which this process holds after `take`."""

    def __init__(self, path: Path):
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path, self._descriptor = path, os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        self._free, self._ours = threading.Event(), _this_process()

    def read(self) -> tuple[bytes, int, str]:
        """The content, the time of the last touch in ns, and the holder's state: `HOLDS`, `DEAD`, or "" for unknown."""
        ours, content = _flock(self._descriptor), _content(self._descriptor)
        dead = ours is True and _holder(content).get("boot") == _boot()
        return content, os.fstat(self._descriptor).st_mtime_ns, HOLDS if ours is False else DEAD if dead else ""

    def take(self, _: int) -> bool:
        """Names this process as the holder; True."""
        self._write(json.dumps(self._ours).encode())
        threading.Thread(target=self._touch, daemon=True).start()
        return True

    def check(self) -> None:
        """Checks that no other process has taken the lock over. If the file was removed, writes it again.

        Raises a `CheckpointError` if another process has taken it, or if its place was moved, removed or out of reach.
        """
        try:
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o644)
        except FileNotFoundError as error:
            rule, fix = "its directory was moved or removed in the meantime", "run the command again where it is now"
            raise CheckpointError("lock", str(self._path), rule, fix) from error
        except OSError:  # the state of the lock is unknown
            return
        removed = os.fstat(descriptor).st_ino != os.fstat(self._descriptor).st_ino
        if removed and _flock(descriptor) is not False and not _content(descriptor):
            os.dup2(descriptor, self._descriptor)
            self._write(json.dumps(self._ours).encode())
        holder = _holder(_content(descriptor))
        os.close(descriptor)
        if holder.get("key") != self._ours["key"]:
            raise _taken(self._path, holder)

    def release(self) -> None:
        """Empties the file, unless another process has taken it over."""
        self._free.set()
        if _holder(_content(self._descriptor)).get("key") == self._ours["key"]:
            self._write(b"")

    def close(self) -> None:
        """Ends the use of the file."""
        os.close(self._descriptor)

    def _write(self, content: bytes) -> None:
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, content, 0)

    def _touch(self) -> None:
        while not self._free.wait(TOUCH_SECONDS):
            with contextlib.suppress(OSError):
                os.utime(self._descriptor)


class ObjectLock:
    """A lock object on a store, which this process holds after `take`."""

    def __init__(self, path: Path):
        self._path, self._generation, self._ours = path, 0, json.dumps(_this_process()).encode()
        self._writing, self._free = threading.Lock(), threading.Event()

    def read(self) -> tuple[bytes, int, str]:
        """The content, the generation of the object, and the holder's state: `RUNS`, `DEAD`, or "" for unknown."""
        content, generation = read_version(self._path)
        return content, generation, _state_here(_holder(content))

    def take(self, generation: int) -> bool:
        """Names this process as the holder, if the object still has this generation; tells whether it had."""
        self._generation = swap(self._path, generation, self._ours)
        if self._generation:
            threading.Thread(target=self._touch, daemon=True).start()
        return bool(self._generation)

    def check(self) -> None:
        """As `FileLock.check`."""
        with self._writing:
            try:
                there = b""
                if not (generation := swap(self._path, self._generation, self._ours)):
                    there = read_version(self._path)[0]
                    generation = 0 if there else swap(self._path, 0, self._ours)  # it was removed
            except OSError as error:
                rule = f"the store can't be reached ({error})"
                raise CheckpointError("lock", str(self._path), rule, "give the same command again") from error
            if not generation:
                raise _taken(self._path, _holder(there))
            self._generation = generation

    def release(self) -> None:
        """Empties the object, unless another process has taken it over."""
        self._free.set()
        with self._writing, contextlib.suppress(OSError):
            swap(self._path, self._generation, b"")

    def close(self) -> None:
        """Ends the touches."""
        self._free.set()

    def _touch(self) -> None:
        while not self._free.wait(TOUCH_SECONDS):
            with contextlib.suppress(CheckpointError):  # the next `check` of the command raises it
                self.check()


Lock = FileLock | ObjectLock


@contextlib.contextmanager
def locked(path: Path, wait: bool = True) -> Iterator[Lock | None]:
    """Holds a lock file.

    Waits while another process holds it; with `wait=False` it yields None instead. If the holder may be on another
    machine, this takes until its next touch, or, if it is dead, 60 seconds.

    Yields:
        The lock, or None if another process holds it.
    """
    lock: Lock = ObjectLock(path) if is_remote(path) else FileLock(path)
    try:
        if not _acquire(path, lock, wait):
            yield None
            return
        try:
            yield lock
        finally:
            lock.release()
    finally:
        lock.close()


def _acquire(path: Path, lock: Lock, wait: bool) -> bool:
    """Waits until this process has the lock. Without `wait` it gives up as soon as the holder is known to be alive."""
    seen, since, started, said = None, 0.0, time.monotonic(), False
    while True:
        content, touched, state = lock.read()
        alive = state in (HOLDS, RUNS)
        if seen != (content, touched):
            alive |= seen is not None
            seen, since = (content, touched), time.monotonic()
        holder, silent = _holder(content), time.monotonic() > since + DEAD_AFTER_SECONDS
        if state != HOLDS and (not content or state == DEAD or silent) and lock.take(touched):
            if content:
                why = "isn't running any more" if state == DEAD else f"hasn't touched it for {DEAD_AFTER_SECONDS:g} s"
                print(f"omnijax: {path}: taken over: {describe(holder)} {why}", file=sys.stderr)
            return True
        if alive and not wait:
            return False
        if alive and getattr(multiprocessing.current_process(), "_inheriting", False):  # it imports its parent's script
            raise CheckpointError("lock", str(path), "its holder waits for us", 'use if __name__ == "__main__":')
        if not said and time.monotonic() > started + REPORT_AFTER_SECONDS:
            print(f"omnijax: {path}: held by {describe(holder)}; waiting …", file=sys.stderr)
            said = True
        time.sleep(POLL_SECONDS)


@contextlib.contextmanager
def training_lock(run: Path) -> Iterator[Lock]:
    """Locks a run directory, made if needed, for training; raises a `CheckpointError` if another process has it."""
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


def _taken(path: Path, holder: dict[str, Any]) -> CheckpointError:
    rule = f"{describe(holder)} has taken it over, because this process lost it"
    return CheckpointError("lock", str(path), rule, "let that process continue, or stop it")


def _this_process() -> dict[str, Any]:
    """The entry of this process as a holder."""
    who = {"host": platform.node(), "boot": _boot(), "pid": os.getpid(), "key": uuid.uuid4().hex}
    return who | {"began": _began(os.getpid()), "since": time.strftime("%Y-%m-%d %H:%M:%S")}


def _state_here(holder: dict[str, Any]) -> str:
    """`RUNS` or `DEAD`, if the holder is a process of this machine and this container; otherwise ""."""
    if not (ours := _began(os.getpid())) or ours[0] != (holder.get("began") or [""])[0]:
        return ""
    return RUNS if _began(holder["pid"]) == holder["began"] else DEAD


def _began(pid: int) -> list[str]:
    """Where and when a process has begun: boot, namespace of process ids, clock ticks. [] if it isn't there."""
    try:
        status, *fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        # proc_pid_stat(5): field 3 is Z for a process that has ended, field 22 the time.
        return [] if status == "Z" else [f"{_boot()} {os.readlink('/proc/self/ns/pid')}", fields[18]]
    except OSError:
        return []


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
