"""Sums of gradients that each layer adds to where they lie, so that micro-batches share one copy of them.

`jax.grad` of a micro-batch gives a whole tree of gradients, to be added to those of the micro-batches before: two
trees. Here the sums so far come in by the back door, as the cotangent of sums that go with the layers and that nothing
reads; each layer adds what it finds to its own part, in place, and what comes out at the front is the new sums.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Int

Sums = Any
"""A tree like that of the parameters, or None where gradients aren't summed this way."""


@jax.custom_vjp
def tied(weights: Any, sums: Sums, number: Int[Array, ""]) -> tuple[Any, Sums]:
    """The weights of a layer, and the sums, which get their gradients."""
    return weights, sums


def _tied_forward(weights: Any, sums: Sums, number: Array) -> tuple[tuple[Any, Sums], Array]:
    return (weights, sums), number


def _tied_backward(number: Array, gradients: tuple[Any, Sums]) -> tuple[None, Sums, None]:
    def add(gradient: Array, into: Array) -> Array:
        part = lax.dynamic_index_in_dim(into, number, keepdims=False) + gradient
        return lax.dynamic_update_index_in_dim(into, part, number, 0)

    return None, jax.tree.map(add, *gradients), None


tied.defvjp(_tied_forward, _tied_backward)


@jax.custom_vjp
def tied_whole(weights: Any, sums: Sums) -> tuple[Any, Sums]:
    """Likewise, of what isn't in layers."""
    return weights, sums


def _tied_whole_forward(weights: Any, sums: Sums) -> tuple[tuple[Any, Sums], None]:
    return (weights, sums), None


def _tied_whole_backward(_: None, gradients: tuple[Any, Sums]) -> tuple[None, Sums]:
    return None, jax.tree.map(jnp.add, *gradients)


tied_whole.defvjp(_tied_whole_forward, _tied_whole_backward)
