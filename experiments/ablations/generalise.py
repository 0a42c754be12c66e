"""Generalise: whether ids that say what a fragment is made of let a model tell those of keys that it never met.

Question   Which assignment of ids lets a model look up the fragments of new keys, where these follow from the key?
Command    omnijax sweep experiments/ablations/generalise.py
Data       made from `data.lookup` alone: 4,096 keys, each three attributes of 16 values; the four fragments of a key
           are numbers of three digits in base 16, each of which is an attribute, permuted. A tenth of the keys is
           held out
Hardware   2 CPU cores (x86-64)
Time       10 minutes for three seeds
Result     Bits an item of new keys: base 16 0.03 with ids as they are, 2.4 with a Gray code, 9.8 with a tree, 12.0
           shuffled; base 64 8.4 to 12.0; flat 12.9. A model that guesses has 12, one that found the rule none.
           All of it: experiments/reproduce/assignment.md
Noticed    In base 64 a digit mixes an attribute with half of another: structure that is there, but isn't aligned.
           `tree` knows the attributes of the fragments, as a clustering of their features would.
"""

import dataclasses
import functools
import pathlib

import numpy as np

from omnijax.config import Config, LookupConfig, Target
from omnijax.experiment import load_experiment
from omnijax.sweep.arms import arms_of, assignments, bases, chain, flat, product
from omnijax.sweep.budget import Budget
from omnijax.sweep.sweep import Sweep
from omnijax.vocab.assignment import Gray, Identity, Random, Tree
from omnijax.vocab.numbers import to_digits
from omnijax.vocab.radix import Base
from omnijax.vocab.vocabulary import Space

HERE = pathlib.Path(__file__).parent
BASE_SIZE, LOOKUP = HERE / "base_size.py", HERE.parent / "lookup.py"
ATTRIBUTES, ITEMS = (16, 16, 16), 4
SPACE = 16**3


def get_config() -> Config:
    """Base 16, ids as they are: a digit is an attribute; the model of base_size.py."""
    config, small = load_experiment(LOOKUP), load_experiment(BASE_SIZE)
    lookup = LookupConfig(keys=SPACE, space=SPACE, items=ITEMS, rule="composed", attributes=ATTRIBUTES)
    letters = len(ATTRIBUTES)
    return dataclasses.replace(
        config,
        vocabulary=dataclasses.replace(config.vocabulary, spaces=(Space("item", SPACE),)),
        data=dataclasses.replace(config.data, lookup=lookup),
        # 8 documents a row: three letters of a key, its fragments, 2 · 2 and one.
        batch=dataclasses.replace(config.batch, size=8, sequence_items=8 * (letters + ITEMS + 5)),
        model=small.model,
        optim=small.optim,
        eval=dataclasses.replace(
            config.eval, targets=(Target("text", letters, letters), Target("item", ITEMS, ITEMS)), examples=512
        ),
    )


def by_tree(config: Config) -> Tree:
    """Fragments with the same attributes share leading digits."""
    return _tree(config.vocabulary.base)


@functools.cache
def _tree(base: Base) -> Tree:
    one_hot = np.eye(ATTRIBUTES[0])[to_digits(np.arange(SPACE), ATTRIBUTES)]
    return Tree.of(one_hot.reshape(SPACE, -1), base)


def sweep() -> Sweep:
    """Four assignments at two bases, and one token an item."""
    kinds = {"identity": Identity(), "random": Random(key=1), "tree": by_tree, "gray": Gray()}
    return Sweep(
        arms=arms_of(get_config(), chain(product(bases(16, 64), assignments("item", kinds)), flat())),
        budget=Budget("items", 80_000),
        question="Which assignment of ids lets a model tell the fragments of keys that it never met?",
        baseline="base=16,ids=identity",
    )
