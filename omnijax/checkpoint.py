"""Checkpoints: state, data position, configuration and vocabulary in one, saved while training goes on.

On disk the state is a plain nested dict of arrays, so that the layout follows neither flax nor optax.
"""

from __future__ import annotations

import pathlib
from typing import Any

import jax
from orbax.checkpoint import v1 as ocp

from omnijax.config import Config, to_dict
from omnijax.errors import CheckpointError
from omnijax.sharding import path_of
from omnijax.state import State
from omnijax.vocab.vocabulary import Vocabulary

FOLDER = "checkpoints"


class Checkpoints:
    """The checkpoints of a run directory; a context manager that waits for the last one to be written."""

    def __init__(self, run: pathlib.Path, keep: int):
        policies = ocp.training.preservation_policies
        # Which steps are saved is the train loop's to say: it asks for one, and gets it.
        self._checkpointer = ocp.training.Checkpointer(
            (run / FOLDER).resolve(),
            preservation_policy=policies.LatestN(keep),
            save_decision_policy=ocp.training.save_decision_policies.FixedIntervalPolicy(1),
            cleanup_tmp_directories=True,
        )

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(self, *_: object) -> None:
        self._checkpointer.close()

    @property
    def latest(self) -> int | None:
        """Step of the newest complete checkpoint."""
        return None if self._checkpointer.latest is None else self._checkpointer.latest.step

    def save(self, step: int, state: State, config: Config) -> None:
        """Starts to save; returns as soon as the state may be given up. A step that is there is left alone."""
        if self.latest == step:
            return
        self._checkpointer.save_checkpointables_async(
            step,
            {"state": _to_tree(state)},
            custom_metadata={
                "config": to_dict(config),
                "vocabulary": config.vocabulary.fingerprint,
                "data": {"next_step": step},
            },
        )

    def restore(self, step: int, abstract: State, vocabulary: Vocabulary) -> State:
        """The state of a step, each array where `abstract` says, on whatever mesh that is.

        Raises:
            CheckpointError: of another vocabulary, or with other arrays.
        """
        wanted = _to_tree(abstract)
        self._check(step, wanted, vocabulary)
        tree = self._checkpointer.load_checkpointables(step, {"state": wanted})["state"]
        structure = jax.tree.structure(abstract.opt_state)
        return State(tree["params"], jax.tree.unflatten(structure, tree["opt_state"].values()), tree["step"])

    def restore_params(self, step: int, abstract: Any, vocabulary: Vocabulary) -> Any:
        """The parameters of a step alone, for evaluation.

        Raises:
            CheckpointError: see `restore`.
        """
        self.check_params(step, abstract, vocabulary)
        context = ocp.Context()
        context.pytree_options.loading.partial_load = True
        with context:
            return self._checkpointer.load_checkpointables(step, {"state": {"params": abstract}})["state"]["params"]

    def check_params(self, step: int, abstract: Any, vocabulary: Vocabulary) -> None:
        """Checks that `restore_params` can give these.

        Raises:
            CheckpointError: see `restore`.
        """
        self._check(step, {"params": abstract}, vocabulary)

    def _check(self, step: int, wanted: Any, vocabulary: Vocabulary) -> None:
        saved = self._checkpointer.checkpointables_metadata(step)
        where = str(self._checkpointer.directory / str(step))
        fingerprint = saved.custom_metadata["vocabulary"]
        if fingerprint != vocabulary.fingerprint:
            parts = saved.custom_metadata["config"]["vocabulary"]
            differ = [name for name, part in to_dict(vocabulary).items() if parts[name] != part]
            rule = (
                f"it was saved with another vocabulary ({fingerprint}, not {vocabulary.fingerprint}); "
                f"{', '.join(differ)} differ"
            )
            fix = "use the vocabulary of the run, or begin another run with its parameters: train.start_from"
            raise CheckpointError("checkpoint", where, rule, fix)
        there = {path_of(keys): leaf for keys, leaf in jax.tree_util.tree_leaves_with_path(saved.metadata["state"])}
        leaves = {path_of(keys): leaf for keys, leaf in jax.tree_util.tree_leaves_with_path(wanted)}
        # Parameters first: their names say more than the numbers of the optimiser's leaves.
        for path, leaf in sorted(leaves.items(), key=lambda entry: not entry[0].startswith("params/")):
            found = there.get(path)
            if found is None or (tuple(found.shape), found.dtype) != (tuple(leaf.shape), leaf.dtype):
                has = "nothing" if found is None else f"{found.dtype}{list(found.shape)}"
                rule = f"{path} must be {leaf.dtype}{list(leaf.shape)}, and the checkpoint has {has}"
                raise CheckpointError("checkpoint", where, rule, "use the model of the run, or another run directory")


def _to_tree(state: State) -> dict[str, Any]:
    """The state as nested dicts; optimiser leaves by number, in the order of their tree."""
    leaves = jax.tree.leaves(state.opt_state)
    return {
        "params": state.params,
        "opt_state": {f"{number:04d}": leaf for number, leaf in enumerate(leaves)},
        "step": state.step,
    }
