"""Radix on photographs: must a digit be a whole sub-pixel?

Question   Patches of 2×2 RGB pixels are fragments below 2^96. Must digits fall on sub-pixels?
Command    python experiments/lossless/make_files.py data/lossless-16.files --edge 16 --fields picture text
           omnijax sweep experiments/ablations/radix_photographs.py --workers 2
Data       crops of 16×16 pixels of the photographs of experiments/lossless/make_files.py
Hardware   2 CPU cores (x86-64), one for each arm
Time       69 minutes for three seeds, beside other programs
Result     Bits per sub-pixel at equal seconds: base 256 2.17 ± 0.07, base 4096 2.18 ± 0.07; after fewer items base 64
           2.58 ± 0.18 and base 16 2.84 ± 0.02; shuffled sub-pixels 2.17 ± 0.01, shuffled bits 4.39 ± 0.03; a depth
           head 2.02 ± 0.02; all on validation. Card: experiments/reproduce/radix_real.md
"""

import dataclasses
import pathlib
from collections.abc import Mapping

import numpy as np

from omnijax.config import Config
from omnijax.config.experiment_file import run_file
from omnijax.modalities import Modality
from omnijax.sweep.arms import arms_of, assignments, bases, chain, heads, product
from omnijax.sweep.sweep import Budget, Sweep
from omnijax.vocab import Transposed

LOSSLESS = run_file(pathlib.Path(__file__).parents[1] / "lossless" / "experiment.py")
SECONDS = 180


def config_of(fields: Mapping[str, Modality], folder: str, directory: str, items: int) -> Config:
    """The configuration for pictures alone, with a token head; `items` is `batch.sequence_items`."""
    config = LOSSLESS.config_of("picture")
    data = dataclasses.replace(config.data, fields=fields, directory=directory, folder=folder)
    batch = dataclasses.replace(config.batch, sequence_items=items)
    model = dataclasses.replace(config.model, head="token")
    evaluation = dataclasses.replace(config.eval, batch_size=16)
    return dataclasses.replace(config, data=data, batch=batch, model=model, eval=evaluation)


def get_config() -> Config:
    """Base 256: each digit is a sub-pixel. Pixels are written as in `lossless/`."""
    picture = dataclasses.replace(LOSSLESS.FIELDS["picture"], height=16, width=16)
    fields = {"picture": picture, "text": LOSSLESS.FIELDS["text"]}
    return config_of(fields, "data/lossless-16.files", "data/lossless-16", 67)


def shuffled(side: int, count: int) -> Transposed:
    """One random order of the digits, the same for all fragments."""
    axes = np.random.default_rng(count).permutation(count)
    return Transposed(sides=(side,) * count, axes=tuple(axes.tolist()))


def sweep() -> Sweep:
    """Four bases with a token head; base 256 with shuffled sub-pixels, with shuffled bits, and with a depth head."""
    orders = {"shuffled_subpixels": shuffled(256, 12), "shuffled_bits": shuffled(2, 96)}
    choices = chain(
        bases(16, 64, 256, 4096),
        product(bases(256), chain(assignments("picture", orders), heads("depth"))),
    )
    question = "Must digits fall on the sub-pixels of a patch?"
    return Sweep(arms_of(get_config(), choices), Budget("seconds", SECONDS), question, "base=256", points=1)
