"""Standard output and error that no reader and no terminal can break."""

from __future__ import annotations

import errno
import io
import os
import sys
from typing import Any, TextIO

_GONE = (errno.EPIPE, errno.EIO)
"""A pipe whose reader has gone away, and a terminal that was closed."""


def keep_streams() -> None:
    """Lets the work go on when nobody reads its output any more, or a terminal can't show a letter.

    After the reader of a pipe is gone (`| head`), output is discarded. A letter that the encoding of the terminal lacks
    is written as `?`, and on standard error as its number. Streams that another program has put in place, such as those
    of a notebook, are left alone.
    """
    if sys.stdout is sys.__stdout__:
        sys.stdout = _lasting(sys.stdout, "replace")
    if sys.stderr is sys.__stderr__:
        sys.stderr = _lasting(sys.stderr, "backslashreplace")


def _lasting(stream: TextIO | None, errors: str) -> TextIO:
    if stream is None:  # it was closed by the caller
        return open(os.devnull, "w", encoding="utf-8")
    stream.flush()
    raw = io.BufferedWriter(_Lasting(stream.fileno(), "wb", closefd=False))
    return io.TextIOWrapper(raw, encoding=stream.encoding, errors=errors, line_buffering=True)


class _Lasting(io.FileIO):
    """A file descriptor that takes everything, and discards it once there is nobody to read it."""

    def write(self, data: Any) -> int:
        """The number of bytes, as if they had been written. Raises an `OSError` for a full disk."""
        try:
            return super().write(data)
        except OSError as error:
            if error.errno not in _GONE:
                raise
            return memoryview(data).nbytes
