import dataclasses
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import random_data
import reference

from omnijax.config import Config, MeshConfig, OptimConfig
from omnijax.data.pipeline import Batch
from omnijax.experiment import load_experiment
from omnijax.model.transformer import Transformer
from omnijax.step import losses
from omnijax.step.losses import LossParts, next_token_loss
from omnijax.step.optim import decays, optimizer, schedule
from omnijax.step.sharding import make_mesh, path_of
from omnijax.step.state import gradients_of
from omnijax.vocab.kinds import kind_names

DIGITS = pathlib.Path(__file__).parents[1] / "experiments" / "digits.py"


@pytest.fixture(scope="module")
def config(tmp_path_factory) -> Config:
    return random_data.small_config(load_experiment(DIGITS), tmp_path_factory.mktemp("none"))


@pytest.fixture(scope="module")
def batch(config: Config) -> Batch:
    return random_data.batches_of(random_data.random_corpus(config.vocabulary, 20, most_items=7), config.batch)[0]


@pytest.fixture(scope="module")
def logits_btv(config: Config, batch: Batch) -> np.ndarray:
    size = (*batch["tokens"].shape, config.vocabulary.size)
    return np.random.default_rng(0).normal(size=size).astype(np.float32) * 5


compiled_loss = jax.jit(next_token_loss, static_argnums=4)


def loss_of(config: Config, batch: Batch, logits_btv: np.ndarray, rows: slice = slice(None)) -> LossParts:
    given = (batch[name][rows] for name in ("targets", "weights", "kinds"))
    return jax.device_get(compiled_loss(logits_btv[rows], *given, len(kind_names(config.vocabulary))))


def test_the_loss_and_its_parts_are_those_of_the_plain_formulas(config: Config, batch: Batch, logits_btv) -> None:
    found = loss_of(config, batch, logits_btv)
    names = kind_names(config.vocabulary)
    loss = weight = correct = 0.0
    nats_of, count_of = dict.fromkeys(names, 0.0), dict.fromkeys(names, 0)
    for row in range(len(logits_btv)):
        tokens = [*batch["tokens"][row].tolist(), int(batch["targets"][row, -1])]
        for t, kind in enumerate(reference.slow_kinds(config.vocabulary, tokens)[1:]):
            logits_v = logits_btv[row, t].astype(np.float64)
            target, share = batch["targets"][row, t], batch["weights"][row, t]
            nats = np.log(np.exp(logits_v).sum()) - logits_v[target]
            loss += share * nats
            weight += share
            correct += share * (np.argmax(logits_v) == target)
            if share > 0:
                nats_of[kind] += nats
                count_of[kind] += 1
    np.testing.assert_allclose([found.loss, found.weight, found.correct], [loss, weight, correct], rtol=1e-5)
    np.testing.assert_allclose(found.kind_loss, list(nats_of.values()), rtol=1e-5)
    assert found.kind_count.tolist() == list(count_of.values())
    assert count_of["pad"] == 0
    assert all(count_of[name] for name in names if name != "pad")


def test_parts_of_a_batch_add_up(config: Config, batch: Batch, logits_btv) -> None:
    whole = loss_of(config, batch, logits_btv)
    parts = [loss_of(config, batch, logits_btv, rows) for rows in (slice(4), slice(4, None))]
    jax.tree.map(lambda a, *b: np.testing.assert_allclose(a, sum(b), rtol=1e-5), whole, *parts)


def test_kinds_add_up_to_the_loss_when_all_weigh_the_same(config: Config, batch: Batch, logits_btv) -> None:
    level: Batch = {**batch, "weights": (batch["weights"] > 0).astype(np.float32)}
    found = loss_of(config, level, logits_btv)
    assert found.kind_loss.sum() == pytest.approx(found.loss, rel=1e-5)
    assert found.kind_count.sum() == found.weight == (batch["weights"] > 0).sum()


def test_weight_zero_counts_nowhere(config: Config, batch: Batch, logits_btv) -> None:
    silent = batch["weights"] == 0
    assert 0.1 < silent.mean() < 0.9
    other = np.where(silent[..., None], logits_btv[::-1] * 3, logits_btv)
    jax.tree.map(np.testing.assert_array_equal, loss_of(config, batch, logits_btv), loss_of(config, batch, other))

    @jax.jit
    @jax.grad
    def slopes(logits_btv: jax.Array) -> jax.Array:
        given = (jnp.asarray(batch[name]) for name in ("targets", "weights", "kinds"))
        return next_token_loss(logits_btv, *given, len(kind_names(config.vocabulary))).loss

    gradient = np.asarray(slopes(logits_btv))
    assert not gradient[silent].any()
    assert gradient[~silent].any(axis=-1).all()


@pytest.mark.parametrize("chunk", [1, 7, 64, 10**6])
def test_the_loss_without_logits_of_weight_zero_is_the_same(
    config: Config, batch: Batch, logits_btv, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(losses, "CHUNK", chunk)
    targets = (batch[name] for name in ("targets", "weights", "kinds"))
    skipped = (batch["weights"] == 0)[..., None] & (chunk == 1)  # each by itself: their states don't matter
    states = np.where(skipped, np.nan, logits_btv + 1)
    given = map(jnp.asarray, (states, np.ones_like(batch["targets"]), *targets))
    found = losses.sparse_loss(
        lambda states, places: states - places[:, None], *given, len(kind_names(config.vocabulary))
    )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), found, loss_of(config, batch, logits_btv))


def test_half_precision_logits_are_summed_in_full_precision(config: Config, batch: Batch, logits_btv) -> None:
    half = logits_btv.astype(jnp.bfloat16)
    found, expected = loss_of(config, batch, half), loss_of(config, batch, half.astype(np.float32))
    assert found.loss.dtype == np.float32
    jax.tree.map(np.testing.assert_array_equal, found, expected)


@pytest.mark.parametrize("count", [pytest.param(2, marks=pytest.mark.proof), 4])
def test_accumulated_gradients_are_those_of_the_whole_batch(config: Config, batch: Batch, count: int) -> None:
    """Micro-batches weigh differently, so that a mean of their means would be wrong."""
    model = Transformer(config.model, config.vocabulary.size)
    random = np.random.default_rng(1)
    shapes = jax.eval_shape(model.init, jax.random.key(0))
    params = jax.tree.map(lambda leaf: random.normal(scale=0.3, size=leaf.shape).astype(leaf.dtype), shapes)
    mesh = make_mesh(MeshConfig(), jax.devices()[:1])

    def gradients(accumulate: int) -> tuple:
        changed = dataclasses.replace(config, optim=dataclasses.replace(config.optim, accumulate=accumulate))
        return jax.jit(lambda params, batch, key: gradients_of(changed, model, mesh, params, batch, key))(
            params, batch, jax.random.key(0)
        )

    assert len(set(batch["weights"].reshape(-1, count, batch["weights"].shape[1]).sum(axis=(0, 2)))) == count
    found, whole = gradients(count), gradients(1)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), found, whole)


# ---------------------------------------------------------------------- the optimiser


def test_the_learning_rate_goes_up_in_a_line_and_down_in_a_cosine() -> None:
    config = OptimConfig(learning_rate=0.5, warmup_steps=10, final_fraction=0.1)
    rates = np.array([schedule(config, 110)(step) for step in range(120)])
    np.testing.assert_allclose(rates[:11], np.linspace(0, 0.5, 11), rtol=1e-5)
    share = np.arange(101) / 100
    np.testing.assert_allclose(rates[10:111], 0.05 + 0.45 * (1 + np.cos(np.pi * share)) / 2, rtol=1e-4)
    np.testing.assert_allclose(rates[110:], 0.05, rtol=1e-5)


def test_a_run_shorter_than_the_warm_up_and_one_without_have_a_schedule() -> None:
    assert float(schedule(OptimConfig(learning_rate=0.5, warmup_steps=100), 20)(20)) == pytest.approx(0.1)
    assert float(schedule(OptimConfig(learning_rate=0.5, warmup_steps=0), 20)(0)) == pytest.approx(0.5)


def one_update(config: OptimConfig, gradients: dict, params: dict) -> tuple[dict, list[dict]]:
    transformation = optimizer(config, steps=10)

    @jax.jit
    def update(gradients: dict, params: dict) -> tuple[dict, Any]:
        updates, state = transformation.update(gradients, transformation.init(params), params)
        return optax.apply_updates(params, updates), state

    after, state = jax.device_get(update(gradients, params))
    return after, [part for part in jax.tree.leaves(state, is_leaf=is_adam) if is_adam(part)]


def is_adam(part: object) -> bool:
    return isinstance(part, optax.ScaleByAdamState)


def test_weight_decay_takes_matrices_and_leaves_norms_and_the_embedding(config: Config) -> None:
    model = Transformer(config.model, config.vocabulary.size)
    params = jax.tree.map(lambda leaf: np.ones(leaf.shape, np.float32), jax.eval_shape(model.init, jax.random.key(0)))
    optim = OptimConfig(learning_rate=0.1, warmup_steps=0, weight_decay=0.5)
    after, _ = one_update(optim, jax.tree.map(np.zeros_like, params), params)
    left_alone = set()
    for keys, leaf in jax.tree_util.tree_leaves_with_path(after):
        value = float(leaf.ravel()[0])
        assert (leaf == value).all()
        assert value in (1.0, pytest.approx(0.95))
        if value == 1.0:
            left_alone.add(path_of(keys))
    assert left_alone == {
        "ends/embed",
        "ends/norm/scale",
        "layers/attention_norm/scale",
        "layers/mlp_norm/scale",
        "layers/attention/query_norm/scale",
        "layers/attention/key_norm/scale",
    }
    decayed = {path_of(keys) for keys, on in jax.tree_util.tree_leaves_with_path(decays(params)) if on}
    assert decayed == {path_of(keys) for keys, _ in jax.tree_util.tree_leaves_with_path(params)} - left_alone


@pytest.mark.parametrize("norm, scale", [(5.0, 0.2), (0.5, 1.0)])
def test_gradients_are_clipped_before_the_moments_see_them(norm: float, scale: float) -> None:
    config = OptimConfig(learning_rate=0.1, warmup_steps=0, clip_norm=1.0, beta1=0.8, beta2=0.9, weight_decay=0.0)
    params = {"mlp": {"up": jnp.zeros((2, 2)), "down": jnp.zeros((2, 2))}}
    gradients = {"mlp": {"up": jnp.full((2, 2), 0.3 * norm), "down": jnp.full((2, 2), -0.4 * norm)}}
    after, (adam,) = one_update(config, gradients, params)
    jax.tree.map(lambda m, g: np.testing.assert_allclose(m, 0.2 * scale * g, rtol=1e-5), adam.mu, gradients)
    jax.tree.map(lambda v, g: np.testing.assert_allclose(v, 0.1 * (scale * g) ** 2, rtol=1e-5), adam.nu, gradients)
    # The first step of Adam is one learning rate against the sign of the gradient.
    np.testing.assert_allclose(after["mlp"]["up"], -0.1, rtol=1e-4)
    np.testing.assert_allclose(after["mlp"]["down"], 0.1, rtol=1e-4)


def kept_bytes(config: OptimConfig, params: dict) -> int:
    state = jax.eval_shape(optimizer(config, steps=10).init, params)
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state))


def test_moments_take_the_bytes_that_are_stated() -> None:
    params = {"mlp": {"up": jnp.zeros((2, 256, 512))}}
    whole = params["mlp"]["up"].nbytes
    for moments, least, most in (("float32", 2.0, 2.001), ("bfloat16", 1.5, 1.501), ("factored", 0.5, 0.51)):
        assert least <= kept_bytes(OptimConfig(moments=moments), params) / whole <= most


def test_moments_in_half_precision_take_nearly_the_same_steps() -> None:
    random = np.random.default_rng(0)
    params = {"mlp": {"up": jnp.asarray(random.normal(size=(4, 4)), jnp.float32)}}
    gradients = jax.tree.map(lambda x: jnp.asarray(random.normal(size=x.shape), jnp.float32), params)
    config = OptimConfig(learning_rate=0.1, warmup_steps=0)
    exact, _ = one_update(config, gradients, params)
    near, (adam,) = one_update(dataclasses.replace(config, moments="bfloat16"), gradients, params)
    assert (adam.mu["mlp"]["up"].dtype, adam.nu["mlp"]["up"].dtype) == (jnp.bfloat16, jnp.float32)
    np.testing.assert_allclose(near["mlp"]["up"], exact["mlp"]["up"], atol=1e-3)


def test_factored_moments_divide_by_the_means_of_rows_and_columns() -> None:
    random = np.random.default_rng(0)
    params = {"mlp": {"up": jnp.zeros((128, 256), jnp.float32)}}
    gradient = random.normal(size=(128, 256)) * np.exp(random.normal(size=(128, 1)))
    config = OptimConfig(learning_rate=0.1, warmup_steps=0, weight_decay=0, clip_norm=1e9, moments="factored")
    after, adam = one_update(config, {"mlp": {"up": jnp.asarray(gradient, jnp.float32)}}, params)
    squares = gradient**2
    second = squares.mean(axis=1, keepdims=True) * squares.mean(axis=0, keepdims=True) / squares.mean()
    assert not adam
    np.testing.assert_allclose(after["mlp"]["up"], -0.1 * gradient / np.sqrt(second), rtol=1e-2, atol=1e-3)
