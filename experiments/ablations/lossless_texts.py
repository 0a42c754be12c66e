"""Lossless texts: each byte is one token.

Question   How many bits does a byte of text in nine languages need, and does a depth head cost anything where it isn't
           needed?
Command    omnijax sweep experiments/ablations/lossless_texts.py --workers 2
Data       the texts of experiments/lossless/make_files.py
Hardware   2 CPU cores (x86-64), one for each arm
Time       not measured yet
Result     not measured yet
"""

import pathlib

from omnijax.config import Config
from omnijax.config.experiment_file import run_file
from omnijax.sweep.arms import arms_of, heads
from omnijax.sweep.sweep import Budget, Sweep

PICTURES = run_file(pathlib.Path(__file__).with_name("lossless_pictures.py"))


def get_config() -> Config:
    """The texts alone."""
    return PICTURES.LOSSLESS.config_of("text")


def sweep() -> Sweep:
    """Both heads. A byte has no digits, so that no base changes it."""
    question = "How many bits does a byte of text need, with each head?"
    budget = Budget("seconds", PICTURES.SECONDS)
    return Sweep(arms_of(get_config(), heads("depth", "token")), budget, question, "head=depth", points=2)
