"""Heads over a space of 2^32 fragments; see heads.py.

Question   Which way to predict one of 2^32 fragments reaches the same bits with the fewest FLOPs, in the least time?
Command    omnijax sweep experiments/ablations/heads_32.py --workers 2 --budget flops=4e11
           omnijax sweep experiments/ablations/heads_32.py --workers 2 --budget seconds=30
Data       as in heads.py
Hardware   2 CPU cores (x86-64)
Time       9 minutes for three seeds at equal seconds, 6 at equal FLOPs
Result     Bits an item after 30 seconds: digits 1.07 to 1.20, parallel heads 4.26.
           All of it: experiments/reproduce/heads.md
"""

import pathlib

from omnijax.config import Config
from omnijax.experiment import run_file
from omnijax.sweep.sweep import Sweep

HEADS = run_file(pathlib.Path(__file__).with_name("heads.py"))
SPACE = 2**32


def get_config() -> Config:
    """A space of 2^32."""
    config: Config = HEADS.config_of(SPACE)
    return config


def sweep() -> Sweep:
    """Every head over it."""
    sweep: Sweep = HEADS.sweep_of(SPACE)
    return sweep
