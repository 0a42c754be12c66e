"""`omnijax evaluate`."""

from __future__ import annotations

import argparse
import contextlib
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import rich.console

from omnijax.config import Config
from omnijax.errors import RESUMABLE, ConfigError, PlatformError
from omnijax.evaluate.history import ROWS, history
from omnijax.evaluate.loading import Meshes
from omnijax.evaluate.many import Session, evaluate_many, parse_steps
from omnijax.evaluate.newest import evaluate
from omnijax.evaluate.plot import PLOT, write_plot
from omnijax.evaluate.table import print_steps, print_table, summary
from omnijax.evaluate.tasks import TASKS, check_tasks
from omnijax.evaluate.watch import watch
from omnijax.experiment import override
from omnijax.report import write_report
from omnijax.report.theme import check_drawing
from omnijax.run.directory import load_config
from omnijax.run.stopping import Stop
from omnijax.step.sharding import make_mesh, mesh_that_fits

INCOMPLETE = 1
"""Exit status when something that was asked for could not be evaluated."""


def run_command(options: argparse.Namespace, console: rich.console.Console) -> int:
    """Evaluates runs with the options that `omnijax.cli` defines, and prints tables.

    Returns:
        The exit status: 0, `INCOMPLETE`, or `RESUMABLE` if a signal ended it.

    Raises:
        ConfigError: what is asked for can't be; nothing has been measured then.
        OmnijaxError: the one run whose whole evaluation was asked for can't be evaluated.
    """
    runs = options.workdirs
    tasks = check_tasks(tuple(TASKS) if options.tasks is None else options.tasks.split(","))
    steps = parse_steps(("all" if options.watch else "last") if options.steps is None else options.steps)
    if options.watch and steps != "all":
        rule = "with --watch every checkpoint is evaluated as it comes"
        raise ConfigError("--steps", options.steps, rule, "leave out --steps, or --watch")
    meshes = _meshes(options.overrides)
    if options.steps is None and options.tasks is None and not options.watch:
        return _whole(runs, meshes, options.again, console)
    with contextlib.suppress(PlatformError):
        check_drawing()  # imported now: an interrupt in the middle would leave half a library
    with Stop() as stop:
        stop.begin()

        def say(run: Path, row: dict[str, Any], now: bool) -> None:
            figures = ", ".join(f"{name} {figure}" for name, figure in summary(row).items() if figure != "—")
            took = f"{row['seconds']:.0f} s" if now else "measured before"
            console.print(f"{run} step {row['step']}: {figures} ({took})", highlight=False, soft_wrap=True)

        session = Session(tasks, options.again, lambda: stop.asked, say)
        try:
            if options.watch:
                console.print(f"watching {', '.join(map(str, runs))}", highlight=False, soft_wrap=True)
                watch(runs, session, meshes, after=lambda opened: _plot(opened.run, opened.config))
            else:
                evaluate_many(runs, steps, tasks, meshes, session)
        except KeyboardInterrupt:
            session.stopped = True
    rows = {run: by_step for run, by_step in session.rows.items() if by_step}
    if rows:
        print_steps(rows, console)
    for run in rows:
        console.print(f"{run}: {ROWS}, {_plot(run, load_config(run))}", highlight=False, markup=False, soft_wrap=True)
    if session.stopped:
        print("stopped; the same command goes on with what isn't evaluated yet", file=sys.stderr)
        return RESUMABLE
    return _status(session)


def _whole(runs: Sequence[Path], meshes: Meshes, again: bool, console: rich.console.Console) -> int:
    session = Session()
    for run in dict.fromkeys(runs):
        with contextlib.nullcontext() if len(runs) == 1 else session.refusing(run):
            result = evaluate(run, meshes, again)
            session.rows[run] = {result["step"]: result}
            print_table(result, console)
            try:
                report = str(write_report(run))
            except PlatformError as error:  # a library that draws isn't installed
                report = f"none: {error}"
            console.print(f"report: {report}", highlight=False, markup=False, soft_wrap=True)
    if len(runs) > 1:
        print_steps(session.rows, console)
    return _status(session)


def _status(session: Session) -> int:
    if not session.refused:
        return 0
    done, names = sum(map(len, session.rows.values())), ", ".join(session.refused)
    print(f"omnijax: {done} evaluated, {len(session.refused)} not, for the reasons above: {names}", file=sys.stderr)
    return INCOMPLETE


def _plot(run: Path, config: Config) -> str:
    """Name of the plot that is written, or what is missing to draw it.

    Control-C waits until it is drawn, because a library whose first import is cut off can't be imported again.
    """
    asked: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, frame: asked.append(number))
    try:
        name = write_plot(history(run, config), run / PLOT).name
    except PlatformError as error:
        name = f"no plot: {error}"
    finally:
        signal.signal(signal.SIGINT, before)
    if asked:
        raise KeyboardInterrupt
    return name


def _meshes(overrides: Sequence[str]) -> Meshes:
    """The mesh of each run with some axes set from the command line; without, one that fits."""
    for argument in overrides:
        if argument.startswith("-") and not argument.startswith("--mesh.") and not argument[1:].isdigit():
            rule = "a run is evaluated with its own configuration; only the mesh may be another"
            raise ConfigError("override", argument, rule, "use --mesh.data, --mesh.fsdp, --mesh.context, --mesh.tensor")
    return (lambda config: make_mesh(override(config, overrides).mesh)) if overrides else mesh_that_fits
