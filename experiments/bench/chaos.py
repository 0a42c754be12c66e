"""Kills a training run at random moments and starts it again, many times: it must end where an undisturbed one ends.

    python experiments/bench/chaos.py --cycles 50

Each cycle starts `omnijax train` on a small experiment and waits for a moment that is drawn from the seed: while the
process starts, between steps, or while it writes a checkpoint. Then it ends the process with SIGKILL, SIGTERM or
SIGUSR1. In one cycle of ten it also damages a file of the newest checkpoint. After the last cycle the run continues
undisturbed to its end and is compared with a run that was never disturbed: every step must be in `metrics.jsonl` once,
with the same figures, and the last state must be the same bit for bit. The script prints a JSON line for each cycle and
then the result. Its exit status is 0 if the runs agree. With `--directory` a killed script continues at the next call.

Processes are forked from this one, which has imported everything and used no device. So a cycle only takes the time of
tracing and of some steps.
"""

from __future__ import annotations

import argparse
import collections
import dataclasses
import json
import os
import pathlib
import signal
import sys
import tempfile
import time
from typing import Any

import jax
import numpy as np
from forked import PATIENCE_SECONDS, start, wait

from omnijax import testing
from omnijax.config import Config, to_dict
from omnijax.errors import RESUMABLE
from omnijax.experiment import load_experiment
from omnijax.model.transformer import Transformer
from omnijax.run.checkpoint import Checkpoints
from omnijax.run.directory import FOLDER, METRICS
from omnijax.step.sharding import make_mesh
from omnijax.step.state import abstract_state

DIGITS = pathlib.Path(__file__).parents[1] / "digits.py"
STEPS_PER_CYCLE, CHECKPOINT_EVERY = 14, 5
FURTHEST = 24  # most steps of a cycle beyond the last line of metrics; the mean is below STEPS_PER_CYCLE
CYCLES = "cycles.jsonl"
CLOCK = ("tokens_per_second", "items_per_second", "seconds", "check")
EXPERIMENT = """import json
from omnijax.config import from_dict


def get_config():
    return from_dict(json.loads({text!r}))
"""


def small(directory: pathlib.Path, cycles: int) -> Config:
    """A small demo with a checkpoint every few steps and a line of metrics every third step."""
    config = testing.shrink(load_experiment(DIGITS), directory / "data")
    train = dataclasses.replace(
        config.train, steps=STEPS_PER_CYCLE * cycles, checkpoint_every=CHECKPOINT_EVERY, log_every=3
    )
    return dataclasses.replace(config, train=train)


def whole_lines(path: pathlib.Path) -> list[dict[str, Any]]:
    """The lines of a JSON lines file that were written to their end."""
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    return [json.loads(line) for line in lines if line.endswith("}\n")]


class Run:
    """A run directory, and the process that trains in it."""

    def __init__(self, experiment: pathlib.Path, directory: pathlib.Path):
        self.directory = directory
        self._command = ["train", str(experiment), "--workdir", str(directory)]
        self._log = directory.with_suffix(".log")

    def start(self) -> int:
        """Forks a process that trains; returns its id."""
        return start(self._command, self._log)

    def steps(self) -> int:
        """The step of the last line of the metrics."""
        lines = self.lines()
        return lines[-1]["step"] if lines else 0

    def lines(self) -> list[dict[str, Any]]:
        """The whole lines of the metrics."""
        return whole_lines(self.directory / METRICS)

    def checkpoints(self) -> list[int]:
        """The steps of the complete checkpoints."""
        return sorted(int(path.name) for path in (self.directory / FOLDER).glob("*") if path.name.isdigit())

    def writing(self) -> bool:
        """Whether there is an incomplete checkpoint, from this process or from one that died."""
        return any(not path.name.isdigit() for path in (self.directory / FOLDER).glob("*"))

    def said(self) -> str:
        """The last output of all processes."""
        return self._log.read_text(errors="replace")[-3000:]


def disturb(run: Run, random: np.random.Generator) -> dict[str, Any]:
    """One cycle: starts the run, waits for a moment, and ends the process. Returns a record of it."""
    kind = str(random.choice(["start", "step", "write"], p=[0.15, 0.45, 0.4]))
    how = signal.Signals(int(random.choice([signal.SIGKILL, signal.SIGTERM, signal.SIGUSR1], p=[0.6, 0.25, 0.15])))
    after = run.steps() + int(random.integers(1, FURTHEST))
    pause = float(random.uniform(0, {"start": 4.0, "step": 0.1, "write": 0.05}[kind]))
    came, started = run.checkpoints(), time.monotonic()
    process = run.start()
    ended = 0
    while kind != "start" and time.monotonic() < started + PATIENCE_SECONDS and not ended:
        if run.steps() >= after and (kind == "step" or run.writing()):
            break
        time.sleep(0.002)
        ended, status = os.waitpid(process, os.WNOHANG)
    if not ended:
        time.sleep(pause)
        os.kill(process, how)
        ended, status = wait(process)
    code = os.waitstatus_to_exitcode(status)
    # 0: the run was done before the signal. A signal's own status: Python hadn't installed its handler yet.
    if code not in (0, RESUMABLE, -how):
        raise SystemExit(f"exit status {code} after {how.name}\n{run.said()}")
    return {
        "moment": kind,
        "signal": how.name,
        "status": code,
        "step": run.steps(),
        "checkpoints": [step for step in run.checkpoints() if step not in came],
        "half_written": run.writing(),
        "seconds": round(time.monotonic() - started, 1),
    }


def damage(run: Run, random: np.random.Generator) -> str | None:
    """Damages a file of the newest checkpoint if there is an older one; returns what was done."""
    if len(run.checkpoints()) < 2:
        return None
    newest = run.directory / FOLDER / str(run.checkpoints()[-1])
    path = sorted(path for path in newest.rglob("*") if path.is_file() and path.stat().st_size)[random.integers(1, 8)]
    content, kind = bytearray(path.read_bytes()), str(random.choice(["flip", "cut", "delete"]))
    if kind == "flip":
        content[random.integers(len(content))] ^= 1 << int(random.integers(8))
    if kind == "delete":
        path.unlink()
    else:
        path.write_bytes(content[: len(content) // 2] if kind == "cut" else content)
    return f"{kind} {path.relative_to(newest.parent)}"


def finish(run: Run) -> None:
    """Lets a run reach its end."""
    process = run.start()
    while (done := os.waitpid(process, os.WNOHANG))[0] == 0:
        time.sleep(0.05)
    if os.waitstatus_to_exitcode(done[1]):
        raise SystemExit(f"exit status {os.waitstatus_to_exitcode(done[1])}\n{run.said()}")


def differences(run: Run, undisturbed: Run, config: Config) -> list[str]:
    """The differences of two finished runs: steps, figures, bits of the state."""

    def figures(of: Run) -> list[dict[str, Any]]:
        return [{name: value for name, value in line.items() if name not in CLOCK} for line in of.lines()]

    abstract = abstract_state(config, Transformer(config.model, config.vocabulary.size), make_mesh(config.mesh))
    states = []
    for of in (run, undisturbed):
        with Checkpoints(of.directory) as checkpoints:
            states.append(checkpoints.restore(config.train.steps, abstract, config.vocabulary).state)
    found = []
    here, there = figures(run), figures(undisturbed)
    if [line["step"] for line in here] != [line["step"] for line in there]:
        found.append("the steps of metrics.jsonl")
    found += [f"the figures of step {one['step']}" for one, other in zip(here, there, strict=False) if one != other]
    same = (
        np.asarray(one).tobytes() == np.asarray(other).tobytes()
        for one, other in zip(*map(jax.tree.leaves, states), strict=True)
    )
    return found + ([] if all(same) else ["the bits of the last state"])


def chaos(cycles: int, until: int, seed: int, directory: pathlib.Path) -> dict[str, Any]:
    """Runs the cycles that `cycles.jsonl` in the directory doesn't have yet, and compares the runs after the last one.

    Args:
        cycles: in all.
        until: stops after this many.
        seed: of the moments, the signals and the damages.
        directory: of the runs, on which a later call goes on.
    """
    jax.config.update("jax_compilation_cache_dir", str(directory / "compiled"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    config, experiment = small(directory, cycles), directory / "small.py"
    experiment.write_text(EXPERIMENT.format(text=json.dumps(to_dict(config))))
    undisturbed, run = Run(experiment, directory / "undisturbed"), Run(experiment, directory / "disturbed")
    if config.train.steps not in undisturbed.checkpoints():
        finish(undisturbed)
    log = directory / CYCLES
    lines = whole_lines(log)
    for cycle in range(len(lines), until):
        random = np.random.default_rng([seed, cycle])
        done = {"cycle": cycle, **disturb(run, random)}
        if random.random() < 0.1:
            done["damaged"] = damage(run, random)
        lines.append(done)
        written = log.with_suffix(".part")
        written.write_text("".join(json.dumps(line) + "\n" for line in lines))
        written.replace(log)
        print(json.dumps(done), flush=True)
    events = [name for line in lines for name in (line["moment"], line["signal"])]
    events += ["half written" for line in lines if line["half_written"]]
    result: dict[str, Any] = {"cycles": len(lines), "of": cycles, **collections.Counter(events), "different": []}
    if until == cycles:
        finish(run)
        result |= {"steps": config.train.steps, "different": differences(run, undisturbed, config)}
    return result


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--cycles", type=int, default=50)
    parser.add_argument("--until", type=int, help="stop after this many cycles; all of them by default")
    parser.add_argument("--seed", type=int, default=0, help="draws the moments, the signals and the damages")
    parser.add_argument("--directory", type=pathlib.Path, help="keeps the runs, so that a later call goes on")
    options = parser.parse_args(arguments)
    options.until = min(options.until or options.cycles, options.cycles)
    return options


if __name__ == "__main__":
    options = parse()
    with tempfile.TemporaryDirectory() as temporary:
        directory = options.directory or pathlib.Path(temporary)
        directory.mkdir(parents=True, exist_ok=True)
        result = chaos(options.cycles, options.until, options.seed, directory)
    print(json.dumps(result))
    sys.exit(1 if result["different"] else 0)
