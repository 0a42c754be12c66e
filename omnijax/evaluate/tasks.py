"""What is measured of a run: a table of tasks, each a function of a loaded run and a split."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import rich.console
import rich.progress

from omnijax.errors import ConfigError
from omnijax.evaluate.directions import measure_completions, measure_directions
from omnijax.evaluate.judging import Finding
from omnijax.evaluate.likelihoods import bits_per_item
from omnijax.evaluate.loading import Trained
from omnijax.evaluate.split import EvaluatedSplit


def measure_bits(trained: Trained, split: EvaluatedSplit) -> Finding:
    """Exact bits per item of every form of document; per natural unit of lossless fields, beside classical codecs."""
    config, generator = trained.config, trained.generator
    units: dict[str, tuple[np.ndarray, str]] = {}
    anchors: dict[str, Any] = {}
    for field in config.generated:
        places = split.places([field])
        signals = split.signals(field, places)
        found = [split.modalities[field].units(signal) for signal in signals]
        if not found or not split.modalities[field].lossless or None in found or field in config.data.several:
            continue
        counts = np.zeros(split.count, np.int64)
        counts[places] = [one[0] for one in found if one is not None]
        units[field] = counts, next(one[1] for one in found if one is not None)
        codecs = split.modalities[field].anchors(signals)
        if codecs:
            anchors[field] = {"unit": units[field][1], **codecs}
    bits = bits_per_item(config, generator.model, generator.params, split.corpus, split.count, units)
    return Finding({"bits_per_item": bits, "anchors": anchors})


TASKS: dict[str, Callable[[Trained, EvaluatedSplit], Finding]] = {
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


def run_tasks(
    trained: Trained, split: EvaluatedSplit, tasks: Sequence[str], stopped: Callable[[], bool] = lambda: False
) -> dict[str, Finding]:
    """What each of some tasks found, in their order; those that were done when `stopped` said so."""
    found: dict[str, Finding] = {}
    with rich.progress.Progress(transient=True, disable=not rich.console.Console().is_terminal) as progress:
        generator = dataclasses.replace(trained.generator, progress=progress)
        bar = progress.add_task("evaluating", total=len(tasks))
        for name in tasks:
            if stopped():
                break
            found[name] = TASKS[name](trained._replace(generator=generator), split)
            progress.advance(bar)
    return found
