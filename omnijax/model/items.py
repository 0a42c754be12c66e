"""A transformer whose backbone steps once for each item; a small head behind it predicts the tokens of an item.

The input for an item is the sum of its tokens' embeddings, each multiplied by the matrix of its place in the item. From
the output for one item, the head predicts the tokens of the next item through a few gated MLPs. A `depth` head predicts
them one after the other, and also sees the tokens of the item so far (RQ-Transformer, arXiv:2203.01941, and Moshi,
arXiv:2410.00037, use a transformer there). A `parallel` head predicts them independently. Logits are those of primary
tokens, so that loss, likelihood and grammar are the same as for `Transformer`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int, PRNGKeyArray

from omnijax.config import ModelConfig
from omnijax.model.cache import Cache
from omnijax.model.groups import Grouping, Items
from omnijax.model.layers import GatedMLP, RMSNorm, normal
from omnijax.model.shards import ALONE, Shards
from omnijax.model.transformer import Params, Transformer, graph_of, params_of


class HeadLayer(nnx.Module):
    """Adds mlp(norm(x)) to x."""

    def __init__(self, key: PRNGKeyArray, config: ModelConfig):
        self.norm = RMSNorm(config.width)
        self.mlp = GatedMLP(key, config.width, config.mlp_width, (2 * config.head_depth) ** -0.5)


class ItemEnds(nnx.Module):
    """Between tokens and items: a matrix and a vector for each place in an item, and the layers of the head."""

    def __init__(self, key: PRNGKeyArray, config: ModelConfig, places: int):
        ends, *layers = jax.random.split(key, 1 + config.head_depth)
        into, place = jax.random.split(ends)
        self.into = normal(into, (places, config.width, config.width), config.width)
        self.place = normal(place, (places, config.width), 1)
        for number, layer in enumerate(layers):
            setattr(self, f"layer{number}", HeadLayer(layer, config))


class ItemMemory(NamedTuple):
    """What the model has read of each row.

    Attributes:
        cache: of the whole items, a slot for each.
        behind: output of the backbone for the last whole item.
        open: sum of the tokens of the item that isn't whole yet.
        places: how many tokens that item has so far.
        context: row of `Grouping.lengths` that holds now.
    """

    cache: Cache
    behind: Float[Array, "b d"]
    open: Float[Array, "b d"]
    places: Int[Array, " b"]
    context: Int[Array, " b"]


class ItemTransformer(Transformer):
    """The same functions as those of `Transformer`, with another memory of what it has read.

    Attributes:
        grouping: which tokens make an item.
    """

    reads_ahead = False  # within an item there is no pass of the backbone to save

    def __init__(self, config: ModelConfig, tokens: int, grouping: Grouping):
        super().__init__(config, tokens)
        self.grouping = grouping
        self._same += (grouping,)
        self._item = graph_of(ItemEnds, config, grouping.longest)

    def init(self, key: PRNGKeyArray) -> Params:
        """Random float32 parameters: those of `Transformer`, and under `item` those between tokens and items."""
        item = ItemEnds(jax.random.fold_in(key, 1), self.config, self.grouping.longest)
        return super().init(key) | {"item": params_of(item)}

    def empty_memory(self, rows: int, room: int) -> ItemMemory:
        """See `Transformer.empty_memory`; here a slot holds an item."""
        none = jnp.zeros((rows, self.config.width), self.config.compute_dtype)
        zero = jnp.zeros(rows, jnp.int32)
        return ItemMemory(super().empty_memory(rows, room), none, none, zero, zero)

    def slots_needed(self, memory: ItemMemory, tokens: int) -> Int[Array, " b"]:
        """See `Transformer.slots_needed`; a token ends at most one item."""
        return memory.cache.length + tokens

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
        """See `Transformer.behind`; a place is that of the next token in its item."""
        steps = min(tokens_bt.shape[1], most_items or tokens_bt.shape[1])
        items = self.grouping.items(tokens_bt, positions_bt, documents_bt, steps)
        return self._behind(params, items, dropout_keys_bt, shards)

    def _behind(
        self, params: Params, items: Items, dropout_keys_bt: Array | None, shards: Shards
    ) -> tuple[Array, Array]:
        """The same, from items."""
        y_bspd = self._into(params, items.tokens, items.there, shards)
        keys_bs = None if dropout_keys_bt is None else dropout_keys_bt[:, : items.documents.shape[1]]
        look = self._looking(items.documents, shards)
        x_bsd, _ = self._layers(params, y_bspd.sum(axis=2), items.positions, look, None, keys_bs, shards)

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
        return z_btd, place_bt

    def begin(
        self, params: Params, memory: ItemMemory, tokens_bt: Array, lengths_b: Array, mesh: Mesh | None = None
    ) -> tuple[Float[Array, "b v"], ItemMemory]:
        """See `Transformer.begin`."""
        at = jnp.broadcast_to(jnp.arange(tokens_bt.shape[1]), tokens_bt.shape)
        documents_bt = jnp.where(at < lengths_b[:, None], 0, -1)
        items = self.grouping.items(tokens_bt, at, documents_bt, tokens_bt.shape[1])
        x_bsd = self._into(params, items.tokens, items.there, ALONE).sum(axis=2)
        places_bs = jnp.broadcast_to(jnp.arange(x_bsd.shape[1]), x_bsd.shape[:2])
        x_bsd, cache = self._further(params, x_bsd, places_bs, memory.cache, mesh)
        items_b = jnp.sum(items.ends, axis=1, dtype=jnp.int32)
        behind_bd = jnp.take_along_axis(x_bsd, items_b[:, None, None] - 1, axis=1)[:, 0]
        last_b = jnp.take_along_axis(tokens_bt, lengths_b[:, None] - 1, axis=1)[:, 0]
        context_b = self.grouping.context(last_b, memory.context)
        memory = memory._replace(cache=cache._replace(length=items_b), behind=behind_bd, context=context_b)
        return self._next(params, memory), memory

    def read(
        self, params: Any, memory: Any, logits_bv: Array, tokens_bt: Array, waiting_b: Array, mesh: Mesh | None = None
    ) -> tuple[Float[Array, "b v"], ItemMemory, Int[Array, " b"]]:
        """See `Transformer.read`: reads one token of some of the rows that have one.

        Tokens inside items are cheap. A token that ends an item takes a step of the backbone. Such a token waits until
        the next token of every row ends an item, so that the backbone steps for all rows together.
        """
        tokens_b, active_b = tokens_bt[:, 0], waiting_b > 0
        context_b = self.grouping.context(tokens_b, memory.context)
        length_b = self.grouping.length(context_b)
        ends_b = ~self.grouping.is_part(tokens_b) | (memory.places >= length_b - 1)
        step = active_b.any() & ~(active_b & ~ends_b).any()
        read_b = active_b & (~ends_b | step)
        places_b1 = jnp.minimum(memory.places, self.grouping.longest - 1)[:, None]
        here_b1p = places_b1[..., None] == jnp.arange(self.grouping.longest)[None, None, :]
        token_bd = self._into(params, jnp.where(here_b1p, tokens_bt[..., None], 0), here_b1p, ALONE).sum(axis=2)[:, 0]
        open_bd = jnp.where(read_b[:, None], memory.open + token_bd, memory.open)

        def go_on(_: Any, carry: tuple[Array, Cache]) -> tuple[Array, Cache]:
            # A resting row writes to the slot of its next item, and writes it again before the slot is seen.
            x_b1d, cache = self._further(params, open_bd[:, None], memory.cache.length[:, None], carry[1], mesh)
            return jnp.where((read_b & ends_b)[:, None], x_b1d[:, 0], carry[0]), cache

        # A loop of one round or none: unlike a branch it writes the cache in place.
        behind_bd, cache = jax.lax.fori_loop(0, jnp.where(step, 1, 0), go_on, (memory.behind, memory.cache))
        whole_b = read_b & ends_b
        memory = ItemMemory(
            cache._replace(length=cache.length + whole_b),
            behind_bd,
            jnp.where(whole_b[:, None], 0, open_bd),
            jnp.where(whole_b, 0, memory.places + read_b),
            jnp.where(read_b, context_b, memory.context),
        )
        logits_bv = jnp.where(read_b[:, None], self._next(params, memory), logits_bv).astype(logits_bv.dtype)
        return logits_bv, memory, read_b.astype(jnp.int32)

    def _next(self, params: Params, memory: ItemMemory) -> Array:
        """Logits behind the last token that was read."""
        z_bd = memory.behind + memory.open if self.config.head == "depth" else memory.behind
        places_b = jnp.minimum(memory.places, self.grouping.longest - 1)
        return self.logits(self.head_parameters(params, ALONE), z_bd, places_b, ALONE)

    def _into(self, params: Params, tokens_bsp: Array, there_bsp: Array, shards: Shards) -> Array:
        """The contribution of each token to its item."""
        matrices = shards.whole("item", params["item"], self.config.compute_dtype)["into"]
        x_bspd = jnp.where(there_bsp[..., None], self._embedded(params, tokens_bsp, shards), 0)
        y_bspd: Array = jnp.einsum("bspd,pde->bspe", x_bspd, matrices.astype(x_bspd.dtype))
        return y_bspd

    def head_parameters(self, params: Params, shards: Shards) -> Params:
        """See `Transformer.head_parameters`."""
        item = shards.whole("item", params["item"], self.config.compute_dtype)
        return super().head_parameters(params, shards) | {"item": item}

    def logits(self, head: Params, z: Float[Array, "... d"], places: Int[Array, "..."], shards: Shards) -> Array:
        """See `Transformer.logits`: through the layers of the head."""
        item = nnx.merge(self._item, head["item"])
        z += item.place[...].astype(z.dtype)[places]
        for number in range(self.config.head_depth):
            layer = getattr(item, f"layer{number}")
            z += shards.total(layer.mlp(layer.norm(z)))
        return super().logits(head, z, places, shards)
