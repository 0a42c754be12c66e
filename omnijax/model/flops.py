"""Floating-point operations of the model, by formula."""

from __future__ import annotations

from omnijax.config import ModelConfig

TRAINING = 3
"""FLOPs of training in units of a forward pass: the backward pass takes two (arXiv:2001.08361 §2.1)."""


def token_flops(model: ModelConfig, rows: int, keys: int) -> int:
    """FLOPs of a forward pass for each token: two for each multiplication in a matrix product.

    This is C ≈ 2 N + 2 · layers · context · attention width (Kaplan et al. 2020, arXiv:2001.08361 §2.1) for grouped
    key/value heads and three matrices in the MLP. As in PaLM (Chowdhery et al. 2022, arXiv:2204.02311, appendix B), it
    counts both matrix products of attention, and the whole square, since masked scores are computed, too. It counts the
    padding of the head. It doesn't count the look-up of embeddings, norms, rotations, softmax, activations, or what
    `remat` computes twice.

    Args:
        model: its shape.
        rows: of the head, with padding.
        keys: number of keys that each token attends to: the tokens of a sequence, or the slots of a cache.
    """
    return backbone_flops(model, keys) + head_flops(model, rows)


def row_flops(model: ModelConfig, rows: int, tokens: int, items: int = 0, places: int = 0) -> int:
    """FLOPs of a forward pass over a sequence of `tokens` tokens, counted as in `token_flops`.

    A model that steps once for each item also needs the most `items` of a sequence, and the `places` (tokens) of the
    longest item.
    """
    steps = tokens if model.head == "token" else items
    return steps * backbone_flops(model, steps, places) + tokens * head_flops(model, rows)


def backbone_flops(model: ModelConfig, keys: int, places: int = 0) -> int:
    """FLOPs of one step of the layers, which attends to `keys` keys, counted as in `token_flops`.

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
