"""Digit noise: whether wrong digits in training make a model less sensitive to its own wrong digits.

Question   Do wrong digits in the input make generated pictures better, and how many bits do they cost?
Command    omnijax sweep experiments/ablations/noise.py
Data       that of experiments/ablations/base_size.py
Hardware   2 CPU cores (x86-64)
Time       not measured yet
Result     not measured yet
"""

import pathlib

from omnijax.config.experiment_file import run_file
from omnijax.sweep.arms import knob

BASE_SIZE = run_file(pathlib.Path(__file__).with_name("base_size.py"))
QUESTION = "Do wrong digits in what is read make generated pictures better, and what do they cost in bits?"


def get_config():
    return BASE_SIZE.get_config()


def sweep():
    ways = knob("train.digit_noise", 0.0, 0.02, 0.05, 0.1, 0.2, name="noise")
    return BASE_SIZE.sweep_of(ways, QUESTION, "noise=0.0", ("bits", "directions"))
