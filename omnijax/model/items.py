"""A transformer that steps once an item: the backbone reads items, and a small network behind it writes their tokens.

An item goes in as the sum of its tokens' embeddings, each through the matrix of its place. What the backbone gives for
one item predicts the tokens of the next, one after the other: with what was written of them so far, through a few gated
MLPs (a depth head; RQ-Transformer, arXiv:2203.01941, and Moshi, arXiv:2410.00037, have a transformer there). Logits are
of primary tokens, as those of `Transformer`: loss, likelihood and grammar are the same.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from omnijax.config import ModelConfig
from omnijax.model.cache import Cache
from omnijax.model.groups import Grouping, Items
from omnijax.model.layers import GatedMLP, RMSNorm, normal
from omnijax.model.shards import ALONE, Shards
from omnijax.model.sums import Sums
from omnijax.model.transformer import Params, Transformer


class HeadLayer(nnx.Module):
    """x + mlp(norm(x))."""

    def __init__(self, key: PRNGKeyArray, config: ModelConfig):
        self.norm = RMSNorm(config.width)
        self.mlp = GatedMLP(key, config.width, config.mlp_width, (2 * config.head_depth) ** -0.5)


class ItemEnds(nnx.Module):
    """What stands between tokens and items: a matrix for each place, and for each place what tells it from others."""

    def __init__(self, key: PRNGKeyArray, width: int, places: int):
        into, place = jax.random.split(key)
        self.into = normal(into, (places, width, width), width)
        self.place = normal(place, (places, width), 1)


class Memory(NamedTuple):
    """What a row has read, token by token.

    Attributes:
        layers: of the items that are whole.
        behind: what the backbone gives for the last of these.
        open: sum of the tokens of the item that isn't.
        places: how many these are.
        steps: items that are whole.
        context: of the grouping.
    """

    layers: Cache
    behind: Float[Array, "b d"]
    open: Float[Array, "b d"]
    places: Int[Array, " b"]
    steps: Int[Array, " b"]
    context: Int[Array, " b"]


class ItemTransformer(Transformer):
    """The same functions of its parameters as `Transformer`; `read` takes the place of `extend` for single tokens.

    Attributes:
        config: its shape.
        tokens: number of primary tokens.
        grouping: which tokens make an item.
        sequence_items: items of a row that it is trained on, at most.
    """

    def __init__(self, config: ModelConfig, tokens: int, grouping: Grouping, sequence_items: int):
        super().__init__(config, tokens)
        self.grouping, self.sequence_items = grouping, sequence_items
        key = jax.eval_shape(lambda: jax.random.key(0))
        self._head_layer = nnx.graphdef(nnx.eval_shape(lambda k: HeadLayer(k, config), key))

    def __eq__(self, other: object) -> bool:
        """Same shape, same items."""
        return (
            isinstance(other, ItemTransformer)
            and super().__eq__(other)
            and (self.grouping, self.sequence_items) == (other.grouping, other.sequence_items)
        )

    def __hash__(self) -> int:
        """Of what makes it equal."""
        return hash((self.config, self.tokens, self.grouping, self.sequence_items))

    def init(self, key: PRNGKeyArray) -> Params:
        """Random parameters, float32: those of `Transformer`, and under `item` those between tokens and items."""
        ends, *layers = jax.random.split(jax.random.fold_in(key, 1), 1 + self.config.head_depth)
        item = nnx.to_pure_dict(nnx.state(ItemEnds(ends, self.config.width, self.grouping.longest)))
        for number, layer in enumerate(layers):
            item[f"layer{number}"] = nnx.to_pure_dict(nnx.state(HeadLayer(layer, self.config)))
        return super().init(key) | {"item": item}

    def unstacked(self, params: Params) -> Params:
        """See `Transformer.unstacked`."""
        dtype = self.config.compute_dtype
        item = jax.tree.map(lambda leaf: leaf.astype(dtype) if leaf.ndim > 1 else leaf, params["item"])
        return super().unstacked(params) | {"item": item}

    def empty_cache(self, rows: int, room: int) -> Memory:
        """The memory before anything is read, with room for so many items of each row."""
        none = jnp.zeros((rows, self.config.width), self.config.compute_dtype)
        zero = jnp.zeros(rows, jnp.int32)
        return Memory(super().empty_cache(rows, room), none, none, zero, zero, zero)

    def __call__(
        self,
        params: Params,
        tokens_bt: Int[Array, "b t"],
        positions_bt: Int[Array, "b t"],
        documents_bt: Int[Array, "b t"],
        dropout_keys_bt: PRNGKeyArray | None = None,
        shards: Shards = ALONE,
    ) -> Float[Array, "b t v"]:
        """See `Transformer`; here a row may have as many items as tokens."""
        inputs = (tokens_bt, positions_bt, documents_bt)
        items = self.grouping.items(*inputs, tokens_bt.shape[1])
        return self._all(params, None, items, dropout_keys_bt, shards)[0]

    def summing(
        self,
        params: Params,
        sums: Sums,
        tokens_bt: Int[Array, "b t"],
        positions_bt: Int[Array, "b t"],
        documents_bt: Int[Array, "b t"],
        dropout_keys_bt: PRNGKeyArray | None,
        shards: Shards,
    ) -> tuple[Float[Array, "b t v"], Sums]:
        """See `Transformer.summing`; here a row has at most `sequence_items` items."""
        steps = min(tokens_bt.shape[1], self.sequence_items)
        items = self.grouping.items(tokens_bt, positions_bt, documents_bt, steps)
        params, sums = self._tied(params, sums, "ends")
        params, sums = self._tied(params, sums, "item")
        return self._all(params, sums, items, dropout_keys_bt, shards)

    def begin(
        self,
        params: Params,
        memory: Memory,
        tokens_bt: Int[Array, "b t"],
        lengths_b: Int[Array, " b"],
        mesh: Mesh | None = None,
    ) -> tuple[Float[Array, "b v"], Memory]:
        """Reads the beginnings of documents at once; logits of what follows each, and the memory.

        Args:
            params: of `unstacked`.
            memory: of `empty_cache`.
            tokens_bt: primary ids, padded on the right.
            lengths_b: of the beginnings, at least one; each ends with a whole item.
            mesh: that the parameters are split over; None for one device.
        """
        at = jnp.broadcast_to(jnp.arange(tokens_bt.shape[1]), tokens_bt.shape)
        documents_bt = jnp.where(at < lengths_b[:, None], 0, -1)
        items = self.grouping.items(tokens_bt, at, documents_bt, tokens_bt.shape[1])
        x_bsd = self._into(params, items.tokens, items.there, ALONE).sum(axis=2)
        places_bs = jnp.broadcast_to(jnp.arange(x_bsd.shape[1]), x_bsd.shape[:2])
        look = self._looking_back(places_bs, mesh)
        x_bsd, layers, _ = self._layers(params, None, x_bsd, places_bs, look, memory.layers, None, ALONE)
        steps_b = jnp.sum(items.ends, axis=1, dtype=jnp.int32)
        behind_bd = jnp.take_along_axis(x_bsd, steps_b[:, None, None] - 1, axis=1)[:, 0]
        last_b = jnp.take_along_axis(tokens_bt, lengths_b[:, None] - 1, axis=1)[:, 0]
        context_b = self.grouping.context(last_b, memory.context)
        memory = Memory(layers, behind_bd, memory.open, memory.places, steps_b, context_b)
        return self._next(params, memory), memory

    def read(
        self,
        params: Params,
        memory: Memory,
        tokens_b: Int[Array, " b"],
        waiting_b: Bool[Array, " b"],
        mesh: Mesh | None = None,
    ) -> tuple[Float[Array, "b v"], Memory, Bool[Array, " b"]]:
        """Reads a token of each row that has one; logits of what follows, the memory, and which rows were read.

        The tokens inside of items are cheap. One that ends an item takes a step of the backbone, and waits until all
        rows that have a token are there: so it steps for all of them together.

        Args:
            params: of `unstacked`.
            memory: of `begin`, or of an earlier call.
            tokens_b: primary ids.
            waiting_b: rows that have a token to be read.
            mesh: that the parameters are split over; None for one device.
        """
        context_b = self.grouping.context(tokens_b, memory.context)
        length_b = self.grouping.length(context_b)
        ends_b = ~self.grouping.is_part(tokens_b) | (memory.places >= length_b - 1)
        step = waiting_b.any() & ~(waiting_b & ~ends_b).any()
        read_b = waiting_b & (~ends_b | step)
        places_b1 = jnp.minimum(memory.places, self.grouping.longest - 1)[:, None]
        token_bd = self._at_places(params, tokens_b[:, None], places_b1)[:, 0]
        open_bd = jnp.where(read_b[:, None], memory.open + token_bd, memory.open)

        def go_on(_: Any, carry: tuple[Array, Cache]) -> tuple[Array, Cache]:
            look = self._looking_back(memory.steps[:, None], mesh)
            # Rows that rest write to the slot of their next item, which they write again before it is seen.
            x_b1d, layers, _ = self._layers(
                params, None, open_bd[:, None], memory.steps[:, None], look, carry[1], None, ALONE
            )
            return jnp.where((read_b & ends_b)[:, None], x_b1d[:, 0], carry[0]), layers

        # A loop of one round or none: unlike a branch it writes the cache in place.
        behind_bd, layers = jax.lax.fori_loop(0, jnp.where(step, 1, 0), go_on, (memory.behind, memory.layers))
        whole_b = read_b & ends_b
        memory = Memory(
            layers,
            behind_bd,
            jnp.where(whole_b[:, None], 0, open_bd),
            jnp.where(whole_b, 0, memory.places + read_b),
            memory.steps + whole_b,
            jnp.where(read_b, context_b, memory.context),
        )
        return self._next(params, memory), memory, read_b

    def reopened(self, memory: Memory, rows_b: Bool[Array, " b"]) -> Memory:
        """The memory in which some rows have read nothing of the item that isn't whole."""
        open_bd = jnp.where(rows_b[:, None], 0, memory.open)
        return memory._replace(open=open_bd, places=jnp.where(rows_b, 0, memory.places))

    def _all(
        self, params: Params, sums: Sums, items: Items, dropout_keys_bt: Array | None, shards: Shards
    ) -> tuple[Array, Sums]:
        """Logits behind every token of whole rows."""
        y_bspd = self._into(params, items.tokens, items.there, shards)
        keys_bs = None if dropout_keys_bt is None else dropout_keys_bt[:, : items.documents.shape[1]]
        inputs = (y_bspd.sum(axis=2), items.positions, self._looking(items.documents, shards))
        x_bsd, _, sums = self._layers(params, sums, *inputs, None, keys_bs, shards)

        steps, places = y_bspd.shape[1:3]
        predicting_bt = jnp.clip(items.item - ~items.ends, 0, steps - 1)
        z_btd = jnp.take_along_axis(x_bsd, predicting_bt[..., None], axis=1)
        if self.config.head == "depth":
            so_far = jnp.cumsum(y_bspd, axis=2).reshape(y_bspd.shape[0], steps * places, -1)
            place_bt = jnp.clip(items.place, 0, places - 1)
            index_bt = jnp.minimum(items.item, steps - 1) * places + place_bt
            so_far = jnp.take_along_axis(so_far, index_bt[..., None], axis=1)
            z_btd += jnp.where(items.ends[..., None], 0, so_far)
        place_bt = jnp.where(items.ends, 0, jnp.clip(items.place + 1, 0, places - 1))
        return self._written(params, z_btd, place_bt, shards), sums

    def _next(self, params: Params, memory: Memory) -> Array:
        """Logits of what follows the last token that was read."""
        z_bd = memory.behind + memory.open if self.config.head == "depth" else memory.behind
        places_b = jnp.minimum(memory.places, self.grouping.longest - 1)
        return self._written(params, z_bd[:, None], places_b[:, None], ALONE)[:, 0]

    def _into(self, params: Params, tokens_bsp: Array, there_bsp: Array, shards: Shards) -> Array:
        """What each token adds to its item."""
        matrices = shards.whole("item", params["item"], self.config.compute_dtype)["into"]
        x_bspd = jnp.where(there_bsp[..., None], self._embedded(params, tokens_bsp, shards), 0)
        y_bspd: Array = jnp.einsum("bspd,pde->bspe", x_bspd, matrices.astype(x_bspd.dtype))
        return y_bspd

    def _at_places(self, params: Params, tokens_bt: Array, places_bt: Array) -> Array:
        """The same for single tokens, each at a place of its own."""
        here = places_bt[..., None] == jnp.arange(self.grouping.longest)[None, None, :]
        return self._into(params, jnp.where(here, tokens_bt[..., None], 0), here, ALONE).sum(axis=2)

    def _written(self, params: Params, z_btd: Array, places_bt: Array, shards: Shards) -> Array:
        """Logits of the tokens at some places of items, from what is known of these."""
        item = shards.whole("item", params["item"], self.config.compute_dtype)
        z_btd += item["place"].astype(z_btd.dtype)[places_bt]
        for number in range(self.config.head_depth):
            layer = nnx.merge(self._head_layer, item[f"layer{number}"])
            z_btd += shards.total(layer.mlp(layer.norm(z_btd)))
        return self._logits(params, z_btd, shards)
