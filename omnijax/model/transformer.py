"""A decoder-only transformer: tokens in, logits out. It knows nothing of what the tokens mean.

Flax NNX in its functional subset: modules hold parameters and define `__call__`; they are split once, parameters are a
plain nested dict from then on, and the layers are stacked along a leading axis and scanned over.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Float, Int, PRNGKeyArray

from omnijax.config import ModelConfig
from omnijax.errors import ConfigError
from omnijax.model.attend import attend, resolve
from omnijax.model.cache import Cache, attend_cached, slots
from omnijax.model.decoder import Decoder
from omnijax.model.fused import ATTENDED, AttentionInputs
from omnijax.model.layers import PRODUCT, Attention, GatedMLP, RMSNorm, normal, rotations_at
from omnijax.model.shards import ALONE, GATHERED, Shards
from omnijax.model.sums import Sums, tied

Params = dict[str, Any]
Inputs = tuple[Array, Array, Array, Array | None]
"""Tokens, positions, documents and dropout keys, each [b, t]."""
ROWS_MULTIPLE = 64  # the embedding is padded to this many rows, so that any mesh axis of 2^n ≤ 64 divides it


class Layer(nnx.Module):
    """Adds attention(norm(x)) to x, then mlp(norm(x))."""

    def __init__(self, key: PRNGKeyArray, config: ModelConfig):
        attention, mlp = jax.random.split(key)
        out_scale = (2 * config.depth) ** -0.5
        self.attention_norm = RMSNorm(config.width)
        self.attention = Attention(attention, config.width, config.heads, config.kv_heads, config.head_size, out_scale)
        self.mlp_norm = RMSNorm(config.width)
        self.mlp = GatedMLP(mlp, config.width, config.mlp_width, out_scale)


class Ends(nnx.Module):
    """The parts before and behind the layers: embedding, last norm, head."""

    def __init__(self, key: PRNGKeyArray, rows: int, width: int):
        embed, head = jax.random.split(key)
        self.embed = normal(embed, (rows, width), 1)
        self.norm = RMSNorm(width)
        self.head = normal(head, (width, rows), width)


class Transformer(Decoder):
    """The model as pure functions of its parameters. It is hashable, so that `jax.jit` takes it as a static argument.

    Attributes:
        config: its shape.
        tokens: number of primary tokens; logits have one entry for each.

    Raises:
        ConfigError: the numbers of heads don't divide, a head has an odd size, or `unroll` is out of range.
    """

    def __init__(self, config: ModelConfig, tokens: int):
        c = config
        for knob, holds, rule, fix in (
            ("kv_heads", c.heads % c.kv_heads == 0, f"must divide model.heads = {c.heads}", "choose a divisor"),
            ("head_size", c.head_size % 2 == 0, "must be even: rotary positions turn pairs", "choose an even size"),
            ("unroll", 1 <= c.unroll <= c.depth, f"must be in 1 … model.depth = {c.depth}", "lower it"),
        ):
            if not holds:
                raise ConfigError(f"model.{knob}", getattr(config, knob), rule, fix)
        self.config, self.tokens = config, tokens
        self._same: tuple[Any, ...] = (config, tokens)
        self._rows = -(-tokens // ROWS_MULTIPLE) * ROWS_MULTIPLE
        self._layer = graph_of(Layer, config)
        self._ends = graph_of(Ends, self._rows, config.width)

    def __eq__(self, other: object) -> bool:
        """Whether both are the same function of parameters."""
        return isinstance(other, Transformer) and self._same == other._same

    def __hash__(self) -> int:
        """Hash of what makes two models equal."""
        return hash(self._same)

    def init(self, key: PRNGKeyArray) -> Params:
        """Random float32 parameters as a nested dict; those of the layers are stacked along axis 0."""
        ends, layers = jax.random.split(key)
        keys = jax.random.split(layers, self.config.depth)
        return {
            "ends": params_of(Ends(ends, self._rows, self.config.width)),
            "layers": jax.vmap(lambda key: params_of(Layer(key, self.config)))(keys),
        }

    def grown(self, params: Params, tokens: int, fresh: Params) -> Params:
        """Parameters for this vocabulary, from parameters for its first `tokens` tokens.

        New tokens get the parameters of `fresh`, also where they take the place of padding rows, which aren't trained.
        """
        ends, new = params["ends"], fresh["ends"]
        rows = {
            "embed": new["embed"].at[:tokens].set(ends["embed"][:tokens]),
            "head": new["head"].at[:, :tokens].set(ends["head"][:, :tokens]),
        }
        return {**params, "ends": {**ends, **rows}}

    def empty_cache(self, rows: int, room: int) -> Cache:
        """A `Cache` for `rows` documents of at most `room` tokens, in the compute dtype."""
        c = self.config
        shape = (rows, c.kv_heads, room, c.head_size)
        return Cache(*(tuple(jnp.zeros(shape, c.compute_dtype) for _ in range(c.depth)) for _ in Cache._fields))

    def unstacked(self, params: Params) -> Params:
        """Parameters in the form that `extend` takes: layer by layer, with matrices in the compute dtype.

        A loop over tokens then reads them in place. A slice of a stack would be copied and cast for each token.
        """
        dtype = self.config.compute_dtype

        def cast(tree: Params) -> Params:
            return jax.tree.map(lambda leaf: leaf.astype(dtype) if leaf.ndim > 1 else leaf, tree)

        layers = (jax.tree.map(lambda leaf, n=n: leaf[n], params["layers"]) for n in range(self.config.depth))
        others = {name: cast(part) for name, part in params.items() if name != "layers"}
        return others | {"layers": tuple(cast(layer) for layer in layers)}

    def __call__(
        self,
        params: Params,
        tokens_bt: Int[Array, "b t"],
        positions_bt: Int[Array, "b t"],
        documents_bt: Int[Array, "b t"],
        dropout_keys_bt: PRNGKeyArray | None = None,
        shards: Shards = ALONE,
    ) -> Float[Array, "b t v"]:
        """Logits of the next token, in the compute dtype.

        If the model is split by hand, all arguments are the parts that this device holds.

        Args:
            params: from `init`.
            tokens_bt: primary ids.
            positions_bt: place of each token in its document.
            documents_bt: number of each token's document in the sequence; attention stays within documents.
            dropout_keys_bt: a key for each token, for dropout of residual updates; None for no dropout.
            shards: how the model is split.
        """
        inputs = (tokens_bt, positions_bt, documents_bt, dropout_keys_bt)
        return self.summing(params, None, inputs, shards, tokens_bt.shape[1])[0]

    def summing(
        self, params: Params, sums: Sums, inputs: Inputs, shards: Shards, most_items: int | None = None
    ) -> tuple[Float[Array, "b t v"], Sums]:
        """The logits, and `sums`, whose cotangent the gradients of the parameters are added to (see `sums.py`).

        Args:
            params: from `init`.
            sums: of the gradients so far; None if they aren't accumulated.
            inputs: the first arguments of `__call__` behind the parameters.
            shards: how the model is split.
            most_items: of a sequence, for models that step once for each item; by default as in training.
        """
        tokens_bt, positions_bt, documents_bt, dropout_keys_bt = inputs
        params, sums = self._tied(params, sums, "ends")
        x_btd = self._embedded(params, tokens_bt, shards)
        look = self._looking(documents_bt, shards)
        x_btd, _, sums = self._layers(params, x_btd, positions_bt, look, None, sums, dropout_keys_bt, shards)
        return self._logits(params, x_btd, shards), sums

    def extend(
        self,
        params: Params,
        cache: Cache,
        tokens_bt: Int[Array, "b t"],
        positions_bt: Int[Array, "b t"],
        only_b: Int[Array, " b"] | None = None,
        mesh: Mesh | None = None,
    ) -> tuple[Float[Array, "b t v"], Cache]:
        """Reads more tokens of each row, behind those in the cache; returns the logits behind each token and the cache.

        A token takes the slot of its position, and sees the slots up to its own. Later slots may hold anything.

        On a mesh the compiler splits this. Weights stay in place and the few tokens move: rows are split over `data`,
        and width over `fsdp`. In attention, rows are split over `data` and `fsdp`, and heads over `tensor`.

        Args:
            params: from `unstacked`.
            cache: from `empty_cache`, or from an earlier call.
            tokens_bt: primary ids.
            positions_bt: place of each token in its document.
            only_b: index of one token of each row; logits are then only those behind it, float[b, 1, v].
            mesh: that the parameters are split over; None for one device.
        """
        tokens_bt = _split(mesh, tokens_bt, "data")
        x_btd = self._embedded(params, tokens_bt, ALONE)
        x_btd, extended = self._further(params, x_btd, positions_bt, cache, mesh)
        if only_b is not None:
            x_btd = jnp.take_along_axis(x_btd, only_b[:, None, None], axis=1)
        return _split(mesh, self._logits(params, x_btd, ALONE), ("data", "fsdp")), extended

    def _tied(self, params: Params, sums: Sums, part: str) -> tuple[Params, Sums]:
        """Parameters and sums; those of one part outside the layers are tied to each other (see `sums.py`)."""
        if sums is None:
            return params, None
        weights, into = tied(params[part], sums[part])
        return params | {part: weights}, sums | {part: into}

    def _embedded(self, params: Params, tokens: Int[Array, "..."], shards: Shards) -> Float[Array, "... d"]:
        embed = shards.whole("ends", params["ends"], jnp.float32)["embed"]
        return embed[tokens].astype(self.config.compute_dtype)

    def _looking(self, documents_bt: Int[Array, "b t"], shards: Shards) -> Callable[..., tuple[Array, None]]:
        """The attention among the tokens of whole sequences."""
        kind: str = self.config.attention
        if not shards.sizes and kind in ("cudnn", "splash"):
            kind = "auto"  # the compiler can't split a kernel
        kind = resolve(kind, shards.platform, self.config.head_size, self.config.compute_dtype)
        documents_bs, first = shards.row(documents_bt), shards.first(documents_bt.shape[1])

        def look(_: None, number: Array, q_bthk: Array, k_btnk: Array, v_btnk: Array) -> tuple[Array, None]:
            keys, values = shards.row(k_btnk), shards.row(v_btnk)
            y_bthk = attend(kind, AttentionInputs(q_bthk, keys, values, documents_bt, documents_bs, first))
            return y_bthk, None

        return look

    def _further(
        self, params: Params, x_btd: Array, positions_bt: Array, cache: Cache, mesh: Mesh | None
    ) -> tuple[Array, Cache]:
        """The output of the layers for new tokens, which also attend to those in the cache; and the cache with them."""

        def look(cache: Cache, number: int, *qkv: Array) -> tuple[Array, Cache]:
            mask_bts = jnp.arange(slots(cache))[None, None, :] <= positions_bt[:, :, None]
            q_bthk, k_btnk, v_btnk = (_split(mesh, x, ("data", "fsdp"), None, "tensor") for x in qkv)
            cache = cache.write(number, positions_bt, k_btnk, v_btnk)
            y_bthk = attend_cached(q_bthk, cache.keys[number], cache.values[number], mask_bts)
            return _split(mesh, y_bthk, "data", None, "tensor"), cache

        return self._layers(params, x_btd, positions_bt, look, cache)[:2]

    def _layers(
        self,
        params: Params,
        x_btd: Array,
        positions_bt: Array,
        look: Callable[..., tuple[Array, Any]],
        memory: Any,
        sums: Sums = None,
        dropout_keys_bt: Array | None = None,
        shards: Shards = ALONE,
    ) -> tuple[Array, Any, Sums]:
        """The output of the last layer, and the memory and the sums that pass from layer to layer."""
        rotations = rotations_at(positions_bt, self.config.head_size, self.config.rope_base)
        keys_bt = dropout_keys_bt if self.config.dropout > 0 else None

        def layer(carry: tuple[Array, Any, Sums], layer: tuple[Params, Any]) -> tuple[tuple[Array, Any, Sums], None]:
            (x_btd, memory, sums), (params, number) = carry, layer
            if sums is not None:
                params, sums = tied(params, sums, number)
            module = nnx.merge(self._layer, shards.whole("layers", params, x_btd.dtype))
            see = functools.partial(look, memory, number)
            y_btd, memory = module.attention(module.attention_norm(x_btd), rotations, see)
            x_btd = x_btd + self._drop(shards.total(y_btd), keys_bt, 2 * number)
            y_btd = module.mlp(module.mlp_norm(x_btd))
            x_btd = x_btd + self._drop(shards.total(y_btd), keys_bt, 2 * number + 1)
            return (x_btd, memory, sums), None

        carry = (x_btd, memory, sums["layers"] if sums is not None else None)
        if isinstance(params["layers"], tuple):  # unstacked
            for numbered in zip(params["layers"], range(self.config.depth), strict=True):
                carry, _ = layer(carry, numbered)
        else:
            stacked = (params["layers"], jnp.arange(self.config.depth))
            carry, _ = lax.scan(self._kept(layer, shards), carry, stacked, unroll=self.config.unroll)
        x_btd, memory, in_layers = carry
        return x_btd, memory, None if sums is None else sums | {"layers": in_layers}

    def _kept(self, layer: Callable[..., Any], shards: Shards) -> Callable[..., Any]:
        """The layer with its rematerialisation policy."""
        policies = jax.checkpoint_policies
        policy = {
            "none": policies.save_anything_except_these_names(GATHERED),
            "dots": policies.save_only_these_names(PRODUCT),
            "attention": policies.save_only_these_names(ATTENDED),
            "full": policies.nothing_saveable,
        }[self.config.remat]
        if self.config.remat == "none" and not shards.gathers:
            return layer
        # Only in unrolled layers could the compiler merge what is computed again with the first computation.
        return jax.checkpoint(layer, policy=policy, prevent_cse=self.config.unroll > 1)

    def _logits(self, params: Params, x_btd: Array, shards: Shards) -> Array:
        ends = nnx.merge(self._ends, shards.whole("ends", params["ends"], jnp.float32))
        return (ends.norm(x_btd) @ ends.head[...].astype(x_btd.dtype))[..., : self.tokens]

    def _drop(self, x_btd: Array, keys_bt: Array | None, number: Array) -> Array:
        if keys_bt is None:
            return x_btd
        kept = 1.0 - self.config.dropout

        def keep(key: Array) -> Array:
            return jax.random.bernoulli(jax.random.fold_in(key, number), kept, x_btd.shape[2:])

        kept_btd = jax.vmap(jax.vmap(keep))(keys_bt)
        return jnp.where(kept_btd, x_btd / kept, 0).astype(x_btd.dtype)


def _split(mesh: Mesh | None, x: Array, *axes: Any) -> Array:
    return x if mesh is None else lax.with_sharding_constraint(x, NamedSharding(mesh, PartitionSpec(*axes)))


def graph_of(module: Callable[..., nnx.Module], *arguments: Any) -> Any:
    """The graph definition of a module, whose first argument is a key; no array is made."""
    key = jax.eval_shape(lambda: jax.random.key(0))
    return nnx.graphdef(nnx.eval_shape(lambda key: module(key, *arguments), key))


def params_of(module: nnx.Module) -> Params:
    """The parameters of a module, as a nested dict."""
    found: Params = nnx.to_pure_dict(nnx.state(module))
    return found


def parameter_count(params: Params) -> int:
    """Number of parameters, with padding rows."""
    return sum(leaf.size for leaf in jax.tree.leaves(params))
