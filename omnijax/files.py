"""Writes files atomically, with digests that reveal later edits and damage; reads them back."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from omnijax.errors import ConfigError, DataError
from omnijax.paths import check_reachable, is_remote, local_copy, read_version, swap, translated

DIGEST, CHECK = "digest", "check"
"""Keys that hold the digest of all other values: in a JSON file, and in a line of a log."""
FLUSH_SECONDS = 60.0
"""How often an object that grows is written."""
_SHORT = 8  # hexadecimal digits of a digest in a line of a log
_REPORTED: set[tuple[bytes, Path]] = set()
"""Damaged lines that this process has reported."""


def check_writable(directory: Path, field: str) -> None:
    """Checks that files can be written into a directory, which needn't exist yet. Call it before anything is computed.

    Raises a `ConfigError` for `field` if the directory is a file, lies below one, or can't be written to.
    """
    if is_remote(directory):
        check_reachable(directory, field)
        return
    above = next(place for place in (directory.absolute(), *directory.absolute().parents) if place.exists())
    try:
        tempfile.TemporaryFile(dir=above).close()
    except OSError as error:
        rule = f"{above} must be a directory that can be written to"
        raise ConfigError(field, str(directory), rule, "give another path") from error


def digest(content: Any) -> str:
    """SHA-256 of a value that JSON can hold, in hexadecimal. A value that was read back from JSON has the same."""
    return hashlib.sha256(json.dumps(json.loads(json.dumps(content)), sort_keys=True).encode()).hexdigest()


def digest_of_file(path: Path) -> str:
    """SHA-256 of the content of a file, in hexadecimal."""
    with local_copy(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_atomically(path: Path, content: str | bytes) -> None:
    """Writes a file atomically. After a kill or a power cut, it has either its old content or the new content."""
    data = content if isinstance(content, bytes) else content.encode()
    if is_remote(path):
        with translated(path):
            path.write_bytes(data)  # an object appears as a whole
        return
    path = Path(os.path.realpath(path))
    temporary = path.with_name(f".{path.name}.tmp")
    with _opened_alone(temporary) as file:
        try:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
            temporary.replace(path)
        except (OSError, KeyboardInterrupt):
            temporary.unlink(missing_ok=True)
            raise
    directory = os.open(path.parent, os.O_RDONLY)
    with contextlib.suppress(OSError):  # some file systems can't sync a directory
        os.fsync(directory)
    os.close(directory)


def _opened_alone(temporary: Path) -> BinaryIO:
    """Opens an empty temporary file, after other processes that write it have given it its name."""
    while True:
        file = temporary.open("ab")
        with contextlib.suppress(OSError):  # some file systems have no locks
            fcntl.flock(file, fcntl.LOCK_EX)
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(file.fileno()), temporary.stat()):
                file.truncate(0)
                return file
        file.close()


def write_object(path: Path, content: Mapping[str, Any]) -> None:
    """Writes a JSON object and its digest with `write_atomically`. An older digest in the object is replaced."""
    content = {name: value for name, value in content.items() if name != DIGEST}
    write_atomically(path, json.dumps({**content, DIGEST: digest(content)}, indent=2) + "\n")


def read_object(path: Path, keys: Iterable[str], fix: str) -> dict[str, Any]:
    """Reads a JSON object that `write_object` wrote; returns it without its digest.

    Raises a `DataError` with this `fix` if the file is missing, was changed, or lacks one of these keys.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
        said = value.pop(DIGEST, None) if isinstance(value, dict) else None
    except (OSError, ValueError, RecursionError) as error:
        missing = isinstance(error, FileNotFoundError | NotADirectoryError)
        rule = "this file is needed" if missing else f"it can't be read ({error})"
        raise DataError(path.name, str(path), rule, fix) from error
    if said != digest(value):
        rule = "it was edited or damaged after it was written: its digest doesn't match its content"
        if said is None:
            rule = "it has no digest: an older version wrote it, or it was edited"
        raise DataError(path.name, str(path), rule, fix)
    for key in keys:
        if key not in value:
            raise DataError(f"{path.name}:{key}", str(path), "this value is needed", fix)
    return dict(value)


def line_of(content: Mapping[str, Any]) -> bytes:
    """A line of a log in UTF-8: a JSON object with a checksum of its values."""
    return json.dumps({**content, CHECK: digest(content)[:_SHORT]}).encode() + b"\n"


def append_line(path: Path, content: Mapping[str, Any]) -> None:
    """Appends a line to a log, after removing a partial last line. Several processes may do so at the same time."""
    while is_remote(path):
        whole, generation = read_version(path)
        if swap(path, generation, whole + line_of(content)):
            return
    with path.open("ab+") as file:
        with contextlib.suppress(OSError):  # some file systems have no locks
            fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        there = file.read()
        if there and not there.endswith(b"\n"):
            file.truncate(there.rfind(b"\n") + 1)
        file.write(line_of(content))
        file.flush()
        os.fsync(file.fileno())


class GrowingFile:
    """A file that grows. Only this process writes it. A store can't append: there, a flush writes the whole file again.

    Args:
        path: of the file.
        content: that it begins with.
    """

    def __init__(self, path: Path, content: bytes):
        write_atomically(path, content)
        self._path, self._content, self._written = path, bytearray(content), time.monotonic()
        self._file = None if is_remote(path) else path.open("ab", buffering=0)

    def write(self, more: bytes) -> None:
        """Appends; on a store every `FLUSH_SECONDS`, and by `flush`."""
        if self._file is not None:
            self._file.write(more)
            return
        self._content += more
        if time.monotonic() > self._written + FLUSH_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Makes sure that all of it is in the file."""
        if self._file is None:
            write_atomically(self._path, bytes(self._content))
            self._written = time.monotonic()

    def close(self) -> None:
        """Flushes, and ends the use of the file."""
        self.flush()
        if self._file is not None:
            self._file.close()


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The objects of a log, without their checksums; [] if there is no file.

    A partial last line, which a kill leaves, is skipped. An edited or damaged line is skipped, too, and reported once
    on stderr. Raises a `DataError` if the file can't be read.
    """
    try:
        *lines, _ = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        return []
    except OSError as error:
        raise DataError(path.name, str(path), f"it can't be read ({error})", "move it away") from error
    found = []
    for number, line in enumerate(lines, 1):
        try:
            value = json.loads(line)
            said = value.pop(CHECK, None) if isinstance(value, dict) else None
        except (ValueError, RecursionError):
            said = None
        if said is None or said != digest(value)[:_SHORT]:
            if (line, path) not in _REPORTED:
                print(f"omnijax: {path}: line {number} was edited or damaged, and is left out", file=sys.stderr)
            _REPORTED.add((line, path))
            continue
        found.append(value)
    return found
