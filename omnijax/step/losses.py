"""Next-token loss, weighted, and its parts by kind of token."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int


class LossParts(NamedTuple):
    """Sums over the targets of positive weight. The sums of the parts of a batch add up to those of the batch.

    Attributes:
        loss: Σ weight · nats.
        weight: Σ weight.
        correct: Σ weight · [the likeliest token is the target].
        kind_loss: float32[kinds], nats of the targets of each kind (`kind_names`), unweighted. In a mixture, these are
            the kinds of the first source, then those of the second one, and so on.
        kind_count: float32[kinds], number of targets of each kind.
    """

    loss: Float[Array, ""]
    weight: Float[Array, ""]
    correct: Float[Array, ""]
    kind_loss: Float[Array, " k"]
    kind_count: Float[Array, " k"]


CHUNK = 1024
"""Targets whose logits are computed together, where those of weight 0 are skipped."""


def sparse_loss(
    logits: Callable[[Array, Array], Float[Array, "n v"]], states_btd: Array, places_bt: Array, *targets: Any
) -> LossParts:
    """`next_token_loss` without computing the logits of targets of weight 0.

    Targets of positive weight are sorted to the front, and chunks that have none are skipped. `logits` gives those of
    some states and places, which are from `Transformer.behind`; `targets` are the other arguments of `next_token_loss`.
    """
    of_token, kinds = (states_btd, places_bt, *targets[:3]), targets[3]
    flat = [x.reshape(-1, *x.shape[2:]) for x in of_token]
    order = jnp.argsort(flat[3] <= 0)
    chunks = jnp.pad(order, (0, -len(order) % CHUNK), constant_values=-1).reshape(-1, CHUNK)

    def add(sums: LossParts, chunk: Array) -> tuple[LossParts, None]:
        states, places, target, weights, kind = (x[chunk] for x in flat)
        weights = jnp.where(chunk < 0, 0, weights)

        def parts() -> LossParts:
            return next_token_loss(logits(states, places)[None], target[None], weights[None], kind[None], kinds)

        none = functools.partial(jax.tree.map, jnp.zeros_like, sums)
        return jax.tree.map(jnp.add, sums, lax.cond((weights > 0).any(), parts, none)), None

    zero, by_kind = jnp.zeros(()), jnp.zeros(kinds)
    return lax.scan(add, LossParts(zero, zero, zero, by_kind, by_kind), chunks)[0]


def next_token_loss(
    logits_btv: Float[Array, "b t v"],
    targets_bt: Int[Array, "b t"],
    weights_bt: Float[Array, "b t"],
    kinds_bt: Int[Array, "b t"],
    kinds: int,
) -> LossParts:
    """Cross-entropy of each target under the logits at the token before it; log-sum-exp in float32.

    Targets of weight 0 count in none of the sums.

    Args:
        logits_btv: logits of any float dtype.
        targets_bt: the token that follows each token.
        weights_bt: weight of each target in the loss.
        kinds_bt: kind of each target, index into `kind_names`.
        kinds: number of kinds.
    """
    logits_btv = logits_btv.astype(jnp.float32)
    chosen_bt = jnp.take_along_axis(logits_btv, targets_bt[..., None], axis=-1)[..., 0]
    nats_bt = jax.nn.logsumexp(logits_btv, axis=-1) - chosen_bt
    correct_bt = jnp.argmax(logits_btv, axis=-1) == targets_bt
    kinds_btk = jax.nn.one_hot(kinds_bt, kinds) * (weights_bt > 0)[..., None]
    return LossParts(
        jnp.sum(nats_bt * weights_bt),
        jnp.sum(weights_bt),
        jnp.sum(correct_bt * weights_bt),
        jnp.einsum("bt,btk->k", jax.lax.stop_gradient(nats_bt), kinds_btk),
        jnp.sum(kinds_btk, axis=(0, 1)),
    )
