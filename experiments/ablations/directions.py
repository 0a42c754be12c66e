"""Directions: whether the radix changes what the demo can do: read, hear, draw and speak.

Question   Are pictures, words and speech translated into one another as well at other radices, and with a depth head?
Command    omnijax sweep experiments/ablations/directions.py --workers 2
Data       that of experiments/digits.py
Hardware   2 CPU cores (x86-64)
Time       38 minutes for three seeds, while other programs ran
Result     Percent right, image→text and text→image: base 17 91 and 93, base 16 69 and 52, base 289 85 and 86, base 17
           with a depth head 95 and 75. speech→text and text→speech: 95 and 88, 92 and 86, 98 and 96, 98 and 78.
           Card: experiments/reproduce/directions.md
"""

import dataclasses
import pathlib

from omnijax.config import Config
from omnijax.experiment import load_experiment
from omnijax.sweep.arms import arms_of, bases, chain, heads, product
from omnijax.sweep.sweep import Budget, Sweep

DIGITS = pathlib.Path(__file__).parents[1] / "digits.py"


def get_config() -> Config:
    """The demo, with the same items per sequence in every arm: two pictures with their words, or one utterance."""
    config = load_experiment(DIGITS)
    # The published results are older than the test split: they train on all pictures that aren't validation.
    data = dataclasses.replace(config.data, directory="data/published_digits", test_images=0, test_voices=0)
    batch = dataclasses.replace(config.batch, size=16, sequence_items=52)
    optim = dataclasses.replace(config.optim, warmup_steps=100)
    return dataclasses.replace(config, data=data, batch=batch, optim=optim)


def sweep() -> Sweep:
    """Base 17 (a digit is a pixel), 16 (it isn't), 289 (a digit is a pair of pixels), and a depth head."""
    return Sweep(
        arms=arms_of(get_config(), chain(bases(17, 16, 289), product(bases(17), heads("depth")))),
        budget=Budget("items", 300_000),
        question="Do pictures, words and speech turn into one another as well at other radices, and with a depth head?",
        baseline="base=17",
        tasks=("bits", "directions"),
    )
