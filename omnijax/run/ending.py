"""Ends a process that has nothing left to wait for."""

from __future__ import annotations

import os
import sys
from typing import NoReturn


def end(status: int) -> NoReturn:
    """Ends the process at once.

    It skips what the interpreter and JAX do at exit: both wait for threads and processes that may be gone.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
