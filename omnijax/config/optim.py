"""The optimiser, the mesh, and the train loop."""

from __future__ import annotations

import dataclasses
from typing import Literal


@dataclasses.dataclass(frozen=True)
class OptimConfig:
    """AdamW with warm-up, cosine and clipping."""

    learning_rate: float = 3e-3
    """At the end of the warm-up."""
    warmup_steps: int = 100
    final_fraction: float = 0.02
    """Of `learning_rate`, at the last step."""
    beta1: float = 0.9
    beta2: float = 0.98
    weight_decay: float = 0.1
    """On matrices only; norms and embeddings are left alone."""
    clip_norm: float = 1.0
    """Largest global norm of a gradient."""
    accumulate: int = 1
    """Micro-batches in a step; the rows of a batch are divided among them."""
    moments: Literal["float32", "bfloat16", "factored"] = "float32"
    """How Adam's moments are kept: `bfloat16` the first one in half the bytes; `factored` also the second one of each
    matrix as the means of its rows and columns (Adafactor, arXiv:1804.04235 §3), a few thousandths of the bytes."""


@dataclasses.dataclass(frozen=True)
class MeshConfig:
    """Devices along each axis of the mesh, in one slice; one of them may be -1: all that are left.

    Several slices (TPUs without a fast network between them) are further rows along `data`, so that between them only
    gradients cross, and the same experiment runs on any number of them.
    """

    data: int = -1
    """Copies of the model, each with rows of its own."""
    fsdp: int = 1
    """Parts that parameters and moments are kept in; each of them has rows of its own, too."""
    context: int = 1
    """Parts that the tokens of a row are split in."""
    tensor: int = 1
    """Parts that heads and hidden units are split in."""


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """The loop."""

    steps: int = 2200
    seed: int = 0
    """Draws the initial parameters, the dropout and the digit noise."""
    log_every: int = 20
    checkpoint_every: int = 500
    keep_checkpoints: int = 2
    start_from: str = ""
    """A run whose newest parameters this one begins with, at step 0 and with fresh moments, instead of random ones. Its
    vocabulary is the same, or one that this run's has grown from: new tokens begin with random parameters."""
    digit_noise: float = 0.0
    """Share of the digits that the model reads which are drawn anew, evenly below their radix; what it has to predict
    stays clean. So it meets wrong digits in training, as it does when it reads its own."""
