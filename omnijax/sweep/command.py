"""`omnijax sweep`: makes the jobs of a sweep, runs those that aren't done yet, and writes the tables and the report."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import shlex
import sys
from pathlib import Path

import jax
import rich.console
import rich.table

from omnijax.errors import RESUMABLE, ConfigError
from omnijax.experiment import override
from omnijax.lock import LOCK, locked
from omnijax.run.directory import usable_cores
from omnijax.sweep.arm import is_done, run_alone
from omnijax.sweep.jobs import Job, make_jobs
from omnijax.sweep.runner import Runner
from omnijax.sweep.sweep import Budget, Sweep, check_out, load_sweep

FAILED, SMOKE_WORKERS = 1, 4
PROCESS = [sys.executable, "-c", "import sys; from omnijax.cli import main; sys.exit(main())"]


def run(options: argparse.Namespace) -> int:
    """Runs the command with the options that `omnijax.cli` defines; gives the exit status.

    Raises an `OmnijaxError` for invalid input; nothing has been trained then.
    """
    sweep, alone = _sweep(options), options.arm is not None
    if options.out is None:
        kind = "" if options.budget is None else f"-{sweep.budget.kind}"
        options.out = Path("sweeps") / f"{options.experiment.stem}{kind}{'-smoke' * options.smoke}"
    if options.workers is None:
        options.workers = min(usable_cores(), SMOKE_WORKERS) if options.smoke and not alone else 1
    names, seeds = sweep.matching(options.only), list(range(options.seeds or sweep.seeds))
    if alone:
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
    if alone:
        if options.smoke:  # compiles quickly
            jax.config.update("jax_disable_most_optimizations", True)
        return run_alone(jobs[0], sweep, options.out, options.line)
    runner = Runner(options.out, lambda job: PROCESS + _arguments(job, options), options.workers, console)
    runner.run(jobs)
    if runner.stopped:
        print("stopped; the same command resumes", file=sys.stderr)
        return RESUMABLE
    if runner.done:
        from omnijax.sweep.comparison import write_tables
        from omnijax.sweep.page import write_report

        with locked(options.out / LOCK):
            write_tables(options.out)
            console.print(f"report: {write_report(options.out)}", highlight=False)
    for name, said in runner.failed.items():
        print(f"omnijax: {name} failed: {said}", file=sys.stderr)
    return FAILED if runner.failed else 0


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
        sweep = dataclasses.replace(sweep, budget=Budget.parse(options.budget))
    if options.smoke:
        sweep = sweep.small()
    return sweep.changed(lambda config: override(config, options.overrides))


def _arguments(job: Job, options: argparse.Namespace) -> list[str]:
    """The command line that runs a job by itself, without the program."""
    parts = ["sweep", str(options.experiment), "--out", str(options.out), *["--smoke"] * options.smoke]
    parts += [] if options.budget is None else ["--budget", options.budget]
    return [*parts, "--arm", job.arm, "--seed", str(job.seed), *options.overrides]


def _print_jobs(sweep: Sweep, jobs: list[Job], options: argparse.Namespace, console: rich.console.Console) -> None:
    columns = ("arm", "seed", "steps", "tokens/item", "parameters", "FLOPs", "done")
    title = f"{options.experiment.stem}: {sweep.budget.amount:g} {sweep.budget.kind} per arm"
    table = rich.table.Table(*columns, title=title)
    for job in jobs:
        table.add_row(
            job.arm,
            str(job.seed),
            f"{job.end.step:,}",
            f"{job.end.tokens / job.end.items:.3g}",
            f"{job.cost['parameters']:,}",
            f"{job.step_flops * job.end.step:.2e}",
            "yes" if is_done(options.out, job) else "no",
        )
    console.print(table)
    for job in jobs:
        print(shlex.join(["omnijax", *_arguments(job, options)]))
