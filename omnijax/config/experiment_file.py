"""Experiment files: Python files with `get_config()`, executed by path."""

from __future__ import annotations

import contextlib
import hashlib
import os
import sys
import traceback
from pathlib import Path
from types import ModuleType, TracebackType

from omnijax.errors import ConfigError, OmnijaxError
from omnijax.paths import translated, user_cache

EXPERIMENT_PREFIX = "omnijax_experiment_"
"""Begins the name of a module that was made from an experiment file."""
_EXECUTED: dict[tuple[Path, str], ModuleType] = {}
"""Modules by path and digest: a file is executed once in a process, so that its classes are the same everywhere."""


def run_file(path: Path) -> ModuleType:
    """The module that an experiment file makes. The same file is executed only once in a process.

    Raises a `ConfigError` if there is no such file, if it isn't a Python file, or if it raises an error.
    """
    with translated(path):
        there = path.exists()  # unlike `is_file`, it raises what a store answers
    if there and path.is_dir():
        raise ConfigError("experiment", str(path), "it is a folder", f"give its file: {path / 'experiment.py'}")
    if not path.is_file():
        raise ConfigError("experiment", str(path), "there is no such file", "give the path of an experiment file")
    key = path.resolve(), _digest(path)
    if key in _EXECUTED:
        return _EXECUTED[key]
    if path.suffix != ".py":
        raise ConfigError("experiment", str(path), "it must be a Python file", "give one that ends with .py")
    unique = hashlib.sha256("\0".join(map(str, key)).encode()).hexdigest()[:8]  # two files may have one name
    module = ModuleType(f"{EXPERIMENT_PREFIX}{path.stem}_{unique}")
    module.__file__ = str(path.absolute())
    sys.modules[module.__name__] = module  # dataclasses look their module up by its name
    with ExperimentErrors(path):
        exec(compile(path.read_bytes(), str(path), "exec", dont_inherit=True), vars(module))
    _EXECUTED[key] = module
    return module


class ExperimentErrors(contextlib.AbstractContextManager[object]):
    """A context that turns an error of an experiment file into a `ConfigError` with the traceback of that file."""

    def __init__(self, path: Path):
        self._path = path

    def __exit__(self, kind: object, error: BaseException | None, trace: TracebackType | None) -> None:
        if not isinstance(error, Exception | SystemExit) or isinstance(error, OmnijaxError):
            return
        ours = f"{Path(__file__).parents[1]}{os.sep}"
        frames = [one for one in traceback.extract_tb(trace) if not one.filename.startswith((ours, "<frozen"))]
        lines = [*traceback.format_list(frames), *traceback.format_exception_only(error)]
        fix = "correct the file, or install what it needs. The error was:\n" + "".join(lines).rstrip()
        raise ConfigError("experiment", str(self._path), "it must run without an error", fix) from error


def trust(path: Path) -> None:
    """Notes that this user trusts an experiment file, if it is there, so that runs may execute it.

    Where the home directory can't be written to, nothing is noted, and `--trust` has to be given for each command.
    """
    with contextlib.suppress(OSError, RuntimeError):
        if path.is_file() and not _is_trusted(path):
            with _trusted().open("a") as file:
                file.write(_digest(path) + "\n")


def run_stored(path: Path, trusted: bool) -> ModuleType:
    """Executes the experiment file that a run has stored, and says so.

    A `trusted` file is executed although this user never trained with it. Raises a `ConfigError` if the file is
    missing, or comes from elsewhere.
    """
    if path.is_file() and not trusted and not _is_trusted(path):
        rule = "the run comes from elsewhere, and loading it executes this file"
        raise ConfigError("experiment", str(path), rule, "read the file, then say --trust (in Python: trust=True)")
    if path.is_file() and (path.resolve(), _digest(path)) not in _EXECUTED:
        print(f"omnijax: executing {path}, which defines classes or data of the run", file=sys.stderr)
    return run_file(path)


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _trusted() -> Path:
    return user_cache("") / "trusted"


def _is_trusted(path: Path) -> bool:
    with contextlib.suppress(OSError, RuntimeError):  # no home directory, or one that can't be read
        return _digest(path) in _trusted().read_text().split()
    return False
