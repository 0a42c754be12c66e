"""`omnijax sweep`: resolves a sweep, runs what isn't done yet, and writes the table and the page."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import rich.console
import rich.table

from omnijax.errors import RESUMABLE, CheckpointError, ConfigError, PlatformError
from omnijax.run.directory import usable_cores, write_json
from omnijax.sweep.arm import is_done, run_job
from omnijax.sweep.budget import machine_bytes, parse_budget, seconds_a_step
from omnijax.sweep.inputs import SWEEP, read_object
from omnijax.sweep.resolve import Job, Room, measurable, resolve
from omnijax.sweep.runner import BUSY, LAST_LINES, MAIN, Outcome, bind, in_hand, run_jobs, share_of_cores
from omnijax.sweep.sweep import Sweep, load_sweep
from omnijax.sweep.wanted import LOCK, SPEEDS, adapted, check_out, chosen, fingerprint, locked

COMPILED = "compiled"
FAILED, SMOKE_WORKERS = 1, 4


@dataclasses.dataclass(frozen=True)
class Options:
    """What the command line says.

    Attributes:
        experiment: the file.
        out: the directory of the sweep; None for `sweeps/NAME`.
        only: a pattern of names of arms.
        seeds: how many; None for as many as the sweep says.
        workers: arms at a time; None for one, and for one a core where all is small.
        budget: KIND=AMOUNT, in place of the sweep's own.
        dry_run: print what would be run.
        smoke: as small as can be.
        memory_gb: that there is; None for this machine's.
        arm: one to run here, in this process.
        seed: likewise.
        measure: take the time of a step of that arm, and no more.
        resolved: fingerprint of the sweep, from a parent that has just made sure of it.
        overrides: knobs of every arm.
    """

    experiment: Path
    out: Path | None
    only: str | None
    seeds: int | None
    workers: int | None
    budget: str | None
    dry_run: bool
    smoke: bool
    memory_gb: float | None
    arm: str | None
    seed: int | None
    measure: str | None
    resolved: str | None
    overrides: list[str]

    @property
    def at_once(self) -> int:
        """Arms at a time."""
        return self.workers or (min(usable_cores(), SMOKE_WORKERS) if self.smoke and self.arm is None else 1)

    @property
    def directory(self) -> Path:
        """Of the sweep."""
        kind = "" if self.budget is None else f"-{self.budget.split('=')[0]}"
        return self.out or Path("sweeps") / f"{self.experiment.stem}{kind}{'-smoke' * self.smoke}"

    def arguments(self, arm: str, *more: str) -> list[str]:
        """Of `omnijax`, for a process that sees to one arm."""
        given = ["sweep", str(self.experiment), "--out", str(self.directory), *["--smoke"] * self.smoke]
        if self.budget is not None:
            given += ["--budget", self.budget]
        if self.memory_gb is not None:
            given += ["--memory-gb", f"{self.memory_gb:g}"]
        return [*given, "--arm", arm, *more, *self.overrides]


def run(parsed: argparse.Namespace) -> int:
    """Runs the command; gives its exit status.

    Raises:
        OmnijaxError: bad input, before anything is trained.
    """
    options = Options(**{field.name: getattr(parsed, field.name) for field in dataclasses.fields(Options)})
    _check(options)
    if options.resolved is not None:
        return _run_job(*_handed_over(options), options)
    sweep = load_sweep(options.experiment)
    if options.budget is not None:
        sweep = dataclasses.replace(sweep, budget=parse_budget(options.budget))
    sweep = adapted(sweep, options.overrides, options.smoke)
    if options.measure is not None:
        return _measure(sweep, options)
    if options.arm is not None:
        return _run_arm(sweep, options)
    names = chosen(sweep, options.only)
    jobs = _resolved(sweep, names, range(options.seeds or sweep.seeds), options)
    console = rich.console.Console()
    console = console if console.is_terminal else rich.console.Console(width=160)
    if options.dry_run:
        _print_jobs(sweep, jobs, options, console)
        return 0
    handed_over = ["--resolved", fingerprint(sweep)]
    outcome = run_jobs(
        jobs, options.directory, lambda job: [*_command(job, options), *handed_over], options.at_once, console
    )
    if outcome.stopped:
        print("stopped; the same command goes on from there", file=sys.stderr)
        return RESUMABLE
    return _tell(outcome, options, console)


def _check(options: Options) -> None:
    for name, least in (("seeds", 1), ("workers", 1), ("memory_gb", 0), ("seed", 0)):
        value = getattr(options, name)
        if value is not None and value < least:
            raise ConfigError(f"--{name.replace('_', '-')}", value, f"must be at least {least}", "raise it")
    if (options.arm is None) != (options.seed is None) and options.measure is None:
        rule = "an arm is run by itself with one seed"
        raise ConfigError("--arm, --seed", (options.arm, options.seed), rule, "give both, or neither")


def _resolved(sweep: Sweep, names: list[str], seeds: range | list[int], options: Options) -> list[Job]:
    """The jobs; resolved once, however many workers begin at the same time."""
    out = options.directory
    check_out(sweep, out)
    memory = machine_bytes() if options.memory_gb is None else options.memory_gb * 1e9
    room = Room(memory, options.at_once)
    if options.dry_run:
        return resolve(sweep, names, seeds, out, lambda name: _seconds(sweep, name, options), room, write=False)
    with locked(out / LOCK):
        return resolve(sweep, names, seeds, out, lambda name: _seconds(sweep, name, options), room)


def _seconds(sweep: Sweep, name: str, options: Options) -> float:
    """Seconds of a step of an arm, measured once for a sweep: as many copies side by side as there are workers.

    Copies, since neighbours share the memory's bandwidth even where each has its own cores.
    """
    path = options.directory / SPEEDS / f"{name}.json"
    about = {"fingerprint": fingerprint(sweep), "workers": options.at_once, "cores": usable_cores()}
    for other in sorted(path.parent.glob("*.json")):
        _check_speed(read_object(other, (*about, "seconds_a_step"), "delete it, to measure anew"), about)
    saved: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    if saved.get("fingerprint") != about["fingerprint"]:
        command = [sys.executable, "-c", MAIN, *options.arguments(name, "--measure", "step")]
        copies = []
        for worker in range(options.at_once):
            copies.append(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True))
            bind(copies[-1].pid, share_of_cores(worker, options.at_once))
        saved = about | {"seconds_a_step": max([_measured(name, copy) for copy in copies])}
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, saved)
    return float(saved["seconds_a_step"])


def _check_speed(saved: dict[str, Any], about: dict[str, Any]) -> None:
    """Seconds are equal for arms that share a machine alike."""
    for key, knob in (("workers", "--workers"), ("cores", "cores of this machine")):
        if saved["fingerprint"] == about["fingerprint"] and saved[key] != about[key]:
            rule = f"other arms of this sweep were measured with {saved[key]}, so that their seconds aren't these"
            raise ConfigError(knob, about[key], rule, f"use {saved[key]}, or another --out")


def _measured(name: str, copy: subprocess.Popen[str]) -> float:
    """What a process that takes the time of a step has found: its last line."""
    said, warned = copy.communicate()
    if copy.returncode:
        lines = (said + warned).splitlines()
        rule = f"the speed of a step can't be measured; the process ended with {copy.returncode}:"
        raise PlatformError("speed", name, "\n".join([rule, *lines[-LAST_LINES:]]), "mend that, or use another budget")
    return float(said.splitlines()[-1])


def _measure(sweep: Sweep, options: Options) -> int:
    assert options.arm is not None
    print(seconds_a_step(*measurable(sweep, options.arm)))
    return 0


def _run_arm(sweep: Sweep, options: Options) -> int:
    assert options.arm is not None
    assert options.seed is not None
    if options.arm not in sweep.arms:
        raise ConfigError("--arm", options.arm, "there is no such arm", f"choose one of {', '.join(sweep.arms)}")
    (job,) = _resolved(sweep, [options.arm], [options.seed], options)
    return _run_job(job, sweep.tasks, dataclasses.asdict(sweep.budget), options)


def _handed_over(options: Options) -> tuple[Job, tuple[str, ...], dict[str, Any]]:
    """The job, the tasks and the budget that the parent has resolved, without making all arms once more."""
    saved = read_object(options.directory / SWEEP, ("fingerprint", "jobs", "tasks", "budget"), "leave --resolved out")
    if saved["fingerprint"] != options.resolved:
        rule = f"the sweep there has the fingerprint {saved['fingerprint']}"
        raise CheckpointError("--resolved", options.resolved, rule, "leave --resolved out")
    return Job.from_dict(saved["jobs"][f"{options.arm}/seed{options.seed}"]), tuple(saved["tasks"]), saved["budget"]


def _run_job(job: Job, tasks: tuple[str, ...], budget: dict[str, Any], options: Options) -> int:
    out = options.directory
    with in_hand(out, job) as mine:
        if not mine:
            print(f"{job.name}: another process has it in hand", file=sys.stderr)
            return BUSY
        if is_done(out, job):
            return 0
        print(f"{job.name}: begun, or taken up again", flush=True)
        _keep_compiled(out / COMPILED / job.arm)
        if options.smoke:
            jax.config.update("jax_disable_most_optimizations", True)
        done = run_job(job, out, tasks, budget, shlex.join(["omnijax", *_command(job, options)]))
    return 0 if done else RESUMABLE


def _keep_compiled(folder: Path) -> None:
    """Keeps what is compiled: the step is asked for twice, for training and for what it takes, the rest by every seed.

    Of an entry that a killed process, or one that is still writing it, left half there, JAX warns and compiles anew.
    """
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        jax.config.update("jax_compilation_cache_dir", str(folder))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)


def _command(job: Job, options: Options) -> list[str]:
    return options.arguments(job.arm, "--seed", str(job.seed))


def _print_jobs(sweep: Sweep, jobs: list[Job], options: Options, console: rich.console.Console) -> None:
    table = rich.table.Table(title=f"{options.experiment.stem}: {sweep.budget.amount:g} {sweep.budget.kind} an arm")
    columns = ("arm", "seed", "steps", "tokens/item", "parameters", "FLOPs", "memory", "done")
    for column in columns:
        table.add_column(column, justify="left" if column == "arm" else "right")
    for job in jobs:
        per_item = ", ".join(f"{name} {tokens:.3g}" for name, tokens in job.tokens_per_item.items())
        table.add_row(
            job.arm,
            str(job.seed),
            f"{job.end.step:,}",
            per_item,
            f"{job.cost['parameters']:,}",
            f"{job.step_flops * job.end.step:.2e}",
            f"{job.bytes / 1e9:.2f} GB",
            "yes" if is_done(options.directory, job) else "no",
        )
    console.print(table)
    for job in jobs:
        print(shlex.join(["omnijax", *_command(job, options)]))


def _tell(outcome: Outcome, options: Options, console: rich.console.Console) -> int:
    """Writes what can be written, says what failed, and gives the exit status."""
    out = options.directory
    if outcome.done:
        from omnijax.sweep.page import write_report
        from omnijax.sweep.table import write_tables

        with locked(out / LOCK):
            write_tables(out)
            page = write_report(out)
        console.print(f"report: {page}", highlight=False)
    for name, said in outcome.failed.items():
        print(f"omnijax: {name} failed: {said}", file=sys.stderr)
    return FAILED if outcome.failed else 0
