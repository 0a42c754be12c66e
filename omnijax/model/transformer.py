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
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from omnijax.config import ModelConfig
from omnijax.errors import ConfigError
from omnijax.model.attention import Attention, Cache
from omnijax.model.layers import GatedMLP, RMSNorm, Rotations, normal, rotations_at

Params = dict[str, Any]
ROWS_MULTIPLE = 64  # the embedding is padded to this many rows, so that any mesh axis of 2^n ≤ 64 divides it


class Layer(nnx.Module):
    """x + attention(norm(x)), then x + mlp(norm(x))."""

    def __init__(self, key: PRNGKeyArray, config: ModelConfig):
        attention, mlp = jax.random.split(key)
        out_scale = (2 * config.depth) ** -0.5
        self.attention_norm = RMSNorm(config.width)
        self.attention = Attention(attention, config.width, config.heads, config.kv_heads, config.head_size, out_scale)
        self.mlp_norm = RMSNorm(config.width)
        self.mlp = GatedMLP(mlp, config.width, config.mlp_width, out_scale)


class Ends(nnx.Module):
    """What stands before and behind the layers: embedding, last norm, head."""

    def __init__(self, key: PRNGKeyArray, rows: int, width: int):
        embed, head = jax.random.split(key)
        self.embed = normal(embed, (rows, width), 1)
        self.norm = RMSNorm(width)
        self.head = normal(head, (width, rows), width)


class Transformer:
    """The model as pure functions of its parameters.

    Attributes:
        config: its shape.
        tokens: number of primary tokens; the logits have one for each.

    Hashable by both, so that `jax.jit` takes it as a static argument.

    Raises:
        ConfigError: heads that don't group, or head sizes that don't pair.
    """

    def __init__(self, config: ModelConfig, tokens: int):
        if config.heads % config.kv_heads:
            raise ConfigError(
                "model.kv_heads", config.kv_heads, f"must divide model.heads = {config.heads}", "choose a divisor"
            )
        if config.head_size % 2:
            raise ConfigError("model.head_size", config.head_size, "rotary positions turn pairs", "choose an even size")
        if not 1 <= config.unroll <= config.depth:
            raise ConfigError("model.unroll", config.unroll, f"must be in 1 … model.depth = {config.depth}", "lower it")
        self.config, self.tokens = config, tokens
        self._rows = -(-tokens // ROWS_MULTIPLE) * ROWS_MULTIPLE
        key = jax.eval_shape(lambda: jax.random.key(0))
        self._layer = nnx.graphdef(nnx.eval_shape(lambda k: Layer(k, config), key))
        self._ends = nnx.graphdef(nnx.eval_shape(lambda k: Ends(k, self._rows, config.width), key))

    def __eq__(self, other: object) -> bool:
        """Same shape."""
        return isinstance(other, Transformer) and (self.config, self.tokens) == (other.config, other.tokens)

    def __hash__(self) -> int:
        """Of what makes it equal."""
        return hash((self.config, self.tokens))

    def init(self, key: PRNGKeyArray) -> Params:
        """Random parameters, float32: a nested dict, those of the layers stacked along axis 0."""
        ends, layers = jax.random.split(key)

        def layer(key: PRNGKeyArray) -> Params:
            return nnx.to_pure_dict(nnx.state(Layer(key, self.config)))

        return {
            "ends": nnx.to_pure_dict(nnx.state(Ends(ends, self._rows, self.config.width))),
            "layers": jax.vmap(layer)(jax.random.split(layers, self.config.depth)),
        }

    def grown(self, params: Params, tokens: int, fresh: Params) -> Params:
        """Parameters for this vocabulary from those for its first `tokens` tokens: `fresh` ones for all that is new.

        The rows of padding were never trained, so that new tokens that take their place begin as `fresh` ones, too.
        """
        ends, new = params["ends"], fresh["ends"]
        rows = {
            "embed": new["embed"].at[:tokens].set(ends["embed"][:tokens]),
            "head": new["head"].at[:, :tokens].set(ends["head"][:, :tokens]),
        }
        return {**params, "ends": {**ends, **rows}}

    def empty_cache(self, rows: int, slots: int) -> Cache:
        """A cache for `rows` documents of at most `slots` tokens, in the compute dtype."""
        shape = (self.config.depth, rows, self.config.kv_heads, slots, self.config.head_size)
        return Cache(*(jnp.zeros(shape, self.config.compute_dtype) for _ in range(2)))

    def __call__(
        self,
        params: Params,
        tokens_bt: Int[Array, "b t"],
        positions_bt: Int[Array, "b t"],
        documents_bt: Int[Array, "b t"],
        dropout_key: PRNGKeyArray | None = None,
    ) -> Float[Array, "b t v"]:
        """Logits of the next token, in the compute dtype.

        Args:
            params: of `init`.
            tokens_bt: primary ids.
            positions_bt: place of each token in its document.
            documents_bt: which document of the row a token belongs to; attention stays within.
            dropout_key: drops residual updates, if `config.dropout` > 0; None for none.
        """
        t = tokens_bt.shape[1]
        causal_tt = jnp.tril(jnp.ones((t, t), bool))
        mask_bts = (documents_bt[:, :, None] == documents_bt[:, None, :]) & causal_tt[None]
        return self._forward(params, tokens_bt, positions_bt, mask_bts, None, dropout_key)[0]

    def extend(
        self,
        params: Params,
        cache: Cache,
        tokens_bt: Int[Array, "b t"],
        positions_bt: Int[Array, "b t"],
        only_b: Int[Array, " b"] | None = None,
    ) -> tuple[Float[Array, "b t v"], Cache]:
        """Reads more tokens of each row, after those in the cache; logits of what follows each, and the new cache.

        A token takes the slot of its position and sees the slots up to it, so what lies beyond may be anything.

        Args:
            params: of `init`.
            cache: of `empty_cache`, or of an earlier call.
            tokens_bt: primary ids.
            positions_bt: place of each token in its document.
            only_b: index of the one token of each row whose logits are wanted, which are then float[b, 1, v].
        """
        mask_bts = jnp.arange(cache.keys.shape[3])[None, None, :] <= positions_bt[:, :, None]
        logits_btv, extended = self._forward(params, tokens_bt, positions_bt, mask_bts, cache, None, only_b)
        assert extended is not None
        return logits_btv, extended

    def _forward(
        self,
        params: Params,
        tokens_bt: Array,
        positions_bt: Array,
        mask_bts: Bool[Array, "b t s"],
        cache: Cache | None,
        dropout_key: PRNGKeyArray | None,
        only_b: Array | None = None,
    ) -> tuple[Array, Cache | None]:
        ends = nnx.merge(self._ends, params["ends"])
        x_btd = ends.embed[...].astype(self.config.compute_dtype)[tokens_bt]
        keys = None
        if dropout_key is not None and self.config.dropout > 0:
            keys = jax.random.split(dropout_key, self.config.depth)
        rotations = rotations_at(positions_bt, self.config.head_size, self.config.rope_base)
        body: Callable[..., Any] = functools.partial(self._layer_step, positions_bt, rotations, mask_bts)
        if self.config.remat == "layer":
            body = jax.checkpoint(body, prevent_cse=False)
        # The cache is carried, not scanned over: its slots are written in place.
        layers = (params["layers"], jnp.arange(self.config.depth), keys)
        (x_btd, cache), _ = lax.scan(body, (x_btd, cache), layers, unroll=self.config.unroll)
        if only_b is not None:
            x_btd = jnp.take_along_axis(x_btd, only_b[:, None, None], axis=1)
        logits_btv = ends.norm(x_btd) @ ends.head[...].astype(x_btd.dtype)
        return logits_btv[..., : self.tokens], cache

    def _layer_step(
        self,
        positions_bt: Array,
        rotations: Rotations,
        mask_bts: Array,
        carry: tuple[Array, Cache | None],
        layer: tuple[Params, Array, Array | None],
    ) -> tuple[tuple[Array, Cache | None], None]:
        (x_btd, cache), (params, number, key) = carry, layer
        module = nnx.merge(self._layer, params)
        y_btd, cache = module.attention(module.attention_norm(x_btd), positions_bt, rotations, mask_bts, cache, number)
        attention_key, mlp_key = (None, None) if key is None else jax.random.split(key)
        x_btd = x_btd + self._drop(y_btd, attention_key)
        x_btd = x_btd + self._drop(module.mlp(module.mlp_norm(x_btd)), mlp_key)
        return (x_btd, cache), None

    def _drop(self, x: Array, key: Array | None) -> Array:
        if key is None:
            return x
        kept = 1.0 - self.config.dropout
        return jnp.where(jax.random.bernoulli(key, kept, x.shape), x / kept, 0).astype(x.dtype)


def parameter_count(params: Params) -> int:
    """Number of parameters, padding rows included."""
    return sum(leaf.size for leaf in jax.tree.leaves(params))
