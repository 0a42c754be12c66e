"""Assignment: which number a patch gets, hence what patches with the same leading digit have in common.

Question   Does structure in the leading digit matter for pictures, as it does for ids in generative retrieval?
Command    omnijax sweep experiments/ablations/assignment.py --workers 2
Data       that of experiments/ablations/base_size.py
Hardware   2 CPU cores (x86-64)
Time       33 minutes for three seeds
Result     It does: shuffled ids take 2.6 bits a patch more than ids as they are at base 17, 0.9 at base 64, 1.3 at base
           289. At base 64, whose digits cut across pixels, Hilbert and tree are below ids as they are, by 0.5 and 0.4.
           All of it: experiments/reproduce/assignment.md
Noticed    `identity` is structured already: at base 17 the digits of an id are the pixels of its patch, at base 289 its
           rows. `frequency` counts the patches of the training pictures alone.
"""

import functools
import pathlib

import numpy as np

from omnijax.config import Config
from omnijax.data.sources.spoken_digits.spoken_digits_dataset_builder import load_images, split_images
from omnijax.experiment import load_experiment
from omnijax.modalities import PatchImage
from omnijax.sweep.arms import arms_of, assignments, bases, product
from omnijax.sweep.budget import Budget
from omnijax.sweep.sweep import Sweep
from omnijax.vocab.assignment import Frequency, Gray, Hilbert, Identity, Random, Tree
from omnijax.vocab.numbers import to_digits
from omnijax.vocab.radix import Base

BASE_SIZE = pathlib.Path(__file__).parent / "base_size.py"
PATCH = PatchImage()
PIXELS = (PATCH.levels,) * PATCH.patch**2


def get_config() -> Config:
    """Base 17, ids as they are."""
    return load_experiment(BASE_SIZE)


def by_frequency(config: Config) -> Frequency:
    """The commonest patch of the training pictures first."""
    images, labels = load_images()
    train, _ = split_images(labels, config.data.heldout_images, config.data.seed)
    return Frequency.of(np.bincount(PATCH.fragments(images[train]).reshape(-1), minlength=PATCH.size))


def by_tree(config: Config) -> Tree:
    """Patches whose pixels are alike share leading digits."""
    return _tree(config.vocabulary.base)


@functools.cache
def _tree(base: Base) -> Tree:
    return Tree.of(to_digits(np.arange(PATCH.size), PIXELS).astype(np.float64), base)


def sweep() -> Sweep:
    """Six assignments at three bases."""
    kinds = {
        "identity": Identity(),
        "random": Random(key=1),
        "frequency": by_frequency,
        "tree": by_tree,
        "gray": Gray(),
        "hilbert": Hilbert(sides=PIXELS),
    }
    return Sweep(
        arms=arms_of(get_config(), product(bases(17, 64, 289), assignments("image", kinds))),
        budget=Budget("items", 100_000),
        question="Does structure in the leading digit matter for pictures?",
        baseline="base=17,ids=identity",
    )
