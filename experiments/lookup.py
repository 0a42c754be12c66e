"""Lookup: a key names random fragments of a large space, and their entropy is known.

Question   Does a model that writes fragments in digits memorise which two of 2^18 fragments each place of a key may
           hold?
Command    omnijax train experiments/lookup.py --workdir runs/lookup && omnijax evaluate runs/lookup --tasks bits
Data       made from its knobs alone: 256 keys with four fragments each. Each fragment is drawn from two that belong
           to the key, anew for each of 64 copies. The held-out records are draws of their own.
Hardware   2 CPU cores (x86-64), 2 GiB
Time       4 minutes
Result     Yes: 1.17 held-out bits per fragment, and 50 % of the fragments are right. One seed. A model that guesses
           needs 18 bits. The optimum is 1 bit, because the choice between the two is random. The optimum of a model
           that predicts the three digits independently is 2.95 bits.
"""

from omnijax.config import (
    BatchConfig,
    Config,
    EvalConfig,
    OptimConfig,
    Task,
    TrainConfig,
    Writing,
)
from omnijax.data.sources.lookup import Lookup
from omnijax.model.sizes import SIZES


def get_config() -> Config:
    """The text of a key, then its fragments."""
    return Config(
        data=Lookup(keys=256, space=2**18, items=4, choices=2, copies=64),
        writing=Writing(base=64, position="none", positions=1, t_pad=False),
        # Keys are even and say nothing: what is learned is what stands behind them.
        batch=BatchConfig((Task(("text", "item"), weights=(0.0, 1.0)),), size=24, sequence_length=177),
        model=SIZES["nano"].model,
        optim=OptimConfig(learning_rate=2.5e-3, warmup_steps=80),
        train=TrainConfig(steps=400, checkpoint_every=200),
        eval=EvalConfig(examples=1024),
    )
