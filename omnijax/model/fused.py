"""Fused attention kernels of JAX, which never write the scores to memory: cuDNN on NVIDIA GPUs, splash on TPUs.

`cudnn_wants` and `splash_wants` say what they don't support, so that a configuration is refused before anything is
compiled.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

LANES = 128  # of a TPU's vector unit: blocks of splash attention are multiples of it
SPLASH_BLOCK = 512
ATTENDED = "attended"
"""Name, for `jax.checkpoint`, of the result of attention and of what else a kernel's backward pass needs."""
PADDING = -2  # document of the padding that fills up a block


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


def cudnn_wants(platform: str, head_size: int, dtype: str) -> str | None:
    """Why cuDNN's kernel can't be used; None if it can."""
    if platform != "gpu":
        return f"needs GPUs, the devices are of platform {platform!r}"
    if dtype not in ("bfloat16", "float16"):
        return f"needs model.compute_dtype = 'bfloat16', it is {dtype!r}"
    if head_size % 8 or head_size > 128:
        return f"needs model.head_size to be a multiple of 8 up to 128, it is {head_size}"
    return None


def splash_wants(platform: str) -> str | None:
    """Why splash attention can't be used; None if it can."""
    return None if platform == "tpu" else f"needs TPUs, the devices are of platform {platform!r}"


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
    places_t, places_s = offset + jnp.arange(q_bthk.shape[1]), jnp.arange(k_bsnk.shape[1])
    mask_bts = documents_bt[:, :, None] == documents_bs[:, None, :]
    if not whole:
        mask_bts &= (places_t[:, None] >= places_s[None, :])[None]
    y_bthk = jax.nn.dot_product_attention(
        q_bthk, k_bsnk, v_bsnk, mask=mask_bts[:, None], is_causal=whole, implementation="cudnn"
    )
    return y_bthk[:, :t]


def splash(inputs: AttentionInputs, interpret: bool = False) -> Float[Array, "b t h k"]:
    """Splash attention with documents as its segments; it leaves out blocks of keys behind a block of queries.

    Args:
        inputs: the number of keys and the place of the first query are multiples of the number of queries.
        interpret: use the interpreter of Pallas, which runs on any platform.
    """
    from jax.experimental.pallas.ops.tpu.splash_attention import SegmentIds

    q_bthk, k_bsnk, v_bsnk, documents_bt, documents_bs, offset = inputs
    t, s, size = q_bthk.shape[1], k_bsnk.shape[1], q_bthk.shape[3]
    parts, more = s // t, -t % LANES
    if s % t:
        raise ValueError(f"splash attention needs whole parts of {t} keys, there are {s}")
    q_bhtk = jnp.swapaxes(_filled(q_bthk * jnp.asarray(size**-0.5, q_bthk.dtype), 1, more), 1, 2)
    k_bnsk, v_bnsk = (jnp.swapaxes(_filled(x, parts, more), 1, 2) for x in (k_bsnk, v_bsnk))
    segments = SegmentIds(_filled(documents_bt, 1, more, PADDING), _filled(documents_bs, parts, more, PADDING))
    kernel = _splash_kernel(q_bhtk.shape[1], t + more, parts, interpret)
    if parts > 1:
        kernel = _part_of(kernel, offset // t, parts)
    y_bhtk = jax.vmap(kernel)(q_bhtk, k_bnsk, v_bnsk, segments)
    return jnp.swapaxes(y_bhtk, 1, 2)[:, :t]


def _splash_kernel(heads: int, t: int, parts: int, interpret: bool) -> Any:
    """The kernel for all queries of a sequence of `parts` parts with t tokens each."""
    from jax.experimental.pallas.ops.tpu.splash_attention import BlockSizes, CausalMask, MultiHeadMask, make_splash_mha

    block = next(size for size in (SPLASH_BLOCK, SPLASH_BLOCK // 2, LANES) if t % size == 0)
    names = ("q", "kv", "kv_compute", "q_dkv", "kv_dkv", "kv_dkv_compute", "q_dq", "kv_dq")
    sizes: dict[str, Any] = {f"block_{name}": block for name in names}
    return make_splash_mha(
        MultiHeadMask([CausalMask((parts * t, parts * t))] * heads),
        block_sizes=BlockSizes(**sizes),
        head_shards=1,
        q_seq_shards=parts,
        residual_checkpoint_name=ATTENDED,
        interpret=interpret,
    )


def _part_of(kernel: Any, number: int | Int[Array, ""], parts: int) -> Any:
    """The kernel for one part of the queries.

    A kernel describes its queries by arrays: places [t], and blocks to visit [heads, blocks of queries, …]. This takes
    the slices of one part; JAX shards the kernel in the same way (its `manual_sharding_spec`).
    """

    def of_part(x: Array) -> Array:
        axis = 1 if x.ndim == 3 else 0
        size = x.shape[axis] // parts
        return jax.lax.dynamic_slice_in_dim(x, number * size, size, axis)

    return jax.tree.map(of_part, kernel)


def _filled(x: Array, parts: int, more: int, value: int = 0) -> Array:
    """The array with `more` entries behind each part of axis 1."""
    if not more:
        return x
    split = x.reshape(x.shape[0], parts, -1, *x.shape[2:])
    widths = [(0, 0), (0, 0), (0, more)] + [(0, 0)] * (x.ndim - 2)
    return jnp.pad(split, widths, constant_values=value).reshape(x.shape[0], -1, *x.shape[2:])
