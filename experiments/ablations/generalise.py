"""Generalise: whether a model predicts the fragments of unseen keys if their ids encode the key's attributes.

Question   With which assignment of ids can a model predict the fragments of new keys, if these follow from the key?
Command    omnijax sweep experiments/ablations/generalise.py
Data       made from its knobs alone: 4,096 keys of three attributes with 16 values each. The four fragments of a
           key are numbers of three digits in base 16. Each digit is one of the attributes, in permuted order. A tenth
           of the keys is held out.
Hardware   2 CPU cores (x86-64)
Time       10 minutes for three seeds
Result     Bits per item of new keys: base 16 0.03 with identity, 2.4 with a Gray code, 9.8 with a tree, 12.0 shuffled;
           base 64 8.4 to 12.0; flat 12.9. A model that guesses needs 12 bits, a model that knows the rule none.
           Card: experiments/reproduce/assignment.md
Noticed    In base 64 a digit mixes an attribute with half of another one: the structure exists, but isn't aligned.
           `tree` is built from the attributes of the fragments, as a clustering of their features would be.
"""

import dataclasses
import functools
import pathlib

import numpy as np

from omnijax.config import Config
from omnijax.data.sources.lookup import Lookup
from omnijax.experiment import load_experiment
from omnijax.sweep.arms import arms_of, assignments, bases, chain, flat, product
from omnijax.sweep.sweep import Budget, Sweep
from omnijax.vocab.assignment import Gray, Identity, Random, Tree
from omnijax.vocab.numbers import to_digits
from omnijax.vocab.radix import Base

HERE = pathlib.Path(__file__).parent
BASE_SIZE, LOOKUP = HERE / "base_size.py", HERE.parent / "lookup.py"
ATTRIBUTES, ITEMS = (16, 16, 16), 4
SPACE = 16**3


def get_config() -> Config:
    """Base 16 and identity, so that a digit is an attribute, with the model of base_size.py."""
    config, small = load_experiment(LOOKUP), load_experiment(BASE_SIZE)
    return dataclasses.replace(
        config,
        data=Lookup(keys=SPACE, space=SPACE, items=ITEMS, rule="composed", attributes=ATTRIBUTES),
        # 8 documents per sequence: three letters of a key, its fragments, 2 · 2 for the segments, and one for the end.
        batch=dataclasses.replace(config.batch, size=8, sequence_items=8 * (len(ATTRIBUTES) + ITEMS + 5)),
        model=small.model,
        optim=small.optim,
        eval=dataclasses.replace(config.eval, examples=512),
    )


def by_tree(config: Config) -> Tree:
    """Ids by a tree: fragments with the same attributes share leading digits."""
    return _tree(config.writing.base)


@functools.cache
def _tree(base: Base) -> Tree:
    one_hot = np.eye(ATTRIBUTES[0])[to_digits(np.arange(SPACE), ATTRIBUTES)]
    return Tree.of(one_hot.reshape(SPACE, -1), base)


def sweep() -> Sweep:
    """Four assignments at two bases, and one token per item."""
    kinds = {"identity": Identity(), "random": Random(key=1), "tree": by_tree, "gray": Gray()}
    return Sweep(
        arms=arms_of(get_config(), chain(product(bases(16, 64), assignments("item", kinds)), flat())),
        budget=Budget("items", 80_000),
        question="Which assignment of ids lets a model tell the fragments of keys that it never met?",
        baseline="base=16,ids=identity",
    )
