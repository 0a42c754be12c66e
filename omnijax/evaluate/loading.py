"""Runs, and the parameters of their checkpoints, on whatever mesh is wanted."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from jax.sharding import Mesh

from omnijax.config import Config
from omnijax.errors import CheckpointError
from omnijax.evaluate.split import EvaluatedSplit, split_of
from omnijax.model.build import model_of
from omnijax.run.checkpoint import Checkpoints
from omnijax.run.directory import FOLDER, load_config
from omnijax.sample.generate import Generator
from omnijax.step.sharding import mesh_that_fits
from omnijax.step.state import abstract_state

Meshes = Callable[[Config], Mesh]
"""The devices for a run."""


class Trained(NamedTuple):
    """A run, loaded."""

    config: Config
    generator: Generator
    step: int


class OpenRun(contextlib.ExitStack):
    """A run whose checkpoints are read, beside a process that may still train it; a context manager.

    Attributes:
        run: its directory.
        out: directory where its figures are read and written; the run directory by default.
        config: of the run, with the split that is measured as `eval.split`.
        other_split: this split; None if it is the run's own.

    Raises:
        CheckpointError: it is no run.
        ConfigError: there is no such mesh here, or no such split, or the model can't be split over the mesh.
    """

    def __init__(
        self,
        run: Path,
        meshes: Meshes = mesh_that_fits,
        trusted: bool = False,
        config: Config | None = None,
        split: str | None = None,
        out: Path | None = None,
    ):
        super().__init__()
        self.run, self.out, self.config = run, out or run, config or load_config(run, trusted)
        self.other_split = None if split == self.config.eval.split else split
        if split is not None:
            self.config = dataclasses.replace(self.config, eval=dataclasses.replace(self.config.eval, split=split))
        self._model = model_of(self.config)
        self._abstract: Any = abstract_state(self.config, self._model, meshes(self.config)).params
        self._open: Checkpoints | None = None

    @functools.cached_property
    def split(self) -> EvaluatedSplit:
        """The data that it is measured on, checked once."""
        return split_of(self.config)

    def steps(self) -> list[int]:
        """Steps of the checkpoints that are there now, in order."""
        if self._open is not None:
            self._open.reload()
        elif (self.run / FOLDER).is_dir():
            self._open = self.enter_context(Checkpoints(self.run))
        return [] if self._open is None else self._open.steps

    def identity(self, step: int) -> str:
        """A fingerprint of the parameters of a checkpoint, the same on any mesh, by its description alone.

        Raises a `CheckpointError` if there is none, or if its description is damaged or foreign.
        """
        return self._checkpoints(step).check_params(step, self._abstract, self.config.vocabulary)

    def load(self, step: int | None = None) -> Trained:
        """One checkpoint; by default the newest one that is whole, and those after it are named on stderr.

        Raises a `CheckpointError` if there is none, or if it is damaged or foreign.
        """
        checkpoints, vocabulary = self._checkpoints(step), self.config.vocabulary
        if step is not None:
            return self._trained(step, checkpoints.restore_params(step, self._abstract, vocabulary))
        newest = checkpoints.newest_params(self._abstract, vocabulary)
        assert newest is not None  # there are checkpoints
        return self._trained(*newest)

    def _trained(self, step: int, params: Any) -> Trained:
        return Trained(self.config, Generator(self.config, self._model, params), step)

    def _checkpoints(self, step: int | None) -> Checkpoints:
        """For reading this step, or any."""
        steps = self.steps() if self._open is None or step is None else self._open.steps
        if self._open is None or not steps:
            raise CheckpointError("run", str(self.run), "it has no checkpoint yet", "go on training it")
        if step is not None and step not in steps:
            rule = f"the run has checkpoints of steps {', '.join(map(str, steps))}"
            raise CheckpointError("checkpoint", str(self.run / FOLDER / str(step)), rule, "choose one that is there")
        return self._open
