"""Lossless pictures: what a head, a base and a way to write pixels do to the bits of photographs.

Question   Which head, base, colour transform and predictor need the fewest bits for photographs, without loss?
Command    omnijax sweep experiments/ablations/lossless_pictures.py --workers 2
           and after as many items as head=depth saw: the same with --only head=depth --budget items=712704 and one of
           --data.fields.picture.colours rgb --data.directory data/lossless-rgb --out sweeps/lossless_pictures-rgb
           --data.fields.picture.residuals False --data.directory data/lossless-plain
           --out sweeps/lossless_pictures-plain
Data       the photographs of experiments/lossless/make_files.py
Hardware   2 CPU cores (x86-64), one for each arm
Time       53 minutes for three seeds, beside other programs; 15 more for each other way to write pixels
Result     Bits per sub-pixel: depth head 1.96 ± 0.02, token head 2.28 ± 0.02 (26 steps; the depth head takes 348), base
           16 2.10 ± 0.02; after as many items as the depth head 2.24 ± 0.02 without the colour transform, 4.93 ± 0.17
           without the predictor. JPEG XL 2.05, WebP 2.33, PNG 3.06 on the same crops, all on validation.
           Card: experiments/reproduce/lossless.md
"""

import dataclasses
import pathlib

from omnijax.config import Config
from omnijax.config.experiment_file import run_file
from omnijax.sweep.arms import arms_of, bases, chain, heads
from omnijax.sweep.sweep import Budget, Sweep

LOSSLESS = run_file(pathlib.Path(__file__).parents[1] / "lossless" / "experiment.py")
SECONDS = 360


def get_config() -> Config:
    """The pictures alone."""
    config = LOSSLESS.config_of("picture")
    # A head of tokens reads 3,100 of them for a picture, so few pictures at a time.
    return dataclasses.replace(config, eval=dataclasses.replace(config.eval, batch_size=8))


def sweep() -> Sweep:
    """Both heads, and digits that are halves of sub-pixels."""
    choices = chain(heads("depth", "token"), bases(16))
    question = "Which head and base need the fewest bits for photographs, without loss?"
    return Sweep(arms_of(get_config(), choices), Budget("seconds", SECONDS), question, "head=depth", points=2)
