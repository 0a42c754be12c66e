"""Types for the kinds of ids, so that nobody can mistake one kind for another.

A model trains without any complaint on the codes of a codec that are passed as tokens, and learns nothing. The public
functions of this package take and return these types. The type checker and the functions themselves refuse others.
"""

from __future__ import annotations

import dataclasses
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array
from numpy.typing import NDArray

from omnijax.errors import VocabularyError

Numbers = NDArray[np.int64] | NDArray[np.uint32]
"""Whole numbers ≥ 0 on the host: int64[items], or uint32[items, limbs] with the least significant limb first."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class PrimaryIds:
    """Tokens, which are rows of the embedding and of the softmax. A pytree, so that `jit` takes it.

    Attributes:
        array: int[..., tokens], NumPy or JAX.
    """

    array: Any


@dataclasses.dataclass(frozen=True, eq=False)
class SecondaryIds:
    """Fragments of one space.

    Attributes:
        space: name of the space.
        numbers: ids within the space, on the host.
    """

    space: str
    numbers: Numbers


@dataclasses.dataclass(frozen=True, eq=False)
class GeneralIds:
    """General tokens by their own number, 0 … general - 1. Usually these are bytes.

    Attributes:
        array: int[items], on the host.
    """

    array: NDArray[np.int64]


def token_array(ids: PrimaryIds, size: int) -> Array:
    """Primary ids as int32[..., tokens]; other whole numbers become `size`, other types raise a `VocabularyError`."""
    tokens = expect(PrimaryIds, ids, "ids").array
    if not jnp.issubdtype(tokens.dtype, jnp.integer):
        raise VocabularyError("tokens", tokens.dtype, "tokens must be whole numbers", "convert them first")
    if tokens.dtype.itemsize >= 4 and tokens.dtype != jnp.int32:  # must not wrap around to a token
        module = np if isinstance(tokens, np.ndarray) else jnp
        tokens = module.where((tokens >= 0) & (tokens < size), tokens, size)
    return jnp.asarray(tokens.astype(np.int32))


Kind = TypeVar("Kind", PrimaryIds, SecondaryIds, GeneralIds)


def expect(kind: type[Kind], value: object, field: str) -> Kind:
    """Returns `value`; raises a `VocabularyError` if it has another type, such as a bare array."""
    if isinstance(value, PrimaryIds) and not hasattr(value.array, "dtype"):
        given = type(value.array).__name__
        raise VocabularyError(field, given, "PrimaryIds hold an array, NumPy's or JAX's", "use np.asarray")
    if not isinstance(value, kind):
        given = type(value).__name__
        rule = f"must be {kind.__name__}; {given} may count something else"
        raise VocabularyError(field, given, rule, f"wrap what really is one: {kind.__name__}(…)")
    return value
