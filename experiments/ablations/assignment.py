"""Assignment: which id a patch gets, and therefore which patches share a leading digit.

Question   Does structure in the leading digit matter for pictures, as it does for ids in generative retrieval?
Command    omnijax sweep experiments/ablations/assignment.py --workers 2
Data       that of experiments/ablations/base_size.py
Hardware   2 CPU cores (x86-64)
Time       33 minutes for three seeds
Result     Yes. Shuffled ids need more bits per patch than identity: 2.6 more at base 17, 0.9 at base 64, 1.3 at base
           289. At base 64, whose digits cut across pixels, Hilbert and tree need 0.5 and 0.4 bits less than identity.
           Card: experiments/reproduce/assignment.md
Noticed    `identity` already has structure: at base 17 the digits of an id are the pixels of its patch, at base 289
           they are its rows of pixels. `frequency` counts only the patches of the training pictures.
"""

import functools
import pathlib

import numpy as np

from omnijax.config import Config
from omnijax.data.sources.spoken_digits import SpokenDigits
from omnijax.data.sources.spoken_digits.making import load_images, split_images
from omnijax.experiment import load_experiment
from omnijax.sweep.arms import arms_of, assignments, bases, product
from omnijax.sweep.sweep import Budget, Sweep
from omnijax.vocab.assignment import Frequency, Gray, Hilbert, Identity, Random, Tree
from omnijax.vocab.radix import Base

BASE_SIZE = pathlib.Path(__file__).parent / "base_size.py"
PICTURE = SpokenDigits().image
(PATCHES,) = PICTURE.parts


def get_config() -> Config:
    """Base 17, identity."""
    return load_experiment(BASE_SIZE)


def by_frequency(config: Config) -> Frequency:
    """Ids by frequency: the most common patch of the training pictures first."""
    images, labels = load_images()
    train, *_ = split_images(labels, (config.data.validation_images, config.data.test_images), config.data.seed)
    ids = PATCHES.numbers(PICTURE.encode(images[train]).digits)
    return Frequency.of(np.bincount(ids, minlength=PATCHES.fragments))


def by_tree(config: Config) -> Tree:
    """Ids by a tree: patches with similar pixels share leading digits."""
    return _tree(config.writing.base)


@functools.cache
def _tree(base: Base) -> Tree:
    return Tree.of(PATCHES.digits(np.arange(PATCHES.fragments)).astype(np.float64), base)


def sweep() -> Sweep:
    """Six assignments at three bases."""
    kinds = {
        "identity": Identity(),
        "random": Random(key=1),
        "frequency": by_frequency,
        "tree": by_tree,
        "gray": Gray(),
        "hilbert": Hilbert(sides=PATCHES.radices),
    }
    return Sweep(
        arms=arms_of(get_config(), product(bases(17, 64, 289), assignments("image", kinds))),
        budget=Budget("items", 100_000),
        question="Does structure in the leading digit matter for pictures?",
        baseline="base=17,ids=identity",
    )
