"""Lossless: one model of photographs, sounds and texts, all without loss, and its bits beside those of codecs.

Question   How many bits does one decoder of a million parameters need for pictures, sounds and texts that it never saw?
Command    python experiments/lossless/make_files.py
           omnijax train experiments/lossless/experiment.py --workdir runs/lossless && omnijax evaluate runs/lossless
           python experiments/lossless/anchors.py
Data       crops of 23 photographs, 162 sounds, and sayings in nine languages; make_files.py has the packages
Hardware   2 CPU cores (x86-64), 4 GiB
Time       1 minute for files and data, 7 for training (beside other programs), 1 to evaluate
Expect     on validation: 1.92 bits per sub-pixel on crops of 32×32 (JPEG XL 2.05, WebP 2.33, PNG 3.06; JPEG XL of all
           crops on one canvas 1.78), 2.34 bits per sample of 8 bits (FLAC of all sounds in one stream 2.52), 3.14 bits
           per byte of text without its end (with ends: brotli in one stream 3.24; after 4 MiB of training texts 3.02;
           context counts 2.29). The test wasn't measured
"""

from omnijax.config import BatchConfig, Config, EvalConfig, ModelConfig, OptimConfig, Task, TrainConfig, Writing
from omnijax.data.sources.folder import Folder
from omnijax.modalities import Picture, Sound, Text
from omnijax.source import TEST, TRAIN, VALIDATION

FIELDS = {
    "picture": Picture(height=32, width=32, channels=3, colours="green", residuals=True),
    "sound": Sound(rate_hz=16_000, bits=8, block=4, most=256, residuals=True),
    "text": Text(most=256),
}
REPEATS = {"picture": 4, "sound": 8, "text": 1}
"""So that an epoch has about as many items of each."""


def get_config() -> Config:
    """All fields."""
    return config_of(*FIELDS)


def config_of(*names: str) -> Config:
    """Some of the fields, each by itself: no position tells where a fragment belongs, since all are in order."""
    source = Folder(
        directory="data/lossless", folder="data/lossless.files", fields=FIELDS, own_splits=(TRAIN, VALIDATION, TEST)
    )
    tasks = tuple(Task((name,), (1.0,), repeats=REPEATS[name]) for name in names)
    return Config(
        source,
        # A sequence holds one picture or sound, or some texts: their items, two for each segment, and one.
        BatchConfig(tasks, size=8, sequence_length=3400, sequence_items=264),
        ModelConfig(depth=4, width=128, heads=4, kv_heads=2, head_size=32, mlp_width=320, head="depth", unroll=4),
        Writing(base=256, position="none"),
        OptimConfig(learning_rate=2.5e-3, warmup_steps=100),
        train=TrainConfig(steps=1200, checkpoint_every=600),
        eval=EvalConfig(examples=10_000, batch_size=64),
    )
