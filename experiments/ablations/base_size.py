"""Radix: what the base of the digits does to a model that reads and draws pictures, from base 2 to a flat softmax.

Question   Does a two-level vocabulary reach the bits of a flat softmax, at which radix, and what does each radix cost?
Command    omnijax sweep experiments/ablations/base_size.py
Data       that of experiments/digits.py, without the speech
Hardware   2 CPU cores (x86-64)
Time       120 minutes for three seeds, while other programs ran
Result     Bits per patch at equal items: base 17 8.32 ± 0.38, with a depth head 7.91 ± 0.03, without positions
           8.74 ± 0.24; base 512 9.40 ± 0.09, without positions 9.85 ± 0.20; base 16 10.00 ± 0.10; flat 10.09 ± 0.10.
           Card: experiments/reproduce/radix.md
Noticed    Tokens are weighted as in experiments/digits.py. Each token of a picture has weight 1 in every arm, so their
           sum is the bits of the picture at any base, and pictures and words are balanced alike in all arms.
"""

import dataclasses
import pathlib

from omnijax.config import Config, EvalConfig, ModelConfig, Route, SampleConfig, Target, Task
from omnijax.experiment import load_experiment
from omnijax.sweep.arms import Choices, arms_of, bases, chain, flat, heads, positions, product
from omnijax.sweep.sweep import Budget, Sweep

DIGITS = pathlib.Path(__file__).parents[1] / "digits.py"
# The last base is mixed: a small leading digit, then a large one. Two digits write every id.
BASES = (2, 4, 9, 16, 17, 64, 256, 512, 4096, (64, 1310))
ITEMS = 240_000


def get_config() -> Config:
    """Pictures and words at base 17, with a smaller model than the demo's."""
    config = load_experiment(DIGITS)
    # The published results are older than the test split: they train on all pictures that aren't validation.
    data = dataclasses.replace(config.data, directory="data/published_digits", test_images=0, test_voices=0)
    tasks = (
        Task(("image/moved", "text"), weights=(1.0, 20.0)),
        Task(("text", "image"), weights=(0.1, 1.0)),
    )
    evaluated = EvalConfig(
        targets=(
            Target("text", SampleConfig(temperature=0.0)),
            Target("image", SampleConfig(temperature=1.0, top_p=0.9)),
        ),
        routes=(Route(("image", "text")), Route(("text", "image"))),
        batch_size=24,
    )
    # One document per sequence: 16 patches, 3 to 5 letters, two for each segment, and one for the end.
    batch = dataclasses.replace(config.batch, tasks=tasks, size=24, sequence_items=26)
    model = ModelConfig(depth=3, width=96, heads=4, kv_heads=2, head_size=24, mlp_width=240, unroll=3)
    optim = dataclasses.replace(config.optim, warmup_steps=100)
    return dataclasses.replace(config, data=data, batch=batch, model=model, optim=optim, eval=evaluated)


def sweep_of(choices: Choices, question: str, baseline: str, tasks: tuple[str, ...] = ("bits",)) -> Sweep:
    """A sweep over changes of this configuration, at the same number of items."""
    return Sweep(arms_of(get_config(), choices), Budget("items", ITEMS), question, baseline, tasks=tasks)


def sweep() -> Sweep:
    """Every base, one token per item, both without positions, and heads that step once an item."""
    without = product(bases(17, 512), positions("none"))
    by_item = product(bases(17), heads("depth", "parallel"))
    question = "Does a two-level vocabulary reach the bits of a flat softmax, at which radix, and at what cost?"
    return sweep_of(chain(bases(*BASES), flat(), without, by_item), question, baseline="flat")
