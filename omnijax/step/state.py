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
from omnijax.data.packing import Batch
from omnijax.errors import ConfigError
from omnijax.model.build import with_natural_digits
from omnijax.model.layers import token_keys
from omnijax.model.shards import Shards
from omnijax.model.transformer import Transformer
from omnijax.step.losses import LossParts, next_token_loss, sparse_loss
from omnijax.step.noise import with_digit_noise
from omnijax.step.optim import optimizer, schedule
from omnijax.step.sharding import batch_shardings, parameter_shardings, shards_of
from omnijax.vocab.kinds import kind_names, kind_type


class State(NamedTuple):
    """Everything that training changes.

    Attributes:
        params: nested dict of float32 arrays.
        opt_state: from optax; moments have the shapes and shardings of the parameters.
        step: number of steps done.
    """

    params: Any
    opt_state: Any
    step: Int[Array, ""]


class Metrics(NamedTuple):
    """What a step reports.

    Attributes:
        parts: sums of the loss, before the update.
        gradient_norm: before clipping.
        finite: whether all parameters are finite after the update.
        learning_rate: of this update.
        items: number of items in the batch.
        tokens: number of tokens in the batch, without padding.
    """

    parts: LossParts
    gradient_norm: Array
    finite: Array
    learning_rate: Array
    items: Array
    tokens: Array


def abstract_state(config: Config, model: Transformer, mesh: Mesh) -> State:
    """Shapes, dtypes and shardings of the state; no array is made."""
    shapes = jax.eval_shape(functools.partial(_init, config, model), jax.eval_shape(lambda: jax.random.key(0)))
    params, whole = parameter_shardings(mesh, shapes.params), NamedSharding(mesh, PartitionSpec())
    opt_state = optax.tree_map_params(
        optimizer(config.optim, config.train.steps),
        lambda leaf, param, sharding: sharding if leaf.shape == param.shape else whole,  # means of rows aren't split
        shapes.opt_state,
        shapes.params,
        params,
        transform_non_params=lambda _: whole,
    )
    return abstract(shapes, shapes._replace(params=params, opt_state=opt_state, step=whole))


def abstract(tree: Any, shardings: Any) -> Any:
    """Shapes and dtypes of arrays, with these shardings."""
    return jax.tree.map(lambda x, sharding: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), tree, shardings)


def init_state(config: Config, model: Transformer, mesh: Mesh) -> State:
    """A fresh state. Each device makes its own part of it, and never holds more."""
    shardings = jax.tree.map(lambda leaf: leaf.sharding, abstract_state(config, model, mesh))
    init = jax.jit(functools.partial(_init, config, model), out_shardings=shardings)
    return init(jax.random.key(config.train.seed))


def _init(config: Config, model: Transformer, key: PRNGKeyArray) -> State:
    params = model.init(key)
    if config.model.natural_digits:
        params = with_natural_digits(config, params, jax.random.fold_in(key, 2))
    return State(params, optimizer(config.optim, config.train.steps).init(params), jnp.zeros((), jnp.int32))


def make_step(config: Config, model: Transformer, mesh: Mesh) -> jax.stages.Wrapped:
    """The jitted train step: `(state, batch) -> (state, metrics)`. The buffers of the old state are reused.

    Raises a `ConfigError` if sequences, or their tokens, don't divide evenly over the mesh and the micro-batches.
    """
    rows, shares = config.batch.size, mesh.shape["data"] * mesh.shape["fsdp"] * config.optim.accumulate
    if rows % shares:
        rule = f"must divide by mesh.data × mesh.fsdp × optim.accumulate = {shares}"
        raise ConfigError("batch.size", rows, rule, f"use {-(-rows // shares) * shares}")
    split = config.batch.sequence_length - 1
    if split % mesh.shape["context"]:
        rule = f"the {split} tokens of a sequence that are read must divide by mesh.context = {mesh.shape['context']}"
        fix = f"use {-(-split // mesh.shape['context']) * mesh.shape['context'] + 1}"
        raise ConfigError("batch.sequence_length", config.batch.sequence_length, rule, fix)
    shardings = jax.tree.map(lambda leaf: leaf.sharding, abstract_state(config, model, mesh))
    batch = jax.tree.map(lambda leaf: leaf.sharding, abstract_batch(config, mesh))
    replicated = NamedSharding(mesh, PartitionSpec())
    return jax.jit(
        functools.partial(_step, config, model, mesh),
        in_shardings=(shardings, batch),
        out_shardings=(shardings, replicated),
        donate_argnums=0,
    )


def abstract_batch(config: Config, mesh: Mesh) -> Batch:
    """Shapes, dtypes and shardings of a global batch."""
    b, t = config.batch.size, config.batch.sequence_length - 1
    dtypes = {"tokens": jnp.int32, "targets": jnp.int32, "weights": jnp.float32, "positions": jnp.int32}
    dtypes |= {"kinds": kind_type(config.vocabulary)}
    shapes: Any = {name: jax.ShapeDtypeStruct((b, t), dtype) for name, dtype in dtypes.items()}
    of_row = jax.ShapeDtypeStruct((b,), jnp.int32)
    shapes |= {"documents": shapes["tokens"], "items": of_row}
    shapes |= {"source": of_row} if len(config.data.parts) > 1 else {}
    return abstract(shapes, batch_shardings(mesh, shapes))


def _step(config: Config, model: Transformer, mesh: Mesh, state: State, batch: Any) -> tuple[State, Metrics]:
    key = jax.random.fold_in(jax.random.key(config.train.seed), state.step)
    if config.train.digit_noise > 0:
        written = (config.vocabulary, batch["tokens"], batch["kinds"])
        batch = batch | {"read": with_digit_noise(*written, config.train.digit_noise, config.train.seed, state.step)}
    gradients, parts = gradients_of(config, model, mesh, state.params, batch, key)
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


def gradients_of(
    config: Config, model: Transformer, mesh: Mesh, params: Any, batch: Any, key: PRNGKeyArray
) -> tuple[Any, LossParts]:
    """Gradients of the weighted mean loss of a whole batch, sharded as the parameters, and the sums of the loss.

    If the batch has `read`, the model reads these tokens instead of `tokens`.
    """
    shards = shards_of(mesh, params)
    weight = jnp.maximum(jnp.sum(batch["weights"]), 1e-9)
    batch = batch | {"rows": jnp.arange(batch["tokens"].shape[0])}
    replicated = PartitionSpec()
    specs = jax.tree.map(lambda sharding: sharding.spec, parameter_shardings(mesh, params))
    rows = jax.tree.map(lambda sharding: sharding.spec, batch_shardings(mesh, batch))
    return jax.shard_map(
        functools.partial(_local_gradients, config, model, shards, specs),
        mesh=mesh,
        in_specs=(specs, rows, replicated, replicated),
        out_specs=(specs, replicated),
        check_vma=False,
    )(params, batch, weight, key)


def _local_gradients(
    config: Config, model: Transformer, shards: Shards, specs: Any, params: Any, batch: Any, weight: Array, key: Array
) -> tuple[Any, LossParts]:
    """The part of one device: the derivative of the sum of all devices' losses by its parts of the parameters.

    Copies of a parameter count as separate parameters until the end, where their gradients are summed. Devices along
    `tensor` have the same loss, so that each counts only its share of it.
    """
    kinds, sources = len(kind_names(config.vocabulary)), len(config.data.parts)
    sparse = not shards.split("tensor") and any(0 in task.weights for task in config.batch.tasks)

    def loss(params: Any, part: Any) -> tuple[Array, LossParts]:
        read_bt = part["read"] if "read" in part else part["tokens"]
        keys_bt = token_keys(key, part["rows"], shards.first(read_bt.shape[1]) + jnp.arange(read_bt.shape[1]))
        inputs = (read_bt, part["positions"], part["documents"], keys_bt)
        states_btd, places_bt = model.behind(params, *inputs, shards, config.batch.sequence_items)
        head = model.head_parameters(params, shards)
        kinds_bt = part["kinds"] + kinds * part["source"][:, None] if "source" in part else part["kinds"]
        targets = part["targets"], part["weights"], kinds_bt, kinds * sources
        logits = functools.partial(model.logits, head, shards=shards)
        if sparse:
            parts = sparse_loss(logits, states_btd, places_bt, *targets)
        else:
            parts = next_token_loss(logits(states_btd, places_bt), *targets)
        return parts.loss / (weight * shards.sizes["tensor"]), parts

    gradients, parts = _accumulated(jax.grad(loss, has_aux=True), params, batch, config.optim.accumulate)
    once = jax.tree.map(lambda _: PartitionSpec("tensor"), parts)  # devices along `tensor` have the same loss
    return shards.summed(gradients, specs), shards.summed(parts, once)


def _accumulated(gradient: Callable[..., Any], params: Any, batch: Any, count: int) -> Any:
    """The sums of `gradient(params, part)` over `count` micro-batches, each with every count-th sequence here."""
    if count == 1:
        return gradient(params, batch)

    def add(sums: Any, part: Any) -> tuple[Any, None]:
        return jax.tree.map(jnp.add, sums, gradient(params, part)), None

    micro = jax.tree.map(lambda x: jnp.swapaxes(x.reshape(-1, count, *x.shape[1:]), 0, 1), batch)
    shapes = jax.eval_shape(gradient, params, jax.tree.map(lambda x: x[0], micro))
    return lax.scan(add, jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes), micro)[0]
