"""Attention in training: causal, within the documents of packed sequences, in one of several implementations.

All of them compute softmax(q·k / √k) v over the keys of the same document at places up to the query's own. Query t is
at place `offset + t` of its sequence. If the tokens of sequences are split over devices, keys are still those of whole
sequences. Padding is a document of its own, so that every query has a key.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Bool, Float, Int

from omnijax.errors import ConfigError
from omnijax.model import fused
from omnijax.model.fused import AttentionInputs

BLOCK = 128  # queries whose weights are in memory at one time
MASKED = -1e30  # score of a masked key: its weight is 0, and differences of two scores are finite
KINDS = ("reference", "blocks", "cudnn", "splash")


def resolve(kind: str, platform: str, head_size: int, dtype: str) -> str:
    """The implementation for `model.attention`, one of `KINDS`.

    `auto` gives the fused kernel of the platform if it supports the shape, and `blocks` otherwise.

    Args:
        kind: `auto` or one of `KINDS`.
        platform: of the devices that the program is for: `cpu`, `gpu` or `tpu`.
        head_size: of each head.
        dtype: of queries, keys and values.

    Raises:
        ConfigError: the kernel doesn't support the platform, the shape or the dtype.
    """
    platform = {"cuda": "gpu", "rocm": "gpu"}.get(platform, platform)
    wants = {"cudnn": fused.cudnn_wants(platform, head_size, dtype), "splash": fused.splash_wants(platform)}
    if kind == "auto":
        return next((fits for fits, rule in wants.items() if rule is None), "blocks")
    rule = wants.get(kind)
    if rule is not None:
        raise ConfigError("model.attention", kind, rule, "use auto, which takes blocks there")
    return kind


def attend(kind: str, inputs: AttentionInputs) -> Float[Array, "b t h k"]:
    """Attention of a kind, with the softmax in float32. Groups of h / n query heads share one key/value head."""
    ways = {"reference": reference, "blocks": blocks, "cudnn": fused.cudnn, "splash": fused.splash}
    y_bthk = ways[kind](inputs)
    # Splash attention names its own result, in another order of axes, and its log-sum-exp.
    return y_bthk if kind == "splash" else checkpoint_name(y_bthk, fused.ATTENDED)


def visible(
    documents_bt: Int[Array, "b t"], documents_bs: Int[Array, "b s"], offset: int | Int[Array, ""]
) -> Bool[Array, "b t s"]:
    """Whether each query sees each key."""
    places_t = offset + jnp.arange(documents_bt.shape[1])
    causal_ts = places_t[:, None] >= jnp.arange(documents_bs.shape[1])[None, :]
    return (documents_bt[:, :, None] == documents_bs[:, None, :]) & causal_ts[None]


def reference(inputs: AttentionInputs) -> Float[Array, "b t h k"]:
    """`attend` with whole matrices: all scores at once, masked ones too, and keys repeated for their group."""
    q_bthk, k_bsnk, v_bsnk, documents_bt, documents_bs, offset = inputs
    groups, scale = q_bthk.shape[2] // k_bsnk.shape[2], q_bthk.shape[3] ** -0.5
    q_bhtk = jnp.swapaxes(q_bthk, 1, 2)
    k_bhsk, v_bhsk = (jnp.repeat(jnp.swapaxes(x, 1, 2), groups, axis=1) for x in (k_bsnk, v_bsnk))
    scores_bhts = product("bhtk,bhsk->bhts", q_bhtk, k_bhsk) * scale
    mask_bts = visible(documents_bt, documents_bs, offset)
    weights_bhts = jax.nn.softmax(jnp.where(mask_bts[:, None], scores_bhts, MASKED), axis=-1)
    y_bhtk = product("bhts,bhsk->bhtk", weights_bhts.astype(q_bthk.dtype), v_bhsk)
    return jnp.swapaxes(y_bhtk.astype(q_bthk.dtype), 1, 2)


def blocks(inputs: AttentionInputs) -> Float[Array, "b t h k"]:
    """`attend` in blocks of queries, without the keys behind a block (with all keys if `offset` is traced).

    The backward pass computes the weights of a block again instead of keeping them. Heads come before places, and the
    query heads of a group are treated as further queries, so that no key is repeated.
    """
    q_bthk, k_bsnk, v_bsnk, documents_bt, documents_bs, offset = inputs
    rows, t, heads, size = q_bthk.shape
    s, groups = k_bsnk.shape[1], k_bsnk.shape[2]
    q_bthk = q_bthk * jnp.asarray(size**-0.5, q_bthk.dtype)  # cheaper than scaling the scores, of which there are more
    q_bngtk = jnp.moveaxis(q_bthk.reshape(rows, t, groups, heads // groups, size), 1, 3)
    k_bnsk, v_bnsk = jnp.swapaxes(k_bsnk, 1, 2), jnp.swapaxes(v_bsnk, 1, 2)

    def block(start: int, q_bngtk: Array, k_bnsk: Array, v_bnsk: Array, offset: int | Array) -> Array:
        """Slices the arrays inside, so that only whole arrays are kept for the backward pass."""
        end = min(start + BLOCK, t)
        last = min(offset + end, s) if isinstance(offset, int) else s
        mask_bts = visible(documents_bt[:, start:end], documents_bs[:, :last], offset + start)
        return _attend(q_bngtk[:, :, :, start:end], k_bnsk[:, :, :last], v_bnsk[:, :, :last], mask_bts)

    static = (0, 4) if isinstance(offset, int) else (0,)
    block = jax.checkpoint(block, static_argnums=static)
    y_bngtk = [block(start, q_bngtk, k_bnsk, v_bnsk, offset) for start in range(0, t, BLOCK)]
    return jnp.moveaxis(jnp.concatenate(y_bngtk, axis=3), 3, 1).reshape(rows, t, heads, size)


def _attend(
    q_bngtk: Float[Array, "b n g t k"],
    k_bnsk: Float[Array, "b n s k"],
    v_bnsk: Float[Array, "b n s k"],
    mask_bts: Bool[Array, "b t s"],
) -> Float[Array, "b n g t k"]:
    """Attention of some scaled queries. The result is divided by the sum of the weights, not each weight."""
    shape, s = q_bngtk.shape, k_bnsk.shape[2]
    q_bnqk = q_bngtk.reshape(*shape[:2], -1, shape[4])
    scores = product("bnqk,bnsk->bnqs", q_bnqk, k_bnsk).reshape(*shape[:4], s)
    scores = jnp.where(mask_bts[:, None, None], scores, MASKED)
    weights = jnp.exp(scores - jax.lax.stop_gradient(jnp.max(scores, axis=-1, keepdims=True)))
    y_bnqk = product("bnqs,bnsk->bnqk", weights.astype(q_bngtk.dtype).reshape(*q_bnqk.shape[:3], s), v_bnsk)
    return (y_bnqk.reshape(shape) / jnp.sum(weights, axis=-1, keepdims=True)).astype(q_bngtk.dtype)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def product(equation: str, a: Float[Array, "..."], b: Float[Array, "..."]) -> Float[Array, "..."]:
    """An einsum of two arrays with a float32 result; the backward pass computes in the dtype of `a` and `b`.

    Without this rule, the backward pass would multiply float32 by bfloat16, which no matrix unit supports.
    """
    result: Array = jnp.einsum(equation, a, b, preferred_element_type=jnp.float32)
    return result


def _product_forward(equation: str, a: Array, b: Array) -> tuple[Array, tuple[Array, Array]]:
    return product(equation, a, b), (a, b)


def _product_backward(equation: str, operands: tuple[Array, Array], gradient: Array) -> tuple[Array, Array]:
    a, b = operands
    gradient = gradient.astype(a.dtype)
    (by_a,) = jax.linear_transpose(lambda a: jnp.einsum(equation, a, b), a)(gradient)
    (by_b,) = jax.linear_transpose(lambda b: jnp.einsum(equation, a, b), b)(gradient)
    return by_a, by_b


product.defvjp(_product_forward, _product_backward)
