"""Exact bits per item of a split, and how often the likeliest token is wrong: of each modality, also given others."""

from __future__ import annotations

import functools
import math
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding
from jaxtyping import Array

from omnijax.config import Config
from omnijax.data.corpus import Corpus
from omnijax.errors import DataError
from omnijax.model.transformer import Transformer
from omnijax.sample.document_grammar import grammar_of
from omnijax.step.sharding import ROWS, mesh_of
from omnijax.vocab.decode import Kind, decode
from omnijax.vocab.documents import Documents
from omnijax.vocab.encode import encode
from omnijax.vocab.grammar import Grammar
from omnijax.vocab.ids import PrimaryIds
from omnijax.vocab.kinds import kind_names, token_kinds
from omnijax.vocab.likelihood import item_bits, token_bits
from omnijax.vocab.vocabulary import PAD, Vocabulary

IN_ANY_ORDER = ", any order"
"""Behind the name of a modality: its fragments stood in a random order, and the grammar was one of any order."""
NOT_IN_ITEMS = ("pad", "aos", "control")


class Form(NamedTuple):
    """A form of document to measure: one segment for each modality.

    Attributes:
        segments: names of the modalities.
        shuffled: for each of them, whether its fragments stand in a random order.
        learned: for each of them, whether it is trained on, or has no weight in the loss.
    """

    segments: tuple[str, ...]
    shuffled: tuple[bool, ...]
    learned: tuple[bool, ...]

    @property
    def order(self) -> Literal["raster", "any"]:
        """Of the grammar that the documents are measured with."""
        return "any" if any(self.shuffled) else "raster"

    def name(self, number: int) -> str:
        """Of one segment, given those before: `text|image`."""
        names = [name + IN_ANY_ORDER * shuffled for name, shuffled in zip(self.segments, self.shuffled, strict=True)]
        return "|".join(reversed(names[: number + 1]))


def forms_of(config: Config) -> list[Form]:
    """The forms that a configuration trains on; those with random orders in raster order too, unless it never does."""
    found = []
    for task in config.batch.tasks:
        learned = tuple(weight > 0 for weight in task.weights)
        if min(task.random_orders) < 1:
            found.append(Form(task.modalities, tuple(share == 1 for share in task.random_orders), learned))
        if max(task.random_orders) > 0:
            found.append(Form(task.modalities, tuple(share > 0 for share in task.random_orders), learned))
    return list(dict.fromkeys(found))


def bits_per_item(
    config: Config, model: Transformer, params: Any, corpus: Corpus, records: int
) -> dict[str, dict[str, Any]]:
    """Mean bits of an item, for every form of document that the model was trained on.

    The first segment of `("image", "text")` gives `image`, the second one `text|image`. What is not trained on has no
    likelihood worth a name: neither other forms, nor a segment without weight in the loss.

    Returns:
        For each of these: `raw`, all the bits of an item; of which `digits` and `position`, the digits also `by_place`;
        `renormalised` under the grammar, and the `leak` between the two; `structure`, the bits of the tokens around the
        items of a segment (`aos`, the closing token), renormalised, for a segment; `items` of a segment; `uniform`, the
        bits of an item that is as likely as any other; `errors`, by kind of token (`kind_names`), how often the
        likeliest token is another one when all before it are right; `exact`, the share of items all of whose tokens
        (digits, position, check digit; a general token by itself) are the likeliest legal ones when all before them are
        right, which is how often greedy generation under the grammar gives the item.

    Raises:
        DataError: a record that the grammar of the configuration doesn't accept.
    """
    found: dict[str, dict[str, Any]] = {}
    for form in forms_of(config):
        documents = corpus.documents(range(records), form.segments)
        rows = encode(config.vocabulary, documents, writing_order(documents, form, config.eval.seed)).split()
        tokens = np.full((len(rows), max(row.array.size for row in rows)), PAD, np.int32)
        for row, document in zip(tokens, rows, strict=True):
            row[: document.array.size] = document.array
        sums = _measured(
            model, grammar_of(config, form.order), len(form.segments), params, tokens, config.eval.batch_size
        )
        accepted = sums.pop("accepted")
        if not accepted.all():
            raise _not_accepted(int(np.argmin(accepted)), form, corpus)
        totals = {key: parts.astype(np.float64).sum(axis=0) for key, parts in sums.items()}
        for number, name in enumerate(form.segments):
            if form.learned[number] and form.name(number) not in found:
                entry = _entry(config.vocabulary, {key: total[number] for key, total in totals.items()}, records)
                found[form.name(number)] = entry | {"uniform": _uniform(config.vocabulary, name)}
    return found


def writing_order(documents: Documents, form: Form, seed: int) -> np.ndarray | None:
    """Order in which the items are written: random in the segments that are shuffled, drawn by the seed."""
    if not any(form.shuffled):
        return None
    shuffled = np.resize(np.array(form.shuffled), documents.segment_items.size)
    segment_of = np.repeat(np.arange(shuffled.size), documents.segment_items)
    place = np.where(shuffled[segment_of], np.random.default_rng(seed).random(segment_of.size), 0.0)
    return np.lexsort((place, segment_of))


def _not_accepted(record: int, form: Form, corpus: Corpus) -> DataError:
    counts = [f"{len(corpus.fragments[name][record])} items of {name}" for name in form.segments]
    rule = "it is no document of the configuration: its tasks say which segments follow which, its targets how long"
    return DataError(
        f"record {record} as {' → '.join(form.segments)}",
        ", ".join(counts),
        rule,
        "set min_items and max_items of eval.targets so that they hold the data, or mend the record",
    )


def _entry(vocabulary: Vocabulary, sums: dict[str, Any], records: int) -> dict[str, Any]:
    items, names = sums["items"], kind_names(vocabulary)
    raw, renormalised = float(sums["raw"] / items), float(sums["renormalised"] / items)
    count = dict(zip(names, sums["count"], strict=True))
    return {
        "raw": raw,
        "renormalised": renormalised,
        "leak": raw - renormalised,
        "digits": float(sums["content"] / items),
        "position": float(sums["position"] / items),
        "by_place": [float(bits / items) for place, bits in enumerate(sums["places"]) if count[f"digit_{place}"]],
        "structure": float(sums["structure"] / records),
        "items": float(items / records),
        "exact": float(sums["exact"] / items),
        "errors": {
            name: float(wrong / count[name])
            for name, wrong in zip(names, sums["wrong"], strict=True)
            if count[name] and name not in NOT_IN_ITEMS
        },
    }


def _uniform(vocabulary: Vocabulary, name: str) -> float:
    sizes = {space.name: space.size for space in vocabulary.spaces}
    return math.log2(sizes.get(name, vocabulary.general))


def _measured(
    model: Transformer, grammar: Grammar, segments: int, params: Any, tokens: np.ndarray, rows: int
) -> dict[str, np.ndarray]:
    """`_sums` of all documents, so many of them side by side, spread over the devices that hold the parameters."""
    mesh = mesh_of(params)
    devices = 1 if mesh is None else mesh.shape["data"] * mesh.shape["fsdp"]
    count = len(tokens)
    parts = -(-count // rows)
    rows = -(-count // (parts * devices)) * devices
    padded = np.pad(tokens, ((0, parts * rows - count), (0, 0)), constant_values=PAD)
    found = []
    for part in padded.reshape(parts, rows, -1):
        placed = jnp.asarray(part) if mesh is None else jax.device_put(part, NamedSharding(mesh, ROWS))
        found.append(jax.device_get(_sums(model, grammar, segments, params, placed)))
    return {key: np.concatenate([one[key] for one in found])[:count] for key in found[0]}


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _sums(model: Transformer, grammar: Grammar, segments: int, params: Any, tokens_bt: Array) -> dict[str, Array]:
    """Which documents the grammar accepts; and sums over each of them, one number for each of its segments."""
    vocabulary, tokens = grammar.vocabulary, PrimaryIds(tokens_bt)
    positions_bt = jnp.broadcast_to(jnp.arange(tokens_bt.shape[1]), tokens_bt.shape)
    # Padding stands behind the document, where nothing of it can look.
    logits_btv = model(params, tokens_bt, positions_bt, jnp.zeros_like(tokens_bt))
    state, legal_btv = grammar.read(grammar.start_state(tokens_bt.shape[0]), tokens)
    accepted_b = jnp.take_along_axis(legal_btv, tokens_bt[..., None], axis=-1).all((1, 2)) & grammar.mask(state)[:, PAD]
    before_btv, legal_btv, next_bt = logits_btv[:, :-1], legal_btv[:, 1:], tokens_bt[:, 1:]
    first_legal_bt = jnp.argmax(jnp.where(legal_btv, before_btv, -jnp.inf), axis=-1)
    raw_bt, renormalised_bt, wrong_bt, missed_bt = (
        jnp.pad(values_bt, ((0, 0), (1, 0)))
        for values_bt in (
            *token_bits(before_btv, PrimaryIds(next_bt), legal_btv),
            (jnp.argmax(before_btv, axis=-1) != next_bt).astype(jnp.float32),
            (first_legal_bt != next_bt).astype(jnp.float32),
        )
    )
    kinds_btk = jax.nn.one_hot(token_kinds(vocabulary, tokens), len(kind_names(vocabulary)))
    reading = decode(vocabulary, tokens)
    raw, renormalised, missed = (
        item_bits(vocabulary, tokens, values_bt) for values_bt in (raw_bt, renormalised_bt, missed_bt)
    )
    ends_bt = (reading.kind == Kind.GENERAL) | (reading.kind == Kind.FRAGMENT)
    closes_bt = reading.kind == Kind.CONTROL
    structural_bt = closes_bt | (reading.kind == Kind.AOS)
    # Segment s is opened by control token s; the one that closes it opens the next.
    segment_bt = reading.segment - 1
    inside = jax.nn.one_hot(segment_bt, segments)
    closing = jax.nn.one_hot(segment_bt - closes_bt, segments)
    return {
        "accepted": accepted_b,
        "items": jnp.einsum("bt,bts->bs", ends_bt, inside),
        "exact": jnp.einsum("bt,bts->bs", ends_bt & (missed.content + missed.position + missed.check == 0), inside),
        "raw": jnp.einsum("bt,bts->bs", raw.content + raw.position, inside),
        "renormalised": jnp.einsum("bt,bts->bs", renormalised.content + renormalised.position, inside),
        "content": jnp.einsum("bt,bts->bs", raw.content, inside),
        "position": jnp.einsum("bt,bts->bs", raw.position, inside),
        "places": jnp.einsum("btk,bts->bsk", raw.places, inside),
        "structure": jnp.einsum("bt,bts->bs", renormalised_bt * structural_bt, closing),
        "count": jnp.einsum("btk,bts->bsk", kinds_btk, inside),
        "wrong": jnp.einsum("bt,btk,bts->bsk", wrong_bt, kinds_btk, inside),
    }
