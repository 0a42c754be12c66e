"""Many checkpoints of many runs: what is damaged or foreign is named, and the others are still evaluated."""

from __future__ import annotations

import contextlib
import dataclasses
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, cast

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
class Session:
    """Measures checkpoints, one after another, and keeps what is known of them.

    Attributes:
        tasks: names of `TASKS`.
        again: whether to measure again what was already measured.
        stop: asked between tasks whether to stop.
        say: called for each checkpoint, with its row and whether it was measured now.
        rows: of each run, by step, the rows of the checkpoints that were asked for.
        refused: runs and checkpoints that can't be evaluated, and why.
        measured: number of checkpoints for which something was computed now.
        stopped: whether something is left to do, because `stop` said so.
    """

    tasks: tuple[str, ...] = ()
    again: bool = False
    stop: Callable[[], bool] = lambda: False
    say: Callable[[Path, dict[str, Any], bool], None] = lambda run, row, now: None
    rows: dict[Path, dict[int, dict[str, Any]]] = dataclasses.field(default_factory=dict)
    refused: dict[str, OmnijaxError] = dataclasses.field(default_factory=dict)
    measured: int = 0
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

    def open(self, runs: Sequence[Path], meshes: Meshes, stack: contextlib.ExitStack) -> list[OpenRun]:
        """Those directories that are runs.

        Raises:
            ConfigError: a run doesn't fit the mesh that was asked for.
        """
        for run in dict.fromkeys(runs):
            with self.refusing(run):
                load_config(run)
        whole = [run for run in dict.fromkeys(runs) if str(run) not in self.refused]
        return [stack.enter_context(OpenRun(run, meshes)) for run in whole]

    def measure(self, opened: OpenRun, step: int, tasks: tuple[str, ...] | None = None) -> dict[str, Any] | None:
        """The row of a checkpoint, once the tasks that it lacks are done; None if it can't be evaluated.

        Raises:
            DataError: the data of the run are damaged.
        """
        run, rows = opened.run, self.rows.setdefault(opened.run, {})
        try:
            head = head_of(opened.config, step, opened.identity(step))
            row = known(read_rows(run), head)
            done = () if row is None or self.again else row["tasks"]
            missing = [name for name in (self.tasks if tasks is None else tasks) if name not in done]
            trained = opened.load(step) if missing else None
        except CheckpointError as error:
            where = run / FOLDER / str(step)
            if _goes(where):
                print(f"omnijax: {where} is gone: the run keeps only its newest checkpoints", file=sys.stderr)
            else:
                self.refuse(where, error)
            return None
        if trained is not None:
            started = time.perf_counter()
            found = run_tasks(trained, opened.split, missing, self.stop)
            self.stopped |= len(found) < len(missing)
            if found:
                seconds = time.perf_counter() - started
                append_row(run, head, {name: one.figures for name, one in found.items()}, seconds)
                self.measured += 1
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
) -> Session:
    """Evaluates checkpoints of runs, and adds a row for each to the run's `evaluations.jsonl`.

    What was measured of the same parameters, with the same configuration, isn't measured again.

    Args:
        runs: their directories.
        steps: which checkpoints: `all`; the `last` one that is whole; the `best` one, which has the lowest
            `history.mean_bits`, so that the bits of all checkpoints are measured first; or those of some steps.
        tasks: names of `TASKS`.
        meshes: the devices, whatever a run was trained on.
        session: with its own tasks; a new one by default.

    Raises:
        ConfigError: there is no such task, or a run doesn't fit the mesh; nothing has been measured then.
    """
    session = session or Session(check_tasks(tasks))
    with contextlib.ExitStack() as stack:
        for opened in session.open(runs, meshes, stack):
            with session.refusing(opened.run):
                _evaluate_run(session, opened, steps)
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
    others = tuple(name for name in session.tasks if name != "bits")
    if steps == "best" and found and others and not session.stop():
        session.measure(opened, min(found, key=mean_bits)["step"], others)
    session.stopped |= session.stop()


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


def _goes(checkpoint: Path) -> bool:
    """Whether a checkpoint is being deleted by the process that trains, or is gone already."""
    deadline = time.monotonic() + GONE_SECONDS
    while checkpoint.exists() and time.monotonic() < deadline:
        time.sleep(GONE_SECONDS / 10)
    return not checkpoint.exists()
