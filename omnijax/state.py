"""The train state, its sharded initialisation, and the train step."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Int, PRNGKeyArray

from omnijax.config import Config
from omnijax.errors import ConfigError
from omnijax.losses import LossParts, next_token_loss
from omnijax.model.transformer import Transformer
from omnijax.noise import with_digit_noise
from omnijax.optim import optimizer, schedule
from omnijax.sharding import batch_sharding, like_parameters, parameter_shardings


class State(NamedTuple):
    """All that training changes.

    Attributes:
        params: nested dict of float32.
        opt_state: of optax; its moments are shaped and sharded as the parameters.
        step: steps done so far.
    """

    params: Any
    opt_state: Any
    step: Int[Array, ""]


class Metrics(NamedTuple):
    """What a step reports: sums of the loss, figures of the update, and how much was read.

    Attributes:
        parts: of the loss, before the update.
        gradient_norm: before clipping.
        finite: all parameters are numbers after the update.
        learning_rate: of this update.
        items: items in the rows that were read.
        tokens: tokens in them, padding not counted.
    """

    parts: LossParts
    gradient_norm: Array
    finite: Array
    learning_rate: Array
    items: Array
    tokens: Array


Step = Callable[[State, Any], tuple[State, Metrics]]


def abstract_state(config: Config, model: Transformer, mesh: Mesh) -> State:
    """Shapes, dtypes and shardings of the state, without making it."""
    shapes = jax.eval_shape(functools.partial(_init, config, model), jax.eval_shape(lambda: jax.random.key(0)))
    shardings = shapes._replace(
        params=parameter_shardings(mesh, shapes.params),
        opt_state=like_parameters(mesh, shapes.params, shapes.opt_state),
        step=NamedSharding(mesh, PartitionSpec()),
    )
    return jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), shapes, shardings
    )


def init_state(config: Config, model: Transformer, mesh: Mesh) -> State:
    """A fresh state, made where it belongs: no device ever holds more than its part."""
    shardings = jax.tree.map(lambda leaf: leaf.sharding, abstract_state(config, model, mesh))
    init = jax.jit(functools.partial(_init, config, model), out_shardings=shardings)
    return init(jax.random.key(config.train.seed))


def _init(config: Config, model: Transformer, key: PRNGKeyArray) -> State:
    params = model.init(key)
    return State(params, optimizer(config.optim, config.train.steps).init(params), jnp.zeros((), jnp.int32))


def make_step(config: Config, model: Transformer, mesh: Mesh) -> Step:
    """The jitted train step: `(state, batch) -> (state, metrics)`; the old state's buffers are given up.

    Raises:
        ConfigError: rows that don't divide into micro-batches over the mesh.
    """
    rows, shares = config.batch.rows, mesh.shape["data"] * mesh.shape["fsdp"] * config.optim.accumulate
    if rows % shares:
        rule = f"must divide by mesh.data × mesh.fsdp × optim.accumulate = {shares}"
        raise ConfigError("batch.rows", rows, rule, f"use {-(-rows // shares) * shares}")
    shardings = jax.tree.map(lambda leaf: leaf.sharding, abstract_state(config, model, mesh))
    replicated = NamedSharding(mesh, PartitionSpec())
    return jax.jit(
        functools.partial(_step, config, model),
        in_shardings=(shardings, batch_sharding(mesh)),
        out_shardings=(shardings, replicated),
        donate_argnums=0,
    )


def _step(config: Config, model: Transformer, state: State, batch: Any) -> tuple[State, Metrics]:
    key = jax.random.fold_in(jax.random.key(config.train.seed), state.step)
    if config.train.digit_noise > 0:
        batch = batch | {"read": _noisy(config, batch, state.step)}
    gradients, parts = gradients_of(config, model, state.params, batch, key)
    updates, opt_state = optimizer(config.optim, config.train.steps).update(gradients, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    metrics = Metrics(
        parts,
        optax.tree.norm(gradients),
        jnp.stack([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(params)]).all(),
        jnp.asarray(schedule(config.optim, config.train.steps)(state.step)),
        jnp.sum(batch["items"]),
        jnp.sum(batch["documents"] >= 0),
    )
    return State(params, opt_state, state.step + 1), metrics


def _noisy(config: Config, batch: Any, step: Array) -> Array:
    share, seed = config.train.digit_noise, config.train.seed
    return with_digit_noise(config.vocabulary, batch["tokens"], batch["targets"][:, -1:], share, seed, step)


def gradients_of(
    config: Config, model: Transformer, params: Any, batch: Any, key: PRNGKeyArray
) -> tuple[Any, LossParts]:
    """Gradients of the weighted mean loss of a whole batch, by micro-batches.

    Each micro-batch is divided by the weight of the whole batch, so that any number of them gives the same sum. Where
    the batch has `read`, the model reads these tokens in place of `tokens`.
    """
    total = jnp.maximum(jnp.sum(batch["weights"]), 1e-9)

    def loss(params: Any, part: Any, key: PRNGKeyArray) -> tuple[Array, LossParts]:
        read_bt = part["read"] if "read" in part else part["tokens"]
        logits_btv = model(params, read_bt, part["positions"], part["documents"], key)
        parts = next_token_loss(config.vocabulary, logits_btv, part["tokens"], part["targets"], part["weights"])
        return parts.loss / total, parts

    differentiate = jax.grad(loss, has_aux=True)
    count = config.optim.accumulate
    if count == 1:
        return differentiate(params, batch, key)

    def add(carry: Any, micro: Any) -> tuple[Any, None]:
        part, key = micro
        return jax.tree.map(jnp.add, carry, differentiate(params, part, key)), None

    # Every count-th row, so that each micro-batch stays spread over the same devices.
    micro = jax.tree.map(lambda x: jnp.swapaxes(x.reshape(-1, count, *x.shape[1:]), 0, 1), batch)
    zero = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(differentiate, params, batch, key))
    return lax.scan(add, zero, (micro, jax.random.split(key, count)))[0]
