"""Exact bits per item of a split: each modality by itself, and given another one."""

from __future__ import annotations

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from omnijax.config import Config, Target
from omnijax.data.corpus import Corpus, modality_of
from omnijax.model.transformer import Transformer
from omnijax.vocab.decode import Kind, decode
from omnijax.vocab.documents import Documents
from omnijax.vocab.encode import encode
from omnijax.vocab.grammar import Grammar
from omnijax.vocab.likelihood import item_bits, token_bits
from omnijax.vocab.vocabulary import PAD


def bits_per_item(
    config: Config, model: Transformer, params: Any, corpus: Corpus, records: int
) -> dict[str, dict[str, Any]]:
    """Mean bits of an item, for every form of document that the model was trained on.

    The first segment of `("image", "text")` gives `image`, the second one `text|image`. A form that is not trained on
    has no likelihood worth a name.

    Returns:
        For each of these: `raw`, all the bits of an item; of which `digits` and `position`, the digits also `by_place`;
        `renormalised` under the grammar, and the `leak` between the two; `structure`, the bits of the tokens around the
        items of a segment (`aos`, the closing token), renormalised, for a segment; `items` of a segment; `uniform`, the
        bits of an item that is as likely as any other.
    """
    found: dict[str, dict[str, Any]] = {}
    forms = (tuple(modality_of(name) for name in task.segments) for task in config.batch.tasks)
    for segments in dict.fromkeys(forms):
        documents = Documents.of(corpus.document(record, segments) for record in range(records))
        rows = encode(config.vocabulary, documents).split()
        tokens = np.full((len(rows), max(row.size for row in rows)), PAD, np.int32)
        for row, document in zip(tokens, rows, strict=True):
            row[: document.size] = document
        sums = [
            jax.device_get(_sums(model, config.vocabulary, config.eval.targets, params, jnp.asarray(part)))
            for part in np.array_split(tokens, max(1, len(tokens) // config.eval.rows))
        ]
        totals = jax.tree.map(lambda *parts: np.sum(np.asarray(parts, np.float64), axis=0), *sums)
        for number, name in enumerate(segments):
            given = "|".join((name, *reversed(segments[:number])))
            if given not in found:
                found[given] = _entry(
                    {key: total[number] for key, total in totals.items()}, _uniform(config, name), records
                )
    return found


def _entry(sums: dict[str, Any], uniform: float, records: int) -> dict[str, Any]:
    items = sums["items"]
    raw, renormalised = float(sums["raw"] / items), float(sums["renormalised"] / items)
    return {
        "raw": raw,
        "renormalised": renormalised,
        "leak": raw - renormalised,
        "digits": float(sums["content"] / items),
        "position": float(sums["position"] / items),
        "by_place": [float(bits) for bits in sums["places"] / items if bits > 0],
        "structure": float(sums["structure"] / records),
        "items": float(items / records),
        "uniform": uniform,
    }


def _uniform(config: Config, name: str) -> float:
    sizes = {space.name: space.size for space in config.vocabulary.spaces}
    return math.log2(sizes.get(name, config.vocabulary.general))


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _sums(
    model: Transformer, vocabulary: Any, targets: tuple[Target, ...], params: Any, tokens_bt: Array
) -> dict[str, Array]:
    """Sums over a batch of documents, one number for each of their first two segments."""
    grammar = Grammar.of(vocabulary, {target.name: (target.min_items, target.max_items) for target in targets})
    positions_bt = jnp.broadcast_to(jnp.arange(tokens_bt.shape[1]), tokens_bt.shape)
    # Padding stands behind the document, where nothing of it can look.
    logits_btv = model(params, tokens_bt, positions_bt, jnp.zeros_like(tokens_bt))
    targets_bt, legal_btv = tokens_bt[:, 1:], grammar.masks(tokens_bt)[:, 1:]
    raw_bt, renormalised_bt = (
        jnp.pad(bits_bt, ((0, 0), (1, 0))) for bits_bt in token_bits(logits_btv[:, :-1], targets_bt, legal_btv)
    )
    reading = decode(vocabulary, tokens_bt)
    raw = item_bits(vocabulary, tokens_bt, raw_bt)
    renormalised = item_bits(vocabulary, tokens_bt, renormalised_bt)
    ends_bt = (reading.kind == Kind.GENERAL) | (reading.kind == Kind.FRAGMENT)
    closes_bt = reading.kind == Kind.CONTROL
    structural_bt = closes_bt | (reading.kind == Kind.AOS)
    # Segment s is opened by control token s; the one that closes it opens the next.
    segment_bt = reading.segment - 1
    inside = jax.nn.one_hot(segment_bt, 2)
    closing = jax.nn.one_hot(segment_bt - closes_bt, 2)
    return {
        "items": jnp.einsum("bt,bts->s", ends_bt, inside),
        "raw": jnp.einsum("bt,bts->s", raw.content + raw.position, inside),
        "renormalised": jnp.einsum("bt,bts->s", renormalised.content + renormalised.position, inside),
        "content": jnp.einsum("bt,bts->s", raw.content, inside),
        "position": jnp.einsum("bt,bts->s", raw.position, inside),
        "places": jnp.einsum("btk,bts->sk", raw.places, inside),
        "structure": jnp.einsum("bt,bts->s", renormalised_bt * structural_bt, closing),
    }
