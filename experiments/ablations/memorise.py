"""Memorise: how many random fragments of 2^20 a model memorises by key, at two radices.

Question   How many of N random fragments does a small model know after a given number of items, and at which radix?
Command    omnijax sweep experiments/ablations/memorise.py --data.keys=KEYS --out sweeps/memorise-KEYS
           with KEYS 64, 1024, 16384 and 262144. A key has four fragments, so N is 2^8, 2^12, 2^16 and 2^20.
Data       made from its knobs alone
Hardware   2 CPU cores (x86-64)
Time       3 minutes for three seeds of each N
Result     Bits per item in bases 16 and 1024: 0.01 and 0.02 for 2^8 fragments, 19.9 and 11.4 for 2^12, and 20.0 to 20.1
           for 2^16 and 2^20, many of which were never seen. A fragment that isn't known has 20 bits.
           Card: experiments/reproduce/assignment.md
Noticed    Random fragments have random ids, so all assignments have the same distribution and none is compared here.
           generalise.py shows where the assignment matters: for keys that were never seen.
"""

import dataclasses
import pathlib

from omnijax.config import Config
from omnijax.data.sources.lookup import Lookup
from omnijax.experiment import load_experiment
from omnijax.sweep.arms import arms_of, bases
from omnijax.sweep.sweep import Budget, Sweep

HERE = pathlib.Path(__file__).parent
BASE_SIZE, LOOKUP = HERE / "base_size.py", HERE.parent / "lookup.py"
SPACE, ITEMS, LONGEST_KEY = 2**20, 4, 7


def get_config() -> Config:
    """1,024 keys of four fragments each, with the model of base_size.py."""
    config, small = load_experiment(LOOKUP), load_experiment(BASE_SIZE)
    return dataclasses.replace(
        config,
        data=Lookup(keys=1024, space=SPACE, items=ITEMS),
        # At least 8 documents per sequence: a key, its fragments, 2 · 2 for the segments, and one for the end.
        batch=dataclasses.replace(config.batch, size=8, sequence_items=8 * (LONGEST_KEY + ITEMS + 5)),
        model=small.model,
        optim=small.optim,
        eval=dataclasses.replace(config.eval, examples=512),
    )


def sweep() -> Sweep:
    """Five digits in base 16, two in base 1024."""
    return Sweep(
        arms=arms_of(get_config(), bases(16, 1024)),
        budget=Budget("items", 80_000),
        question="How many random fragments does a small model know by heart, at which radix?",
        baseline="base=16",
    )
