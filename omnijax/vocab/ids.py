"""Kinds of whole numbers that must not be taken for one another, each with a type of its own.

A codec's codes fed to a model as if they were its tokens train without a complaint and mean nothing. The borders of
this package take and give these types, so that neither the type checker nor a run lets one pass for another.
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
    """Tokens: rows of the embedding and of the softmax. A pytree, so that it goes through `jit`.

    Attributes:
        array: int[..., tokens], NumPy or JAX.
    """

    array: Any

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the array."""
        return tuple(self.array.shape)


@dataclasses.dataclass(frozen=True, eq=False)
class SecondaryIds:
    """Fragments of one space.

    Attributes:
        space: its name.
        numbers: ids within the space, on the host.
    """

    space: str
    numbers: Numbers


@dataclasses.dataclass(frozen=True, eq=False)
class GeneralIds:
    """General tokens by their own number, 0 … general - 1: bytes, unless the vocabulary says otherwise.

    Attributes:
        array: int[items], on the host.
    """

    array: NDArray[np.int64]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class Digits:
    """Digits of numbers, most significant first. A pytree, so that it goes through `jit`.

    Attributes:
        array: int[..., places], NumPy or JAX.
        radices: of each place.
    """

    array: Any
    radices: tuple[int, ...] = dataclasses.field(metadata={"static": True})


def token_array(ids: PrimaryIds, size: int) -> Array:
    """int32[..., tokens] of primary ids; what is no token becomes `size`, whatever integers they were.

    Raises:
        VocabularyError: these are no primary ids, or not whole numbers.
    """
    tokens = expect(PrimaryIds, ids, "ids").array
    if not jnp.issubdtype(tokens.dtype, jnp.integer):
        raise VocabularyError("tokens", tokens.dtype, "tokens must be whole numbers", "convert them before decoding")
    if tokens.dtype.itemsize >= 4 and tokens.dtype != jnp.int32:  # must not wrap around to a token
        module = np if isinstance(tokens, np.ndarray) else jnp
        tokens = module.where((tokens >= 0) & (tokens < size), tokens, size)
    return jnp.asarray(tokens.astype(np.int32))


Kind = TypeVar("Kind", PrimaryIds, SecondaryIds, GeneralIds, Digits)


def expect(kind: type[Kind], value: object, field: str) -> Kind:
    """`value`, if it is of this kind.

    Raises:
        VocabularyError: it is another kind of numbers, or an array that doesn't say what it is.
    """
    if isinstance(value, PrimaryIds) and not hasattr(value.array, "dtype"):
        given = type(value.array).__name__
        raise VocabularyError(field, given, "PrimaryIds hold an array, NumPy's or JAX's", "use np.asarray")
    if not isinstance(value, kind):
        given = type(value).__name__
        rule = f"must be {kind.__name__}; {given} may count something else"
        raise VocabularyError(field, given, rule, f"wrap what really is one: {kind.__name__}(…)")
    return value
