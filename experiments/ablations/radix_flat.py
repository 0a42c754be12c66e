"""Radix on small codes: digits beside a flat softmax, on a space of photographs that a flat softmax can hold.

Question   Patches of 4×4 pixels are codes of 4 coefficients with 16 levels each, below 2^16. Do digits reach the bits
           of a flat softmax, and must they fall on coefficients?
Command    omnijax sweep experiments/ablations/radix_flat.py --workers 2
Data       that of experiments/ablations/radix_photographs.py
Hardware   2 CPU cores (x86-64), one for each arm
Time       not measured yet
Result     not measured yet
"""

import pathlib

from omnijax.config import Config
from omnijax.config.experiment_file import run_file
from omnijax.modalities import PatchCodes
from omnijax.sweep.arms import arms_of, bases, chain, flat, heads, product
from omnijax.sweep.sweep import Budget, Sweep

PHOTOGRAPHS = run_file(pathlib.Path(__file__).with_name("radix_photographs.py"))


def get_config() -> Config:
    """Base 16: each digit is a coefficient. A sequence holds two pictures."""
    picture = PatchCodes(height=16, width=16, patch=4, code=(16,) * 4)
    fields = {"picture": picture, "text": PHOTOGRAPHS.LOSSLESS.FIELDS["text"]}
    return PHOTOGRAPHS.config_of(fields, "data/lossless-16.files", "data/lossless-16-codes", 55)


def sweep() -> Sweep:
    """Four bases, a depth head, and one softmax row for each fragment."""
    choices = chain(flat(), bases(16, 64, 256, 4096), product(bases(16), heads("depth")))
    question = "Do digits reach the bits of a flat softmax over codes of 16 bits?"
    budget = Budget("seconds", PHOTOGRAPHS.SECONDS)
    return Sweep(arms_of(get_config(), choices), budget, question, "flat", points=2)
