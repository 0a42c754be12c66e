"""Gradients of micro-batches, accumulated in place, so that there is one copy of them.

`jax.grad` of a micro-batch would give a second tree of gradients, to be added to the sum of the first. Here the sum so
far enters the backward pass as the cotangent of an unused output, which passes through all layers. The backward pass of
each layer adds its gradients to that cotangent in place. The result of the backward pass is the new sum.
"""

from __future__ import annotations

from typing import Any

import jax
from jax import lax
from jaxtyping import Array, Int

Sums = Any
"""A tree like that of the parameters; None if gradients aren't accumulated this way."""


@jax.custom_vjp
def tied(weights: Any, sums: Sums, number: Int[Array, ""] | None = None) -> tuple[Any, Sums]:
    """The weights of a layer, and the sums; the backward pass adds the gradients of the weights to the sums.

    Args:
        weights: of the layer.
        sums: of all layers, stacked.
        number: of the layer; None for parameters outside the layers, which aren't stacked.
    """
    return weights, sums


def _tied_forward(weights: Any, sums: Sums, number: Array | None) -> tuple[tuple[Any, Sums], Array | None]:
    return (weights, sums), number


def _tied_backward(number: Array | None, gradients: tuple[Any, Sums]) -> tuple[None, Sums, None]:
    def add(gradient: Array, into: Array) -> Array:
        if number is None:
            return gradient + into
        part = lax.dynamic_index_in_dim(into, number, keepdims=False) + gradient
        return lax.dynamic_update_index_in_dim(into, part, number, 0)

    return None, jax.tree.map(add, *gradients), None


tied.defvjp(_tied_forward, _tied_backward)
