import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from omnijax.errors import ConfigError
from omnijax.model import attend as module
from omnijax.model.attend import BLOCK, AttentionInputs, attend, blocks, reference, resolve


class Case(NamedTuple):
    """Shapes, and the place of the first query."""

    rows: int
    t: int
    s: int
    heads: int
    kv_heads: int
    size: int
    offset: int = 0


CASES = {
    "shorter than a block": Case(2, 95, 95, 4, 2, 8),
    "not a multiple of blocks": Case(2, 2 * BLOCK + 43, 2 * BLOCK + 43, 2, 1, 8),
    "one of three parts": Case(2, 40, 120, 2, 2, 16, offset=40),
    "the last of two parts": Case(1, 160, 320, 4, 1, 8, offset=160),
}


@pytest.fixture
def cudnn_elsewhere(monkeypatch) -> None:
    """The same public function without cuDNN, held to what cuDNN wants."""
    plain = jax.nn.dot_product_attention

    def checked(q: jax.Array, k: jax.Array, v: jax.Array, *, implementation: str, **options: Any) -> jax.Array:
        assert implementation == "cudnn"
        assert q.shape[1] % 2 == k.shape[1] % 2 == 0, "with a bias the backward pass wants even lengths"
        assert q.dtype == k.dtype == v.dtype
        return plain(q, k, v, implementation="xla", **options)

    monkeypatch.setattr(jax.nn, "dot_product_attention", checked)


@pytest.fixture
def splash_elsewhere(monkeypatch) -> None:
    """Splash attention by Pallas' interpreter."""
    monkeypatch.setattr(module, "splash", functools.partial(module.splash, interpret=True))


def arrays(case: Case, seed: int = 0) -> tuple[list[np.ndarray], np.ndarray, np.ndarray]:
    """Queries, keys, values and what the result is weighed with; documents of queries and keys, some of it padding."""
    random = np.random.default_rng(seed)
    wide, narrow = (case.rows, case.t, case.heads, case.size), (case.rows, case.s, case.kv_heads, case.size)
    floats = [random.normal(size=shape).astype(np.float32) for shape in (wide, narrow, narrow, wide)]
    documents = np.cumsum(random.random((case.rows, case.s)) < 5 / case.s, axis=1).astype(np.int32)
    documents[0, case.s - case.s // 5 :] = -1
    return floats, documents[:, case.offset : case.offset + case.t], documents


def slow(case: Case, floats: list[np.ndarray], documents: np.ndarray) -> list[np.ndarray]:
    """The result and the gradients of its weighted sum by queries, keys and values, a query at a time, in float64."""
    q, k, v, weights = (np.asarray(x, np.float64) for x in floats)
    y, by_q, by_k, by_v = (np.zeros_like(x) for x in (q, q, k, v))
    for b, t, h in np.ndindex(case.rows, case.t, case.heads):
        n, place = h // (case.heads // case.kv_heads), case.offset + t
        seen = [s for s in range(place + 1) if documents[b, s] == documents[b, place]]
        scores = k[b, seen, n] @ q[b, t, h] / np.sqrt(case.size)
        share = np.exp(scores - scores.max())
        share /= share.sum()
        y[b, t, h] = share @ v[b, seen, n]
        by_share = v[b, seen, n] @ weights[b, t, h]
        by_score = share * (by_share - share @ by_share) / np.sqrt(case.size)
        by_q[b, t, h] = by_score @ k[b, seen, n]
        by_k[b, seen, n] += np.outer(by_score, q[b, t, h])
        by_v[b, seen, n] += np.outer(share, weights[b, t, h])
    return [y, by_q, by_k, by_v]


@functools.cache
def expected(name: str) -> list[np.ndarray]:
    floats, _, documents = arrays(CASES[name])
    return slow(CASES[name], floats, documents)


def found(way: Callable[..., jax.Array], case: Case, dtype: Any, traced: bool = False) -> list[np.ndarray]:
    """What a way gives, and its gradients; with `traced` the program doesn't know the offset."""
    floats, documents_bt, documents_bs = arrays(case)
    q, k, v, weights = (jnp.asarray(x, dtype) for x in floats)

    def run(q: jax.Array, k: jax.Array, v: jax.Array, offset: Any) -> Any:
        def weighed(q: jax.Array, k: jax.Array, v: jax.Array) -> tuple[jax.Array, jax.Array]:
            y = way(AttentionInputs(q, k, v, documents_bt, documents_bs, offset))
            return jnp.sum(y.astype(jnp.float32) * weights), y

        gradients, y = jax.grad(weighed, argnums=(0, 1, 2), has_aux=True)(q, k, v)
        return [y, *gradients]

    results = (
        jax.jit(run)(q, k, v, case.offset) if traced else jax.jit(functools.partial(run, offset=case.offset))(q, k, v)
    )
    assert all(x.dtype == dtype for x in results)
    return [np.asarray(x, np.float64) for x in results]


def same(results: list[np.ndarray], wanted: list[np.ndarray], tolerance: float) -> None:
    for name, x, y in zip(("result", "by query", "by key", "by value"), results, wanted, strict=True):
        np.testing.assert_allclose(x, y, rtol=0, atol=tolerance * np.abs(y).max(), err_msg=name)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("way", [reference, blocks])
def test_values_and_gradients_are_those_of_the_plain_formula(way: Callable[..., jax.Array], name: str) -> None:
    same(found(way, CASES[name], jnp.float32), expected(name), 2e-6)


@pytest.mark.parametrize("way", [reference, blocks])
def test_an_offset_that_the_program_does_not_know(way: Callable[..., jax.Array]) -> None:
    name = "one of three parts"
    same(found(way, CASES[name], jnp.float32, traced=True), expected(name), 2e-6)


@pytest.mark.parametrize("way", [reference, blocks])
def test_bfloat16_stays_near(way: Callable[..., jax.Array]) -> None:
    name = "not a multiple of blocks"
    same(found(way, CASES[name], jnp.bfloat16), expected(name), 0.02)


@pytest.mark.usefixtures("cudnn_elsewhere")
@pytest.mark.parametrize("name", ["shorter than a block", "one of three parts"])
def test_cudnn_gets_the_mask_and_even_lengths(name: str) -> None:
    way = functools.partial(attend, "cudnn")
    same(found(way, CASES[name], jnp.float32), expected(name), 2e-6)


@pytest.mark.usefixtures("splash_elsewhere")
@pytest.mark.parametrize("name, traced", [("not a multiple of blocks", False), ("one of three parts", True)])
def test_splash_by_its_interpreter(name: str, traced: bool) -> None:
    way = functools.partial(attend, "splash")
    same(found(way, CASES[name], jnp.float32, traced), expected(name), 2e-6)


def test_scores_are_summed_in_float32() -> None:
    """Scores of 64 that differ by 1/8, which bfloat16 can't tell apart."""
    case = Case(1, 3, 3, 1, 1, 64)
    q = jnp.ones((1, 3, 1, 64), jnp.bfloat16)
    k = jnp.full((1, 3, 1, 64), 8.0, jnp.bfloat16).at[0, 1, 0, 0].set(9.0)
    v = jnp.eye(3, 64, dtype=jnp.bfloat16)[None, :, None]
    same_document = jnp.zeros((1, 3), jnp.int32)
    wanted = slow(case, [np.asarray(x, np.float64) for x in (q, k, v, q)], np.zeros((1, 3), int))[0]
    for way in (reference, blocks):
        run = jax.jit(lambda *arrays, way=way: way(AttentionInputs(*arrays)))
        y = np.asarray(run(q, k, v, same_document, same_document), np.float64)
        np.testing.assert_allclose(y, wanted, atol=2e-3)


@pytest.mark.parametrize("way", [reference, blocks])
def test_no_product_mixes_dtypes(way: Callable[..., jax.Array]) -> None:
    """Matrix units multiply bfloat16 by bfloat16; the backward pass, too."""
    case = CASES["shorter than a block"]
    floats, *documents = arrays(case)
    q, k, v, _ = (jnp.asarray(x, jnp.bfloat16) for x in floats)
    gradient = jax.grad(
        lambda *qkv: jnp.sum(way(AttentionInputs(*qkv, *documents)).astype(jnp.float32)), argnums=(0, 1, 2)
    )
    program = jax.jit(gradient).lower(q, k, v).as_text()
    operands = [line.split(":")[-1].split("->")[0] for line in program.splitlines() if "stablehlo.dot_general" in line]
    assert len(operands) >= 5
    assert all(both.count("bf16") == 2 for both in operands), operands


def test_blocks_skip_the_keys_behind_and_keep_no_weights() -> None:
    case = Case(1, 8 * BLOCK, 8 * BLOCK, 1, 1, 16)
    floats, *documents = arrays(case)
    q, k, v, _ = (jnp.asarray(x) for x in floats)
    work = {
        way: jax.jit(lambda *qkv, way=way: way(AttentionInputs(*qkv, *documents)))
        .lower(q, k, v)
        .cost_analysis()["flops"]
        for way in (reference, blocks)
    }
    assert work[blocks] < 0.6 * work[reference]
    backward = jax.eval_shape(
        lambda *qkv: jax.vjp(lambda *x: blocks(AttentionInputs(*x, *documents)), *qkv)[1], q, k, v
    )
    kept = [leaf.size for leaf in jax.tree.leaves(backward) if leaf.dtype == jnp.float32]
    assert max(kept) == q.size
    assert len(kept) <= 3 * case.t // BLOCK  # the same three arrays for each block


@pytest.mark.parametrize(
    "kind, platform, size, dtype, wanted",
    [
        ("auto", "cpu", 32, "float32", "blocks"),
        ("auto", "tpu", 64, "float32", "splash"),
        ("auto", "gpu", 64, "bfloat16", "cudnn"),
        ("auto", "cuda", 64, "bfloat16", "cudnn"),
        ("auto", "gpu", 64, "float32", "blocks"),
        ("auto", "gpu", 36, "bfloat16", "blocks"),
        ("auto", "", 64, "bfloat16", "blocks"),
        ("reference", "tpu", 64, "bfloat16", "reference"),
        ("blocks", "gpu", 64, "bfloat16", "blocks"),
        ("cudnn", "gpu", 128, "bfloat16", "cudnn"),
        ("splash", "tpu", 32, "bfloat16", "splash"),
    ],
)
def test_which_way_is_taken(kind: str, platform: str, size: int, dtype: str, wanted: str) -> None:
    assert resolve(kind, platform, size, dtype) == wanted


@pytest.mark.parametrize(
    "kind, platform, size, dtype, rule",
    [
        ("splash", "cpu", 128, "bfloat16", "needs TPUs"),
        ("splash", "gpu", 128, "bfloat16", "needs TPUs"),
        ("cudnn", "tpu", 128, "bfloat16", "needs GPUs"),
        ("cudnn", "gpu", 128, "float32", "compute_dtype"),
        ("cudnn", "gpu", 36, "bfloat16", "head_size"),
        ("cudnn", "gpu", 136, "bfloat16", "head_size"),
    ],
)
def test_what_cannot_be_is_refused(kind: str, platform: str, size: int, dtype: str, rule: str) -> None:
    with pytest.raises(ConfigError, match=rule) as refused:
        resolve(kind, platform, size, dtype)
    assert refused.value.field == "model.attention"
    assert refused.value.value == kind
