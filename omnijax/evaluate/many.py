"""Checkpoints of runs: which ones are measured, what is known of them, and which can't be evaluated."""

from __future__ import annotations

import contextlib
import dataclasses
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, cast

from omnijax.errors import CheckpointError, ConfigError, DataError, OmnijaxError
from omnijax.evaluate.history import append_row, head_of, known, mean_bits, read_rows
from omnijax.evaluate.judging import Finding
from omnijax.evaluate.loading import Meshes, OpenRun
from omnijax.evaluate.tasks import TASKS, check_tasks, run_tasks
from omnijax.report.inputs import EVAL, EXAMPLES, file_of
from omnijax.run.checkpoint import FOLDER
from omnijax.run.directory import load_config, read_object, write_json
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
        meshes: the devices, whatever a run was trained on.
        stop: asked between tasks whether to stop.
        say: called for each checkpoint, with its row and whether it was measured now.
        after: called when checkpoints of a run have been evaluated.
        rows: of each run, by step, the rows of the checkpoints that were asked for.
        refused: runs and checkpoints that can't be evaluated, and why.
        stopped: whether something is left to do, because `stop` said so.
    """

    tasks: tuple[str, ...] = tuple(TASKS)
    whole: bool = False
    again: bool = False
    split: str | None = None
    meshes: Meshes = mesh_that_fits
    stop: Callable[[], bool] = lambda: False
    say: Callable[[OpenRun, dict[str, Any], bool], object] = lambda opened, row, now: None
    after: Callable[[OpenRun], object] = lambda opened: None
    rows: dict[Path, dict[int, dict[str, Any]]] = dataclasses.field(default_factory=dict)
    refused: dict[str, OmnijaxError] = dataclasses.field(default_factory=dict)
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

    @contextlib.contextmanager
    def open(self, runs: Sequence[Path]) -> Iterator[list[OpenRun]]:
        """Those directories that are runs.

        Raises:
            ConfigError: a run doesn't fit the mesh that was asked for, or has no such split.
        """
        configs = {}
        for run in dict.fromkeys(runs):
            with self.refusing(run):
                configs[run] = load_config(run)
        with contextlib.ExitStack() as stack:
            opened = (OpenRun(run, self.meshes, config=one, split=self.split) for run, one in configs.items())
            yield [stack.enter_context(one) for one in opened]

    def measure(self, opened: OpenRun, step: int, tasks: tuple[str, ...] | None = None) -> dict[str, Any] | None:
        """The row of a checkpoint, once the tasks that it lacks are done; None if it can't be evaluated.

        Raises:
            DataError: the data of the run are damaged.
        """
        run, rows, tasks = opened.run, self.rows.setdefault(opened.run, {}), tasks or self.tasks
        try:
            head = head_of(opened.config, step, opened.identity(step))
            row = known(read_rows(run), head)
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
            append_row(run, head, figures, time.perf_counter() - started)
            row = known(read_rows(run), head)
        if not row["tasks"] or (self.whole and len(found) < len(missing)):
            return None
        if self.whole:
            there = _write_examples(opened, head, found) if found else there
            row |= {name: there[name] for name in TOLD}
            write_json(file_of(run, EVAL, opened.other_split), row)
        rows[step] = row
        self.say(opened, row, trained is not None)
        return row


def _examples_of(opened: OpenRun, head: dict[str, Any]) -> dict[str, Any]:
    """The content of `examples.json`, if it is of this checkpoint on this split; {} otherwise."""
    try:
        content = read_object(file_of(opened.run, EXAMPLES, opened.other_split), ("of", *TOLD), "")
    except DataError:
        return {}
    return content if content["of"] == head else {}


def _write_examples(opened: OpenRun, head: dict[str, Any], found: Mapping[str, Finding]) -> dict[str, Any]:
    data = opened.config.data
    told = zip(TOLD, (len(opened.split.records), data.label, list(data.classes)), strict=True)
    content = {"of": head, **dict(told), **{name: part for one in found.values() for name, part in one.shown.items()}}
    write_json(file_of(opened.run, EXAMPLES, opened.other_split), content)
    return content


def evaluate(
    runs: Sequence[Path], steps: Steps = "all", tasks: Sequence[str] = tuple(TASKS), session: Session | None = None
) -> Session:
    """Evaluates checkpoints of runs, and adds a row for each to the run's `evaluations.jsonl`.

    What was measured of the same parameters, with the same configuration, isn't measured again.

    Args:
        runs: their directories.
        steps: which checkpoints: `all`; the `last` one that is whole; the `best` one, which has the lowest
            `history.mean_bits`, so that the bits of all checkpoints are measured first; or those of some steps.
        tasks: names of `TASKS`; those of the session, if there is one.
        session: a new one by default.

    Raises:
        ConfigError: there is no such task or split, or a run doesn't fit the mesh; nothing has been measured then.
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
    """Evaluates each checkpoint of some runs as it comes, the oldest first.

    It ends when it has met the checkpoint of the last step of every run (`train.steps`), or when it is asked to stop. A
    run that deletes checkpoints faster than they can be evaluated (`train.keep_checkpoints`) leaves some out.

    The runs need no checkpoint yet.

    Raises:
        ConfigError: a run doesn't fit the mesh, or has no such split; nothing has been measured then.
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
    """Which checkpoints a command line asks for.

    Raises:
        ConfigError: neither `all`, `last` or `best` nor numbers.
    """
    if text in ("all", "last", "best"):
        return cast(Steps, text)
    parts = text.split(",")
    if not all(part.isascii() and part.isdigit() for part in parts):
        rule = "it must be all, last, best, or steps with commas between them"
        raise ConfigError("--steps", text, rule, "use for example --steps best, or --steps 400,800")
    return tuple(dict.fromkeys(int(part) for part in parts))
