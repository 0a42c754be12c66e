"""Experiment files, and overriding what they configure."""

from __future__ import annotations

import argparse
import contextlib
import difflib
import io
import re
from collections.abc import Sequence
from pathlib import Path

import tyro

from omnijax.config import Config
from omnijax.config.experiment_file import OwnMistakes, run_file
from omnijax.errors import ConfigError
from omnijax.model.sizes import resized


def load_experiment(path: Path) -> Config:
    """The configuration of an experiment file: a Python file with `get_config()`.

    Raises:
        ConfigError: no such file, or it has no `get_config` that gives a `Config`.
    """
    module = run_file(path)
    with OwnMistakes(path):
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
    found = _parse(config, arguments)
    if isinstance(found, Config):
        return found
    names = re.findall(r"--([\w.]+)", explain_knobs(config))
    for argument in arguments:
        name = argument.removeprefix("--").split("=")[0].replace("-", "_")
        if argument.startswith("--") and name not in names:
            near = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
            fix = f"did you mean {' or '.join(near)}?" if near else "see --knobs for all of them"
            raise ConfigError("override", argument, "there is no such knob", fix)
    said = found.split("Error parsing ")[-1].split("\n")[0].strip(" │|")
    rule = f"it must fit the type of the knob ({said})"
    raise ConfigError("override", " ".join(arguments), rule, "see --knobs for the values as they are")


def explain_knobs(config: Config) -> str:
    """Every knob with its meaning, its type and its value."""
    return str(_parse(config, ["--help"]))


def _parse(config: Config, arguments: Sequence[str]) -> Config | str:
    """The configuration with these knobs, or what tyro prints instead: its help, or an error."""
    settings = (tyro.conf.AvoidSubcommands, tyro.conf.FlagConversionOff)  # `--knob False`, as for any other type
    said = io.StringIO()
    with contextlib.suppress(SystemExit), contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        return tyro.cli(Config, prog="knobs", default=config, args=arguments, use_underscores=True, config=settings)
    return said.getvalue()
