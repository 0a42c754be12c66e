"""Writes files whole, and with a check that finds later edits and damage."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from omnijax.errors import ConfigError, DataError

DIGEST, CHECK = "digest", "check"
"""Keys of the digest of all other values: in an object that is a file, and in one that is a line of a log."""
_SHORT = 8
_NAMED: set[tuple[bytes, Path]] = set()
"""Damaged lines that this process has named."""


def check_place(directory: Path, field: str) -> None:
    """Checks before anything is computed that files can be written into a directory, which may have to be made.

    Raises:
        ConfigError: it is a file, lies below one, or can't be written to; names the `field`.
    """
    above = next(place for place in (directory.absolute(), *directory.absolute().parents) if place.exists())
    if not above.is_dir() or not os.access(above, os.W_OK | os.X_OK):
        rule = f"{above} must be a directory that can be written to"
        raise ConfigError(field, str(directory), rule, "give another path")


def digest(content: Any) -> str:
    """SHA-256 of anything that JSON can hold, in hexadecimal; the same for what comes back from JSON."""
    return hashlib.sha256(json.dumps(json.loads(json.dumps(content)), sort_keys=True).encode()).hexdigest()


def digest_of_file(path: Path) -> str:
    """SHA-256 of the content of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_whole(path: Path, content: str | bytes) -> None:
    """Writes through a temporary file, so that a kill or a power cut leaves either the old file or the new one."""
    data, temporary = content if isinstance(content, bytes) else content.encode(), path.with_name(f".{path.name}.tmp")
    with temporary.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    directory = os.open(path.parent, os.O_RDONLY)
    with contextlib.suppress(OSError):  # some disks refuse it for a directory
        os.fsync(directory)
    os.close(directory)


def write_object(path: Path, content: Mapping[str, Any]) -> None:
    """Writes a JSON object with its digest, as `write_whole` does; an older digest in it is replaced."""
    content = {name: value for name, value in content.items() if name != DIGEST}
    write_whole(path, json.dumps({**content, DIGEST: digest(content)}, indent=2) + "\n")


def read_object(path: Path, keys: Iterable[str], fix: str) -> dict[str, Any]:
    """What `write_object` wrote.

    Raises:
        DataError: the file is missing, was changed, or holds no object with these keys; `fix` is part of the error.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
        said = value.pop(DIGEST, None) if isinstance(value, dict) else None
    except (OSError, ValueError, RecursionError) as error:
        missing = isinstance(error, FileNotFoundError | NotADirectoryError)
        rule = "this file is needed" if missing else f"it can't be read ({error})"
        raise DataError(path.name, str(path), rule, fix) from error
    if said != digest(value):
        rule = "it was edited or damaged after it was written: its digest isn't that of its content"
        if said is None:
            rule = "it has no digest: an older version wrote it, or it was edited"
        raise DataError(path.name, str(path), rule, fix)
    for key in keys:
        if key not in value:
            raise DataError(f"{path.name}:{key}", str(path), "this value is needed", fix)
    return dict(value)


def line_of(content: Mapping[str, Any]) -> bytes:
    """A line of a log: a JSON object with a check of its values."""
    return json.dumps({**content, CHECK: digest(content)[:_SHORT]}).encode() + b"\n"


def append_line(path: Path, content: Mapping[str, Any]) -> None:
    """Adds a line to a log, and drops the end of a line that a kill cut off. Several processes may do so at once."""
    with path.open("ab+") as file:
        with contextlib.suppress(OSError):  # some disks have no locks
            fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        there = file.read()
        if there and not there.endswith(b"\n"):
            file.truncate(there.rfind(b"\n") + 1)
        file.write(line_of(content))
        file.flush()
        os.fsync(file.fileno())


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The objects of a log; [] without a file.

    The end of a line that a kill cut off is left out. A line that was edited or damaged is left out, too, and is named
    on stderr.

    Raises:
        DataError: the file can't be read.
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
            if (line, path) not in _NAMED:
                print(f"omnijax: {path}: line {number} was edited or damaged, and is left out", file=sys.stderr)
            _NAMED.add((line, path))
            continue
        found.append(value)
    return found
