"""Checkpoints: state, data position, configuration and vocabulary together, saved while training goes on.

On disk the state is a plain nested dict of arrays, so that the format depends on neither flax nor optax. Checksums tell
a damaged or incomplete checkpoint from a whole one; the newest whole checkpoint is used.
"""

from __future__ import annotations

import contextlib
import logging
import pathlib
import sys
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import jax
from orbax.checkpoint import v1 as ocp

from omnijax.config import Config, from_dict, to_dict
from omnijax.errors import CheckpointError, ConfigError, shortened
from omnijax.files import digest
from omnijax.paths import delete_tree, move
from omnijax.run import distributed
from omnijax.run.checksums import checksums
from omnijax.run.directory import CONFIG, FOLDER, differences, read_config
from omnijax.step.sharding import path_of
from omnijax.step.state import State
from omnijax.vocab.vocabulary import Vocabulary

DAMAGED = "damaged"
UNREADABLE = (OSError, KeyError, ValueError, TypeError)
"""What orbax and TensorStore raise when files are missing, cut off or overwritten."""
UNWRITABLE = (OSError, ValueError, RuntimeError)

T = TypeVar("T")


class Restored(NamedTuple):
    """The content of a checkpoint.

    Attributes:
        step: number of steps done.
        state: after these steps.
        figures: sums over the steps since the last line of the log, as given to `save`.
    """

    step: int
    state: State
    figures: Any


class Checkpoints(contextlib.AbstractContextManager["Checkpoints"]):
    """The checkpoints of a run directory; a context manager that waits for the last one to be written.

    Args:
        run: the directory.
        keep: how many checkpoints to keep, in a process that trains; None for one that reads, while another may train.
    """

    def __init__(self, run: pathlib.Path, keep: int | None = None):
        logging.getLogger("absl").setLevel(logging.CRITICAL)  # Orbax logs the errors that it raises, too
        policies = ocp.training.preservation_policies
        self._run, self._writes = run, keep is not None
        # The train loop decides which steps are saved, so that the policy takes every step.
        self._checkpointer = ocp.training.Checkpointer(
            str((run / FOLDER).resolve()),
            preservation_policy=policies.PreserveAll() if keep is None else policies.LatestN(keep),
            save_decision_policy=ocp.training.save_decision_policies.FixedIntervalPolicy(1),
            cleanup_tmp_directories=self._writes,
        )

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            self._checkpointer.close()
        except UNWRITABLE as error:
            if kind is None:  # otherwise another error ends the run, and gives the reason
                raise self._unwritable(error) from error

    @property
    def steps(self) -> list[int]:
        """Steps of the complete checkpoints, in order."""
        return [checkpoint.step for checkpoint in self._checkpointer.checkpoints]

    def reload(self) -> None:
        """Lists the checkpoints anew, because another process may have saved or deleted some."""
        self._checkpointer.reload()

    def save(self, step: int, state: State, config: Config, figures: Any = None) -> None:
        """Starts to save, and returns as soon as the buffers of the state may be reused. An existing step is kept.

        Args:
            step: number of steps done.
            state: after these steps.
            config: of the run.
            figures: anything that JSON can hold; for `Restored.figures`.

        Raises:
            CheckpointError: this checkpoint or the one before it can't be written; older ones are untouched.
        """
        if step in self.steps:
            return
        tree = _to_tree(state)
        content = {"step": step, "config": to_dict(config), "vocabulary": config.vocabulary.fingerprint}
        content |= {"checksums": checksums(tree), "figures": figures}
        try:
            content["digest"] = digest(content)
            self._checkpointer.save_checkpointables_async(step, {"state": tree}, custom_metadata=content)
        except UNWRITABLE as error:
            raise self._unwritable(error) from error

    def keep_only(self, step: int) -> None:
        """Deletes all checkpoints but that of one step."""
        for other in self.steps:
            if other != step:
                delete_tree(self._directory(other))
        self.reload()

    # ------------------------------------------------------------------ reading

    def restore_newest(self, abstract: State, vocabulary: Vocabulary) -> Restored | None:
        """Restores the newest whole checkpoint; None if there are no checkpoints. Damaged ones are named on stderr.

        A process that trains moves damaged newer checkpoints to another folder, to make room for new ones. If none can
        be used, the error is that of `restore` for the newest one.
        """
        found = self._newest(lambda step: self.restore(step, abstract, vocabulary))
        if found is not None and self._writes and found.step != self.steps[-1]:
            self._move_aside(found.step)
        return found

    def newest_params(self, abstract: Any, vocabulary: Vocabulary) -> tuple[int, Any] | None:
        """Step and parameters of the newest whole checkpoint; None, and errors, as `restore_newest` has them."""
        return self._newest(lambda step: (step, self.restore_params(step, abstract, vocabulary)))

    def restore(self, step: int, abstract: State, vocabulary: Vocabulary) -> Restored:
        """Restores the checkpoint of a step; each array gets the sharding that it has in `abstract`, on any mesh.

        Raises a `CheckpointError` if it is damaged, or has another vocabulary or other arrays.
        """
        tree, content = self._load(step, _to_tree(abstract), vocabulary)
        structure = jax.tree.structure(abstract.opt_state)
        state = State(tree["params"], jax.tree.unflatten(structure, tree["opt_state"].values()), tree["step"])
        return Restored(step, state, content["figures"])

    def restore_params(self, step: int, abstract: Any, vocabulary: Vocabulary) -> Any:
        """Restores only the parameters of a step, for evaluation; its errors are those of `restore`."""
        return self._load(step, {"params": abstract}, vocabulary)[0]["params"]

    def check_params(self, step: int, abstract: Any, vocabulary: Vocabulary) -> str:
        """Checks as much of what `restore_params` needs as it can without reading the parameters.

        Returns:
            A fingerprint of the parameters: a digest of the checksums that they were saved with.
        """
        content = self._check(step, {"params": abstract}, vocabulary)
        return digest({path: n for path, n in content["checksums"].items() if path.startswith("params/")})

    def _newest(self, load: Callable[[int], T]) -> T | None:
        """Calls `load` for steps from the newest on, until it succeeds in all processes, and returns what it gives."""
        refused: list[CheckpointError] = []
        for step in reversed(self.steps):
            found, problem = None, None
            try:
                found = load(step)
            except CheckpointError as error:
                # Made anew, without the traceback, which would keep the arrays that were read.
                problem = CheckpointError(error.field, error.value, error.rule, error.fix)
            said = [rule for rule in distributed.gather("" if problem is None else problem.rule) if rule]
            if not said:
                return found
            refused.append(problem or self._damaged(step, said[0]))
            print(f"omnijax: not used: {refused[-1]}", file=sys.stderr)
        if refused:
            raise refused[0]
        return None

    def _load(self, step: int, wanted: Any, vocabulary: Vocabulary) -> tuple[Any, dict[str, Any]]:
        content = self._check(step, wanted, vocabulary)
        # Each process reads by itself, so that none waits for one that can't read.
        context, process = ocp.Context(), jax.process_index()
        alone = context.multiprocessing_options
        alone.primary_host, alone.active_processes = process, {process}
        alone.barrier_sync_key_prefix = f"process{process}"
        context.pytree_options.loading.partial_load = True
        try:
            with context:
                tree = ocp.load_checkpointables(str(self._directory(step)), {"state": wanted})["state"]
        except UNREADABLE as error:
            raise self._damaged(step, _cause(error)) from error
        there, here = content["checksums"], checksums(tree)
        differ = [path for path, number in here.items() if there[path] != number]
        if differ:
            raise self._damaged(step, f"the checksum of {', '.join(differ[:3])} isn't the one that was saved")
        return tree, content

    def _check(self, step: int, wanted: Any, vocabulary: Vocabulary) -> dict[str, Any]:
        try:
            saved = ocp.checkpointables_metadata(str(self._directory(step)))
            content = dict(saved.custom_metadata or {})
            arrays = saved.metadata["state"]
            said, own_step = content.pop("digest"), content["step"]
        except UNREADABLE as error:
            raise self._damaged(step, f"its description can't be read ({_cause(error)})") from error
        if arrays is None or said != digest(content):
            raise self._damaged(step, "its description can't be read, or isn't the one that was written")
        where = str(self._directory(step))
        if own_step != step:
            rule = f"it was saved after step {own_step}, and its directory is called {step}"
            fix = f"rename the directory to {own_step}, or remove it if it is a copy"
            raise CheckpointError("checkpoint", where, rule, fix)
        if content["vocabulary"] != vocabulary.fingerprint:
            rule = f"it was saved with another vocabulary ({content['vocabulary']}, not {vocabulary.fingerprint})"
            with contextlib.suppress(ConfigError):  # some classes only the experiment file can make
                parts = to_dict(from_dict(content["config"]).vocabulary)
                differ = [name for name, part in to_dict(vocabulary).items() if parts[name] != part]
                rule += f"; {', '.join(differ)} differ"
            fix = "use the vocabulary of the run, or begin another run with its parameters: train.start_from"
            raise CheckpointError("checkpoint", where, rule, fix)
        there, here = _described(arrays), _described(wanted)
        # Parameters come first: their names say more than the numbers of the optimiser's leaves.
        for path in sorted(here, key=lambda path: not path.startswith("params/")):
            if (has := there.get(path, "nothing")) != here[path]:
                rule = f"{path} must be {here[path]}, and the checkpoint has {has}"
                raise CheckpointError("checkpoint", where, rule, "use the model of the run, or another run directory")
        own = read_config(self._run) if (self._run / CONFIG).exists() else content["config"]
        differ = differences(own, content["config"])
        if differ:
            rule = f"its configuration (here) differs from {CONFIG} (there): {'; '.join(differ[:4])}"
            fix = f"move the checkpoint to its own run; if {CONFIG} is wrong, delete it: checkpoints have copies of it"
            raise CheckpointError("checkpoint", where, rule, fix)
        return content

    # ------------------------------------------------------------------ what goes wrong

    def _move_aside(self, good: int) -> None:
        """Moves the checkpoints after a good one to the folder for damaged ones; nothing is deleted."""
        newer = [step for step in self.steps if step > good]
        if jax.process_index() == 0:
            for step in newer:
                aside = self._run / DAMAGED / str(step)
                while aside.exists():
                    aside = aside.with_name(f"{aside.name}+")
                aside.parent.mkdir(exist_ok=True)
                move(self._directory(step), aside)
                print(f"omnijax: checkpoint {step} now stands in {aside}", file=sys.stderr)
        distributed.gather("moved")
        self._checkpointer.reload()

    def _directory(self, step: int) -> pathlib.Path:
        return (self._run / FOLDER).resolve() / str(step)

    def _damaged(self, step: int, how: str) -> CheckpointError:
        fix = "an older checkpoint is used if there is one; otherwise start again in another --workdir"
        return CheckpointError("checkpoint", str(self._directory(step)), f"it is damaged: {how}", fix)

    def _unwritable(self, error: BaseException) -> CheckpointError:
        last = max((int(path.name) for path in (self._run / FOLDER).glob("*") if path.name.isdigit()), default=None)
        whole = "there is no other one yet" if last is None else f"the last whole one, of step {last}, is untouched"
        rule = f"it can't be written ({_cause(error)}); {whole}"
        return CheckpointError("checkpoint", str(self._run / FOLDER), rule, "make room, and run the same command again")


def _described(tree: Any) -> dict[str, str]:
    """Dtype and shape of each array, by its path."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {path_of(keys): f"{leaf.dtype}{list(leaf.shape)}" for keys, leaf in leaves}


def _cause(error: BaseException) -> str:
    """The innermost reason, in one line."""
    while error.__cause__ is not None:
        error = error.__cause__
    return shortened(" ".join(str(error).split()) or type(error).__name__)


def _to_tree(state: State) -> dict[str, Any]:
    """The state as nested dicts; the leaves of the optimiser are numbered in the order of their tree."""
    moments = {f"{number:04d}": leaf for number, leaf in enumerate(jax.tree.leaves(state.opt_state))}
    return {"params": state.params, "opt_state": moments, "step": state.step}
