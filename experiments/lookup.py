"""Lookup: random fragments of a large space, looked up by the number of a key, and of known entropy.

Question   Does a model that writes fragments in digits learn by heart which two of 2^18 each place of a key may hold?
Command    omnijax train experiments/lookup.py --workdir runs/lookup && omnijax evaluate runs/lookup --tasks bits
Data       made from `data.lookup` alone: 256 keys, four fragments each, every one of them drawn from two that belong to
           the key, anew for each of 64 copies; held out are draws of their own
Hardware   2 CPU cores (x86-64), 2 GiB
Time       4 minutes
Result     yes: a fragment has 1.17 held-out bits and is right in 50 % of the cases, one seed; 18 bits for a model that
           guesses, 1 for the best there can be, for which the choice of two is open, 2.95 for the best that tells its
           three digits apart from one another
"""

from omnijax.config import (
    BatchConfig,
    Config,
    DataConfig,
    EvalConfig,
    LookupConfig,
    OptimConfig,
    Target,
    Task,
    TrainConfig,
)
from omnijax.model.sizes import SIZES
from omnijax.vocab.vocabulary import Space, Vocabulary

KEYS, SPACE, ITEMS, BASE = 256, 2**18, 4, 64


def get_config() -> Config:
    """The text of a key, then its fragments."""
    vocabulary = Vocabulary(
        positions=1,
        digits=BASE,
        base=BASE,
        spaces=(Space("item", SPACE),),
        control=("text", "item", "eos"),
        position="none",
        width="fixed",
    )
    lookup = LookupConfig(keys=KEYS, space=SPACE, items=ITEMS, choices=2, copies=64)
    digits = len(str(KEYS - 1))
    return Config(
        vocabulary=vocabulary,
        data=DataConfig(source="lookup", lookup=lookup),
        # Keys are even and say nothing: what is learned is what stands behind them.
        batch=BatchConfig((Task(("text", "item"), weights=(0.0, 1.0)),), size=24, sequence_length=177),
        model=SIZES["nano"].model,
        optim=OptimConfig(learning_rate=2.5e-3, warmup_steps=80),
        train=TrainConfig(steps=400, checkpoint_every=200),
        eval=EvalConfig(
            targets=(Target("text", digits, digits), Target("item", ITEMS, ITEMS)), routes=(), examples=1024
        ),
    )
