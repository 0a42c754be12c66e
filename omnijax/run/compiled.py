"""Compiled programs are kept between commands, in a bounded directory of the user's cache."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

from omnijax.paths import shrink, user_cache

SWITCH = "OMNIJAX_COMPILED"
"""Environment variable: `off` keeps nothing; any other value is the directory to use."""
MOST_BYTES = 2**30
"""When the directory is larger, the programs that weren't used for the longest time are deleted."""
LEAST_SECONDS = "0.3"
"""Programs that compile faster are not kept."""


def keep_compiled() -> None:
    """Lets JAX keep compiled programs, unless the user has chosen a directory of JAX's own. Call it before JAX starts.

    An entry that can't be read is compiled again, without a warning. Programs are the same bits either way.
    """
    chosen = os.environ.get(SWITCH, "")
    if chosen == "off" or "JAX_COMPILATION_CACHE_DIR" in os.environ:
        return
    try:
        directory = Path(chosen) if chosen else user_cache("compiled")
        directory.mkdir(parents=True, exist_ok=True)
        shrink(directory, MOST_BYTES)
    except (OSError, RuntimeError):  # there is no home directory, or it can't be written to: compile each time
        return
    os.environ["JAX_COMPILATION_CACHE_DIR"] = str(directory)
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", LEAST_SECONDS)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # XLA's notices about entries of other processors
    warnings.filterwarnings("ignore", "Error (reading|writing) persistent compilation cache entry", UserWarning)
