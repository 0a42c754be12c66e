"""`omnijax evaluate`."""

from __future__ import annotations

import argparse
import contextlib
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import rich.console

from omnijax.errors import RESUMABLE, WRONG_INPUT, ConfigError, PlatformError
from omnijax.evaluate.display import print_rows, print_steps, print_table, summary, write_plot
from omnijax.evaluate.history import ROWS
from omnijax.evaluate.loading import Meshes, OpenRun
from omnijax.evaluate.many import Session, check_overrides, eval_knobs, evaluate, parse_steps, watch
from omnijax.evaluate.tasks import TASKS, check_tasks
from omnijax.files import check_writable
from omnijax.report import write_report
from omnijax.report.measures import told_tests
from omnijax.report.theme import check_drawing
from omnijax.run.directory import CONFIG, real_path
from omnijax.run.stopping import SIGNALS, Stop
from omnijax.step.sharding import make_mesh, mesh_that_fits

INCOMPLETE = 1
"""Exit status when something that was asked for could not be evaluated."""


def run_command(options: argparse.Namespace, console: rich.console.Console) -> int:
    """Evaluates runs with the options that `omnijax.cli` defines, and prints tables.

    Returns the exit status: 0, `INCOMPLETE`, `RESUMABLE` if a signal ended it, or `WRONG_INPUT` if nothing of the one
    run whose whole evaluation was asked for can be evaluated. Raises a `ConfigError` if what is asked for can't be;
    nothing has been measured then.
    """
    runs = list(dict.fromkeys(options.workdirs))
    if options.out is not None:
        check_writable(options.out, "--out")
    elsewhere = options.out is not None and real_path(options.out) != real_path(runs[0])
    if elsewhere and (options.out / CONFIG).exists():
        raise ConfigError("--out", str(options.out), "it is the directory of another run", "choose a new directory")
    own = elsewhere or not eval_knobs(options.overrides)  # eval.json and the plot stay those of the run's own knobs
    whole = options.steps is None and options.tasks is None and not options.watch and own
    tasks = check_tasks(tuple(TASKS) if options.tasks is None else options.tasks.split(","))
    steps = parse_steps(("all" if options.watch else "last") if options.steps is None else options.steps)
    if options.watch and steps != "all":
        rule = "with --watch every checkpoint is evaluated as it comes"
        raise ConfigError("--steps", options.steps, rule, "leave out --steps, or --watch")
    if options.out is not None and len(runs) > 1:
        raise ConfigError("--out", str(options.out), "it works with one run only", "evaluate the runs one by one")
    plots: dict[Path, str] = {}

    def tell(text: str) -> None:
        console.print(text, highlight=False, markup=False, soft_wrap=True)

    def say(opened: OpenRun, row: dict[str, Any], now: bool) -> None:
        if whole:
            print_table(row, console)
            if not session.unwritten:
                tell(f"report: {_drawn('none', lambda: write_report(opened.run, opened.other_split, opened.out))}")
        else:
            figures = ", ".join(f"{name} {figure}" for name, figure in summary(row).items() if figure != "—")
            took = f"{row['seconds']:.0f} s" if now else "measured before"
            tell(f"{opened.run} step {row['step']}: {figures} ({took})")
            print_rows("records kept from training", told_tests(row.get("tests", {})), console)

    def after(opened: OpenRun) -> None:
        if own and not (whole or session.unwritten) and tasks != ("held_out",):  # nothing of it is in the plot
            plots[opened.run] = _drawn("no plot", lambda: write_plot(opened))

    check_overrides(options.overrides, ("eval", "mesh"))
    given = any(argument.startswith("--mesh.") for argument in options.overrides)
    meshes: Meshes = (lambda config: make_mesh(config.mesh)) if given else mesh_that_fits
    with contextlib.suppress(PlatformError):
        check_drawing()  # imported now: an interrupt in the middle would leave half a library
    # Ctrl-C doesn't wait for the end of a task, as the other signals do.
    with Stop(signals=[number for number in SIGNALS if number != signal.SIGINT]) as stop:
        stop.begin()
        changed: dict[str, Any] = {"overrides": tuple(options.overrides), "out": options.out, "meshes": meshes}
        told: dict[str, Any] = {"stop": lambda: stop.asked, "say": say, "after": after}
        session = Session(tasks, whole, options.again, options.split, **changed, **told)
        try:
            if options.watch:
                tell(f"watching {', '.join(map(str, runs))}")
                watch(runs, session)
            else:
                evaluate(runs, steps, session=session)
        except KeyboardInterrupt:
            session.stopped = True
    rows = {run: by_step for run, by_step in session.rows.items() if by_step}
    if rows and not (whole and len(runs) == 1):
        print_steps(rows, console)
    for run in rows if not (whole or session.unwritten) else ():
        tell(f"{options.out or run}: {ROWS}" + (f", {plots[run]}" if run in plots else ""))
    if session.stopped:
        print("stopped; the same command goes on with what isn't evaluated yet", file=sys.stderr)
        return RESUMABLE
    if not session.refused:
        return INCOMPLETE if session.unwritten else 0
    if whole and len(runs) == 1 and not rows:
        return WRONG_INPUT
    done, names = sum(map(len, rows.values())), ", ".join(session.refused)
    print(f"omnijax: {done} evaluated, {len(session.refused)} not, for the reasons above: {names}", file=sys.stderr)
    return INCOMPLETE


def _drawn(otherwise: str, draw: Callable[[], object]) -> str:
    """What `draw` gives, or which library is missing. Control-C waits until it is drawn.

    A library whose first import is cut off can't be imported again, and Matplotlib hides some interrupts.
    """
    asked: list[int] = []
    main = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGINT, lambda number, frame: asked.append(number)) if main else None
    try:
        name = str(draw())
    except (PlatformError, OSError) as error:
        name = f"{otherwise}: {error}"
    finally:
        if main:
            signal.signal(signal.SIGINT, before)
    if asked:
        raise KeyboardInterrupt
    return name
