"""Floating-point operations of the model, by formula: two for each multiplication in a matrix product.

For each token this is C ≈ 2 N + 2 · layers · context · attention width (Kaplan et al. 2020, arXiv:2001.08361 §2.1) for
grouped key/value heads and three matrices in the MLP. As in PaLM (Chowdhery et al. 2022, arXiv:2204.02311, appendix B),
both matrix products of attention count, and the whole square, since masked scores are computed, too. The padding of the
head counts. The look-up of embeddings, norms, rotations, softmax, activations, and what `remat` computes twice don't.
"""

from __future__ import annotations

from omnijax.config import ModelConfig

TRAINING = 3
"""FLOPs of training in units of a forward pass: the backward pass takes two (arXiv:2001.08361 §2.1)."""


def row_flops(model: ModelConfig, rows: int, tokens: int, items: int = 0, places: int = 0) -> int:
    """FLOPs of a forward pass over a sequence of `tokens` tokens; `rows` is the number of logits, with padding.

    A model that steps once for each item also needs the most `items` of a sequence, and the `places` (tokens) of the
    longest item.
    """
    steps = tokens if model.head == "token" else items
    return steps * backbone_flops(model, steps, places) + tokens * head_flops(model, rows)


def backbone_flops(model: ModelConfig, keys: int, places: int = 0) -> int:
    """FLOPs of one step of the layers, which attends to `keys` keys: the steps of a sequence, or the slots of a cache.

    If steps are items, `places` are the tokens of the longest one; an item takes a matrix for each.
    """
    projections = 2 * model.width * model.head_size * (2 * model.heads + 2 * model.kv_heads)
    attention = 2 * 2 * model.heads * model.head_size * keys
    mlp = 2 * 3 * model.width * model.mlp_width
    into = 0 if model.head == "token" else 2 * model.width * model.width * places
    return model.depth * (projections + attention + mlp) + into


def head_flops(model: ModelConfig, rows: int) -> int:
    """FLOPs behind the backbone for the logits of one token; `rows` is the number of logits, with padding."""
    mlps = 0 if model.head == "token" else 2 * 3 * model.width * model.mlp_width * model.head_depth
    return mlps + 2 * model.width * rows
