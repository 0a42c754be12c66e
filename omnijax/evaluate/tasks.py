"""What is measured of a run: one table of tasks, each a function of a loaded run and its held-out data."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import rich.console
import rich.progress

from omnijax.errors import ConfigError
from omnijax.evaluate.directions import Found, measure_completions, measure_directions
from omnijax.evaluate.heldout import Heldout, heldout_of
from omnijax.evaluate.likelihoods import bits_per_item
from omnijax.evaluate.loading import Trained
from omnijax.modalities import PatchImage


def measure_bits(trained: Trained, heldout: Heldout) -> Found:
    """Exact bits per item of every form of document, and of pictures bits a pixel. The data are checked by it."""
    config, generator = trained.config, trained.generator
    count = min(config.eval.examples, len(heldout.corpus))
    bits = bits_per_item(config, generator.model, generator.params, heldout.corpus, count)
    figures: dict[str, Any] = {"bits_per_item": bits}
    for form, part in (("image", "renormalised"), ("image, any order", "digits")):
        # Of a drawn order the digits alone, since it says nothing of the picture.
        if form in bits and "bits_per_pixel" not in figures:
            image = heldout.modalities["image"]
            assert isinstance(image, PatchImage)
            figures["bits_per_pixel"] = bits[form][part] * bits[form]["items"] / (image.height * image.width)
    return Found(figures)


TASKS: dict[str, Callable[[Trained, Heldout], Found]] = {
    "bits": measure_bits,
    "directions": measure_directions,
    "completions": measure_completions,
}
"""By name, in the order in which they are done."""


def check_tasks(names: Sequence[str]) -> tuple[str, ...]:
    """The tasks of these names, in the order in which they are done.

    Raises:
        ConfigError: there is no such task, or none is named.
    """
    for name in names or ("",):
        if name not in TASKS:
            raise ConfigError("tasks", name, f"the tasks are {', '.join(TASKS)}", "choose among these")
    return tuple(name for name in TASKS if name in names)


def measure(trained: Trained, tasks: Sequence[str] = tuple(TASKS)) -> dict[str, Any]:
    """The figures of some tasks, as `eval.json` and `evaluations.jsonl` have them.

    Args:
        trained: of `load_run`.
        tasks: names of `TASKS`.

    Raises:
        ConfigError: there is no such task.
        DataError: the data set is damaged, or a record is no document of the configuration.
    """
    chosen = check_tasks(tasks)
    figures: dict[str, Any] = {}
    for found in run_tasks(trained, heldout_of(trained.config), chosen).values():
        figures |= found.figures
    return figures


def run_tasks(
    trained: Trained, heldout: Heldout, tasks: Sequence[str], stopped: Callable[[], bool] = lambda: False
) -> dict[str, Found]:
    """What each of some tasks found, in their order; those that were done when `stopped` said so."""
    found: dict[str, Found] = {}
    with rich.progress.Progress(transient=True, disable=not rich.console.Console().is_terminal) as progress:
        generator = dataclasses.replace(trained.generator, progress=progress)
        bar = progress.add_task("evaluating", total=len(tasks))
        for name in tasks:
            if stopped():
                break
            found[name] = TASKS[name](trained._replace(generator=generator), heldout)
            progress.advance(bar)
    return found
