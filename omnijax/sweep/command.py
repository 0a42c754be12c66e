"""`omnijax sweep`: makes the jobs of a sweep, runs those that aren't done yet, and writes the tables and the report."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import shlex
import sys
from pathlib import Path

import rich.console
import rich.table

from omnijax.errors import RESUMABLE, ConfigError
from omnijax.experiment import override
from omnijax.run.directory import usable_cores
from omnijax.sweep.arm import is_done, run_alone
from omnijax.sweep.budget import parse_budget
from omnijax.sweep.directory import LOCK, check_out, locked
from omnijax.sweep.jobs import Job, make_jobs
from omnijax.sweep.runner import Runner
from omnijax.sweep.smoke import shrunk_sweep
from omnijax.sweep.sweep import Sweep, load_sweep

FAILED, SMOKE_WORKERS = 1, 4
MAIN = "import sys; from omnijax.cli import main; sys.exit(main())"
QUICK_COMPILER = {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}


def run(options: argparse.Namespace) -> int:
    """Runs the command with the options that `omnijax.cli` defines; gives the exit status.

    Raises:
        OmnijaxError: invalid input; nothing has been trained then.
    """
    sweep = _sweep(options)
    if options.out is None:
        kind = "" if options.budget is None else f"-{sweep.budget.kind}"
        options.out = Path("sweeps") / f"{options.experiment.stem}{kind}{'-smoke' * options.smoke}"
    if options.workers is None:
        options.workers = min(usable_cores(), SMOKE_WORKERS) if options.smoke and options.arm is None else 1
    names, seeds = sweep.matching(options.only), list(range(options.seeds or sweep.seeds))
    if options.arm is not None:
        if options.arm not in sweep.arms:
            raise ConfigError("--arm", options.arm, "there is no such arm", f"choose one of {', '.join(sweep.arms)}")
        names, seeds = [options.arm], [options.seed]
    check_out(sweep, options.out)  # before the lock file is written
    # The lock makes sure that jobs are made once, even if many workers start at the same time.
    with contextlib.nullcontext() if options.dry_run else locked(options.out / LOCK):
        jobs = make_jobs(sweep, names, seeds, options.out, options.workers, write=not options.dry_run)
    console = rich.console.Console()
    console = console if console.is_terminal else rich.console.Console(width=160)
    if options.dry_run:
        _print_jobs(sweep, jobs, options, console)
        return 0
    if options.arm is not None:
        return run_alone(jobs[0], sweep, options.out, options.line)
    environment = QUICK_COMPILER if options.smoke else {}
    process = [sys.executable, "-c", MAIN]
    runner = Runner(options.out, lambda job: process + _arguments(job, options), options.workers, console, environment)
    runner.run(jobs)
    if runner.stopped:
        print("stopped; the same command resumes", file=sys.stderr)
        return RESUMABLE
    return _finish(runner)


def _sweep(options: argparse.Namespace) -> Sweep:
    """The sweep with its overrides, once the options are checked."""
    for name, least in (("seeds", 1), ("workers", 1), ("seed", 0)):
        value = getattr(options, name)
        if value is not None and value < least:
            raise ConfigError(f"--{name}", value, f"must be at least {least}", "raise it")
    if (options.arm is None) != (options.seed is None):
        rule = "a single arm needs a seed, and a seed needs an arm"
        raise ConfigError("--arm, --seed", (options.arm, options.seed), rule, "give both, or neither")
    sweep = load_sweep(options.experiment)
    if options.budget is not None:
        sweep = dataclasses.replace(sweep, budget=parse_budget(options.budget))
    if options.smoke:
        sweep = shrunk_sweep(sweep)
    return sweep.changed(lambda config: override(config, options.overrides))


def _arguments(job: Job, options: argparse.Namespace) -> list[str]:
    """The command line that runs a job by itself, without the program."""
    parts = ["sweep", str(options.experiment), "--out", str(options.out), *["--smoke"] * options.smoke]
    parts += [] if options.budget is None else ["--budget", options.budget]
    return [*parts, "--arm", job.arm, "--seed", str(job.seed), *options.overrides]


def _print_jobs(sweep: Sweep, jobs: list[Job], options: argparse.Namespace, console: rich.console.Console) -> None:
    table = rich.table.Table(title=f"{options.experiment.stem}: {sweep.budget.amount:g} {sweep.budget.kind} per arm")
    for column in ("arm", "seed", "steps", "tokens/item", "parameters", "FLOPs", "done"):
        table.add_column(column, justify="left" if column == "arm" else "right")
    for job in jobs:
        table.add_row(
            job.arm,
            str(job.seed),
            f"{job.end.step:,}",
            ", ".join(f"{name} {tokens:.3g}" for name, tokens in job.tokens_per_item.items()),
            f"{job.cost['parameters']:,}",
            f"{job.step_flops * job.end.step:.2e}",
            "yes" if is_done(options.out, job) else "no",
        )
    console.print(table)
    for job in jobs:
        print(shlex.join(["omnijax", *_arguments(job, options)]))


def _finish(runner: Runner) -> int:
    """Writes tables and report, prints what failed, and gives the exit status."""
    if runner.done:
        from omnijax.sweep.csv_files import write_tables
        from omnijax.sweep.page import write_report

        with locked(runner.out / LOCK):
            write_tables(runner.out)
            runner.console.print(f"report: {write_report(runner.out)}", highlight=False)
    for name, said in runner.failed.items():
        print(f"omnijax: {name} failed: {said}", file=sys.stderr)
    return FAILED if runner.failed else 0
