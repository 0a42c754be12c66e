"""Position: whether position tokens come before the digits, after them, or not at all.

Question   What do position tokens cost, and does it help a model to know where it writes before it writes?
Command    omnijax sweep experiments/ablations/position.py --workers 2
Data       that of experiments/ablations/base_size.py
Hardware   2 CPU cores (x86-64)
Time       25 minutes for three seeds, most of it with one worker
Result     Pictures, bits per item: before 8.68 ± 0.35, after 8.64 ± 0.18 (not distinguishable), none 9.18 ± 0.26 (more,
           seed for seed). With half of the pictures in any order: 9.09 ± 0.73 in raster order.
           Card: experiments/reproduce/position.md
Noticed    In any order, only a position before the digits says which patch comes next, so there is only one such arm.
           Its bits of pictures in random order are a form of their own, because the random order has to be encoded as
           well.
"""

import dataclasses
import pathlib

from omnijax.config import Config
from omnijax.experiment import load_experiment
from omnijax.sweep.arms import Choices, arms_of, chain, positions
from omnijax.sweep.sweep import Budget, Sweep

BASE_SIZE = pathlib.Path(__file__).parent / "base_size.py"


def get_config() -> Config:
    """Base 17, the position before the digits, pictures in raster order."""
    return load_experiment(BASE_SIZE)


def any_order() -> Choices:
    """Half of the pictures have their patches in a random order, drawn anew each time."""

    def change(config: Config) -> Config:
        tasks = tuple(
            dataclasses.replace(task, random_order=tuple(0.5 * (name == "image") for name in task.names))
            for task in config.batch.tasks
        )
        return dataclasses.replace(config, batch=dataclasses.replace(config.batch, tasks=tasks))

    return {"position=before,any_order": change}


def sweep() -> Sweep:
    """Before, after, none, and before with any order."""
    return Sweep(
        arms=arms_of(get_config(), chain(positions("before", "after", "none"), any_order())),
        budget=Budget("items", 160_000),
        question="What do position tokens cost, and does a model gain from knowing where it writes before it writes?",
        baseline="position=before",
        tasks=("bits", "directions"),
    )
