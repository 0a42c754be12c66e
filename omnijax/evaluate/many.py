"""Many checkpoints of many runs: what is damaged or foreign is named, and the others are still evaluated."""

from __future__ import annotations

import contextlib
import dataclasses
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

from omnijax.errors import CheckpointError, ConfigError, OmnijaxError
from omnijax.evaluate.history import append_row, head_of, known, mean_bits, read_rows
from omnijax.evaluate.loading import Meshes, OpenRun
from omnijax.evaluate.tasks import TASKS, check_tasks, run_tasks
from omnijax.run.checkpoint import FOLDER
from omnijax.run.directory import load_config
from omnijax.step.sharding import mesh_that_fits

Steps = Literal["all", "last", "best"] | tuple[int, ...]
GONE_SECONDS = 1.0
"""How long a checkpoint that can't be read may take to be deleted by the process that trains."""


@dataclasses.dataclass
class Outcome:
    """How it ended.

    Attributes:
        rows: of each run, by step, what is known of the checkpoints that were asked for.
        refused: runs and checkpoints that could not be evaluated, and why.
        measured: checkpoints for which something was computed now.
        stopped: not everything was done, since someone asked to stop.
    """

    rows: dict[Path, dict[int, dict[str, Any]]] = dataclasses.field(default_factory=dict)
    refused: dict[str, OmnijaxError] = dataclasses.field(default_factory=dict)
    measured: int = 0
    stopped: bool = False

    def refuse(self, what: Path, error: OmnijaxError) -> None:
        """Takes note of what can't be evaluated, and names it on stderr."""
        self.refused[str(what)] = error
        print(f"omnijax: not evaluated: {what}: {type(error).__name__}: {error}", file=sys.stderr)


@dataclasses.dataclass
class Session:
    """Measures checkpoints, one after another.

    Attributes:
        tasks: names of `TASKS`.
        again: measure what was already measured, too.
        stopped: asked between tasks whether to stop.
        say: told of each checkpoint what is known of it, and whether it was measured now.
        outcome: of all so far.
    """

    tasks: tuple[str, ...]
    again: bool = False
    stopped: Callable[[], bool] = lambda: False
    say: Callable[[Path, dict[str, Any], bool], None] = lambda run, row, now: None
    outcome: Outcome = dataclasses.field(default_factory=Outcome)

    def open(self, runs: Sequence[Path], meshes: Meshes, stack: contextlib.ExitStack) -> list[OpenRun]:
        """Those directories that are runs.

        Raises:
            ConfigError: a run doesn't fit the mesh that was asked for.
        """
        opened = []
        for run in dict.fromkeys(runs):
            try:
                load_config(run)
            except OmnijaxError as error:
                self.outcome.refuse(run, error)
                continue
            opened.append(stack.enter_context(OpenRun(run, meshes)))
        return opened

    def measure(self, opened: OpenRun, step: int, tasks: tuple[str, ...] | None = None) -> dict[str, Any] | None:
        """What is known of a checkpoint of the run, once what is missing has been measured; None where it can't be.

        Raises:
            DataError: the data of the run are damaged.
        """
        run, rows = opened.run, self.outcome.rows.setdefault(opened.run, {})
        tasks = self.tasks if tasks is None else tasks
        try:
            head = head_of(opened.config, step, opened.identity(step))
            row = known(read_rows(run), head)
            done = () if row is None or self.again else tuple(row["tasks"])
            missing = [name for name in tasks if name not in done]
            trained = opened.load(step) if missing else None
        except CheckpointError as error:
            where = run / FOLDER / str(step)
            if _goes(where):
                print(f"omnijax: {where} is gone: the run keeps only its newest checkpoints", file=sys.stderr)
            else:
                self.outcome.refuse(where, error)
            return None
        if trained is not None:
            started = time.perf_counter()
            found = run_tasks(trained, opened.heldout, missing, self.stopped)
            self.outcome.stopped |= len(found) < len(missing)
            if found:
                seconds = time.perf_counter() - started
                append_row(run, head, {name: one.figures for name, one in found.items()}, seconds)
                self.outcome.measured += 1
            row = known(read_rows(run), head)
        if row is not None:
            rows[step] = row
            self.say(run, row, trained is not None)
        return row


def evaluate_many(
    runs: Sequence[Path],
    steps: Steps = "all",
    tasks: Sequence[str] = tuple(TASKS),
    meshes: Meshes = mesh_that_fits,
    session: Session | None = None,
) -> Outcome:
    """Evaluates checkpoints of runs, and adds a row for each to the run's `evaluations.jsonl`.

    What has been measured of the same parameters, with the same configuration, isn't measured again.

    Args:
        runs: their directories.
        steps: which checkpoints: `all`; the `last` one that is whole; the `best` of those that are there, which has the
            least renormalised bits an item, the mean over all forms (`rows.mean_bits`), so that the bits of all of them
            are measured first; or those of some steps.
        tasks: names of `TASKS`.
        meshes: the devices, whatever a run was trained on.
        session: how, for who wants to be told or to stop; its tasks are those that count then.

    Raises:
        ConfigError: there is no such task, or a run doesn't fit the mesh; nothing has been measured then.
    """
    session = session or Session(check_tasks(tasks))
    with contextlib.ExitStack() as stack:
        for opened in session.open(runs, meshes, stack):
            try:
                _evaluate_run(session, opened, steps)
            except OmnijaxError as error:  # of its data: all checkpoints of the run have the same
                session.outcome.refuse(opened.run, error)
    return session.outcome


def _evaluate_run(session: Session, opened: OpenRun, steps: Steps) -> None:
    there = opened.steps()
    if not there:
        raise CheckpointError("run", str(opened.run), "it has no checkpoint yet", "go on training it")
    if steps == "last":
        for step in reversed(there):
            if session.stopped() or session.measure(opened, step) is not None:
                break
    elif steps == "best":
        _evaluate_best(session, opened, there)
    else:
        for step in there if steps == "all" else steps:
            if session.stopped():
                break
            if step in there:
                session.measure(opened, step)
            else:
                rule = f"the run has checkpoints of steps {', '.join(map(str, there))}"
                error = CheckpointError("--steps", step, rule, "choose among these")
                session.outcome.refuse(opened.run / FOLDER / str(step), error)
    session.outcome.stopped |= session.stopped()


def _evaluate_best(session: Session, opened: OpenRun, there: list[int]) -> None:
    found = []
    for step in there:
        row = None if session.stopped() else session.measure(opened, step, ("bits",))
        if row is not None:
            found.append(row)
    others = tuple(name for name in session.tasks if name != "bits")
    if found and others and not session.stopped():
        session.measure(opened, min(found, key=mean_bits)["step"], others)


def parse_steps(text: str) -> Steps:
    """Which checkpoints a command line asks for.

    Raises:
        ConfigError: neither `all`, `last` or `best` nor numbers.
    """
    named: dict[str, Steps] = {"all": "all", "last": "last", "best": "best"}
    if text in named:
        return named[text]
    parts = text.split(",")
    if not all(part.isascii() and part.isdigit() for part in parts):
        rule = "it must be all, last, best, or steps with commas between them"
        raise ConfigError("--steps", text, rule, "use for example --steps best, or --steps 400,800")
    return tuple(dict.fromkeys(int(part) for part in parts))


def _goes(checkpoint: Path) -> bool:
    """Whether a checkpoint is being deleted by the process that trains, or is gone already."""
    deadline = time.monotonic() + GONE_SECONDS
    while checkpoint.exists() and time.monotonic() < deadline:
        time.sleep(GONE_SECONDS / 10)
    return not checkpoint.exists()
