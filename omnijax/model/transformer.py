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
from omnijax.model.attend import ATTENDED, AttentionInputs, attend, resolve
from omnijax.model.cache import Cache, attend_cached, slots
from omnijax.model.layers import PRODUCT, Attention, GatedMLP, RMSNorm, normal, rotations_at
from omnijax.model.shards import ALONE, GATHERED, Shards

Params = dict[str, Any]
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


class Transformer:
    """The model as pure functions of its parameters. It is hashable, so that `jax.jit` takes it as a static argument.

    A sampler needs `unstacked`, `empty_memory`, `slots_needed`, `begin` and `read`. A row is one document. Raises a
    `ConfigError` if the numbers of heads don't divide, a head has an odd size, or `unroll` is out of range.

    Attributes:
        config: its shape.
        tokens: number of primary tokens; logits have one entry for each.
        reads_ahead: one pass over several tokens of a row is cheaper than one pass for each token.
    """

    reads_ahead: bool = True

    def __init__(self, config: ModelConfig, tokens: int):
        c = config
        for knob, holds, rule, fix in (
            ("kv_heads", c.heads % c.kv_heads == 0, f"must divide model.heads = {c.heads}", "choose a divisor"),
            ("head_size", c.head_size % 2 == 0, "must be even: rotary positions turn pairs", "choose an even size"),
            ("unroll", c.unroll >= 1, "must be 1 or more", "raise it"),
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

    def empty_memory(self, rows: int, room: int) -> Any:
        """The memory of `rows` documents before anything is read: a `Cache` for `room` tokens, in the compute dtype."""
        c = self.config
        shape = (rows, c.kv_heads, room, c.head_size)
        keys, values = (tuple(jnp.zeros(shape, c.compute_dtype) for _ in range(c.depth)) for _ in range(2))
        return Cache(keys, values, jnp.zeros(rows, jnp.int32))

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

    def __call__(self, params: Params, *given: Any, **more: Any) -> Float[Array, "b t v"]:
        """Logits of the next token, in the compute dtype, of a model on one device. Takes the arguments of `behind`."""
        return self.logits(self.head_parameters(params, ALONE), *self.behind(params, *given, **more), ALONE)

    def behind(
        self,
        params: Params,
        tokens_bt: Int[Array, "b t"],
        positions_bt: Int[Array, "b t"],
        documents_bt: Int[Array, "b t"],
        dropout_keys_bt: PRNGKeyArray | None = None,
        shards: Shards = ALONE,
        most_items: int | None = None,
    ) -> tuple[Float[Array, "b t d"], Int[Array, "b t"]]:
        """The state behind each token, and its place in an item (here 0): the input of `logits`.

        If the model is split by hand, all arguments are the parts that this device holds.

        Args:
            params: from `init`.
            tokens_bt: primary ids.
            positions_bt: place of each token in its document.
            documents_bt: number of each token's document in the sequence; attention stays within documents.
            dropout_keys_bt: a key for each token, for dropout of residual updates; None for no dropout.
            shards: how the model is split.
            most_items: of a sequence, for models that step once for each item; by default as many as tokens.
        """
        x_btd, look = self._embedded(params, tokens_bt, shards), self._looking(documents_bt, shards)
        x_btd, _ = self._layers(params, x_btd, positions_bt, look, None, dropout_keys_bt, shards)
        return x_btd, jnp.zeros_like(tokens_bt)

    def head_parameters(self, params: Params, shards: Shards) -> Params:
        """The parameters that `logits` needs, gathered."""
        return {"ends": shards.whole("ends", params["ends"], jnp.float32)}

    def logits(self, head: Params, z: Float[Array, "... d"], places: Int[Array, "..."], shards: Shards) -> Array:
        """Logits of the next token, in the compute dtype, from what `behind` and `head_parameters` give."""
        ends = nnx.merge(self._ends, head["ends"])
        return (ends.norm(z) @ ends.head[...].astype(z.dtype))[..., : self.tokens]

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
            cache: from `empty_memory`, or from an earlier call.
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
        logits_btv = self.logits(self.head_parameters(params, ALONE), x_btd, jnp.zeros_like(positions_bt), ALONE)
        return _split(mesh, logits_btv, ("data", "fsdp")), extended

    def slots_needed(self, memory: Any, tokens: int) -> Int[Array, " b"]:
        """Slots that each row occupies after it has read `tokens` more tokens."""
        return jnp.asarray(memory.length + tokens)

    def begin(
        self,
        params: Any,
        memory: Any,
        tokens_bt: Int[Array, "b t"],
        lengths_b: Int[Array, " b"],
        mesh: Mesh | None = None,
    ) -> tuple[Float[Array, "b v"], Any]:
        """Reads the prompts.

        Args:
            params: from `unstacked`.
            memory: from `empty_memory`.
            tokens_bt: primary ids, padded on the right.
            lengths_b: tokens of each prompt, at least one; the last token ends an item.
            mesh: see `extend`.

        Returns:
            The logits behind each prompt, and the memory.
        """
        places_bt = jnp.broadcast_to(jnp.arange(tokens_bt.shape[1]), tokens_bt.shape)
        logits_b1v, memory = self.extend(params, memory, tokens_bt, places_bt, lengths_b - 1, mesh)
        return logits_b1v[:, 0], memory._replace(length=lengths_b)

    def read(
        self,
        params: Any,
        memory: Any,
        logits_bv: Float[Array, "b v"],
        tokens_bt: Int[Array, "b t"],
        waiting_b: Int[Array, " b"],
        mesh: Mesh | None = None,
    ) -> tuple[Float[Array, "b v"], Any, Int[Array, " b"]]:
        """Reads the next tokens of rows, as many as it pays to read at once.

        This takes one token of each row, or all t where at least half of the rows have more than one.

        Args:
            params: from `unstacked`.
            memory: from `begin`, or from an earlier call.
            logits_bv: behind the last token that was read of each row.
            tokens_bt: the next tokens of each row; t = 1 unless the model `reads_ahead`.
            waiting_b: how many tokens of each row haven't been read; may be more than t, and is 0 for a row that rests.
            mesh: see `extend`.

        Returns:
            The logits behind the last token that has now been read of each row, the memory, and how many tokens of
            each row were read.
        """
        most = tokens_bt.shape[1]

        def extend(width: int, _: Any, carry: tuple[Array, Any]) -> tuple[Array, Any]:
            places_bt = memory.length[:, None] + jnp.arange(width)[None, :]
            last_b = jnp.clip(waiting_b, 1, width) - 1  # padding behind it is overwritten before it is seen
            logits_b1v, cache = self.extend(params, carry[1], tokens_bt[:, :width], places_bt, last_b, mesh)
            return logits_b1v[:, 0].astype(carry[0].dtype), cache

        active_b = waiting_b > 0
        # More tokens of all rows cost more, so that half of the rows have to have some.
        wide = (most > 1) & active_b.any() & (2 * (waiting_b > 1).sum() >= active_b.sum())
        carry = (logits_bv, memory)
        for width in sorted({1, most}):  # loops of one round or none: unlike branches they write the cache in place
            runs = wide if width > 1 else active_b.any() & ~wide
            carry = lax.fori_loop(0, jnp.where(runs, 1, 0), functools.partial(extend, width), carry)
        read_b = jnp.clip(waiting_b, 0, jnp.where(wide, most, 1))
        logits_bv = jnp.where(active_b[:, None], carry[0], logits_bv)
        return logits_bv, carry[1]._replace(length=memory.length + read_b), read_b

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

        return self._layers(params, x_btd, positions_bt, look, cache)

    def _layers(
        self,
        params: Params,
        x_btd: Array,
        positions_bt: Array,
        look: Callable[..., tuple[Array, Any]],
        memory: Any,
        dropout_keys_bt: Array | None = None,
        shards: Shards = ALONE,
    ) -> tuple[Array, Any]:
        """The output of the last layer, and the memory that passes from layer to layer."""
        rotations = rotations_at(positions_bt, self.config.head_size, self.config.rope_base)
        keys_bt = dropout_keys_bt if self.config.dropout > 0 else None

        def layer(carry: tuple[Array, Any], layer: tuple[Params, Any]) -> tuple[tuple[Array, Any], None]:
            (x_btd, memory), (params, number) = carry, layer
            module = nnx.merge(self._layer, shards.whole("layers", params, x_btd.dtype))
            see = functools.partial(look, memory, number)
            y_btd, memory = module.attention(module.attention_norm(x_btd), rotations, see)
            x_btd = x_btd + self._drop(shards.total(y_btd), keys_bt, 2 * number)
            y_btd = module.mlp(module.mlp_norm(x_btd))
            x_btd = x_btd + self._drop(shards.total(y_btd), keys_bt, 2 * number + 1)
            return (x_btd, memory), None

        carry = (x_btd, memory)
        if isinstance(params["layers"], tuple):  # unstacked
            for numbered in zip(params["layers"], range(self.config.depth), strict=True):
                carry, _ = layer(carry, numbered)
        else:
            stacked = (params["layers"], jnp.arange(self.config.depth))
            unroll = min(self.config.unroll, self.config.depth)
            carry, _ = lax.scan(self._kept(layer, shards), carry, stacked, unroll=unroll)
        return carry

    def _kept(self, layer: Callable[..., Any], shards: Shards) -> Callable[..., Any]:
        """The layer with its rematerialisation policy."""
        policies = jax.checkpoint_policies
        policy = {
            "none": policies.save_anything_except_these_names(GATHERED),
            "dots": policies.save_only_these_names(PRODUCT),
            "attention": policies.save_only_these_names(ATTENDED),
            "full": policies.nothing_saveable,
        }[self.config.remat]
        if self.config.remat == "none" and not shards.split("fsdp"):
            return layer
        # Only in unrolled layers could the compiler merge what is computed again with the first computation.
        return jax.checkpoint(layer, policy=policy, prevent_cse=self.config.unroll > 1)

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
