"""The model."""

from __future__ import annotations

import dataclasses
from typing import Literal


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """The decoder-only transformer."""

    depth: int = 4
    width: int = 128
    heads: int = 4
    kv_heads: int = 2
    """Grouped-query attention: each key/value head serves `heads / kv_heads` query heads."""
    head_size: int = 32
    mlp_width: int = 384
    rope_base: float = 10_000.0
    """Longest wavelength of the rotary positions, in units of 2π tokens."""
    head: Literal["token", "depth", "parallel"] = "token"
    """What predicts the tokens of an item. `token`: the backbone steps once a token. `depth`: it steps once an item,
    whose tokens a small network behind it writes one after the other. `parallel`: the same, but each token without a
    look at those before it in the item, which is a control: it can't say what goes with what. The last two need
    `batch.sequence_items` and fixed width."""
    head_depth: int = 1
    """Gated MLPs of that small network."""
    natural_digits: tuple[int, ...] = ()
    """Radices of the natural digits in one digit; their product is `writing.base`. Digits with close natural digits
    start with similar embeddings. Use (16, 16) where a digit of base 256 holds two coefficients of 16 levels."""
    dropout: float = 0.0
    """Share of the residual updates that is dropped in training."""
    compute_dtype: Literal["float32", "bfloat16"] = "float32"
    """Of activations and matrix products; parameters are float32."""
    attention: Literal["auto", "reference", "blocks", "cudnn", "splash"] = "auto"
    """How training attends: `reference` in whole matrices; `blocks` over causal blocks of queries, on any platform;
    `cudnn` on NVIDIA GPUs and `splash` on TPUs fused, which never writes the scores; `auto` what the platform has."""
    remat: Literal["none", "dots", "attention", "full"] = "none"
    """What the forward pass keeps of a layer for the backward pass, which computes the rest again: `none` computes
    nothing again, `dots` keeps the results of matrix products with parameters, `attention` what attention gave,
    `full` the layer's input alone."""
    unroll: int = 1
    """Layers in one iteration of the scan over layers; `depth` or more unrolls all, faster for small models on CPU."""
