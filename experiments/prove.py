"""Runs the slow proofs: tests that are too long for `make test`. A killed proof continues where it stopped.

    python experiments/prove.py                     # lists the proofs
    python experiments/prove.py fuzz_decode         # runs one, or continues it

A proof is a list of parts. Each part is one command that takes a few minutes. A part that succeeded isn't run again.
A call takes at most `--minutes`. Then it says how many parts are left, and the same command continues. Results and logs
are kept under `--out`. They are discarded when the code, the Python or JAX changes. The exit status is 0 if the proof
holds, 1 if a part failed, 2 if it can't start, and 75 if parts are left.
"""

from __future__ import annotations

import argparse
import dataclasses
import fcntl
import hashlib
import importlib.metadata
import importlib.util
import json
import os
import pathlib
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import rich.console
import rich.table

from omnijax.errors import RESUMABLE

ROOT = pathlib.Path(__file__).resolve().parents[1]
CODE = ("omnijax", "experiments", "tests", "launch", "setup.py", "pyproject.toml", "Makefile")
SUFFIXES = {".py", ".sh", ".txt", ".ipynb", ".json", ".toml", ""}
TPU_TESTS = ("tests/test_plan.py", "tests/test_attend.py")
SUITE_PARTS = 20


@dataclasses.dataclass(frozen=True)
class Part:
    """One command of a proof, run in the root of the repository.

    Attributes:
        name: unique within the proof.
        command: the program and its arguments.
    """

    name: str
    command: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Proof:
    """A list of parts that prove one claim.

    Attributes:
        claim: what the proof shows, in one line.
        minutes: roughly, in all, on two idle CPU cores.
        parts: makes the parts, from the directory of the proof and whether they are as small as can be.
        modules: what this Python must be able to import.
    """

    claim: str
    minutes: int
    parts: Callable[[pathlib.Path, bool], Sequence[Part]]
    modules: tuple[str, ...] = ()


def bench(name: str, *arguments: object) -> tuple[str, ...]:
    """The command of a program in experiments/bench/."""
    return (sys.executable, str(ROOT / "experiments" / "bench" / f"{name}.py"), *map(str, arguments))


def fuzz(name: str, parts: int, **counts: int) -> Callable[[pathlib.Path, bool], Sequence[Part]]:
    """A fuzzer in parts with different trials. `counts` are its options: how many trials all parts have together."""

    def made(directory: pathlib.Path, tiny: bool) -> Sequence[Part]:
        options = [(f"--{option}", max(1, count // 10_000) if tiny else count) for option, count in counts.items()]
        few = [word for pair in options for word in pair]
        numbers = range(1, (1 if tiny else parts) + 1)
        return [Part(f"{number} of {parts}", bench(name, *few, "--part", f"{number}/{parts}")) for number in numbers]

    return made


def chaos(directory: pathlib.Path, tiny: bool) -> Sequence[Part]:
    """Fifty kills of one run, a few in each part; the last part also compares the runs."""
    cycles, step = (2, 1) if tiny else (50, 5)
    run = bench("chaos", "--cycles", cycles, "--directory", directory / "runs")
    return [Part(f"kills to {until}", (*run, "--until", str(until))) for until in range(step, cycles + 1, step)]


def benches(*commands: tuple[object, ...]) -> Callable[[pathlib.Path, bool], Sequence[Part]]:
    """One benchmark in each part: (program, argument …)."""
    return lambda directory, tiny: [Part(" ".join(map(str, one)), bench(*map(str, one))) for one in commands]


def environment(directory: pathlib.Path, constraints: str, python: str) -> tuple[pathlib.Path, Part]:
    """A virtual environment in the directory of the proof, and the part that makes it."""
    place = directory / "venv"
    settings = (f"CONSTRAINTS=launch/constraints/{constraints}.txt", f"PYTHON={python}", f"VENV={place}")
    return place, Part("environment", ("make", "--no-print-directory", "setup", *settings))


def suite(constraints: str, python: str) -> Callable[[pathlib.Path, bool], Sequence[Part]]:
    """Runs all tests, including those marked `proof`, under one set of versions. Each part runs a few test files."""

    def made(directory: pathlib.Path, tiny: bool) -> Sequence[Part]:
        place, first = environment(directory, constraints, python)
        files = [str(path.relative_to(ROOT)) for path in sorted((ROOT / "tests").glob("test_*.py"))]
        groups = [["tests/test_ids.py"]] if tiny else [files[part::SUITE_PARTS] for part in range(SUITE_PARTS)]
        pytest = (str(place / "bin" / "python"), "-m", "pytest", "-q", "-m", "")
        tests = [Part(f"tests {number} of {len(groups)}", (*pytest, *group)) for number, group in enumerate(groups, 1)]
        return [first, *tests]

    return made


def tpu(directory: pathlib.Path, tiny: bool) -> Sequence[Part]:
    """What the TPU's own compiler makes of the step and of the kernels."""
    place, first = environment(directory, "py311", "python3.11")
    python = str(place / "bin" / "python")
    pip = (python, "-m", "pip", "install", "--quiet", "--constraint", "launch/constraints/py311.txt")
    cpu = ("env", "JAX_PLATFORMS=cpu", python)
    tests = [Part(file, (*cpu, "-m", "pytest", "-q", file)) for file in TPU_TESTS]
    pod = Part("plan of a pod", (*cpu, *bench("pod")[1:]))
    return [first, Part("compiler", (*pip, "--editable", ".[demo,test,tpu]")), *tests, pod]


def beam(directory: pathlib.Path, tiny: bool) -> Sequence[Part]:
    """Apache Beam's tests, in an environment of their own: Beam's pins contradict those of the constraint files."""
    place = directory / "venv"
    python = str(place / "bin" / "python")
    return [
        Part("environment", ("python3.11", "-m", "venv", "--clear", str(place))),
        Part("packages", (python, "-m", "pip", "install", "--quiet", "--editable", ".[test,beam]")),
        Part("tests", (python, "-m", "pytest", "-q", "tests/test_beam.py")),
    ]


def all_of(name: str, quick: str) -> Callable[[pathlib.Path, bool], Sequence[Part]]:
    """All tests of a file, slow ones included. A tiny run has only those with the word `quick` in their names."""
    pytest = (sys.executable, "-m", "pytest", "-q", "-m", "", f"tests/{name}.py")
    return lambda directory, tiny: [Part("tests", (*pytest, *["-k", quick] * tiny))]


def colab(directory: pathlib.Path, tiny: bool) -> Sequence[Part]:
    """The six notebooks at a tiny size. The program continues where it was stopped."""
    program = str(ROOT / "experiments" / "bench" / "colab.py")
    return [Part("notebooks", ("python3.13", program, "--directory", str(directory / "colab")))]


BENCH = ("tokenizers", "torch", "transformers")
PROOFS = {
    "fuzz_decode": Proof(
        "10,000,000 streams that no encoder wrote are decoded without a failure",
        5,
        fuzz("fuzz_decode", 10, streams=10_000_000),
    ),
    "fuzz_sample": Proof(
        "100,000 samples of untrained models, over every layout, can be read back",
        15,
        fuzz("fuzz_sample", 20, samples=100_000),
    ),
    "knobs": Proof(
        "odd values of knobs, arguments and paths work, or are refused in one line that says what is wrong",
        40,
        fuzz("odd_arguments", 20, knobs=10_000, lines=500, commands=50),
    ),
    "mutations": Proof(
        "damaged files of a run and of its data are reported, and never read as something else",
        20,
        fuzz("mutations", 10, count=2000, commands=50),
    ),
    "files": Proof(
        "damaged pictures, sounds, films, texts and archives never kill or hang the reader, or pass its limits",
        2,
        fuzz("files", 4, count=10_000),
    ),
    "bucket": Proof(
        "prepare, train, kill, evaluate, sample and sweep on an emulated bucket give what they give on disk",
        3,
        all_of("test_bucket", "replaced_only"),
    ),
    "own_files": Proof(
        "200 pictures with captions and sounds, in every convention, become a model; kills in each pass change no byte",
        8,
        all_of("test_own_files", "no_op"),
    ),
    "interrupts": Proof(
        "after an interrupt, a closed output or a full disk, the same command gives the same results as undisturbed",
        20,
        fuzz("interrupts", 12, trials=60),
    ),
    "chaos": Proof("a run that is killed and damaged 50 times ends bit for bit as an undisturbed one", 20, chaos),
    "scaling": Proof("what each mesh costs on 1 to 8 fake devices, at the same losses", 5, benches(("scaling",))),
    "step": Proof("time of the train loop, at most 1.05 of a step by hand", 5, benches(("step",), ("flat",)), BENCH),
    "vocab": Proof(
        "speed of the encoder, the decoder and the grammar, against the best for each case",
        2,
        benches(*(("vocab", part) for part in ("encode", "decode", "sample"))),
        BENCH,
    ),
    "sample": Proof("speed of sampling, against `generate` of Hugging Face", 5, benches(("sample",)), BENCH),
    "py311": Proof("all tests, slow ones too, under launch/constraints/py311.txt", 30, suite("py311", "python3.11")),
    "colab": Proof("all tests, slow ones too, under launch/constraints/colab.txt", 30, suite("colab", "python3.13")),
    "latest": Proof("all tests, slow ones too, under launch/constraints/latest.txt", 30, suite("latest", "python3.13")),
    "notebooks": Proof("the six notebooks run as Colab finds them", 10, colab),
    "tpu": Proof("the TPU compiler takes the step; 6.5 B on 256 chips: ≤ 2.0 GB, ≤ 26 GB of gathers", 15, tpu),
    "beam": Proof("Apache Beam builds the same data set", 10, beam),
}


def fingerprint() -> str:
    """A hash of the code, the Python and JAX: the results of a proof hold for these only."""
    found = hashlib.sha256(f"{sys.version} {importlib.metadata.version('jax')}".encode())
    for name in CODE:
        place = ROOT / name
        paths = sorted(path for path in place.rglob("*") if path.is_file()) if place.is_dir() else [place]
        for path in paths:
            if path.suffix in SUFFIXES and "__pycache__" not in path.parts:
                found.update(path.relative_to(ROOT).as_posix().encode() + path.read_bytes())
    return found.hexdigest()[:16]


class Record:
    """What is done of a proof, kept in a directory."""

    def __init__(self, directory: pathlib.Path, key: str):
        self.directory, self._path = directory, directory / "done.json"
        saved: dict[str, Any] = json.loads(self._path.read_text()) if self._path.exists() else {}
        self.stale = bool(saved) and saved["fingerprint"] != key
        self._key, self.seconds = key, {} if self.stale or not saved else saved["seconds"]

    def discard(self) -> None:
        """Removes the results of other code, but not a virtual environment, which `make setup` keeps up to date."""
        for path in self.directory.iterdir():
            if path.name not in ("venv", "lock"):
                shutil.rmtree(path) if path.is_dir() else path.unlink()

    def add(self, part: Part, seconds: float) -> None:
        """Keeps that a part succeeded."""
        self.seconds[part.name] = round(seconds, 1)
        written = self._path.with_suffix(".part")
        written.write_text(json.dumps({"fingerprint": self._key, "seconds": self.seconds}))
        written.replace(self._path)


def run_part(part: Part, log: pathlib.Path, lock: int, compiled: pathlib.Path) -> int:
    """Runs a part, shows and keeps what it prints; returns its exit status."""
    cache = {"JAX_COMPILATION_CACHE_DIR": str(compiled), "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.2"}
    # The part inherits the lock: as long as a process of an earlier call lives, no other call begins.
    options: dict[str, Any] = {"cwd": ROOT, "env": {**cache, **os.environ}, "pass_fds": (lock,), "text": True}
    with log.open("w") as file:
        try:
            process = subprocess.Popen(part.command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **options)
        except FileNotFoundError as error:
            print(f"{error.filename}: not found; install it, or put it in PATH", file=sys.stderr)
            return 1
        with process:
            for line in process.stdout or ():
                file.write(line)
                print(line, end="", flush=True)
        return process.returncode


def prove(proof: Proof, directory: pathlib.Path, minutes: float, tiny: bool) -> int:
    """Runs the parts that aren't done, until the time is over; returns the exit status."""
    missing = [name for name in proof.modules if importlib.util.find_spec(name) is None]
    if missing:
        print(f"{', '.join(missing)}: not installed; pip install -e '.[bench]'", file=sys.stderr)
        return 2
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"{directory}: a process of another call still runs; wait for its end, or stop it", file=sys.stderr)
            return 2
        record = Record(directory, fingerprint())
        if record.stale:
            print("The code or its environment has changed: the proof starts again.")
            record.discard()
        parts, start = proof.parts(directory, tiny), time.monotonic()
        todo, longest = [part for part in parts if part.name not in record.seconds], 0.0
        while todo:
            began = time.monotonic()
            if longest and began + longest > start + 60 * minutes:
                print(f"{len(todo)} of {len(parts)} parts are left; the same command continues.")
                return RESUMABLE
            part = todo.pop(0)
            print(f"[{len(parts) - len(todo)}/{len(parts)}] {part.name}: {shlex.join(part.command)}", flush=True)
            log = directory / f"{part.name.replace('/', '_')}.log"
            try:
                status = run_part(part, log, lock.fileno(), directory.parent / "compiled")
            except KeyboardInterrupt:
                print("stopped; the same command continues", file=sys.stderr)
                return RESUMABLE
            if status:
                print(f"{part.name}: failed with exit status {status}; log: {log}", file=sys.stderr)
                return 1
            taken = time.monotonic() - began
            longest = max(longest, taken)
            record.add(part, taken)
        print(f"It holds: all {len(parts)} parts are done, in {sum(record.seconds.values()) / 60:.1f} minutes.")
        return 0


def listed(out: pathlib.Path) -> Iterator[tuple[str, str, str, str]]:
    """Name, minutes, claim and state of each proof."""
    key = fingerprint()
    for name, proof in PROOFS.items():
        record, count = Record(out / name, key), len(proof.parts(out / name, False))
        done = "done" if len(record.seconds) == count else f"{len(record.seconds)} of {count}"
        yield name, str(proof.minutes), proof.claim, done if record.seconds else ""


def main(arguments: Sequence[str] | None = None) -> int:
    """Lists the proofs, or runs one; returns the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("name", nargs="?", choices=PROOFS, metavar="NAME", help="a proof; without it they are listed")
    parser.add_argument("--out", type=pathlib.Path, default=ROOT / ".prove", help="where results are kept")
    parser.add_argument("--minutes", type=float, default=20, help="of this call; no part begins that would end later")
    parser.add_argument("--tiny", action="store_true", help="small sizes for fuzz_decode, fuzz_sample, chaos, suites")
    options = parser.parse_args(arguments)
    if options.name is None:
        table = rich.table.Table("name", "minutes", "what it shows", "done", box=None, pad_edge=False)
        for row in listed(options.out):
            table.add_row(*row)
        rich.console.Console(width=130).print(table)
        return 0
    name = f"{options.name}-tiny" if options.tiny else options.name
    return prove(PROOFS[options.name], options.out.resolve() / name, options.minutes, options.tiny)


if __name__ == "__main__":
    sys.exit(main())
