"""The state in which a run begins if it has no checkpoint: random parameters, or those of another run."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import jax
from jax.sharding import Mesh

from omnijax.config import Config
from omnijax.errors import CheckpointError, VocabularyError
from omnijax.model.build import model_of
from omnijax.model.transformer import Transformer
from omnijax.paths import as_path
from omnijax.run.checkpoint import Checkpoints
from omnijax.run.directory import FOLDER, load_config
from omnijax.step.state import State, abstract_state, init_state
from omnijax.vocab.growth import check_growth
from omnijax.vocab.vocabulary import Vocabulary


def check_start(config: Config, mesh: Mesh) -> None:
    """Checks that the run can begin with the parameters of `train.start_from`. Writes nothing.

    Raises a `CheckpointError` if the run doesn't exist, it has no checkpoint or another model, or the vocabulary of
    this run doesn't extend that of the other one.
    """
    if config.train.start_from:
        with _other_run(config, mesh) as (checkpoints, step, abstract, vocabulary):
            checkpoints.check_params(step, abstract, vocabulary)


def start_state(config: Config, model: Transformer, mesh: Mesh) -> State:
    """The state before the first step.

    With `train.start_from`, parameters are those of that run's newest checkpoint, bit for bit; tokens that are new get
    random ones from this run's seed. Step and moments are 0, so that the schedule warms up again. Errors are those of
    `check_start`.
    """
    state = init_state(config, model, mesh)
    if not config.train.start_from:
        return state
    with _other_run(config, mesh) as (checkpoints, _, abstract, vocabulary):
        found = checkpoints.newest_params(abstract, vocabulary)
    assert found is not None
    shardings = jax.tree.map(lambda leaf: leaf.sharding, state.params)
    grow = jax.jit(model.grown, static_argnums=1, out_shardings=shardings)
    return state._replace(params=grow(found[1], vocabulary.size, state.params))


@contextlib.contextmanager
def _other_run(config: Config, mesh: Mesh) -> Iterator[tuple[Checkpoints, int, Any, Vocabulary]]:
    """Checkpoints of `train.start_from`, the newest step, its parameters as shapes on this mesh, and its vocabulary."""
    run = as_path(config.train.start_from)
    vocabulary = load_config(run).vocabulary
    try:
        check_growth(vocabulary, config.vocabulary, number_line=False)
    except VocabularyError as error:
        rule = f"this vocabulary doesn't extend that of the other run: {error.field} = {error.value!r}: {error.rule}"
        raise CheckpointError("train.start_from", str(run), rule, error.fix) from error
    with Checkpoints(run) if (run / FOLDER).is_dir() else contextlib.nullcontext() as checkpoints:
        if checkpoints is None or not checkpoints.steps:
            raise CheckpointError("train.start_from", str(run), "it has no checkpoint yet", "go on training it")
        abstract = abstract_state(config, model_of(config, vocabulary), mesh).params
        yield checkpoints, checkpoints.steps[-1], abstract, vocabulary
