"""Heads over a space of 2^8 fragments; see heads.py.

Question   Which head predicts one of 2^8 fragments at the same bits with the fewest FLOPs, and in the least time?
Command    omnijax sweep experiments/ablations/heads_8.py --workers 2 --budget flops=4e11
           omnijax sweep experiments/ablations/heads_8.py --workers 2 --budget seconds=30
Data       as in heads.py
Hardware   2 CPU cores (x86-64)
Time       7 minutes for three seeds at equal seconds, 6 at equal FLOPs
Result     Bits per item after 30 seconds: flat and digits 1.06 to 1.07, parallel heads 2.02.
           Card: experiments/reproduce/heads.md
"""

import pathlib

from omnijax.config.experiment_file import run_file

HEADS = run_file(pathlib.Path(__file__).with_name("heads.py"))


def get_config():
    return HEADS.config_of(2**8)


def sweep():
    return HEADS.sweep_of(2**8)
