"""How many floating-point operations the transformer takes for a token."""

from __future__ import annotations

from omnijax.config import ModelConfig

TRAINING = 3
"""Of training over those of a forward pass: the backward pass is two of them (arXiv:2001.08361 §2.1)."""


def token_flops(model: ModelConfig, rows: int, keys: int) -> int:
    """FLOPs of a forward pass for each token: two for each multiplication in a matrix product.

    Kaplan et al. 2020, arXiv:2001.08361 §2.1, C ≈ 2 N + 2 · layers · context · attention width, for the shapes here:
    key/value heads that are fewer than the query heads, three matrices in the MLP, and, as in PaLM (Chowdhery et al.
    2022, arXiv:2204.02311, appendix B), both matrix products of the attention and no discount for the mask, since the
    whole square is computed. The head counts with its padding, the embedding is looked up and costs nothing. Not
    counted: norms, rotations, softmax and the gate's activation, and what `remat` computes twice.

    Args:
        model: its shape.
        rows: of the head, padding included.
        keys: that each token is held against: the tokens of a row, or the slots of a cache.
    """
    return backbone_flops(model, keys) + head_flops(model, rows)


def row_flops(model: ModelConfig, rows: int, tokens: int, items: int = 0, places: int = 0) -> int:
    """FLOPs of a forward pass over a row, counted as in `token_flops`.

    Args:
        model: its shape.
        rows: of the head, padding included.
        tokens: of the row, padding included.
        items: of the row, for a model that steps once an item: room for so many.
        places: tokens of the longest item, likewise.
    """
    steps = tokens if model.head == "token" else items
    return steps * backbone_flops(model, steps, places) + tokens * head_flops(model, rows)


def backbone_flops(model: ModelConfig, keys: int, places: int = 0) -> int:
    """FLOPs of one step of the layers, counted as in `token_flops`.

    Args:
        model: its shape.
        keys: that the step is held against.
        places: where steps are items, the tokens of the longest: each item has a matrix for each of them.
    """
    projections = 2 * model.width * model.head_size * (2 * model.heads + 2 * model.kv_heads)
    attention = 2 * 2 * model.heads * model.head_size * keys
    mlp = 2 * 3 * model.width * model.mlp_width
    into = 0 if model.head == "token" else 2 * model.width * model.width * places
    return model.depth * (projections + attention + mlp) + into


def head_flops(model: ModelConfig, rows: int) -> int:
    """FLOPs that the logits of one token take behind the backbone, `rows` of them, padding included."""
    mlps = 0 if model.head == "token" else 2 * 3 * model.width * model.mlp_width * model.head_depth
    return mlps + 2 * model.width * rows
