"""Interrupts every command at random moments: no finished work is lost, and the same command continues it.

    python experiments/bench/interrupts.py --trials 40

A trial starts a command and disturbs it: Ctrl-C (SIGINT), a closed terminal (SIGHUP), SIGTERM or SIGKILL at a random
moment, a closed output pipe, or a full disk. The process must end by itself, without a traceback. Then the same command
runs again without a disturbance. Its results must be those of a command that was never disturbed, bit for bit. The
script prints a JSON line for each trial and a summary. Its exit status is 0 without failures.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

import forked
import numpy as np
from mutations import EXPERIMENT, STEPS, prepared
from parts import add_part

from omnijax.config import to_dict
from omnijax.errors import RESUMABLE, WRONG_INPUT
from omnijax.evaluate.history import read_rows
from omnijax.files import read_object
from omnijax.run.directory import FOLDER

COMMANDS = ("train", "evaluate", "sample", "prepare", "sweep")
SIGNALS = (signal.SIGINT, signal.SIGHUP, signal.SIGTERM, signal.SIGKILL)
WAYS = (*SIGNALS, "closed output", "full disk")
SWEEP = """

def sweep():
    import dataclasses

    from omnijax.config import Task
    from omnijax.sweep.arms import arms_of, bases
    from omnijax.sweep.sweep import Budget, Sweep

    config = get_config()
    tasks = (Task(("text", "image"), weights=(0.1, 1.0)),)
    batch = dataclasses.replace(config.batch, tasks=tasks, sequence_items=52)
    evaluated = dataclasses.replace(config.eval, routes=())
    arms = arms_of(dataclasses.replace(config, batch=batch, eval=evaluated), bases(17, 289))
    return Sweep(arms=arms, budget=Budget("items", 600.0), question="Which?", baseline="base=17", seeds=1, points=2)
"""
WORDS = ("one", "two", "three", "four", "five", "six", "seven", "eight")


class Trial:
    """A directory with the inputs of a command and its results."""

    def __init__(self, command: str, source: pathlib.Path, directory: pathlib.Path):
        self.command, self.directory = command, directory
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir()
        run = directory / "run"
        if command not in ("prepare", "sweep"):
            shutil.copytree(source / "run", run)
        if command == "train":
            shutil.rmtree(run / FOLDER)
        if command == "evaluate":
            for name in ("evaluations.jsonl", "eval.json", "examples.json"):
                (run / name).unlink()
        texts = [json.dumps({"id": word, "text": word}) for word in WORDS]
        (directory / "words.jsonl").write_text("\n".join(texts))
        experiment = str(source / "small.py")
        self.line: list[str] = {
            "train": ["train", experiment, "--workdir", str(run)],
            "evaluate": ["evaluate", str(run), "--steps", "all", "--tasks", "bits,directions"],
            "sample": ["sample", str(run), "--from", f"text={directory}/words.jsonl", "--to", "image", "--out"],
            "prepare": ["prepare", experiment, "--data.directory", str(directory / "data")],
            "sweep": ["sweep", experiment, "--workers", "2", "--out"],
        }[command]
        self.line += [str(directory / "out")] if command in ("sample", "sweep") else []

    def made(self) -> Any:
        """The results of the command, without times."""
        if self.command == "train":
            described = json.loads((self.directory / "run" / FOLDER / str(STEPS) / "_CHECKPOINT_METADATA").read_text())
            return described["custom_metadata"]["checksums"]
        if self.command == "evaluate":
            figures = ("step", "tasks", "bits_per_item", "directions")
            rows = {row["step"]: {} for row in read_rows(self.directory / "run")}
            for row in read_rows(self.directory / "run"):
                rows[row["step"]] |= {name: row[name] for name in figures[2:] if name in row}
            return rows
        if self.command == "sample":
            return {path.name: path.read_bytes() for path in sorted((self.directory / "out").iterdir())}
        if self.command == "sweep":
            results = sorted((self.directory / "out").glob("arms/*/*/result.json"))
            return {str(path): [point["bits"] for point in read_object(path, (), "")["curve"]] for path in results}
        return read_object(self.directory / "data" / "manifest.json", (), "")["files"]


def close_output() -> None:
    """Makes standard output a pipe whose reading end is closed."""
    ours, theirs = os.pipe()
    os.close(ours)
    os.dup2(theirs, 1)


def fill_disk(size: int) -> Callable[[], None]:
    """A function that limits the size of files, in bytes, to imitate a full disk."""
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def disturbed(trial: Trial, way: Any, seconds: float, random: np.random.Generator) -> tuple[int, str]:
    """Runs a command and disturbs it within about `seconds`; returns its exit status and what it printed."""
    log = trial.directory / "log"
    prepared = {"closed output": close_output, "full disk": fill_disk(int(2 ** random.uniform(7, 17)))}
    process = forked.start(trial.line, log, prepared.get(way, int))
    if isinstance(way, signal.Signals):
        until, ended = time.monotonic() + float(random.uniform(0, seconds)), 0
        while time.monotonic() < until and not ended:
            time.sleep(0.005)
            ended, status = os.waitpid(process, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status), log.read_text(errors="replace")
        os.kill(process, way)
    _, status = forked.wait(process)
    return os.waitstatus_to_exitcode(status), log.read_text(errors="replace")


def main() -> int:
    """Runs the trials of one part; returns the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--trials", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    add_part(parser)
    options = parser.parse_args()
    first, parts = (int(number) for number in options.part.split("/"))
    failures, took, expected = 0, {}, {}
    with tempfile.TemporaryDirectory() as temporary:
        source = pathlib.Path(temporary)
        config, _ = prepared(source)
        (source / "small.py").write_text(EXPERIMENT.format(text=json.dumps(to_dict(config))) + SWEEP)
        for number in range(first - 1, options.trials, parts):
            random = np.random.default_rng([options.seed, number])
            command, way = COMMANDS[number % len(COMMANDS)], WAYS[number // len(COMMANDS) % len(WAYS)]
            if command not in expected:
                trial, started = Trial(command, source, source / "trial"), time.monotonic()
                status, said = forked.run(trial.line, source / "log")
                if status:
                    raise SystemExit(f"{command}: exit status {status}\n{said}")
                took[command], expected[command] = time.monotonic() - started, trial.made()
            trial = Trial(command, source, source / "trial")
            status, said = disturbed(trial, way, took[command], random)
            allowed = (0, 1, WRONG_INPUT, RESUMABLE) + ((-way,) if isinstance(way, signal.Signals) else ())
            # Python prints a traceback and continues if an interrupt comes in one of its callbacks.
            bad = "Traceback" in said and "Exception ignored in" not in said
            failure = said[-2000:] if bad or status not in allowed else ""
            again, said = forked.run(trial.line, source / "log")
            if not failure and again:
                failure = f"the same command ended with {again}: {said[-2000:]}"
            if not failure and trial.made() != expected[command]:
                failure = "the result differs"
            told = way.name if isinstance(way, signal.Signals) else way
            print(json.dumps({"number": number, "command": command, "way": told, "status": status, "failure": failure}))
            failures += bool(failure)
    print(json.dumps({"trials": options.trials, "part": options.part, "failures": failures}))
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
