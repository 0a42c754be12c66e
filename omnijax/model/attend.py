"""Attention in training: causal, within the documents of packed sequences, in one of several implementations.

All of them compute softmax(q·k / √k) v over the keys of the same document at places up to the query's own. Query t is
at place `offset + t` of its sequence. If the tokens of sequences are split over devices, keys are still those of whole
sequences. Padding is a document of its own, so that every query has a key. `cudnn` (NVIDIA GPUs) and `splash` (TPUs)
are fused kernels of JAX, which never write the scores to memory.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Bool, Float, Int

from omnijax.errors import ConfigError

BLOCK = 128  # queries whose weights are in memory at one time
MASKED = -1e30  # score of a masked key: its weight is 0, and differences of two scores are finite
LANES = 128  # of a TPU's vector unit: blocks of splash attention are multiples of it
SPLASH_BLOCK = 512
PADDING = -2  # document of the padding that fills up a block
ATTENDED = "attended"
"""Name, for `jax.checkpoint`, of the result of attention and of what else a kernel's backward pass needs."""


class AttentionInputs(NamedTuple):
    """What attention reads.

    Attributes:
        q_bthk: queries of any float dtype, which is that of the result.
        k_bsnk: keys at places 0 … s - 1.
        v_bsnk: their values.
        documents_bt: number of each query's document; -1 for padding.
        documents_bs: number of each key's document.
        offset: place of the first query, static or traced.
    """

    q_bthk: Float[Array, "b t h k"]
    k_bsnk: Float[Array, "b s n k"]
    v_bsnk: Float[Array, "b s n k"]
    documents_bt: Int[Array, "b t"]
    documents_bs: Int[Array, "b s"]
    offset: int | Int[Array, ""] = 0


def resolve(kind: str, platform: str, head_size: int, dtype: str) -> str:
    """The implementation for `model.attention`; `auto` takes the platform's kernel if it has the shape, else `blocks`.

    Args:
        kind: as in the configuration.
        platform: of the devices that the program is for: `cpu`, `gpu` or `tpu`.
        head_size: of each head.
        dtype: of queries, keys and values.

    Raises:
        ConfigError: the kernel doesn't support the platform, the shape or the dtype.
    """
    platform = {"cuda": "gpu", "rocm": "gpu"}.get(platform, platform)
    devices = f"the devices are of platform {platform!r}"
    multiple = f"needs model.head_size to be a multiple of 8 up to 128, it is {head_size}"
    wants = {
        "cudnn": (
            (platform == "gpu", f"needs GPUs, {devices}"),
            (dtype in ("bfloat16", "float16"), f"needs model.compute_dtype = 'bfloat16', it is {dtype!r}"),
            (head_size % 8 == 0 and head_size <= 128, multiple),
        ),
        "splash": ((platform == "tpu", f"needs TPUs, {devices}"),),
    }
    broken = {fused: [rule for holds, rule in rules if not holds] for fused, rules in wants.items()}
    if kind == "auto":
        return next((fused for fused, rules in broken.items() if not rules), "blocks")
    for rule in broken.get(kind, ()):
        raise ConfigError("model.attention", kind, rule, "use auto, which takes blocks there")
    return kind


def attend(kind: str, inputs: AttentionInputs) -> Float[Array, "b t h k"]:
    """Attention of a kind, with the softmax in float32. Groups of h / n query heads share one key/value head."""
    ways = {"reference": reference, "blocks": blocks, "cudnn": cudnn, "splash": splash}
    y_bthk = ways[kind](inputs)
    # Splash attention names its own result, in another order of axes, and its log-sum-exp.
    return y_bthk if kind == "splash" else checkpoint_name(y_bthk, ATTENDED)


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
        q_bngtk, k_bnsk, v_bnsk = q_bngtk[:, :, :, start:end], k_bnsk[:, :, :last], v_bnsk[:, :, :last]
        shape = q_bngtk.shape
        q_bnqk = q_bngtk.reshape(*shape[:2], -1, size)
        scores = product("bnqk,bnsk->bnqs", q_bnqk, k_bnsk).reshape(*shape[:4], last)
        scores = jnp.where(mask_bts[:, None, None], scores, MASKED)
        weights = jnp.exp(scores - jax.lax.stop_gradient(jnp.max(scores, axis=-1, keepdims=True)))
        y_bnqk = product("bnqs,bnsk->bnqk", weights.astype(q_bngtk.dtype).reshape(*q_bnqk.shape[:3], last), v_bnsk)
        # The result is divided by the sum of the weights, not each weight.
        return (y_bnqk.reshape(shape) / jnp.sum(weights, axis=-1, keepdims=True)).astype(q_bngtk.dtype)

    static = (0, 4) if isinstance(offset, int) else (0,)
    block = jax.checkpoint(block, static_argnums=static)
    y_bngtk = [block(start, q_bngtk, k_bnsk, v_bnsk, offset) for start in range(0, t, BLOCK)]
    return jnp.moveaxis(jnp.concatenate(y_bngtk, axis=3), 3, 1).reshape(rows, t, heads, size)


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


def cudnn(inputs: AttentionInputs) -> Float[Array, "b t h k"]:
    """`jax.nn.dot_product_attention` with cuDNN; the mask is a bias of b × t × s.

    With a bias, the backward pass supports only even numbers of queries and keys, so that odd ones are padded.
    """
    q_bthk, k_bsnk, v_bsnk, documents_bt, documents_bs, offset = inputs
    t, s = q_bthk.shape[1], k_bsnk.shape[1]
    q_bthk, documents_bt = _filled(q_bthk, 1, t % 2), _filled(documents_bt, 1, t % 2, PADDING)
    k_bsnk, v_bsnk = _filled(k_bsnk, 1, s % 2), _filled(v_bsnk, 1, s % 2)
    documents_bs = _filled(documents_bs, 1, s % 2, PADDING)
    whole = isinstance(offset, int) and offset == 0 and t == s
    same_bts = documents_bt[:, :, None] == documents_bs[:, None, :]
    mask_bts = same_bts if whole else visible(documents_bt, documents_bs, offset)
    kernel = functools.partial(jax.nn.dot_product_attention, is_causal=whole, implementation="cudnn")
    return kernel(q_bthk, k_bsnk, v_bsnk, mask=mask_bts[:, None])[:, :t]


def splash(inputs: AttentionInputs, interpret: bool = False) -> Float[Array, "b t h k"]:
    """Splash attention with documents as its segments; it leaves out blocks of keys behind a block of queries.

    Args:
        inputs: the number of keys and the place of the first query are multiples of the number of queries.
        interpret: use the interpreter of Pallas, which runs on any platform.
    """
    from jax.experimental.pallas.ops.tpu import splash_attention as kernels

    q_bthk, k_bsnk, v_bsnk, documents_bt, documents_bs, offset = inputs
    t, s, heads, size = q_bthk.shape[1], k_bsnk.shape[1], *q_bthk.shape[2:]
    parts, more = s // t, -t % LANES
    q_bhtk = jnp.swapaxes(_filled(q_bthk * jnp.asarray(size**-0.5, q_bthk.dtype), 1, more), 1, 2)
    k_bnsk, v_bnsk = (jnp.swapaxes(_filled(x, parts, more), 1, 2) for x in (k_bsnk, v_bsnk))
    ids = _filled(documents_bt, 1, more, PADDING), _filled(documents_bs, parts, more, PADDING)
    block = next(size for size in (SPLASH_BLOCK, SPLASH_BLOCK // 2, LANES) if (t + more) % size == 0)
    names = ("q", "kv", "kv_compute", "q_dkv", "kv_dkv", "kv_dkv_compute", "q_dq", "kv_dq")
    sizes: dict[str, Any] = {f"block_{name}": block for name in names}
    kernel = kernels.make_splash_mha(
        kernels.MultiHeadMask([kernels.CausalMask((parts * (t + more), parts * (t + more)))] * heads),
        block_sizes=kernels.BlockSizes(**sizes),
        head_shards=1,
        q_seq_shards=parts,
        residual_checkpoint_name=ATTENDED,
        interpret=interpret,
    )

    def of_part(x: Array) -> Array:
        """The slice for this part of the queries, as JAX shards a kernel (its `manual_sharding_spec`)."""
        axis = 1 if x.ndim == 3 else 0  # places [t], or blocks to visit [heads, blocks of queries, …]
        size = x.shape[axis] // parts
        return jax.lax.dynamic_slice_in_dim(x, offset // t * size, size, axis)

    if parts > 1:
        kernel = jax.tree.map(of_part, kernel)
    y_bhtk = jax.vmap(kernel)(q_bhtk, k_bnsk, v_bnsk, kernels.SegmentIds(*ids))
    return jnp.swapaxes(y_bhtk, 1, 2)[:, :t]


def _filled(x: Array, parts: int, more: int, value: int = 0) -> Array:
    """The array with `more` entries behind each part of axis 1."""
    if not more:
        return x
    split = x.reshape(x.shape[0], parts, -1, *x.shape[2:])
    widths = [(0, 0), (0, 0), (0, more)] + [(0, 0)] * (x.ndim - 2)
    return jnp.pad(split, widths, constant_values=value).reshape(x.shape[0], -1, *x.shape[2:])
