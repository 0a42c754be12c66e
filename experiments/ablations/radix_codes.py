"""Radix on codes: must a digit be a whole coefficient of a patch?

Question   Patches of 8×8 pixels are codes of 16 coefficients with 16 levels each, below 2^64. Must digits fall on
           coefficients?
Command    omnijax sweep experiments/ablations/radix_codes.py --workers 2
Data       the photographs of experiments/lossless/make_files.py, coded as the pictures of experiments/things/ are
Hardware   2 CPU cores (x86-64), one for each arm
Time       46 minutes for three seeds, beside other programs
Result     Bits per item at equal seconds: base 16, a digit for each coefficient, 37.1 ± 1.0; base 64 38.1 ± 2.2, base
           256 37.6 ± 1.9, base 4096 41.2 ± 0.4; shuffled coefficients 37.1 ± 0.5, shuffled bits 60.5 ± 5.5; a depth
           head 34.7 ± 0.4; all on validation. Card: experiments/reproduce/radix_real.md
"""

import pathlib

from omnijax.config import Config
from omnijax.config.experiment_file import run_file
from omnijax.modalities import PatchCodes
from omnijax.sweep.arms import arms_of, assignments, bases, chain, heads, product
from omnijax.sweep.sweep import Budget, Sweep

PHOTOGRAPHS = run_file(pathlib.Path(__file__).with_name("radix_photographs.py"))


def get_config() -> Config:
    """Base 16: each digit is a coefficient. A sequence holds three pictures."""
    picture = PatchCodes(height=32, width=32, patch=8, code=(16,) * 16)
    fields = {**PHOTOGRAPHS.LOSSLESS.FIELDS, "picture": picture}
    return PHOTOGRAPHS.config_of(fields, "data/lossless.files", "data/lossless-codes", 73)


def sweep() -> Sweep:
    """Four bases with a token head; base 16 with shuffled coefficients, with shuffled bits, and with a depth head."""
    shuffled = PHOTOGRAPHS.shuffled
    orders = {"shuffled_coefficients": shuffled(16, 16), "shuffled_bits": shuffled(2, 64)}
    choices = chain(
        bases(16, 64, 256, 4096),
        product(bases(16), chain(assignments("picture", orders), heads("depth"))),
    )
    question = "Must digits fall on the coefficients of a patch?"
    budget = Budget("seconds", PHOTOGRAPHS.SECONDS)
    return Sweep(arms_of(get_config(), choices), budget, question, "base=16", points=2)
