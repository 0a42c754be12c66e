"""Digits: one small transformer reads pictures of digits aloud, draws what it hears, and names what it sees.

Question   Does one decoder over one two-level vocabulary learn text ⇄ image ⇄ speech from 1,437 pictures?
Command    omnijax train experiments/digits.py --workdir runs/demo && omnijax evaluate runs/demo
Data       scikit-learn's 8×8 digits, their English names, and these spoken by 84 synthetic voices; the held-out split
           shares neither picture nor voice with training.
"""

from omnijax.config import (
    BatchConfig,
    Config,
    DataConfig,
    EvalConfig,
    ModelConfig,
    OptimConfig,
    Route,
    SampleConfig,
    Target,
    Task,
    TrainConfig,
)
from omnijax.vocab.vocabulary import Space, Vocabulary

LEVELS, CODES = 17, 289


def get_config() -> Config:
    """The demo."""
    # The radix is the number of grey levels, so that each digit of a patch's id is one pixel.
    vocabulary = Vocabulary(
        positions=32,
        digits=LEVELS,
        base=LEVELS,
        spaces=(Space("t_pad", 1), Space("image", LEVELS**4), Space("speech", CODES)),
        control=("text", "image", "speech", "eos"),
        layout="grouped",
        position="before",
        width="fixed",
    )
    # Understanding is learned from a few bytes behind a hundred tokens, so that these weigh more. Pictures are harder
    # than words, and few: they come twice as often, and those to be read are moved a little.
    tasks = (
        Task(("image/shifted", "text"), weights=(1.0, 20.0), repeats=2),
        Task(("speech", "text"), weights=(1.0, 20.0)),
        Task(("text", "image"), weights=(0.1, 1.0), repeats=2),
        Task(("text", "speech"), weights=(0.1, 1.0)),
    )
    drawn = SampleConfig(temperature=0.5)
    return Config(
        vocabulary=vocabulary,
        data=DataConfig(),
        batch=BatchConfig(tasks, rows=48, row_length=96),
        model=ModelConfig(depth=4, width=128, unroll=4),
        optim=OptimConfig(),
        train=TrainConfig(steps=1000, checkpoint_every=200),
        eval=EvalConfig(
            targets=(
                Target("text", 3, 5, SampleConfig(temperature=0.0)),
                Target("image", 16, 16, drawn),
                Target("speech", 1, 30, drawn),
            ),
            routes=(
                Route(("image", "text")),
                Route(("speech", "text")),
                Route(("text", "image")),
                Route(("text", "speech")),
                Route(("image", "text", "speech")),
                Route(("speech", "text", "image")),
            ),
        ),
    )
