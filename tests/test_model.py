import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import Any

import flax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from omnijax.config import ModelConfig
from omnijax.errors import ConfigError
from omnijax.model.layers import NORM_EPSILON, RMSNorm, rotate, rotations_at, token_keys
from omnijax.model.transformer import Params, Transformer, parameter_count

CONFIG = ModelConfig(depth=2, width=16, heads=4, kv_heads=2, head_size=8, mlp_width=24)
TOKENS, ROWS, LENGTH = 31, 4, 12
# NNX is to give up its graph mode one day; proofs run everything without it as well, in versions that have the switch.
HAS_TREE_MODE = hasattr(flax.config, "nnx_graph_mode")
GRAPH_MODES = [True, *[pytest.param(False, marks=pytest.mark.proof)] * HAS_TREE_MODE]


@pytest.fixture(scope="module", autouse=True, params=GRAPH_MODES, ids=lambda on: "graph" if on else "tree")
def graph_mode(request) -> Iterator[None]:
    jax.clear_caches()  # what was traced in the other mode
    before = {name: getattr(flax.config, name) for name in ("nnx_graph_mode",) if hasattr(flax.config, name)}
    for name in before:
        flax.config.update(name, request.param)
    yield
    for name, value in before.items():
        flax.config.update(name, value)


@pytest.fixture(scope="module")
def model(graph_mode: None) -> Transformer:
    return Transformer(CONFIG, TOKENS)


@pytest.fixture(scope="module")
def params(model: Transformer) -> Params:
    """Random ones; the scales of norms too."""
    random = np.random.default_rng(1)
    shapes = jax.eval_shape(model.init, jax.random.key(0))
    return jax.tree.map(lambda leaf: random.normal(scale=0.4, size=leaf.shape).astype(leaf.dtype), shapes)


@pytest.fixture(scope="module")
def forward(model: Transformer) -> Callable[..., jax.Array]:
    return jax.jit(model.__call__)


@pytest.fixture(scope="module")
def extend(model: Transformer) -> Callable[..., Any]:
    return jax.jit(model.extend)


def some_tokens(seed: int = 0, rows: int = ROWS, length: int = LENGTH) -> np.ndarray:
    """Each token at most once in a row."""
    random = np.random.default_rng(seed)
    return np.stack([random.permutation(TOKENS)[:length] for _ in range(rows)]).astype(np.int32)


def one_document(tokens_bt: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Tokens, positions and documents of rows that are a document each."""
    return tokens_bt, np.broadcast_to(np.arange(tokens_bt.shape[1]), tokens_bt.shape), np.zeros_like(tokens_bt)


def packed(tokens_bt: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The same with a document of 5, one of 4 and padding."""
    positions = np.array([*range(5), *range(4), 0, 0, 0], np.int32)
    documents = np.array([0] * 5 + [1] * 4 + [-1] * 3, np.int32)
    shape = tokens_bt.shape
    return tokens_bt, np.broadcast_to(positions, shape), np.broadcast_to(documents, shape)


def slow_forward(config: ModelConfig, params: Params, tokens_t: np.ndarray) -> np.ndarray:
    """Logits of one document by plain formulas, in float64 and without a batch."""
    params = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)

    def norm(x: np.ndarray, scale: np.ndarray) -> np.ndarray:
        return x / np.sqrt(np.mean(x**2, axis=-1, keepdims=True) + NORM_EPSILON) * scale

    def rotated(vector: np.ndarray, position: int) -> np.ndarray:
        half = config.head_size // 2
        pairs = vector[:half] + 1j * vector[half:]
        turned = pairs * np.exp(1j * position * config.rope_base ** (-np.arange(half) / half))
        return np.concatenate([turned.real, turned.imag])

    x_td = params["ends"]["embed"][tokens_t]
    for number in range(config.depth):
        layer = jax.tree.map(lambda leaf: leaf[number], params["layers"])  # noqa: B023 (used at once)
        attention, mlp = layer["attention"], layer["mlp"]
        h_td = norm(x_td, layer["attention_norm"]["scale"])
        for t in range(len(tokens_t)):
            for head in range(config.heads):
                group = head // (config.heads // config.kv_heads)
                query = rotated(norm(h_td[t] @ attention["query"][:, head], attention["query_norm"]["scale"]), t)
                keys = [
                    rotated(norm(h_td[s] @ attention["key"][:, group], attention["key_norm"]["scale"]), s)
                    for s in range(t + 1)
                ]
                scores = np.exp([query @ key / np.sqrt(config.head_size) for key in keys])
                values = [h_td[s] @ attention["value"][:, group] for s in range(t + 1)]
                mean = sum(score * value for score, value in zip(scores, values, strict=True)) / scores.sum()
                x_td[t] = x_td[t] + mean @ attention["out"][head]
        h_td = norm(x_td, layer["mlp_norm"]["scale"])
        gate = h_td @ mlp["gate"]
        x_td = x_td + (gate / (1 + np.exp(-gate)) * (h_td @ mlp["up"])) @ mlp["down"]
    return (norm(x_td, params["ends"]["norm"]["scale"]) @ params["ends"]["head"])[:, :TOKENS]


def test_logits_are_those_of_the_plain_formulas(params: Params, forward) -> None:
    tokens_bt = some_tokens()
    logits_btv = forward(params, *one_document(tokens_bt))
    assert logits_btv.shape == (ROWS, LENGTH, TOKENS)
    for logits_tv, tokens_t in zip(logits_btv, tokens_bt, strict=True):
        np.testing.assert_allclose(logits_tv, slow_forward(CONFIG, params, tokens_t), rtol=1e-4, atol=1e-4)


def test_packed_documents_give_what_each_gives_alone(params: Params, forward) -> None:
    tokens_bt = some_tokens()
    logits_btv = forward(params, *packed(tokens_bt))
    for logits_tv, tokens_t in zip(logits_btv, tokens_bt, strict=True):
        np.testing.assert_allclose(logits_tv[:5], slow_forward(CONFIG, params, tokens_t[:5]), rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(logits_tv[5:9], slow_forward(CONFIG, params, tokens_t[5:9]), rtol=1e-4, atol=1e-4)


@pytest.fixture(scope="module")
def slopes(model: Transformer, params: Params) -> Callable[..., jax.Array]:
    """Of one direction of the logits at each place of a row, with respect to the embedding."""

    def logits_at(embed: jax.Array, t: jax.Array, direction_v: jax.Array, *inputs: jax.Array) -> jax.Array:
        changed = {**params, "ends": {**params["ends"], "embed": embed}}
        return model(changed, *inputs)[0, t] @ direction_v

    return jax.jit(jax.vmap(jax.grad(logits_at), (None, 0, 0, None, None, None)))


@pytest.mark.parametrize("layout", [one_document, packed])
def test_gradients_with_respect_to_later_tokens_and_other_documents_are_exactly_zero(
    params: Params, slopes, layout
) -> None:
    """Each token stands once in the row, so that its row of the embedding is the token there and nothing else."""
    tokens_bt, positions_bt, documents_bt = layout(some_tokens(rows=1))

    directions_tv = jax.random.normal(jax.random.key(2), (LENGTH, TOKENS))
    inputs = (tokens_bt, positions_bt, documents_bt)
    gradients = slopes(params["ends"]["embed"], np.arange(LENGTH), directions_tv, *inputs)
    gradients_tsd = np.asarray(gradients)[:, tokens_bt[0]]
    may_see = np.tril(np.ones((LENGTH, LENGTH), bool)) & (documents_bt[0][:, None] == documents_bt[0][None, :])
    assert not gradients_tsd[~may_see].any()
    assert gradients_tsd[may_see].any(axis=-1).all()
    absent = np.setdiff1d(np.arange(params["ends"]["embed"].shape[0]), tokens_bt[0])
    assert not np.asarray(gradients)[:, absent].any()


def test_other_tokens_later_change_no_bit(params: Params, forward) -> None:
    tokens_bt = some_tokens()
    before = np.asarray(forward(params, *one_document(tokens_bt)))
    for t in range(1, LENGTH):
        changed = tokens_bt.copy()
        changed[:, t:] = (changed[:, t:] + 1) % TOKENS
        after = np.asarray(forward(params, *one_document(changed)))
        np.testing.assert_array_equal(before[:, :t], after[:, :t])
        assert (before[:, t:] != after[:, t:]).any(axis=(1, 2)).all()


def test_a_row_is_the_same_in_any_batch(params: Params, forward) -> None:
    tokens_bt = some_tokens()
    together = np.asarray(forward(params, *one_document(tokens_bt)))
    order = [2, 0, 3, 1]
    np.testing.assert_array_equal(forward(params, *one_document(tokens_bt[order])), together[order])
    np.testing.assert_allclose(forward(params, *one_document(tokens_bt[:1])), together[:1], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("read_at_once", [1, 5])
def test_the_cache_gives_the_logits_of_the_whole_sequence(
    model: Transformer, params: Params, forward, extend, read_at_once: int
) -> None:
    tokens_bt, positions_bt, documents_bt = one_document(some_tokens())
    whole = forward(params, tokens_bt, positions_bt, documents_bt)
    weights = model.unstacked(params)
    first = slice(read_at_once)
    logits, cache = extend(weights, model.empty_memory(ROWS, LENGTH), tokens_bt[:, first], positions_bt[:, first])
    found = [logits]
    for t in range(read_at_once, LENGTH):
        logits, cache = extend(weights, cache, tokens_bt[:, t : t + 1], positions_bt[:, t : t + 1])
        found.append(logits)
    np.testing.assert_allclose(np.concatenate(found, axis=1), whole, rtol=1e-5, atol=1e-5)


def test_prompts_of_different_lengths_go_on_at_their_own_ends(
    model: Transformer, params: Params, forward, extend
) -> None:
    """Right-padded prompts: what the padding left in the cache is overwritten, and never seen before that."""
    tokens_bt, positions_bt, documents_bt = one_document(some_tokens())
    whole = np.asarray(forward(params, tokens_bt, positions_bt, documents_bt))
    lengths = np.array([1, 6, 3, 4])
    prompts = np.where(positions_bt[:, :6] < lengths[:, None], tokens_bt[:, :6], 0)
    weights = model.unstacked(params)
    logits, cache = extend(weights, model.empty_memory(ROWS, LENGTH), prompts, positions_bt[:, :6])
    for row, length in enumerate(lengths):
        np.testing.assert_allclose(logits[row, :length], whole[row, :length], rtol=1e-5, atol=1e-5)
    for step in range(LENGTH - 6):
        at = (lengths + step)[:, None]
        logits, cache = extend(weights, cache, np.take_along_axis(tokens_bt, at, axis=1), at)
        np.testing.assert_allclose(logits[:, 0], whole[np.arange(ROWS), at[:, 0]], rtol=1e-5, atol=1e-5)


def test_norm_and_rotation_are_their_formulas() -> None:
    x = np.random.default_rng(4).normal(size=(2, 3, 1, 8)) * 10
    norm = RMSNorm(8)
    norm.scale[...] = jnp.arange(1.0, 9.0)
    expected = x / np.sqrt((x**2).mean(axis=-1, keepdims=True) + NORM_EPSILON) * np.arange(1.0, 9.0)
    np.testing.assert_allclose(norm(jnp.asarray(x, jnp.float32)), expected, rtol=1e-5)
    assert norm(jnp.asarray(x, jnp.bfloat16)).dtype == jnp.bfloat16

    positions = np.array([[0, 1, 7], [3, 2, 500]])
    turned = rotate(jnp.asarray(x, jnp.float32), rotations_at(jnp.asarray(positions), 8, 100.0))
    angles = positions[..., None, None] * 100.0 ** (-np.arange(4) / 4)
    pairs = (x[..., :4] + 1j * x[..., 4:]) * np.exp(1j * angles)
    np.testing.assert_allclose(turned, np.concatenate([pairs.real, pairs.imag], axis=-1), rtol=1e-3, atol=1e-3)


def test_only_distances_matter(params: Params, forward) -> None:
    tokens_bt, positions_bt, documents_bt = one_document(some_tokens())
    near = forward(params, tokens_bt, positions_bt, documents_bt)
    np.testing.assert_allclose(forward(params, tokens_bt, positions_bt + 50, documents_bt), near, rtol=1e-4, atol=1e-4)


@pytest.fixture(scope="module")
def loss_and_gradients(params: Params) -> Callable[..., tuple[jax.Array, Params]]:
    """Of a variant of the model with the same parameters."""

    @functools.cache
    def of(**change) -> tuple[jax.Array, Params]:
        return jax.jit(jax.value_and_grad(functools.partial(some_loss, change)))(params)

    return of


def some_loss(change: dict, params: Params) -> jax.Array:
    """Of the first token at each place."""
    variant = Transformer(dataclasses.replace(CONFIG, **change), TOKENS)
    logits_btv = variant(params, *packed(some_tokens())).astype(jnp.float32)
    return -jax.nn.log_softmax(logits_btv)[..., 0].mean()


@pytest.mark.parametrize(
    "change",
    [
        {"remat": "dots"},
        {"remat": "attention", "unroll": 2},
        {"remat": "full", "unroll": 9},
        *(pytest.param(one, marks=pytest.mark.proof) for one in ({"remat": "full"}, {"unroll": 2})),
    ],
)
def test_remat_and_unroll_change_no_result(loss_and_gradients, change: dict) -> None:
    plain, changed = loss_and_gradients(), loss_and_gradients(**change)
    for one, other in zip(jax.tree.leaves(plain), jax.tree.leaves(changed), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


@pytest.mark.skipif(not HAS_TREE_MODE, reason="this version of Flax has no switch for its graph mode")
def test_graph_mode_changes_no_result(loss_and_gradients, params: Params) -> None:
    expected = loss_and_gradients()
    graph_mode = flax.config.nnx_graph_mode
    jax.clear_caches()  # what was traced in the other mode
    flax.config.update("nnx_graph_mode", False)
    try:
        found = jax.jit(jax.value_and_grad(functools.partial(some_loss, {})))(params)
    finally:
        flax.config.update("nnx_graph_mode", graph_mode)
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_array_equal(one, other)


def test_dropout_drops_by_its_key_in_training_alone(params: Params, forward) -> None:
    inputs = packed(some_tokens())
    rows, places = (jnp.arange(size) for size in inputs[0].shape)
    first, second = (token_keys(jax.random.key(seed), rows, places) for seed in range(2))
    plain = forward(params, *inputs)
    np.testing.assert_array_equal(forward(params, *inputs, first), plain)  # a key, and nothing to drop
    dropping = jax.jit(Transformer(dataclasses.replace(CONFIG, dropout=0.5), TOKENS).__call__)
    np.testing.assert_array_equal(dropping(params, *inputs), plain)
    dropped = dropping(params, *inputs, first)
    np.testing.assert_array_equal(dropping(params, *inputs, first), dropped)
    for other in (plain, dropping(params, *inputs, second)):
        assert (np.asarray(other) != dropped).any(axis=-1).all()
    # What is kept is scaled, so that the mean over many masks is what an undropped layer adds.
    kept = model_drop(jnp.ones((*inputs[0].shape, 5_000)), first)
    assert set(np.unique(kept).tolist()) == {0.0, 2.0}
    assert float(kept.mean()) == pytest.approx(1, abs=0.02)


def model_drop(x: jax.Array, keys: jax.Array) -> jax.Array:
    return Transformer(dataclasses.replace(CONFIG, dropout=0.5), TOKENS)._drop(x, keys, jnp.int32(0))


def test_bfloat16_computes_near_and_keeps_float32_parameters(params: Params, forward) -> None:
    half = Transformer(dataclasses.replace(CONFIG, compute_dtype="bfloat16"), TOKENS)
    assert {leaf.dtype for leaf in jax.tree.leaves(jax.eval_shape(half.init, jax.random.key(0)))} == {jnp.dtype("f4")}
    logits = jax.jit(half.__call__)(params, *packed(some_tokens()))
    assert logits.dtype == jnp.bfloat16
    assert half.empty_memory(1, 2).keys[0].dtype == jnp.bfloat16
    exact = np.asarray(forward(params, *packed(some_tokens())))
    assert np.abs(logits.astype(jnp.float32) - exact).max() < 0.05 * np.abs(exact).max()
    gradients = jax.eval_shape(jax.grad(functools.partial(some_loss, {"compute_dtype": "bfloat16"})), params)
    assert {leaf.dtype for leaf in jax.tree.leaves(gradients)} == {jnp.dtype("f4")}


def test_parameters_have_the_shapes_that_are_counted(model: Transformer, params: Params) -> None:
    d, h, n, k, f, rows = 16, 4, 2, 8, 24, 64
    layer = d * k * (2 * h + 2 * n) + 2 * k + 3 * d * f + 2 * d
    assert parameter_count(params) == 2 * layer + 2 * rows * d + d
    assert params["ends"]["embed"].shape == (rows, d)  # 31 tokens, made up to a multiple of 64
    assert all(leaf.shape[0] == 2 for leaf in jax.tree.leaves(params["layers"]))


def test_fresh_parameters_follow_their_key_and_have_the_stated_variance(graph_mode: None) -> None:
    wide = dataclasses.replace(CONFIG, width=128, mlp_width=256)
    init = jax.jit(Transformer(wide, TOKENS).init)
    fresh, again, other = (init(jax.random.key(seed)) for seed in (0, 0, 1))
    layers = fresh["layers"]
    up = layers["mlp"]["up"]
    assert jnp.array_equal(up, again["layers"]["mlp"]["up"])
    assert not jnp.array_equal(up, other["layers"]["mlp"]["up"])
    assert not jnp.array_equal(up[0], up[1])
    assert not jnp.array_equal(up, layers["mlp"]["gate"])
    assert (layers["attention"]["query_norm"]["scale"] == 1).all()
    for array, deviation in (
        (fresh["ends"]["embed"], 1),
        (fresh["ends"]["head"], 128**-0.5),
        (layers["attention"]["query"], 128**-0.5),
        (layers["attention"]["out"], (4 * 8 * 2 * 2) ** -0.5),
        (layers["mlp"]["gate"], 128**-0.5),
        (layers["mlp"]["down"], (256 * 2 * 2) ** -0.5),
    ):
        assert float(array.std()) == pytest.approx(deviation, rel=0.05)


def test_models_of_one_shape_are_equal(model: Transformer) -> None:
    assert model == Transformer(CONFIG, TOKENS)
    assert hash(model) == hash(Transformer(CONFIG, TOKENS))
    assert model != Transformer(CONFIG, TOKENS + 1)
    assert model != Transformer(dataclasses.replace(CONFIG, width=32), TOKENS)


@pytest.mark.parametrize(
    "field, change",
    [
        ("model.kv_heads", {"kv_heads": 3}),
        ("model.head_size", {"head_size": 7}),
        ("model.unroll", {"unroll": 0}),
    ],
)
def test_impossible_shapes_are_refused(field: str, change: dict) -> None:
    with pytest.raises(ConfigError) as caught:
        Transformer(dataclasses.replace(CONFIG, **change), TOKENS)
    assert caught.value.field == field
