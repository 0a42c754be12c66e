"""Experiment files, and overriding what they configure."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import difflib
import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import tyro

from omnijax.config import Config
from omnijax.config.experiment_file import run_file
from omnijax.config.serial import knobs_of
from omnijax.errors import ConfigError
from omnijax.model.sizes import resized


def load_experiment(path: Path) -> Config:
    """The configuration of an experiment file: a Python file with `get_config()`.

    Raises:
        ConfigError: no such file, or it has no `get_config` that gives a `Config`.
    """
    module = run_file(path)
    config = module.get_config() if hasattr(module, "get_config") else None
    if not isinstance(config, Config):
        raise ConfigError("experiment", str(path), "its get_config() must return a Config", "see experiments/digits.py")
    return config


def override(config: Config, arguments: Sequence[str]) -> Config:
    """The configuration with knobs set from a command line, as in `--size base --model.depth 6`.

    A size comes first, wherever it stands, so that single knobs override it.

    Raises:
        ConfigError: a knob that doesn't exist (with the nearest that does), or a value of another type.
    """
    sizes = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    sizes.add_argument("--size", action="append", nargs="?", const="", default=[])
    options, arguments = sizes.parse_known_args(arguments)
    for size in options.size:
        config = resized(config, size)
    if not arguments:
        return config
    names = [name for name, _ in _knobs(config)]
    for argument in arguments:
        name = argument.removeprefix("--").split("=")[0].replace("-", "_")
        if argument.startswith("--") and name not in names:
            near = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
            fix = f"did you mean {' or '.join(near)}?" if near else "see --knobs for all of them"
            raise ConfigError("override", argument, "there is no such knob", fix)
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stdout(complaint), contextlib.redirect_stderr(complaint):
            return _parse(config, arguments)
    except SystemExit as error:
        said = complaint.getvalue().split("Error parsing ")[-1].split("\n")[0].strip(" │|")
        rule = f"it must fit the type of the knob ({said})"
        raise ConfigError("override", " ".join(arguments), rule, "see --knobs for the values as they are") from error


def explain_knobs(config: Config) -> str:
    """Every knob with its meaning, its type and its value."""
    said = io.StringIO()
    with contextlib.suppress(SystemExit), contextlib.redirect_stdout(said):
        _parse(config, ["--help"])
    return said.getvalue()


def _parse(config: Config, arguments: Sequence[str]) -> Config:
    settings = (tyro.conf.AvoidSubcommands, tyro.conf.FlagConversionOff)  # `--knob False`, as for any other type
    return tyro.cli(Config, prog="knobs", default=config, args=list(arguments), use_underscores=True, config=settings)


def _knobs(part: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted names of the plain values of a configuration; parts of tuples of dataclasses by number."""
    if dataclasses.is_dataclass(part):
        # An assignment is one value, some of them a table: the experiment file makes it, the command line can't.
        children = [(name, getattr(part, name)) for name in knobs_of(part) if name != "assignments"]
    elif isinstance(part, tuple) and part and dataclasses.is_dataclass(part[0]):
        children = [(str(number), child) for number, child in enumerate(part)]
    elif isinstance(part, Mapping):
        children = list(part.items())
    else:
        yield path, part
        return
    for name, child in children:
        yield from _knobs(child, f"{path}.{name}" if path else name)
