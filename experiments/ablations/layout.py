"""Layout: whether layout, width or digit order matter when the same items are written.

Question   Do layout, width or digit order change the bits of an item, and how many tokens do the shorter ways save?
Command    omnijax sweep experiments/ablations/layout.py
Data       that of experiments/ablations/base_size.py
Hardware   2 CPU cores (x86-64)
Time       not measured yet
Result     not measured yet
"""

import pathlib

from omnijax.config.experiment_file import run_file
from omnijax.sweep.arms import chain, knob

BASE_SIZE = run_file(pathlib.Path(__file__).with_name("base_size.py"))
QUESTION = "Does layout, width or digit order change the bits of an item, and what do the shorter ways save?"


def get_config():
    return BASE_SIZE.get_config()


def sweep():
    """Each change alone, compared with the default way to write items."""
    ways = chain(
        knob("writing.layout", "grouped", "inline", name="layout"),
        knob("writing.width", "minimal", name="width"),
        knob("writing.digit_order", "little", name="order"),
    )
    return BASE_SIZE.sweep_of(ways, QUESTION, "layout=grouped")
