"""Runs, and the parameters of their checkpoints, on whatever mesh is wanted."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from jax.sharding import Mesh

from omnijax.config import Config
from omnijax.errors import CheckpointError
from omnijax.evaluate.split import EvaluatedSplit, split_of
from omnijax.model.build import model_of
from omnijax.run.checkpoint import FOLDER, Checkpoints
from omnijax.run.checksums import checksums, digest
from omnijax.run.directory import load_config
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

    @property
    def identity(self) -> str:
        """A fingerprint of the parameters, the same on any mesh."""
        return digest(checksums({"params": self.generator.params}))


class OpenRun:
    """A run whose checkpoints are read, beside a process that may still train it; a context manager.

    Raises:
        CheckpointError: it is no run.
        ConfigError: there is no such mesh here, or the model can't be split over it.
    """

    def __init__(self, run: Path, meshes: Meshes = mesh_that_fits, trusted: bool = False, config: Config | None = None):
        self.run, self.config = run, config or load_config(run, trusted)
        self._model = model_of(self.config)
        self._abstract: Any = abstract_state(self.config, self._model, meshes(self.config)).params
        self._open: Checkpoints | None = None

    def __enter__(self) -> OpenRun:
        return self

    def __exit__(self, *error: Any) -> None:
        if self._open is not None:
            self._open.__exit__(*error)

    @functools.cached_property
    def split(self) -> EvaluatedSplit:
        """The data that it is measured on, checked once."""
        return split_of(self.config)

    def steps(self) -> list[int]:
        """Steps of the checkpoints that are there now, in order."""
        if self._open is not None:
            self._open.reload()
        elif (self.run / FOLDER).is_dir():
            self._open = Checkpoints(self.run)
        return [] if self._open is None else self._open.steps

    def identity(self, step: int) -> str:
        """`Trained.identity` of a checkpoint, by its description alone.

        Raises:
            CheckpointError: there is none, or its description is damaged or foreign.
        """
        return self._checkpoints(step).check_params(step, self._abstract, self.config.vocabulary)

    def load(self, step: int) -> Trained:
        """One checkpoint.

        Raises:
            CheckpointError: there is none, or it is damaged or foreign.
        """
        params = self._checkpoints(step).restore_params(step, self._abstract, self.config.vocabulary)
        return Trained(self.config, Generator(self.config, self._model, params), step)

    def newest(self) -> Trained:
        """The newest checkpoint that is whole; those after it are named on stderr.

        Raises:
            CheckpointError: there is none.
        """
        found = None
        if self.steps():
            found = self._checkpoints().newest_params(self._abstract, self.config.vocabulary)
        if found is None:
            raise CheckpointError("run", str(self.run), "it has no checkpoint yet", "go on training it")
        step, params = found
        return Trained(self.config, Generator(self.config, self._model, params), step)

    def _checkpoints(self, step: int | None = None) -> Checkpoints:
        """For reading this step."""
        steps = self.steps() if self._open is None else self._open.steps
        if self._open is None or (step is not None and step not in steps):
            there = ", ".join(map(str, steps))
            rule = f"the run has checkpoints of steps {there}" if steps else "the run has no checkpoint yet"
            raise CheckpointError("checkpoint", str(self.run / FOLDER / str(step)), rule, "choose one that is there")
        return self._open
