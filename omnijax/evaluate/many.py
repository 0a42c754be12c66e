"""Checkpoints of runs: which ones are measured, what is known of them, and which can't be evaluated."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import itertools
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, cast

from omnijax.errors import CheckpointError, ConfigError, DataError, OmnijaxError
from omnijax.evaluate.history import ROWS, head_of, known, mean_bits, read_rows, row_of
from omnijax.evaluate.judging import Finding
from omnijax.evaluate.loading import Meshes, OpenRun
from omnijax.evaluate.tasks import TASKS, check_tasks, run_tasks
from omnijax.experiment import override
from omnijax.files import append_line, read_object, write_object
from omnijax.report.inputs import EVAL, EXAMPLES, file_of
from omnijax.run.directory import FOLDER, load_config
from omnijax.step.sharding import mesh_that_fits

TOLD = ("examples", "label", "classes")
"""What `eval.json` says of the data beside the row: records that were measured, and classes."""
Steps = Literal["all", "last", "best"] | tuple[int, ...]
GONE_SECONDS = 1.0
"""How long a checkpoint that can't be read may take to be deleted by the process that trains."""
POLL_SECONDS = 5.0
LOOK_SECONDS = 0.2
"""How long a signal waits while nothing happens."""


@dataclasses.dataclass
class Session:
    """Measures checkpoints, one after another, and keeps what is known of them.

    Attributes:
        tasks: names of `TASKS`.
        whole: also write `eval.json` and `examples.json`; needs all tasks.
        again: measure again what was already measured.
        split: of the records; None for the `eval.split` of each run.
        overrides: knobs of `eval` and `mesh` as on a command line; those of `eval` are recorded in each row.
        out: where figures are read and written; the directory of each run by default.
        meshes: the devices, whatever a run was trained on.
        stop: asked between tasks whether to stop.
        say: called for each checkpoint, with its row and whether it was measured now.
        after: called when checkpoints of a run have been evaluated.
        rows: of each run, by step, the rows of the checkpoints that were asked for.
        refused: runs and checkpoints that can't be evaluated, and why.
        unwritten: whether figures couldn't be written.
        stopped: whether something is left to do, because `stop` said so.
    """

    tasks: tuple[str, ...] = tuple(TASKS)
    whole: bool = False
    again: bool = False
    split: str | None = None
    overrides: tuple[str, ...] = ()
    out: Path | None = None
    meshes: Meshes = mesh_that_fits
    stop: Callable[[], bool] = lambda: False
    say: Callable[[OpenRun, dict[str, Any], bool], object] = lambda opened, row, now: None
    after: Callable[[OpenRun], object] = lambda opened: None
    rows: dict[Path, dict[int, dict[str, Any]]] = dataclasses.field(default_factory=dict)
    refused: dict[str, OmnijaxError] = dataclasses.field(default_factory=dict)
    unwritten: bool = False
    stopped: bool = False

    def refuse(self, what: Path, error: OmnijaxError) -> None:
        """Notes what can't be evaluated, and names it on stderr."""
        self.refused[str(what)] = error
        print(f"omnijax: not evaluated: {what}: {type(error).__name__}: {error}", file=sys.stderr)

    @contextlib.contextmanager
    def refusing(self, run: Path) -> Iterator[None]:
        """Notes an error that is raised inside, for example of the run's data, which all its checkpoints share."""
        try:
            yield
        except OmnijaxError as error:
            self.refuse(run, error)

    def write(self, out: Path, write: Callable[[], object]) -> None:
        """Calls `write` after making `out`. A failure is reported on stderr only, so that figures are still printed."""
        try:
            out.mkdir(parents=True, exist_ok=True)
            write()
        except OSError as error:
            self.unwritten = True
            told = f"figures aren't written, only printed: {error}. Fix: choose a directory with --out, or make room"
            print(f"omnijax: {told}.", file=sys.stderr)

    @contextlib.contextmanager
    def open(self, runs: Sequence[Path]) -> Iterator[list[OpenRun]]:
        """Those directories that are runs.

        Raises a `ConfigError` if a run doesn't fit the mesh that was asked for, or has no such split or knob.
        """
        configs = {}
        for run in dict.fromkeys(runs):
            with self.refusing(run):
                configs[run] = load_config(run)
        configs = {run: override(config, self.overrides) for run, config in configs.items()}
        with contextlib.ExitStack() as stack:
            given: dict[str, Any] = {"split": self.split, "out": self.out}
            opened = (OpenRun(run, self.meshes, config=one, **given) for run, one in configs.items())
            yield [stack.enter_context(one) for one in opened]

    def measure(self, opened: OpenRun, step: int, tasks: tuple[str, ...] | None = None) -> dict[str, Any] | None:
        """The row of a checkpoint, once the tasks that it lacks are done; None if it can't be evaluated.

        Raises a `DataError` if the data of the run are damaged.
        """
        run, out = opened.run, opened.out
        rows, tasks = self.rows.setdefault(run, {}), tasks or self.tasks
        try:
            head = head_of(opened.config, step, opened.identity(step))
            row = known(read_rows(out), head)
            missing = [name for name in tasks if self.again or name not in row["tasks"]]
            there = _examples_of(opened, head) if self.whole else {}
            if self.whole and (missing or not there):
                missing = list(tasks)
            trained = opened.load(step) if missing else None
        except CheckpointError as error:
            where = run / FOLDER / str(step)
            time.sleep(GONE_SECONDS)
            if not where.exists():
                print(f"omnijax: {where} is gone: the run keeps only its newest checkpoints", file=sys.stderr)
            else:
                self.refuse(where, error)
            return None
        found: dict[str, Finding] = {}
        if trained is not None:
            started = time.perf_counter()
            found = run_tasks(trained, opened.split, missing, self.stop)
            self.stopped |= len(found) < len(missing)
        if found:
            figures = {name: one.figures for name, one in found.items()}
            knobs = eval_knobs(self.overrides)
            new = row_of(head, figures, time.perf_counter() - started) | ({"overrides": list(knobs)} if knobs else {})
            row = known([*read_rows(out), new], head)
            self.write(out, lambda: append_line(out / ROWS, new))
        if not row["tasks"] or (self.whole and len(found) < len(missing)):
            return None
        if self.whole:
            there = _examples(opened, head, found) if found else there
            row |= {name: there[name] for name in TOLD}
            for name, content in ((EXAMPLES, there), (EVAL, row)):
                self.write(out, functools.partial(write_object, file_of(out, name, opened.other_split), content))
        rows[step] = row
        self.say(opened, row, trained is not None)
        return row


def _examples_of(opened: OpenRun, head: dict[str, Any]) -> dict[str, Any]:
    """The content of `examples.json`, if it is of this checkpoint on this split; {} otherwise."""
    try:
        content = read_object(file_of(opened.out, EXAMPLES, opened.other_split), ("of", *TOLD), "")
    except DataError:
        return {}
    return content if content["of"] == head else {}


def _examples(opened: OpenRun, head: dict[str, Any], found: Mapping[str, Finding]) -> dict[str, Any]:
    """The content of `examples.json`."""
    data = opened.config.data
    told = zip(TOLD, (len(opened.split.records), data.label, list(data.classes)), strict=True)
    return {"of": head, **dict(told), **{name: part for one in found.values() for name, part in one.shown.items()}}


def check_overrides(overrides: Sequence[str], parts: Sequence[str]) -> None:
    """Raises a `ConfigError` if command-line arguments set knobs of other parts of the configuration than these."""
    for argument in overrides:
        if argument.startswith("--") and not argument.startswith(tuple(f"--{part}." for part in parts)):
            rule = f"only knobs of {' and '.join(parts)} can be set here"
            raise ConfigError("override", argument, rule, "leave it out; a run keeps its data, model and vocabulary")


def eval_knobs(overrides: Sequence[str]) -> tuple[str, ...]:
    """The command-line arguments that set knobs of `eval`, with their values."""
    starts = [place for place, argument in enumerate(overrides) if argument.startswith("--")] + [len(overrides)]
    spans = [overrides[start:end] for start, end in itertools.pairwise(starts)]
    return tuple(argument for span in spans if span[0].startswith("--eval.") for argument in span)


def evaluate(
    runs: Sequence[Path], steps: Steps = "all", tasks: Sequence[str] = tuple(TASKS), session: Session | None = None
) -> Session:
    """Evaluates checkpoints of runs, and adds a row for each to the run's `evaluations.jsonl`.

    What was measured of the same parameters, with the same configuration, isn't measured again. Raises a `ConfigError`
    if there is no such task or split, or if a run doesn't fit the mesh; nothing has been measured then.

    Args:
        runs: their directories.
        steps: which checkpoints: `all`; the `last` one that is whole; the `best` one, which has the lowest
            `history.mean_bits`, so that the bits of all checkpoints are measured first; or those of some steps.
        tasks: names of `TASKS`; those of the session, if there is one.
        session: a new one by default.
    """
    session = session or Session(check_tasks(tasks))
    with session.open(runs) as every:
        for opened in every:
            with session.refusing(opened.run):
                _evaluate_run(session, opened, steps)
                session.after(opened)
    return session


def _evaluate_run(session: Session, opened: OpenRun, steps: Steps) -> None:
    there = opened.steps()
    if not there:
        raise CheckpointError("run", str(opened.run), "it has no checkpoint yet", "go on training it")
    named = {"all": there, "best": there, "last": there[::-1]}
    found = []
    for step in named[steps] if isinstance(steps, str) else steps:
        if session.stop():
            break
        if step not in there:
            rule = f"the run has checkpoints of steps {', '.join(map(str, there))}"
            error = CheckpointError("--steps", step, rule, "choose among these")
            session.refuse(opened.run / FOLDER / str(step), error)
        elif (row := session.measure(opened, step, ("bits",) if steps == "best" else None)) is not None:
            found.append(row)
            if steps == "last":
                break
    session.stopped |= session.stop()
    if steps == "last" and not (found or session.stopped):
        raise CheckpointError("run", str(opened.run), "none of its checkpoints can be read", "go on training it")
    others = tuple(name for name in session.tasks if name != "bits")
    if steps == "best" and found and others and not session.stop():
        session.measure(opened, min(found, key=mean_bits)["step"], others)


def watch(runs: Sequence[Path], session: Session, poll_seconds: float = POLL_SECONDS) -> Session:
    """Evaluates each checkpoint of some runs as it comes, the oldest first; the runs need none yet.

    It ends when it has met the checkpoint of the last step of every run (`train.steps`), or when it is asked to stop. A
    run that deletes checkpoints faster than they can be evaluated (`train.keep_checkpoints`) leaves some out. Raises a
    `ConfigError` if a run doesn't fit the mesh, or has no such split; nothing has been measured then.
    """
    with session.open(runs) as every:
        waiting: dict[OpenRun, set[int]] = {opened: set() for opened in every}
        while waiting and not session.stop():
            for opened, met in [*waiting.items()]:
                with session.refusing(opened.run):
                    new = [step for step in opened.steps() if step not in met]
                    for step in new:
                        if not session.stop():
                            session.measure(opened, step)
                            met.add(step)
                    if new:
                        session.after(opened)
                if opened.config.train.steps in met or str(opened.run) in session.refused:
                    del waiting[opened]
            until = time.monotonic() + poll_seconds
            while waiting and time.monotonic() < until and not session.stop():
                time.sleep(min(LOOK_SECONDS, poll_seconds))
        session.stopped |= bool(waiting)
    return session


def parse_steps(text: str) -> Steps:
    """Which checkpoints a command line asks for: all, last, best, or some numbers; else raises a `ConfigError`."""
    if text in ("all", "last", "best"):
        return cast(Steps, text)
    parts = text.split(",")
    if not all(part.isascii() and part.isdigit() for part in parts):
        rule = "it must be all, last, best, or steps with commas between them"
        raise ConfigError("--steps", text, rule, "use for example --steps best, or --steps 400,800")
    return tuple(dict.fromkeys(int(part) for part in parts))
