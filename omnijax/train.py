"""The train loop."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import NamedTuple

import jax
import numpy as np

from omnijax.checkpoint import Checkpoints
from omnijax.config import Config
from omnijax.data.corpus import Corpus, digit_modalities, fragment_records
from omnijax.data.pipeline import Batch, Batches, for_this_process, read_ahead
from omnijax.data.prepare import prepare
from omnijax.data.records import load_records
from omnijax.errors import NonFiniteLossError
from omnijax.model.transformer import Transformer
from omnijax.run import CONFIG, check, claim
from omnijax.sharding import make_mesh, put_batch
from omnijax.start import check_start, start_state
from omnijax.state import Metrics, State, abstract_state, make_step
from omnijax.vocab.kinds import kind_names
from omnijax.writers import Writer


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


def train(config: Config, run: Path, command: str = "") -> Outcome:
    """Trains, or goes on training, in a run directory.

    The same configuration, seed, versions and kind of device give the same parameters, bit for bit, however often the
    run was killed and started again.

    Args:
        config: everything that shapes the run.
        run: its directory; made when it isn't there.
        command: what the user typed, for the record.

    Raises:
        ConfigError: a configuration that can't work.
        CheckpointError: the directory belongs to another configuration, or the run can't begin with that of
            `train.start_from`.
        DataError: the data set is damaged.
        NonFiniteLossError: the loss was no number; the last checkpoint is from before.
    """
    # ------------------------------------------------------------------ devices, model, the step
    mesh = make_mesh(config.mesh)
    model = Transformer(config.model, config.vocabulary.size)
    step = make_step(config, model, mesh)
    abstract = abstract_state(config, model, mesh)

    # ------------------------------------------------------------------ data, and a directory for the run
    check(run, config)
    if not (run / CONFIG).exists():
        check_start(config, mesh)
    batches = for_this_process(load_corpus(config), config.batch)
    claim(run, config, abstract.params, command)  # only now: what can't be trained leaves nothing behind

    with Checkpoints(run, config.train.keep_checkpoints) as checkpoints, StopSignal() as stop:
        # -------------------------------------------------------------- where to start
        # 1. from the newest checkpoint of this run directory; 2. from another run's parameters; 3. from scratch.
        start = checkpoints.latest
        if start is not None:
            state = checkpoints.restore(start, abstract, config.vocabulary)
        else:
            start, state = 0, start_state(config, model, mesh)
        if start >= config.train.steps:
            return Outcome(state, start, stopped=False)

        # -------------------------------------------------------------- the loop
        with Writer(run, start, config.train.steps) as writer:
            log = Log(config, writer)
            stream = ahead_on_device(mesh, batches, start, config)
            done, pending = start, None
            for batch in stream:
                state, metrics = step(state, batch)
                done += 1
                # Figures of the step before are fetched only now, while this one computes: the host never waits.
                if pending is not None:
                    log.add(done - 1, pending)
                pending = metrics
                stopping = stop.asked  # read once: a signal that comes later must find its step saved
                if done % config.train.checkpoint_every == 0 or done == config.train.steps or stopping:
                    log.add(done, pending)  # before saving: a checkpoint never holds a state that is no number
                    pending = None
                    checkpoints.save(done, state, config)
                if stopping:
                    break
    return Outcome(state, done, stopped=done < config.train.steps)


def load_corpus(config: Config) -> Corpus:
    """The training split in fragments; builds the data set first where it is missing."""
    if jax.process_index() == 0:
        prepare(config.data)
    if jax.process_count() > 1:
        from jax.experimental import multihost_utils

        multihost_utils.sync_global_devices("data set")
    return fragment_records(
        config.vocabulary, load_records(config.data, "train"), digit_modalities(config.data), config.batch.seed
    )


def ahead_on_device(mesh: jax.sharding.Mesh, batches: Batches, start: int, config: Config) -> Iterator[Batch]:
    """The batches from a step on, each put on the devices one step before it is needed."""
    ahead = None
    for batch in read_ahead(batches, start, config.train.steps, config.batch.prefetch):
        following = put_batch(mesh, batch)
        if ahead is not None:
            yield ahead
        ahead = following
    if ahead is not None:
        yield ahead


class Log:
    """Adds up the metrics of steps and writes their means every `log_every` steps."""

    def __init__(self, config: Config, writer: Writer):
        self._config, self._writer = config, writer
        self._names = kind_names(config.vocabulary)
        self._sums: list[Metrics] = []
        self._since = time.perf_counter()

    def add(self, step: int, metrics: Metrics) -> None:
        """Takes the metrics of one step.

        Raises:
            NonFiniteLossError: they are no numbers.
        """
        host: Metrics = jax.device_get(metrics)
        self._check(step, host)
        self._sums.append(host)
        self._writer.advance(step)
        if step % self._config.train.log_every == 0 or step == self._config.train.steps:
            self._write(step)

    def _check(self, step: int, metrics: Metrics) -> None:
        if np.isfinite(metrics.parts.loss) and np.isfinite(metrics.gradient_norm) and metrics.finite:
            return
        bad = [name for name, nats in zip(self._names, metrics.parts.kind_loss, strict=True) if not np.isfinite(nats)]
        rest = "a parameter after the update" if np.isfinite(metrics.gradient_norm) else "the gradient"
        cause = f"the loss of {', '.join(bad)} tokens" if bad else rest
        raise NonFiniteLossError(
            "loss",
            float(metrics.parts.loss),
            f"at step {step} {cause} is not a finite number (gradient norm {float(metrics.gradient_norm):g}, "
            f"learning rate {float(metrics.learning_rate):g})",
            "lower optim.learning_rate or optim.clip_norm, or use float32; the last checkpoint is from before",
        )

    def _write(self, step: int) -> None:
        now = time.perf_counter()
        parts = jax.tree.map(lambda *leaves: np.sum(leaves, axis=0), *[metrics.parts for metrics in self._sums])
        last, seconds = self._sums[-1], now - self._since
        tokens = float(sum(metrics.tokens for metrics in self._sums))
        items = float(sum(metrics.items for metrics in self._sums))
        by_kind = {
            f"loss/{name}": float(nats / count)
            for name, nats, count in zip(self._names, parts.kind_loss, parts.kind_count, strict=True)
            if count
        }
        self._writer.write(
            step,
            {
                "loss": float(parts.loss / parts.weight),
                **by_kind,
                "accuracy": float(parts.correct / parts.weight),
                "learning_rate": float(last.learning_rate),
                "gradient_norm": float(last.gradient_norm),
                "tokens_per_second": tokens / seconds,
                "items_per_second": items / seconds,
            },
        )
        self._sums, self._since = [], now


class StopSignal:
    """While it is entered, SIGTERM asks the loop to save and leave instead of ending the process."""

    def __init__(self) -> None:
        self.asked = False

    def __enter__(self) -> StopSignal:
        self._before = signal.signal(signal.SIGTERM, self._ask)
        return self

    def __exit__(self, *_: object) -> None:
        signal.signal(signal.SIGTERM, self._before)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        self.asked = True
