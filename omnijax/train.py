"""The train loop."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from omnijax.config import Config
from omnijax.data.corpus import Split, read_parts
from omnijax.data.fitting import fitted
from omnijax.data.packing import Batch
from omnijax.data.pipeline import Batches, read_ahead
from omnijax.data.prepare import prepare
from omnijax.errors import NonFiniteLossError
from omnijax.lock import training_lock
from omnijax.model.build import model_of
from omnijax.run import distributed
from omnijax.run.checkpoint import Checkpoints, Restored
from omnijax.run.directory import FOLDER, check, claim
from omnijax.run.start import check_start, start_state
from omnijax.run.stopping import Stop
from omnijax.run.writers import Writer
from omnijax.sample.generate import check_generation
from omnijax.source import TRAIN
from omnijax.step.sharding import make_mesh, put_batch, rows_here
from omnijax.step.state import Metrics, State, abstract_state, make_step
from omnijax.vocab.kinds import kind_names

DATA_SECONDS = 24 * 3600.0
"""How long processes wait for process 0 to build the data set; if it dies meanwhile, they end sooner."""


class Outcome(NamedTuple):
    """How training ended.

    Attributes:
        state: the last one.
        step: steps done.
        stopped: a signal asked to stop before the last step; the same command goes on from here.
    """

    state: State
    step: int
    stopped: bool


def train(
    config: Config,
    run: Path,
    command: str = "",
    stop: Stop | None = None,
    experiment: Path | None = None,
    splits: Sequence[Split] = (),
) -> Outcome:
    """Trains, or goes on training, in a run directory.

    The same configuration, seed, versions and kind of device give the same parameters, bit for bit, however often the
    run was killed and started again; on other devices or another mesh they are the same up to the order of sums.

    Args:
        config: everything that shapes the run.
        run: its directory; made when it isn't there.
        command: what the user typed, for the record.
        experiment: the file that the configuration came from, for the classes and data that only it can make.
        stop: the signals that ask to stop; by default those of `Stop`, while this runs.
        splits: those of `load_splits`, if they have been opened already.

    Raises:
        ConfigError: a configuration that can't work.
        CheckpointError: the directory belongs to another configuration, another process trains in it, or the run can't
            begin with the checkpoint of `train.start_from`.
        DataError: the data set is damaged.
        NonFiniteLossError: the loss was no number; the last checkpoint is from before.
    """
    with contextlib.nullcontext(stop) if stop else Stop(distributed.peers()) as stop, contextlib.ExitStack() as held:
        # ------------------------------------------------------------------ devices, model, the step
        mesh, model = make_mesh(config.mesh), model_of(config)
        step = make_step(config, model, mesh)
        check_generation(config, model)  # fails before training, not after it
        abstract = abstract_state(config, model, mesh)

        # ------------------------------------------------------------------ data, and a directory for the run
        check(run, config)
        if not any((run / FOLDER).glob("*")):
            check_start(config, mesh)
        batches = make_batches(config, splits or load_splits(config), rows_here(mesh, config.batch.size))
        batches.check(config.train.steps)
        # Only now: what can't be trained leaves nothing behind.
        lock = held.enter_context(training_lock(run)) if jax.process_index() == 0 else None
        claim(run, config, abstract.params, command, fitted(config.data), experiment)
        for line in batches.incomplete() if jax.process_index() == 0 else ():
            print(line, flush=True)

        with Checkpoints(run, config.train.keep_checkpoints) as checkpoints:
            # ------------- where to start: the newest checkpoint of this run, another run's parameters, or from scratch
            restored = checkpoints.restore_newest(abstract, config.vocabulary)
            fresh = {"log": {}, "data": batches.position(0)}
            start, state, figures = restored or Restored(0, start_state(config, model, mesh), fresh)
            batches.begin(start, figures["data"])
            if start >= config.train.steps:
                return Outcome(state, start, stopped=False)

            # -------------------------------------------------------------- the loop
            with Writer(run, start, config.train.steps) as writer:
                log = Log(config, writer, figures["log"], batches.epochs)
                stream = ahead_on_device(mesh, batches, start, config)
                done, pending = start, None
                stop.begin()
                for batch in stream:
                    state, metrics = step(state, batch)
                    done += 1
                    # Figures of the step before are fetched only now, while this one computes: the host never waits.
                    if pending is not None:
                        log.add(done - 1, pending)
                    pending = metrics
                    stopping = stop.after(done)  # asked once: a signal that comes later must find its step saved
                    if done % config.train.checkpoint_every == 0 or done == config.train.steps or stopping:
                        log.add(done, pending)  # before saving: a checkpoint never holds a state that is no number
                        pending = None
                        if lock is not None:
                            lock.check()
                        with log.apart():
                            checkpoints.save(done, state, config, {"log": log.figures, "data": batches.position(done)})
                    if stopping:
                        break
    return Outcome(state, done, stopped=done < config.train.steps)


def load_splits(config: Config) -> list[Split]:
    """The training split of each source; builds the data set first where it is missing, once for all processes."""
    distributed.first("data set", lambda: prepare(config), DATA_SECONDS)
    return read_parts(config, TRAIN, config.batch.views)


def make_batches(config: Config, splits: Sequence[Split], rows: Sequence[int] | None = None) -> Batches:
    """The batches of a run: with all sequences, or only `rows`, which are those of this process."""
    return Batches(splits, config.batch, rows, config.data.part_weights, config.data.unit)


def ahead_on_device(mesh: jax.sharding.Mesh, batches: Batches, start: int, config: Config) -> Iterator[Batch]:
    """The batches from a step on, each put on the devices one step before it is needed."""
    host = read_ahead(batches, start, config.train.steps, config.batch.prefetch)
    placed = (put_batch(mesh, batch, config.batch.size) for batch in host)
    following = next(placed, None)
    while (batch := following) is not None:
        following = next(placed, None)
        yield batch


class Log:
    """Adds up the metrics of steps and writes their means every `log_every` steps."""

    def __init__(self, config: Config, writer: Writer, figures: dict[str, Any], epochs: Callable[[int], list[float]]):
        self._config, self._writer, self._epochs = config, writer, epochs
        self._names = kind_names(config.vocabulary)
        self._since = time.perf_counter() - (figures["seconds"] if figures else 0)
        # In float64, whose digits JSON keeps: a run that goes on writes the line that an undisturbed one writes.
        self._sums = {name: np.asarray(value, np.float64) for name, value in figures.items() if name != "seconds"}

    @property
    def figures(self) -> dict[str, Any]:
        """Sums since the last line, for a run that goes on from here."""
        seconds = time.perf_counter() - self._since
        return {"seconds": seconds, **{name: value.tolist() for name, value in self._sums.items()}}

    @contextlib.contextmanager
    def apart(self) -> Iterator[None]:
        """What is done in here is no training, and its time counts for no speed. The lines so far are in the files."""
        started = time.perf_counter()
        self._writer.flush()
        yield
        self._since += time.perf_counter() - started

    def add(self, step: int, metrics: Metrics) -> None:
        """Takes the metrics of one step; raises a `NonFiniteLossError` if they are no numbers."""
        host: Metrics = jax.device_get(metrics)
        self._check(step, host)
        for name, value in (host.parts._asdict() | {"tokens": host.tokens, "items": host.items}).items():
            self._sums[name] = np.asarray(value, np.float64) + self._sums.get(name, 0.0)
        self._writer.advance(step)
        if step % self._config.train.log_every == 0 or step == self._config.train.steps:
            self._write(step, host)

    def _check(self, step: int, metrics: Metrics) -> None:
        loss, norm, rate = (float(n) for n in (metrics.parts.loss, metrics.gradient_norm, metrics.learning_rate))
        if np.isfinite(loss) and np.isfinite(norm) and metrics.finite:
            return
        by_kind = metrics.parts.kind_loss.reshape(-1, len(self._names)).sum(axis=0)
        bad = [name for name, nats in zip(self._names, by_kind, strict=True) if not np.isfinite(nats)]
        rest = "a parameter after the update" if np.isfinite(norm) else "the gradient"
        cause = f"the loss of {', '.join(bad)} tokens" if bad else rest
        rule = f"at step {step} {cause} is not a finite number (gradient norm {norm:g}, learning rate {rate:g})"
        fix = "lower optim.learning_rate or optim.clip_norm, or use float32; the last checkpoint is from before"
        raise NonFiniteLossError("loss", loss, rule, fix)

    def _write(self, step: int, last: Metrics) -> None:
        now, sums = time.perf_counter(), self._sums
        seconds = now - self._since
        # By source and kind.
        losses, counts = (sums[name].reshape(-1, len(self._names)) for name in ("kind_loss", "kind_count"))
        kinds = zip(self._names, losses.sum(axis=0), counts.sum(axis=0), strict=True)
        sources = zip(self._config.data.parts, losses.sum(axis=1), counts.sum(axis=1), self._epochs(step), strict=True)
        means = {
            "loss": sums["loss"] / sums["weight"],
            **{f"loss/{name}": nats / count for name, nats, count in kinds if count},
            "accuracy": sums["correct"] / sums["weight"],
            "learning_rate": last.learning_rate,
            "gradient_norm": last.gradient_norm,
            "tokens_per_second": sums["tokens"] / seconds,
            "items_per_second": sums["items"] / seconds,
        }
        for name, nats, count, epoch in sources:
            means[f"epoch/{name}".rstrip("/")] = epoch
            means |= {f"loss/from {name}": nats / count} if name and count else {}
        self._writer.write(step, {name: float(value) for name, value in means.items()})
        self._sums, self._since = {}, now
