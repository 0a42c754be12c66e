"""Tries odd values for every knob and every argument: each must work, or be refused in one line that says why.

    python experiments/bench/odd_arguments.py --knobs 10000 --lines 500 --commands 50

There are three kinds of trials. *Knobs*: some knobs of an experiment get odd values (extremes, NaN, other types,
no value, foreign characters), and everything is built up to the first compilation. *Lines*: whole command lines with
odd arguments and paths, in this process. *Commands*: `omnijax train` in a process of its own, with odd values that were
accepted, must train. A refusal is an error of omnijax in one line, with a fix, and leaves no file behind. The script
prints a JSON line for each failure and a summary. Its exit status is 0 without failures.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import io
import json
import os
import pathlib
import re
import sys
import tempfile
import traceback
from typing import Any

import forked
import numpy as np
from mutations import Caught
from parts import add_part

from omnijax.cli import main as omnijax
from omnijax.config import Config
from omnijax.errors import RESUMABLE, WRONG_INPUT, OmnijaxError
from omnijax.experiment import explain_knobs, load_experiment, override
from omnijax.model.build import model_of
from omnijax.run.directory import check
from omnijax.sample.generate import check_generation
from omnijax.step.sharding import make_mesh
from omnijax.step.state import abstract_state

EXPERIMENTS = pathlib.Path(__file__).parents[1]
TRIED = ("lookup.py", "digits.py", "any_order.py")
ODD = (
    "0",
    "-1",
    "1",
    "2",
    "3",
    "7",
    "64",
    "1000",
    "nan",
    "inf",
    "-inf",
    "-0.0",
    "0.5",
    "1.5",
    "1e-46",
    "1e-320",
    "1e39",
)
ODD += (
    "1e308",
    "2147483647",
    "2147483648",
    "4294967296",
    "9223372036854775808",
    "99999999999999999999",
    "-99999999999",
)
ODD += (
    "",
    " ",
    "none",
    "None",
    "True",
    "False",
    "auto",
    "text",
    "image",
    "()",
    "[]",
    "{}",
    "0x10",
    "1e3",
    "1,2",
    "１",
    "−1",
)
ODD += ("ü", "七", "🙂", "\udcff", "a\nb", "a\0b", "a" * 5000, "--", "-x", "~", "%s", "{0}", "'", '"', "../..", "/")
SIZES = ("model.depth", "model.width", "model.heads", "model.kv_heads", "model.head_size", "model.mlp_width")
SIZES += ("model.head_depth", "model.unroll", "batch.size", "batch.sequence_length", "optim.accumulate")
RUN = "trained"
"""Directory of a trained run."""
LARGEST = 4096
"""Largest value of `SIZES` that is trained. Larger models are valid, but this machine can't train them."""
TINY = "--model.depth 1 --model.unroll 1 --model.width 16 --model.heads 2 --model.kv_heads 1 --model.head_size 8"
TINY += " --model.mlp_width 16 --batch.size 4 --train.log_every 1 --data.copies 1"


@functools.cache
def experiment(name: str) -> tuple[Config, list[str]]:
    """An experiment and the names of its knobs."""
    config = load_experiment(EXPERIMENTS / name)
    return config, sorted(set(re.findall(r"--([\w.]+)", explain_knobs(config))))


def odd_knobs(random: np.random.Generator, names: list[str]) -> list[str]:
    """One to three knobs with odd values, as on a command line."""
    line: list[str] = []
    for name in random.choice(names, int(random.integers(1, 4))):
        line += [f"--{name}", *map(str, random.choice(ODD, int(random.choice([1, 1, 1, 2, 0]))))]
    return line


def build(config: Config, run: pathlib.Path) -> None:
    """Everything that `omnijax train` does before it reads data or compiles."""
    mesh, model = make_mesh(config.mesh), model_of(config)
    check_generation(config, model)
    abstract_state(config, model, mesh)
    check(run, config)


def complaint(error: BaseException | None) -> str:
    """What is wrong with a refusal; an empty text if the trial was accepted, or refused properly."""
    if error is None:
        return ""
    if not isinstance(error, OmnijaxError):
        return "".join(traceback.format_exception(error, limit=-4))
    text = str(error)
    return "" if "Fix: " in text and len(text) < 2000 else f"not one short line with a fix: {text[:3000]}"


def knobs(number: int, seed: int, directory: pathlib.Path) -> dict[str, Any]:
    """Runs one trial of knobs; returns its outcome."""
    random = np.random.default_rng([seed, number])
    config, names = experiment(TRIED[number % len(TRIED)])
    line = odd_knobs(random, names)
    with Caught() as caught:
        build(override(config, line), directory / "run")
    return {"trial": "knobs", "number": number, "line": line, "failure": complaint(caught.error)}


def places(directory: pathlib.Path) -> list[str]:
    """Odd paths, with the files and links that some of them need."""
    (directory / "file").write_text("x")
    (directory / "folder").mkdir(exist_ok=True)
    (directory / "wrong.py").write_text("def get_config(:\n")
    (directory / "empty.py").write_text("")
    for name, target in (("dangling", "nowhere/x"), ("circle", "circle")):
        with contextlib.suppress(FileExistsError):
            (directory / name).symlink_to(target)
    names = [
        "none",
        "file",
        "file/x",
        "folder",
        "dangling",
        "circle",
        "ü 七/x",
        "a'b\"c",
        "-dash",
        "wrong.py",
        "empty.py",
    ]
    names += ["new\nline", "\udcff", "x" * 300, "%20#?", "~/x", "a\0b"]
    return [*names, *[RUN] * 9, "", ".", "/", "/proc/x", "/dev/null", str(directory / "file" / "x.png"), *names]


def odd_line(random: np.random.Generator, paths: list[str]) -> list[str]:
    """Draws a command line with odd arguments and paths."""
    path, odd = (lambda: str(random.choice(paths))), (lambda: str(random.choice(ODD)))
    file = str(EXPERIMENTS / "lookup.py") if random.random() < 0.6 else path()
    lines = (
        [
            "sample",
            path(),
            "--from",
            f"text={odd()}",
            "--to",
            odd(),
            "--out",
            path(),
            "--count",
            odd(),
            "--seed",
            odd(),
        ],
        ["sample", path(), "--from", odd(), "--to", "text", "--from", f"image={path()}"],
        ["rank", path(), "--from", f"text={odd()}", "--among", odd(), odd()],
        ["evaluate", path(), path(), "--steps", odd(), "--tasks", odd(), "--split", odd()],
        ["evaluate", path(), "--out", path(), "--eval.examples", odd(), "--mesh.data", odd()],
        ["train", file, "--workdir", path(), "--train.steps", odd(), "--train.start_from", path()],
        ["train", path(), "--knobs"],
        ["prepare", file, "--data.directory", path(), "--data.seed", odd()],
        ["plan", file, "--topology", odd(), "--slices", odd(), "--out", path()],
        ["sweep", file, "--out", path(), "--only", odd(), "--seeds", odd(), "--workers", odd(), "--budget", odd()],
        ["vocab", "cost", file, "--bases", odd(), odd()],
        [odd(), path(), odd()],
    )
    return lines[int(random.integers(len(lines)))]


def content(directory: pathlib.Path) -> set[str]:
    """Names of all files below a directory."""
    return {os.fsdecode(path) for path in directory.rglob("*")}


def lines(number: int, seed: int, directory: pathlib.Path) -> dict[str, Any]:
    """Runs one trial of a command line in this process; returns its outcome. The current directory is `directory`."""
    random = np.random.default_rng([seed, number, 1])
    line, before = odd_line(random, places(directory)), content(directory)
    out, err, status = io.StringIO(), io.StringIO(), None
    with Caught() as caught, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            status = omnijax(line)
        except SystemExit as left:  # of argparse
            status = left.code
    failure, said = "", err.getvalue()
    if caught.error is not None:
        failure = "".join(traceback.format_exception(caught.error, limit=-4))
    elif status not in (0, 1, WRONG_INPUT, RESUMABLE):
        failure = f"exit status {status}"
    elif status and not said.strip():
        failure = "nothing says what is wrong"
    elif status and (left_behind := content(directory) - before):
        failure = f"left behind: {sorted(left_behind)[:5]}"
    return {"trial": "lines", "number": number, "line": line, "status": status, "failure": failure}


def accepted(random: np.random.Generator, directory: pathlib.Path) -> list[str]:
    """Odd knobs of the smallest experiment that are accepted, and that this machine can train."""
    config, names = experiment("lookup.py")
    names = [
        name for name in names if name.partition(".")[0] in ("model", "batch", "optim", "train", "writing", "eval")
    ]
    small = override(config, TINY.split())
    while True:
        line = odd_knobs(random, names)
        with Caught() as caught:
            made = override(small, [*line, "--train.steps", "2"])
            build(made, directory / "run")
        if caught.error is None and all(part_of(made, name) <= LARGEST for name in SIZES):
            return line


def part_of(config: Config, name: str) -> Any:
    """The value of a knob."""
    return functools.reduce(getattr, name.split("."), config)


def commands(number: int, line: list[str], directory: pathlib.Path) -> dict[str, Any]:
    """Trains with odd values that were accepted; returns the outcome."""
    run = directory / f"run{number}"
    command = [
        "train",
        str(EXPERIMENTS / "lookup.py"),
        "--workdir",
        str(run),
        *TINY.split(),
        *line,
        "--train.steps",
        "2",
    ]
    status, said = forked.run(command, directory / "log")
    bad = "Traceback" in said or status not in (0, WRONG_INPUT) or (status and "omnijax: " not in said)
    if status == WRONG_INPUT and run.exists():
        bad, said = True, f"left behind: {sorted(content(run))[:5]}\n{said}"
    failure = said[-3000:] if bad else ""
    return {"trial": "commands", "number": number, "line": line, "status": status, "failure": failure}


def main() -> int:
    """Runs the trials of one part; returns the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--knobs", type=int, default=10_000)
    parser.add_argument("--lines", type=int, default=500)
    parser.add_argument("--commands", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    add_part(parser)
    options = parser.parse_args()
    first, parts = (int(number) for number in options.part.split("/"))
    failures = []
    with tempfile.TemporaryDirectory() as temporary:
        directory = pathlib.Path(temporary)
        command = ["train", str(EXPERIMENTS / "lookup.py"), "--workdir", str(directory / RUN), *TINY.split()]
        status, said = forked.run([*command, "--train.steps", "2"], directory / "log")
        if status:
            raise SystemExit(said)
        # A process that has used a device can't fork: commands come first, and another process draws their knobs.
        numbers = range(first - 1, options.commands, parts)
        generators = [np.random.default_rng([options.seed, number, 2]) for number in numbers]
        drawn = forked.call(lambda: [accepted(random, directory) for random in generators])
        trials = [commands(number, line, directory) for number, line in zip(numbers, drawn, strict=True)]
        trials += [knobs(number, options.seed, directory) for number in range(first - 1, options.knobs, parts)]
        os.chdir(directory)
        trials += [lines(number, options.seed, directory) for number in range(first - 1, options.lines, parts)]
        os.chdir("/")
    for trial in trials:
        if trial["failure"]:
            failures.append(trial)
            print(json.dumps(trial | {"line": [part[:100] for part in trial["line"]]}), flush=True)
    print(json.dumps({"trials": len(trials), "part": options.part, "failures": len(failures)}))
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
