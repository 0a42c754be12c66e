"""Lossless sounds: what a head, a base and differences do to the bits of sounds.

Question   Which head and base need the fewest bits for sounds, without loss, and do differences help?
Command    omnijax sweep experiments/ablations/lossless_sounds.py --workers 2
           and with samples as they are: --only head=depth --data.fields.sound.residuals False
           --data.directory data/lossless-samples --out sweeps/lossless_sounds-samples
Data       the sounds of experiments/lossless/make_files.py
Hardware   2 CPU cores (x86-64), one for each arm
Time       41 minutes for three seeds, beside other programs
Result     Bits per sample: depth head 2.27 ± 0.09, token head 2.41 ± 0.08 (173 steps; the depth head takes 722),
           base 16 2.31 ± 0.08. FLAC in one stream 2.52, context counts 2.53, all on validation. Samples as they are:
           not measured yet.
           Card: experiments/reproduce/lossless.md
"""

import pathlib

from omnijax.config import Config
from omnijax.config.experiment_file import run_file
from omnijax.sweep.arms import arms_of, bases, chain, heads
from omnijax.sweep.sweep import Budget, Sweep

PICTURES = run_file(pathlib.Path(__file__).with_name("lossless_pictures.py"))


def get_config() -> Config:
    """The sounds alone."""
    return PICTURES.LOSSLESS.config_of("sound")


def sweep() -> Sweep:
    """Both heads, and digits that are halves of samples."""
    choices = chain(heads("depth", "token"), bases(16))
    question = "Which head and base need the fewest bits for sounds, without loss?"
    budget = Budget("seconds", PICTURES.SECONDS)
    return Sweep(arms_of(get_config(), choices), budget, question, "head=depth", points=2)
