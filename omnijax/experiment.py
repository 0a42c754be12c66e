"""Experiment files, and overriding what they configure."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import difflib
import io
import itertools
import os
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

import tyro

from omnijax.config import Config, SampleConfig, Target
from omnijax.config.experiment_file import ExperimentErrors, run_file
from omnijax.errors import ConfigError, check_known, shortened
from omnijax.model.sizes import resized


def load_experiment(path: Path) -> Config:
    """The configuration of an experiment file: a Python file with `get_config()`.

    Raises a `ConfigError` if there is no such file, or if it has no `get_config` that gives a `Config`.
    """
    module = run_file(path)
    with ExperimentErrors(path):
        config = module.get_config() if hasattr(module, "get_config") else None
    if not isinstance(config, Config):
        raise ConfigError("experiment", str(path), "its get_config() must return a Config", "see experiments/digits.py")
    return config


def override(config: Config, arguments: Sequence[str]) -> Config:
    """The configuration with knobs set from a command line, as in `--size base --model.depth 6`.

    `--size` is applied first, wherever it stands, so that single knobs override it. Targets are set by the name of the
    field, as in `--eval.targets.FIELD.top_p 0.9`; a target that the configuration lacks is added. Raises a
    `ConfigError` for a knob that doesn't exist (with the nearest that does), and for a value of another type.
    """
    sizes = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    sizes.add_argument("--size", action="append", nargs="?", const="", default=[])
    options, arguments = sizes.parse_known_args(arguments)
    for size in options.size:
        config = resized(config, size)
    if not arguments:
        return config
    config, arguments = _targets_by_index(config, arguments)
    found = _parse(config, arguments)
    if isinstance(found, Config):
        return found
    names = re.findall(r"--([\w.]+)", str(_parse(config, ["--help"])))
    for argument in arguments:
        name = argument.removeprefix("--").split("=")[0].replace("-", "_")
        if argument.startswith("--") and name not in names:
            near = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
            fix = f"perhaps you mean {' or '.join(near)}" if near else "see --knobs for all of them"
            raise ConfigError("override", argument, "there is no such knob", fix)
    raise _refused(found, arguments, config)


def _refused(said: str, arguments: Sequence[str], config: Config) -> ConfigError:
    """The error for values that tyro refuses. Tyro prints its message between two lines of dashes."""
    lines = [line.strip(" │|╭╮╰╯") for line in said.splitlines()]
    edges = [place for place, line in enumerate(lines) if not line or re.fullmatch("[-─]+( .* )?[-─]{9,}", line)]
    start = next((place for place in edges if lines[place]), len(lines))
    end = next((place for place in edges if place > start), len(lines))
    told = " ".join(lines[start + 1 : end]) or "it can't be read"
    if said.startswith("usage"):
        told = "there is no knob of this name"
    named = re.search(r"--([\w.]+)", told)
    knob, values = "override", " ".join(arguments)
    for place, argument in enumerate(arguments if named else ()):
        name, equals, value = argument.removeprefix("--").partition("=")
        if named and name.replace("-", "_") == named[1]:
            following = itertools.takewhile(lambda one: not one.startswith("--"), arguments[place + 1 :])
            knob, values = named[1], value if equals else " ".join(following)
    for place, target in enumerate(config.eval.targets):
        knob = re.sub(rf"^eval\.targets\.{place}\.(sample\.)?", f"eval.targets.{target.name}.", knob)
    rule = re.sub(r"^Error parsing --[\w.]+: ", "", shortened(told)).rstrip(".")
    return ConfigError(knob, values, rule, "`omnijax train FILE --knobs` shows all knobs with their values")


def _targets_by_index(config: Config, arguments: Sequence[str]) -> tuple[Config, list[str]]:
    """Replaces the names of targets in the arguments by their indices, and adds targets for fields without one."""
    targets, found = list(config.eval.targets), []
    knobs = [one.name for one in dataclasses.fields(SampleConfig)]
    for argument in arguments:
        named = re.fullmatch(r"--eval\.targets\.([^.=\d][^.=]*)\.(?:sample\.)?([^.=]+)(=.*)?", argument, re.DOTALL)
        if named is None:
            found.append(argument)
            continue
        field, knob, value = named[1], named[2].replace("-", "_"), named[3] or ""
        check_known("--eval.targets", field, config.data.fields, "the fields are")
        check_known(f"--eval.targets.{field}", knob, [*knobs, "order"], "the knobs of a target are")
        places = [place for place, target in enumerate(targets) if target.name == field] or [len(targets)]
        targets += [Target(field)] * (places[0] == len(targets))
        found.append(f"--eval.targets.{places[0]}.{'sample.' * (knob in knobs)}{knob}{value}")
    return dataclasses.replace(config, eval=dataclasses.replace(config.eval, targets=tuple(targets))), found


def explain_knobs(config: Config) -> str:
    """Every knob with its meaning, its type and its value, wrapped to the width of the terminal."""
    return str(_parse(config, ["--help"], shutil.get_terminal_size().columns))


def _parse(config: Config, arguments: Sequence[str], columns: int = 200) -> Config | str:
    """The configuration with these knobs, or what tyro prints instead: its help, or an error."""
    settings = (tyro.conf.AvoidSubcommands, tyro.conf.FlagConversionOff)  # `--knob False`, as for any other type
    said, before = io.StringIO(), os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = str(columns)
    try:
        with contextlib.suppress(SystemExit), contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            return tyro.cli(Config, prog="knobs", default=config, args=arguments, use_underscores=True, config=settings)
    finally:
        os.environ.pop("COLUMNS")
        os.environ.update({} if before is None else {"COLUMNS": before})
    return said.getvalue()
