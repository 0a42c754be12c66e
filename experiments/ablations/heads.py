"""Heads: a flat softmax, digits, a depth head and parallel heads over a space of 2^18 fragments.

Question   Which head predicts one of 2^18 fragments at the same bits with the fewest FLOPs, and in the least time?
Command    omnijax sweep experiments/ablations/heads.py --workers 2 --budget flops=4e11
           omnijax sweep experiments/ablations/heads.py --workers 2 --budget seconds=45
           heads_8.py, heads_14.py and heads_32.py do the same over spaces of 2^8, 2^14 and 2^32.
Data       made from its knobs alone: 64 keys with four fragments each; each fragment is one of two that belong to
           the key
Hardware   2 CPU cores (x86-64)
Time       12 minutes for three seeds at equal seconds, 10 at equal FLOPs
Result     Bits per item after 45 seconds: digits 1.03 to 1.05, parallel heads 2.87, flat 15.6. After the same FLOPs:
           depth head in base 256 1.08, digits by the backbone 1.13, flat 17.7. The optimum is 1 bit, because the choice
           between the two is random; for independent digits it is 2.75 (`optimum_of_digits` in
           omnijax/data/sources/lookup.py).
           Card: experiments/reproduce/heads.md
"""

import dataclasses
import pathlib

from omnijax.config import Config
from omnijax.experiment import load_experiment
from omnijax.sweep.arms import Choices, arms_of, bases, chain, flat, heads, product
from omnijax.sweep.sweep import Budget, Sweep

HERE = pathlib.Path(__file__).parent
BASE_SIZE, LOOKUP = HERE / "base_size.py", HERE.parent / "lookup.py"
KEYS, COPIES = 64, 128
LARGEST_FLAT = 2**18
"""The largest space for a flat softmax here: its embedding and head have 50 million parameters at width 96."""


def config_of(space: int) -> Config:
    """Keys and fragments of a space of this size, with the model of base_size.py."""
    config, small = load_experiment(LOOKUP), load_experiment(BASE_SIZE)
    data = dataclasses.replace(config.data, space=space, keys=KEYS, copies=COPIES)
    digits = len(str(KEYS - 1))
    return dataclasses.replace(
        config,
        data=data,
        # 16 documents a step, two per sequence: 2 letters of a key, 4 fragments, 2 · 2 for the segments, and one more.
        batch=dataclasses.replace(config.batch, size=8, sequence_items=2 * (digits + data.items + 5)),
        model=small.model,
        optim=small.optim,
        eval=dataclasses.replace(config.eval, examples=512),
    )


def get_config() -> Config:
    """A space of 2^18."""
    return config_of(2**18)


def sweep_of(space: int) -> Sweep:
    """Digits in bases 16 and 256 with each head, and one token per item if the space is small enough."""
    # Parallel heads need several digits, so they get one base only. One digit in base 256 would be a flat softmax.
    small = product(bases(16), heads(*(("token", "depth", "parallel") if space <= 256 else ("token", "depth"))))
    large = product(bases(256), heads("token", "depth", "parallel")) if space > 256 else {}
    alone: Choices = flat() if space <= LARGEST_FLAT else {}
    return Sweep(
        arms=arms_of(config_of(space), chain(small, large, alone)),
        budget=Budget("flops", 4e11),
        question=f"Which head predicts one of {space:,} fragments with the fewest FLOPs, and in the least time?",
        baseline="flat" if alone else "base=256,head=token",
    )


def sweep() -> Sweep:
    """Over a space of 2^18."""
    return sweep_of(2**18)
