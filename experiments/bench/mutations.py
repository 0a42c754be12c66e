"""Damages the files of a run and of its data set, and checks that nothing else is read from them.

    python experiments/bench/mutations.py --count 2000 --commands 50

A mutation flips, cuts, repeats, zeroes or removes bytes of a file that omnijax reads, or removes the file. Then the
functions that read this file are called. They must return what the undamaged file gives, or raise an error of omnijax
that names the file. Damaged lines of a log may be missing. `--commands` is the number of whole commands that run on
damaged files: `train` (which continues the run), `evaluate` and `sample`. They must give the results of an undamaged
run, or an error that names the file, or name it and use an older checkpoint. The script prints a JSON line for each
failure and a summary. Its exit status is 0 without failures.
"""

from __future__ import annotations

import argparse
import collections
import dataclasses
import functools
import json
import pathlib
import shutil
import sys
import tempfile
import traceback
from collections.abc import Callable
from typing import Any

import forked
import jax
import numpy as np
from parts import add_part

from omnijax import testing
from omnijax.config import Config, to_dict
from omnijax.data import manifest
from omnijax.errors import RESUMABLE, WRONG_INPUT, OmnijaxError
from omnijax.evaluate.history import ROWS, read_rows
from omnijax.evaluate.loading import OpenRun
from omnijax.experiment import load_experiment
from omnijax.files import read_lines
from omnijax.model.build import model_of
from omnijax.report.inputs import EVAL, EXAMPLES, read_run
from omnijax.run.checkpoint import Checkpoints
from omnijax.run.directory import CONFIG, FOLDER, METRICS, RUN, load_config, load_modalities
from omnijax.step.sharding import make_mesh
from omnijax.step.state import abstract_state

DIGITS = pathlib.Path(__file__).parents[1] / "digits.py"
STEPS = 4
NOT_READ = ("tensorboard", "figures", "report.html", ".lock")
"""Files and directories that omnijax doesn't read, or that need no check."""
EXPERIMENT = """import json
from omnijax.config import from_dict


def get_config():
    return from_dict(json.loads({text!r}))
"""
Reader = Callable[[], Any]


def small(data: pathlib.Path) -> Config:
    """A small demo of a few steps with two checkpoints."""
    config = testing.shrink(load_experiment(DIGITS), data)
    return dataclasses.replace(
        config,
        train=dataclasses.replace(config.train, steps=STEPS, checkpoint_every=STEPS // 2, log_every=1),
        eval=dataclasses.replace(config.eval, routes=config.eval.routes[:1], completions=()),
    )


def prepared(directory: pathlib.Path) -> tuple[Config, pathlib.Path]:
    """The configuration, and a run that was trained and evaluated; forked, so that this process uses no device."""
    config, experiment, run = small(directory / "data"), directory / "small.py", directory / "run"
    experiment.write_text(EXPERIMENT.format(text=json.dumps(to_dict(config))))
    for command in (["train", str(experiment), "--workdir", str(run)], ["evaluate", str(run)]):
        status, said = forked.run(command, directory / "log")
        if status:
            raise SystemExit(f"exit status {status}\n{said}")
    return config, run


def mutated(content: bytes, random: np.random.Generator) -> tuple[str, bytes | None]:
    """The kind of a random mutation, and the content after it; None if the file is removed."""
    kind = str(random.choice(["flip", "cut", "double", "zero", "remove bytes", "remove file", "empty", "append"]))
    first, last = sorted(int(place) for place in random.integers(0, len(content) + 1, 2))
    last = min(last, first + int(random.choice([1, 8, 100, 10**6])))
    changed: dict[str, bytes | None] = {
        "cut": content[:first],
        "double": content[:last] + content[first:],
        "zero": content[:first] + bytes(last - first) + content[last:],
        "remove bytes": content[:first] + content[last:],
        "remove file": None,
        "empty": b"",
        "append": content + random.bytes(int(random.integers(1, 50))),
    }
    if kind == "flip":
        flipped = bytearray(content)
        for place in random.integers(0, len(content), int(random.integers(1, 4))) if content else ():
            flipped[place] ^= 1 << int(random.integers(8))
        changed[kind] = bytes(flipped)
    return kind, changed[kind]


def files_read(run: pathlib.Path, data: pathlib.Path) -> list[pathlib.Path]:
    """All files that omnijax reads."""
    every = (path for place in (run, data) for path in sorted(place.rglob("*")) if path.is_file())
    return [path for path in every if not any(part in NOT_READ for part in path.relative_to(path.parents[-1]).parts)]


class Readers:
    """Functions that read files of a run and of its data set, and return values that can be compared."""

    def __init__(self, config: Config, run: pathlib.Path):
        self._config, self._run, self._data = config, run, pathlib.Path(config.data.directory)
        self._abstract = functools.cache(lambda: abstract_state(config, model_of(config), make_mesh(config.mesh)))

    def of(self, path: pathlib.Path) -> Reader:
        """The function that reads a file."""
        if path.is_relative_to(self._data):
            return self._records
        part = path.relative_to(self._run).parts[0]
        return {
            CONFIG: lambda: to_dict(load_config(self._run)),
            RUN: self._modalities,
            "fitted": self._modalities,
            METRICS: lambda: read_lines(self._run / METRICS),
            ROWS: lambda: read_rows(self._run),
            EVAL: lambda: vars(read_run(self._run)),
            EXAMPLES: lambda: vars(read_run(self._run)),
            FOLDER: functools.partial(self._state, path),
        }[part]

    def _records(self) -> Any:
        manifest._verify_files.cache_clear()
        manifest.verify(self._config.data)
        records = self._config.data.records("train")
        return [bits_of(records[place]) for place in (0, len(records) - 1)]

    def _modalities(self) -> Any:
        modalities = load_modalities(self._run, load_config(self._run))
        return {field: bits_of(dict(modality.arrays)) for field, modality in modalities.items()}

    def _state(self, path: pathlib.Path) -> Any:
        step = int(path.relative_to(self._run / FOLDER).parts[0])
        with OpenRun(self._run) as opened:
            params = bits_of(opened.load(step).generator.params)
        with Checkpoints(self._run) as checkpoints:
            return params, bits_of(checkpoints.restore(step, self._abstract(), self._config.vocabulary))


def bits_of(tree: Any) -> list[bytes]:
    """The bits of all arrays and other values of a tree."""
    return [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(tree)]


def same(found: Any, written: Any, log: bool) -> bool:
    """Whether `found` is what the undamaged file gives. In a log, lines may be missing or repeated."""
    return all(one in written for one in found) if log else bool(found == written)


class Caught:
    """A context that stores the error that is raised in it, and suppresses it if it is an `Exception`."""

    error: BaseException | None = None

    def __enter__(self) -> Caught:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        self.error = error
        return isinstance(error, Exception)


def named(path: pathlib.Path, said: str) -> bool:
    """Whether a message names a file, or the directory of its checkpoint or of its data set."""
    checkpoint_or_data = [str(place) for place in path.parents if place.name.isdigit() or place.name == "data"]
    return any(part in said for part in (path.name, *checkpoint_or_data))


def failure_of(reader: Reader, path: pathlib.Path, written: Any) -> str:
    """Reads a damaged file; returns what is wrong with the outcome, or an empty text."""
    found = None
    with Caught() as caught:
        found = reader()
    if isinstance(caught.error, OmnijaxError):
        return "" if named(path, str(caught.error)) else f"the error doesn't name the file: {caught.error}"
    if caught.error is not None:
        return "".join(traceback.format_exception(caught.error, limit=-3))
    return "" if same(found, written, path.suffix == ".jsonl") else "the content differs from what was written"


def in_process(config: Config, run: pathlib.Path, numbers: range, seed: int) -> list[dict[str, Any]]:
    """Damages files, and calls the functions that read them; returns the failures of these mutations."""
    readers, paths = Readers(config, run), files_read(run, pathlib.Path(config.data.directory))
    # Files of one kind have many instances in a checkpoint: kinds are drawn first.
    kinds = collections.defaultdict(list)
    for path in paths:
        kinds[path.parent if path.is_relative_to(run / FOLDER) else path].append(path)
    written = {path: readers.of(path)() for path in paths}
    failures = []
    for number in numbers:
        random = np.random.default_rng([seed, number])
        group = [*kinds.values()][int(random.integers(len(kinds)))]
        path = group[int(random.integers(len(group)))]
        content = path.read_bytes()
        kind, other = mutated(content, random)
        if other == content:
            continue
        try:
            path.unlink() if other is None else path.write_bytes(other)
            problem = failure_of(readers.of(path), path, written[path])
        finally:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        if problem:
            failures.append({"number": number, "file": str(path), "mutation": kind, "failure": problem})
            print(json.dumps(failures[-1]), flush=True)
    return failures


def outcome(command: str, run: pathlib.Path, directory: pathlib.Path) -> tuple[int, str, Any]:
    """Runs a command on a copy of a run; returns its exit status, what it printed, and its result if it succeeded."""
    picture = directory / "picture.png"
    picture.unlink(missing_ok=True)
    lines: dict[str, list[str]] = {
        "train": ["train", str(directory / "small.py"), "--workdir", str(run)],
        "evaluate": ["evaluate", str(run), "--tasks", "bits", "--again"],
        "sample": ["sample", str(run), "--from", "text=one", "--to", "image", "--out", str(picture), "--seed", "1"],
    }
    status, said = forked.run(lines[command], directory / "log")
    if status:
        return status, said, None
    if command == "train":
        description = json.loads((run / FOLDER / str(STEPS) / "_CHECKPOINT_METADATA").read_text())
        return status, said, description["custom_metadata"]["checksums"]
    return status, said, picture.read_bytes() if command == "sample" else read_rows(run)[-1]["bits_per_item"]


def with_commands(config: Config, run: pathlib.Path, numbers: range, seed: int) -> list[dict[str, Any]]:
    """Damages files, and runs commands that read them; returns the failures of these mutations."""
    directory, copy, data = run.parent, run.with_name("copy"), pathlib.Path(config.data.directory)

    def begin(command: str) -> None:
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(run, copy)
        if command == "train":  # there must be something left to do
            shutil.rmtree(copy / FOLDER / str(STEPS))

    expected: dict[str, Any] = {}
    failures = []
    for number in numbers:
        random = np.random.default_rng([seed, number, 1])
        command = ("train", "evaluate", "sample")[number % 3]
        begin(command)
        if command not in expected:
            status, said, expected[command] = outcome(command, copy, directory)
            if status:
                raise SystemExit(f"{command}: exit status {status}\n{said}")
            begin(command)
        paths = files_read(copy, data)
        path = paths[int(random.integers(len(paths)))]
        content = path.read_bytes()
        kind, other = mutated(content, random)
        try:
            path.unlink() if other is None else path.write_bytes(other)
            status, said, result = outcome(command, copy, directory)
        finally:
            path.write_bytes(content)
        problem = ""
        if "Traceback" in said or status not in (0, 1, WRONG_INPUT, RESUMABLE):
            problem = said[-2000:]
        elif status and not ("omnijax: " in said and named(path, said)):
            problem = f"the error doesn't name the file: {said}"
        elif not status and result != expected[command] and not named(path, said):
            problem = "the result differs"
        if problem:
            where = {"number": number, "command": command, "file": str(path), "mutation": kind}
            failures.append(where | {"status": status, "failure": problem})
            print(json.dumps(failures[-1]), flush=True)
    return failures


def main() -> int:
    """Runs the mutations of one part; returns the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--count", type=int, default=2000, help="number of mutations for the functions")
    parser.add_argument("--commands", type=int, default=50, help="number of mutations for whole commands")
    parser.add_argument("--seed", type=int, default=0)
    add_part(parser)
    options = parser.parse_args()
    first, count = (int(number) for number in options.part.split("/"))
    with tempfile.TemporaryDirectory() as temporary:
        config, run = prepared(pathlib.Path(temporary))
        # Commands come first: they are forked, and a process that has used a device can't fork.
        failures = with_commands(config, run, range(first - 1, options.commands, count), options.seed)
        failures += in_process(config, run, range(first - 1, options.count, count), options.seed)
    done = {"mutations": options.count, "commands": options.commands, "part": options.part, "failures": len(failures)}
    print(json.dumps(done))
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
