"""Sizes of models, from a laptop to a pod: shape, batch, rematerialisation and mesh.

`--size base` on the command line puts a size into an experiment; vocabulary, data, tasks and schedule stay. Numbers of
parameters leave out embedding and head, which are small with a primary vocabulary.
"""

from __future__ import annotations

import dataclasses
from typing import Literal, NamedTuple

from omnijax.config import Config, MeshConfig, ModelConfig
from omnijax.errors import ConfigError

Remat = Literal["none", "dots", "attention", "full"]


class Size(NamedTuple):
    """What a size sets.

    Attributes:
        batch_size: sequences in a global batch.
        sequence_length: tokens of a sequence; one more than the model reads at once.
        mesh: in one slice.
        learning_rate: at the end of the warm-up, from the publication of the shape.
    """

    model: ModelConfig
    batch_size: int
    sequence_length: int
    mesh: MeshConfig
    learning_rate: float


def _model(depth: int, width: int, heads: int, kv_heads: int, mlp_width: int, remat: Remat) -> ModelConfig:
    size = width // heads
    return ModelConfig(depth, width, heads, kv_heads, size, mlp_width, compute_dtype="bfloat16", remat=remat)


SIZES = {
    # The demo, on 2 CPU cores, where unrolled layers are a third faster than a loop.
    "nano": Size(ModelConfig(4, 128, 4, 2, 32, 320, unroll=4), 24, 96, MeshConfig(), 2.5e-3),
    # 123 M, the depth and width of GPT-2 small (Radford et al. 2019) with four layers more in place of its embedding.
    "small": Size(_model(16, 768, 12, 12, 2304, "none"), 256, 1025, MeshConfig(), 6e-4),
    # 1.3 B, the shape of GPT-3 XL (arXiv:2005.14165, table 2.1) with a gated MLP.
    "base": Size(_model(24, 2048, 16, 16, 6144, "attention"), 256, 2049, MeshConfig(data=1, fsdp=-1), 2e-4),
    # 6.5 B, the shape of Llama 2 7B (arXiv:2307.09288), whose other 0.26 B are its embedding and head.
    "large": Size(_model(32, 4096, 32, 32, 11008, "full"), 256, 2049, MeshConfig(data=1, fsdp=-1), 3e-4),
    # 33 B, the shape of Code Llama 34B (arXiv:2308.12950).
    "xl": Size(_model(48, 8192, 64, 8, 22016, "full"), 512, 4097, MeshConfig(data=1, fsdp=-1), 1.5e-4),
}


def resized(config: Config, name: str) -> Config:
    """The experiment at another size; raises a `ConfigError` if there is no such size."""
    if name not in SIZES:
        raise ConfigError("--size", name, "there is no such size", f"choose one of {', '.join(SIZES)}")
    size = SIZES[name]
    return dataclasses.replace(
        config,
        model=size.model,
        batch=dataclasses.replace(config.batch, size=size.batch_size, sequence_length=size.sequence_length),
        optim=dataclasses.replace(config.optim, learning_rate=size.learning_rate),
        mesh=size.mesh,
    )
