"""Lossless pieces: texts as pieces of several bytes and the bytes between them.

Question   Which head and base need the fewest bits for pieces of text, with positions and without?
Command    omnijax sweep experiments/ablations/lossless_pieces.py --workers 2
Data       the texts of experiments/lossless/make_files.py
Hardware   2 CPU cores (x86-64), one for each arm
Time       not measured yet
Result     not measured yet
"""

import dataclasses
import pathlib

from omnijax.config import Config
from omnijax.config.experiment_file import run_file
from omnijax.modalities import TextPieces
from omnijax.sweep.arms import arms_of, bases, chain, heads, positions
from omnijax.sweep.sweep import Budget, Sweep

TEXTS = run_file(pathlib.Path(__file__).with_name("lossless_texts.py"))


def get_config() -> Config:
    """The texts alone, as 4,096 pieces and single bytes, in the order of the text."""
    config = TEXTS.get_config()
    fields = {**config.data.fields, "text": TextPieces(most=256, pieces=4096, tokens=2)}
    data = dataclasses.replace(config.data, fields=fields, directory="data/lossless-pieces")
    return dataclasses.replace(config, data=data, writing=dataclasses.replace(config.writing, layout="inline"))


def sweep() -> Sweep:
    """Both heads, two bases, and a position before the digits of each piece."""
    choices = chain(heads("depth", "token"), bases(16), positions("before"))
    question = "Which head and base need the fewest bits for pieces of text?"
    budget = Budget("seconds", TEXTS.PICTURES.SECONDS)
    return Sweep(arms_of(get_config(), choices), budget, question, "head=depth", points=2)
