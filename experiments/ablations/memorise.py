"""Memorise: how many random fragments of 2^20 a model learns by heart, looked up by key, at two radices.

Question   How many of N random fragments does a small model know after a given number of items seen, at which radix?
Command    omnijax sweep experiments/ablations/memorise.py --data.lookup.keys=KEYS --out sweeps/memorise-KEYS
           with KEYS 64, 1024, 16384, 262144: a key has four fragments, so that N is 2^8, 2^12, 2^16, 2^20
Data       made from `data.lookup` alone
Hardware   2 CPU cores (x86-64)
Time       3 minutes for three seeds of each N
Result     Bits an item: of 2^8 fragments 0.01 and 0.02 in bases 16 and 1024, of 2^12 19.9 and 11.4, of 2^16 and 2^20
           20.0 to 20.1, of which many were never met. A fragment that isn't known has 20 bits.
           All of it: experiments/reproduce/assignment.md
Noticed    Random fragments have random ids, so that every assignment of ids has the same law: none is compared here.
           Where the assignment matters, for keys that were never met, shows generalise.py.
"""

import dataclasses
import pathlib

from omnijax.config import Config, LookupConfig, Target
from omnijax.experiment import load_experiment
from omnijax.sweep.arms import arms_of, bases
from omnijax.sweep.budget import Budget
from omnijax.sweep.sweep import Sweep
from omnijax.vocab.vocabulary import Space

HERE = pathlib.Path(__file__).parent
BASE_SIZE, LOOKUP = HERE / "base_size.py", HERE.parent / "lookup.py"
SPACE, ITEMS, LONGEST_KEY = 2**20, 4, 7


def get_config() -> Config:
    """1,024 keys of four fragments each; the model of base_size.py."""
    config, small = load_experiment(LOOKUP), load_experiment(BASE_SIZE)
    return dataclasses.replace(
        config,
        vocabulary=dataclasses.replace(config.vocabulary, spaces=(Space("item", SPACE),)),
        data=dataclasses.replace(config.data, lookup=LookupConfig(keys=1024, space=SPACE, items=ITEMS)),
        # At least 8 documents a row: a key, its fragments, 2 · 2 and one.
        batch=dataclasses.replace(config.batch, size=8, sequence_items=8 * (LONGEST_KEY + ITEMS + 5)),
        model=small.model,
        optim=small.optim,
        eval=dataclasses.replace(
            config.eval, targets=(Target("text", 1, LONGEST_KEY), Target("item", ITEMS, ITEMS)), examples=512
        ),
    )


def sweep() -> Sweep:
    """Five digits, and two."""
    return Sweep(
        arms=arms_of(get_config(), bases(16, 1024)),
        budget=Budget("items", 80_000),
        question="How many random fragments does a small model know by heart, at which radix?",
        baseline="base=16",
    )
