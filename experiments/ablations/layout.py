"""Layout: whether it matters how the same items are written: in groups or inline, with leading zeros, from which end.

Question   Does layout, width or digit order change the bits of an item, and what do the shorter ways save?
Command    omnijax sweep experiments/ablations/layout.py
Data       that of experiments/ablations/base_size.py
Hardware   2 CPU cores (x86-64)
Time       not measured yet
Result     not measured yet
"""

import pathlib

from omnijax.config import Config
from omnijax.experiment import load_experiment
from omnijax.sweep.arms import arms_of, digit_orders, layouts, product, widths
from omnijax.sweep.budget import Budget
from omnijax.sweep.sweep import Sweep

BASE_SIZE = pathlib.Path(__file__).parent / "base_size.py"


def get_config() -> Config:
    """Base 17: groups, fixed width, the most significant digit first."""
    return load_experiment(BASE_SIZE)


def sweep() -> Sweep:
    """All eight ways."""
    ways = product(layouts("grouped", "inline"), widths("fixed", "minimal"), digit_orders("big", "little"))
    return Sweep(
        arms=arms_of(get_config(), ways),
        budget=Budget("items", 240_000),
        question="Does layout, width or digit order change the bits of an item, and what do the shorter ways save?",
        baseline="layout=grouped,width=fixed,order=big",
    )
