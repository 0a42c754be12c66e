"""Keeps a process alive when its output pipe is closed or its terminal can't show a character."""

from __future__ import annotations

import errno
import io
import logging
import os
import sys
from typing import Any, TextIO

_GONE = (errno.EPIPE, errno.EIO)
"""Errors for a pipe whose reader has gone, and for a terminal that was closed."""
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""Errors for a full disk, and for limits of a user or of a process."""
_lost: list[str] = []
"""Errors for which output was discarded that somebody may have wanted."""


def lost_output() -> str:
    """Why output was lost, as on a full disk; "" if none was."""
    return _lost[0] if _lost else ""


def keep_streams() -> None:
    """Replaces stdout and stderr by streams that don't fail when nobody reads them, or for lack of a character.

    When the reader of a pipe has gone (`| head`), output is discarded. A character that the encoding lacks is written
    as `?`; on stderr, as an escape sequence. Streams that another program has put in place, such as those of
    a notebook, are left alone. What a full disk loses is discarded, too, and `lost_output` tells it.
    """
    _lost.clear()
    sys.unraisablehook = _report
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)  # further errors of a read that is reported already
    if sys.stdout is sys.__stdout__:
        sys.stdout = _lasting(sys.stdout, "replace")
    if sys.stderr is sys.__stderr__:
        sys.stderr = _lasting(sys.stderr, "backslashreplace")


def _report(ignored: sys.UnraisableHookArgs) -> None:
    """Prints an error that Python can't raise, but for those of reads that Orbax breaks off in a damaged checkpoint.

    The checkpoint itself is reported by `omnijax.run.checkpoint`.
    """
    closed = isinstance(ignored.exc_value, RuntimeError) and "loop is closed" in str(ignored.exc_value)
    if not closed and "_read_array_index_and_device_put" not in repr(ignored.object):
        sys.__unraisablehook__(ignored)


def _lasting(stream: TextIO | None, errors: str) -> TextIO:
    if stream is None:  # it was closed by the caller
        return open(os.devnull, "w", encoding="utf-8")
    stream.flush()
    raw = io.BufferedWriter(_Lasting(stream.fileno(), "wb", closefd=False))
    return io.TextIOWrapper(raw, encoding=stream.encoding, errors=errors, line_buffering=True)


class _Lasting(io.FileIO):
    """A file that discards what is written to it when nobody can read it any more."""

    def write(self, data: Any) -> int:
        """Returns the number of bytes that were written or discarded."""
        try:
            return super().write(data)
        except OSError as error:
            if error.errno not in (*_GONE, *FULL):
                raise
            if error.errno in FULL:
                _lost.append(str(error))
            return memoryview(data).nbytes
