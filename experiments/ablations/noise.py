"""Digit noise: whether a model that meets wrong digits in training minds its own wrong ones less.

Question   Do wrong digits in what is read make generated pictures better, and what do they cost in bits?
Command    omnijax sweep experiments/ablations/noise.py
Data       that of experiments/ablations/base_size.py
Hardware   2 CPU cores (x86-64)
Time       not measured yet
Result     not measured yet
"""

import pathlib

from omnijax.config import Config
from omnijax.experiment import load_experiment
from omnijax.sweep.arms import arms_of, digit_noise
from omnijax.sweep.budget import Budget
from omnijax.sweep.sweep import Sweep

BASE_SIZE = pathlib.Path(__file__).parent / "base_size.py"


def get_config() -> Config:
    """Base 17, without noise."""
    return load_experiment(BASE_SIZE)


def sweep() -> Sweep:
    """None to a fifth of the digits."""
    return Sweep(
        arms=arms_of(get_config(), digit_noise(0.0, 0.02, 0.05, 0.1, 0.2)),
        budget=Budget("items", 240_000),
        question="Do wrong digits in what is read make generated pictures better, and what do they cost in bits?",
        baseline="noise=0.0",
        tasks=("bits", "directions"),
    )
