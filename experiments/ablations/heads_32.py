"""Heads over a space of 2^32 fragments; see heads.py.

Question   Which head predicts one of 2^32 fragments at the same bits with the fewest FLOPs, and in the least time?
Command    omnijax sweep experiments/ablations/heads_32.py --workers 2 --budget flops=4e11
           omnijax sweep experiments/ablations/heads_32.py --workers 2 --budget seconds=30
Data       as in heads.py
Hardware   2 CPU cores (x86-64)
Time       9 minutes for three seeds at equal seconds, 6 at equal FLOPs
Result     Bits per item after 30 seconds: digits 1.07 to 1.20, parallel heads 4.26.
           Card: experiments/reproduce/heads.md
"""

import pathlib

from omnijax.config.experiment_file import run_file

HEADS = run_file(pathlib.Path(__file__).with_name("heads.py"))


def get_config():
    return HEADS.config_of(2**32)


def sweep():
    return HEADS.sweep_of(2**32)
