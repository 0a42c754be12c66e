"""`omnijax evaluate`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import rich.console
from jax.sharding import Mesh

from omnijax.config import Config
from omnijax.errors import RESUMABLE, ConfigError, OmnijaxError
from omnijax.evaluate.history import ROWS, history
from omnijax.evaluate.loading import Meshes
from omnijax.evaluate.many import Outcome, Session, evaluate_many, parse_steps
from omnijax.evaluate.newest import evaluate
from omnijax.evaluate.plot import PICTURE, write_plot
from omnijax.evaluate.table import print_steps, print_table, summary
from omnijax.evaluate.tasks import TASKS, check_tasks
from omnijax.evaluate.watch import watch
from omnijax.experiment import override
from omnijax.report import write_report
from omnijax.run.directory import load_config
from omnijax.run.stopping import Stop
from omnijax.step.sharding import make_mesh, mesh_that_fits

INCOMPLETE = 1
"""Exit status when something that was asked for could not be evaluated."""


class Wanted(NamedTuple):
    """What a command line asks for.

    Attributes:
        steps: which checkpoints; without this, `tasks` and `watch` it is the whole evaluation of the newest one.
        tasks: names of tasks with commas between them; None for all.
        watch: wait for checkpoints to come.
        again: measure what has been measured, too.
        overrides: of the mesh.
    """

    steps: str | None = None
    tasks: str | None = None
    watch: bool = False
    again: bool = False
    overrides: Sequence[str] = ()


def run_command(runs: Sequence[Path], wanted: Wanted, console: rich.console.Console) -> int:
    """Evaluates runs as the command line says.

    Args:
        runs: run directories.
        wanted: of them.
        console: where tables go.

    Returns:
        The exit status: 0, `INCOMPLETE`, or `RESUMABLE` if a signal ended it.

    Raises:
        ConfigError: what is asked for can't be; nothing has been measured then.
        OmnijaxError: the one run whose whole evaluation was asked for can't be evaluated.
    """
    tasks = check_tasks(tuple(TASKS) if wanted.tasks is None else wanted.tasks.split(","))
    steps = parse_steps(("all" if wanted.watch else "last") if wanted.steps is None else wanted.steps)
    if wanted.watch and steps != "all":
        rule = "with --watch every checkpoint is evaluated as it comes"
        raise ConfigError("--steps", wanted.steps, rule, "leave out --steps, or --watch")
    meshes = _meshes(wanted.overrides)
    if wanted.steps is None and wanted.tasks is None and not wanted.watch:
        return _whole(runs, meshes, wanted.again, console)
    with Stop() as stop:
        stop.begin()

        def say(run: Path, row: dict[str, Any], now: bool) -> None:
            figures = ", ".join(f"{name} {figure}" for name, figure in summary(row).items() if figure != "—")
            took = f"{row['seconds']:.0f} s" if now else "measured before"
            console.print(f"{run} step {row['step']}: {figures} ({took})", highlight=False, soft_wrap=True)

        session = Session(tasks, wanted.again, lambda: stop.asked, say)
        try:
            if wanted.watch:
                console.print(f"watching {', '.join(map(str, runs))}", highlight=False, soft_wrap=True)
                watch(runs, session, meshes, after=lambda opened: _plot(opened.run, opened.config))
            else:
                evaluate_many(runs, steps, tasks, meshes, session)
        except KeyboardInterrupt:
            session.outcome.stopped = True
    return _conclude(session.outcome, console)


def _whole(runs: Sequence[Path], meshes: Meshes, again: bool, console: rich.console.Console) -> int:
    outcome = Outcome()
    for run in dict.fromkeys(runs):
        try:
            result = evaluate(run, meshes, again)
            print_table(result, console)
            console.print(f"report: {write_report(run)}", highlight=False, soft_wrap=True)
        except OmnijaxError as error:
            if len(runs) == 1:
                raise
            outcome.refuse(run, error)
        else:
            outcome.rows[run] = {result["step"]: result}
    if len(runs) > 1:
        print_steps(outcome.rows, console)
    return _status(outcome)


def _conclude(outcome: Outcome, console: rich.console.Console) -> int:
    rows = {run: by_step for run, by_step in outcome.rows.items() if by_step}
    if rows:
        print_steps(rows, console)
    for run in rows:
        picture = _plot(run, load_config(run))
        console.print(f"{run}: {ROWS}, {picture.name}", highlight=False, soft_wrap=True)
    if outcome.stopped:
        print("stopped; the same command goes on with what isn't evaluated yet", file=sys.stderr)
        return RESUMABLE
    return _status(outcome)


def _status(outcome: Outcome) -> int:
    if not outcome.refused:
        return 0
    done = sum(len(by_step) for by_step in outcome.rows.values())
    print(
        f"omnijax: {done} evaluated, {len(outcome.refused)} not, for the reasons above: {', '.join(outcome.refused)}",
        file=sys.stderr,
    )
    return INCOMPLETE


def _plot(run: Path, config: Config) -> Path:
    return write_plot(history(run, config), run / PICTURE)


def _meshes(overrides: Sequence[str]) -> Meshes:
    """The mesh of each run with some axes set from the command line; without, one that fits."""
    for argument in overrides:
        if argument.startswith("-") and not argument.startswith("--mesh.") and not argument[1:].isdigit():
            rule = "a run is evaluated with its own configuration; only the mesh may be another"
            raise ConfigError("override", argument, rule, "use --mesh.data, --mesh.fsdp, --mesh.context, --mesh.tensor")
    if not overrides:
        return mesh_that_fits

    def meshes(config: Config) -> Mesh:
        return make_mesh(override(config, overrides).mesh)

    return meshes
