"""Exact bits per item of a split, and how often the likeliest token is wrong: of each field, also given others."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding
from jaxtyping import Array, Int

from omnijax.config import Config
from omnijax.data.columns import markers_of
from omnijax.data.corpus import Corpus
from omnijax.errors import DataError
from omnijax.model.shards import ALONE
from omnijax.model.transformer import Transformer
from omnijax.sample.document_grammar import grammar_of
from omnijax.source import SEQUENCE
from omnijax.step.sharding import ROWS, divisible, mesh_of
from omnijax.vocab.decode import Kind, decode
from omnijax.vocab.documents import Documents
from omnijax.vocab.encode import encode
from omnijax.vocab.grammar import Grammar
from omnijax.vocab.ids import PrimaryIds
from omnijax.vocab.kinds import PAD_KIND, kind_names
from omnijax.vocab.likelihood import item_bits, token_bits
from omnijax.vocab.vocabulary import PAD, Vocabulary

IN_ANY_ORDER = ", any order"
"""Behind the name of a field: its fragments stood in a random order, and the grammar was one of any order."""
WIDTH = 16
"""Documents are padded to a multiple of this many tokens, so that few widths are compiled."""
NOT_IN_ITEMS = ("pad", "aos", "control")
TOTAL = ("accepted", "items", "renormalised", "structure")
"""The sums that make up the bits of a field."""


class Form(NamedTuple):
    """A form of document to measure.

    Attributes:
        fields: in order.
        shuffled: for each field, whether its fragments stand in a random order.
        learned: for each field, whether it has a weight in the loss.
    """

    fields: tuple[str, ...]
    shuffled: tuple[bool, ...]
    learned: tuple[bool, ...]

    @property
    def order(self) -> Literal["raster", "any"]:
        """Of the grammar that the documents are measured with."""
        return "any" if any(self.shuffled) else "raster"

    def name(self, number: int) -> str:
        """One field, given those before it: `B|A` for the second field of `("A", "B")`."""
        names = [name + IN_ANY_ORDER * shuffled for name, shuffled in zip(self.fields, self.shuffled, strict=True)]
        return "|".join(reversed(names[: number + 1]))


def forms_of(config: Config) -> list[Form]:
    """The forms that a configuration trains on; those with random orders in raster order too, unless it never does."""
    found = []
    for task in config.batch.tasks:
        shares, learned = task.random_orders, tuple(weight > 0 for weight in task.weights)
        found += [Form(task.names, tuple(share == 1 for share in shares), learned)] * (min(shares) < 1)
        found += [Form(task.names, tuple(share > 0 for share in shares), learned)] * (max(shares) > 0)
    return list(dict.fromkeys(found))


def bits_per_item(
    config: Config,
    model: Transformer,
    params: Any,
    corpus: Corpus,
    records: int,
    units: Mapping[str, tuple[np.ndarray, str]] | None = None,
    origins: Sequence[str] = (),
) -> dict[str, dict[str, Any]]:
    """Mean bits of an item, for every form of document that the model was trained on.

    The first field of `("A", "B")` gives `A`, the second one `B|A`. A field without weight in the loss isn't measured.
    A form takes the records that have all of its fields. Raises a `DataError` for a record that the grammar of the
    configuration doesn't accept.

    Args:
        config: of the run.
        model: of the run.
        params: as trained.
        corpus: the split, with the fields that the tasks name.
        records: number of records, the first ones of the split.
        units: for lossless fields, natural units of each record, and their name.
        origins: name of the source of each record of a mixture.

    Returns:
        For each field of each form: `raw`, all the bits of an item; its parts `digits` and `position`, the digits also
        `by_place`; `renormalised` under the grammar, and the `leak` between the two; `structure`, the renormalised bits
        of the tokens around the items (`aos`, the closing token), per record; `items` per record; `tokens` per item;
        `uniform`, the bits of an item that is as likely as any other; `errors`, by kind of token (`kind_names`), how
        often the likeliest token is wrong after right ones; `exact`, the share of items all of whose tokens are the
        likeliest legal ones after right ones, as in greedy generation; `units`, bits per natural unit by its name;
        `records`; `sources`, `renormalised` and `records` by the name of the source in a mixture.
    """
    found: dict[str, dict[str, Any]] = {}
    for form in forms_of(config):
        places = corpus.having(form.fields)
        places = places[places < records]
        if not len(places):
            continue
        documents = corpus.documents(places, form.fields)
        fields = _fields_of_segments(config, documents, form)
        sums = document_sums(config, model, params, documents, form)
        accepted = sums.pop("accepted")
        if not accepted.all():
            record = int(places[np.argmin(accepted)])
            counts = [f"{corpus.columns[name].items[record]} items of {name}" for name in form.fields]
            rule = "no document of the configuration: its tasks say which fields follow which, its modalities how long"
            fix = "set the limits of the modalities so that they hold the data, or mend the record"
            raise DataError(f"record {record} as {' → '.join(form.fields)}", ", ".join(counts), rule, fix)
        totals = {key: parts.astype(np.float64).sum(axis=0) for key, parts in sums.items()}
        for number, name in enumerate(form.fields):
            if not form.learned[number] or form.name(number) in found:
                continue
            entry = _entry(config.vocabulary, {key: total[number] for key, total in totals.items()}, len(places))
            entry |= {"uniform": _uniform(config.vocabulary, documents, fields, number), "units": {}}
            if units is not None and name in units:
                count, unit = units[name]
                bits = entry["digits" if form.shuffled[number] else "renormalised"] * totals["items"][number]
                entry["units"] = {unit: float(bits / count[places].sum())}
            entry["sources"] = {}
            of_record = np.array(origins)[places] if origins else np.array([])
            for source in dict.fromkeys(of_record.tolist()):
                here = of_record == source
                items, own = (sums[key][here, number].sum(dtype=np.float64) for key in ("items", "renormalised"))
                entry["sources"][source] = {"renormalised": float(own / items), "records": int(here.sum())}
            found[form.name(number)] = entry
    return found


def document_sums(
    config: Config, model: Transformer, params: Any, documents: Documents, form: Form, wanted: Sequence[str] = ()
) -> dict[str, np.ndarray]:
    """Sums over each document, one number for each field of the form, [documents, fields]: see `_sums`.

    Items of fields before the first learned one don't pass the head; only `accepted`, `items` and `count` hold there.
    `wanted` names the sums to return, () for all: each takes its time.
    """
    encoded = encode(config.vocabulary, documents, writing_order(config, documents, form))
    lengths, count = encoded.document_tokens, len(encoded.document_tokens)
    longest = -(-lengths.max() // WIDTH) * WIDTH
    tokens = _table(lengths, encoded.tokens.array, PAD, longest)
    kinds = _table(lengths, encoded.kinds, PAD_KIND, longest)
    fields = _fields_of_segments(config, documents, form)
    unmeasured = ((fields >= 0) & (fields < form.learned.index(True))).sum(axis=1, keepdims=True)
    opens = np.cumsum(kinds == kind_names(config.vocabulary).index("control"), axis=1) > unmeasured
    starts = np.maximum(1, opens.argmax(axis=1)).astype(np.int32)[:, None]  # the marker of the first learned field
    tail = min(longest - 1, -(-int((lengths - starts[:, 0]).max()) // WIDTH) * WIDTH)
    given = (tokens, kinds, starts, fields, _bounds(config, documents))
    # Some rows at a time, spread over the devices that hold the parameters.
    mesh = mesh_of(params)
    place = None if mesh is None else NamedSharding(mesh, ROWS)
    rows = divisible(min(count, config.eval.batch_size), mesh)
    whole = [np.pad(one, ((0, -count % rows), (0, 0)), "edge") for one in given]  # one program serves all parts
    sizes = 1 + np.bincount(np.repeat(np.arange(count), documents.document_segments), documents.segment_items + 2)
    most_items = -(-int(sizes.max()) // WIDTH) * WIDTH
    found, grammar = [], grammar_of(config, form.order)
    for start in range(0, count, rows):
        placed = [jax.device_put(one[start : start + rows], place) for one in whole]
        found.append(jax.device_get(_sums(model, grammar, len(form.fields), most_items, tail, wanted, params, *placed)))
    return {key: np.concatenate([one[key] for one in found])[:count] for key in found[0]}


def writing_order(config: Config, documents: Documents, form: Form) -> np.ndarray | None:
    """Order in which the items are written: random in the fields that are shuffled, drawn by `eval.seed`."""
    if not any(form.shuffled):
        return None
    fields = _fields_of_segments(config, documents, form)
    shuffled = np.array(form.shuffled)[fields[fields >= 0]]
    segment_of = np.repeat(np.arange(shuffled.size), documents.segment_items)
    place = np.where(shuffled[segment_of], np.random.default_rng(config.eval.seed).random(segment_of.size), 0.0)
    return np.lexsort((place, segment_of))


def _fields_of_segments(config: Config, documents: Documents, form: Form) -> Int[np.ndarray, "n segments"]:
    """int32[documents, segments], number of the form's field that each segment belongs to; -1 where there is none."""
    control = config.vocabulary.control
    owner = np.full(len(control), -1, np.int32)
    known = form.fields if form.fields != (SEQUENCE,) else tuple(config.data.fields)
    for number, field in enumerate(known):
        for marker in markers_of(field, config.data.fields[field]):
            owner[control.index(marker)] = number if form.fields != (SEQUENCE,) else 0
    # A part's marker may serve several fields: its segment belongs to the field before it.
    numbers = owner[documents.segment_markers]
    openers = np.isin(documents.segment_markers, [control.index(field) for field in known])
    last = np.maximum.accumulate(np.where(openers, np.arange(len(numbers)), 0))
    return _table(documents.document_segments, numbers[last], -1)


def _table(
    counts: Int[np.ndarray, " n"], values: Int[np.ndarray, " all"], fill: int, width: int = 0
) -> Int[np.ndarray, "n s"]:
    """Values of some documents, `counts` of each, as a row for each document, int32."""
    inside = np.arange(width or counts.max())[None, :] < counts[:, None]
    table = np.full(inside.shape, fill, np.int32)
    table[inside] = values
    return table


def _bounds(config: Config, documents: Documents) -> Int[np.ndarray, "n s"]:
    """Items of the segments whose number a header before them says, int32[documents, segments]; -1 for the others."""
    later = [part.name for modality in config.data.fields.values() for part in modality.parts[1:]]
    told = np.isin(documents.segment_markers, [config.vocabulary.control.index(name) for name in later])
    if not told.any():
        return np.zeros((len(documents.document_segments), 0), np.int32)
    return _table(documents.document_segments, np.where(told, documents.segment_items, -1), -1)


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
        "records": records,
        "tokens": float(sum(here for name, here in count.items() if name not in NOT_IN_ITEMS) / items),
        "exact": float(sums["exact"] / items),
        "errors": {
            name: float(wrong / count[name])
            for name, wrong in zip(names, sums["wrong"], strict=True)
            if count[name] and name not in NOT_IN_ITEMS
        },
    }


def _uniform(vocabulary: Vocabulary, documents: Documents, fields: Int[np.ndarray, "n s"], number: int) -> float:
    """Mean of log2 of the number of items that each item of a field could have been."""
    of_segment = fields[fields >= 0]
    spaces = documents.spaces[np.repeat(of_segment == number, documents.segment_items)]
    sizes = [*(space.size for space in vocabulary.spaces), max(1, vocabulary.general)]  # a general token has -1
    return float(np.array([math.log2(size) for size in sizes])[spaces].sum() / max(len(spaces), 1))


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3, 4, 5))
def _sums(
    model: Transformer,
    grammar: Grammar,
    fields: int,
    most_items: int,
    tail: int,
    wanted: Sequence[str],
    params: Any,
    tokens_bt: Array,
    kinds_bt: Array,
    starts_b1: Array,
    fields_bs: Array,
    exactly_bs: Array,
) -> dict[str, Array]:
    """Which documents the grammar accepts; and sums over each of them, one number for each of its fields."""
    vocabulary, tokens = grammar.vocabulary, PrimaryIds(tokens_bt)
    place_bt, numbers_bt = jnp.broadcast_to(jnp.arange(tokens_bt.shape[1]), tokens_bt.shape), jnp.zeros_like(tokens_bt)
    # Padding stands behind the document, where nothing of it can look.
    states_btd, places_bt = model.behind(params, tokens_bt, place_bt, numbers_bt, most_items=most_items)
    state, legal_btv = grammar.read(grammar.start_state(tokens_bt.shape[0], exactly_bs, exactly_bs), tokens)
    accepted_b = jnp.take_along_axis(legal_btv, tokens_bt[..., None], axis=-1).all((1, 2)) & grammar.mask(state)[:, PAD]
    take = functools.partial(jnp.take_along_axis, axis=1)
    here_bt = jnp.minimum(starts_b1 + jnp.arange(tail)[None], tokens_bt.shape[1] - 1)  # the others don't pass the head
    states_btd, places_bt = take(states_btd, here_bt[..., None] - 1), take(places_bt, here_bt - 1)
    legal_btv, next_bt = take(legal_btv, here_bt[..., None]), take(tokens_bt, here_bt)
    logits_btv = model.logits(model.head_parameters(params, ALONE), states_btd, places_bt, ALONE)
    first_legal_bt = jnp.argmax(jnp.where(legal_btv, logits_btv, -jnp.inf), axis=-1)
    misses = ((guess != next_bt).astype(jnp.float32) for guess in (jnp.argmax(logits_btv, axis=-1), first_legal_bt))
    of_next = (*token_bits(logits_btv, PrimaryIds(next_bt), legal_btv), *misses)
    at_bt = jnp.where(place_bt < starts_b1, tail, place_bt - starts_b1)  # beyond the end: not measured
    raw_bt, renormalised_bt, wrong_bt, missed_bt = (take(x_bt, at_bt, mode="fill", fill_value=0) for x_bt in of_next)
    kinds_btk = jax.nn.one_hot(kinds_bt, len(kind_names(vocabulary)))
    reading = decode(vocabulary, tokens)
    of_items = functools.partial(item_bits, vocabulary, tokens)
    raw, renormalised, missed = map(of_items, (raw_bt, renormalised_bt, missed_bt))
    ends_bt = (reading.kind == Kind.GENERAL) | (reading.kind == Kind.FRAGMENT)
    closes_bt = reading.kind == Kind.CONTROL
    structural_bt = closes_bt | (reading.kind == Kind.AOS)
    # Segment s is opened by control token s; the one that closes it opens the next.
    segment_bt = reading.segment - 1
    inside, closing = (_field_at(fields_bs, of_bt, fields) for of_bt in (segment_bt, segment_bt - closes_bt))
    of_token = {
        "items": ends_bt,
        "exact": ends_bt & (missed.content + missed.position + missed.check == 0),
        "raw": raw.content + raw.position,
        "renormalised": renormalised.content + renormalised.position,
        "content": raw.content,
        "position": raw.position,
    }
    sums = {name: jnp.einsum("bt,bts->bs", values_bt, inside) for name, values_bt in of_token.items()} | {
        "accepted": accepted_b,
        "structure": jnp.einsum("bt,bts->bs", renormalised_bt * structural_bt, closing),
        "places": jnp.einsum("btk,bts->bsk", raw.places, inside),
        "count": jnp.einsum("btk,bts->bsk", kinds_btk, inside),
        "wrong": jnp.einsum("bt,btk,bts->bsk", wrong_bt, kinds_btk, inside),
    }
    return {name: sums[name] for name in wanted or sums}


def _field_at(fields_bs: Array, segment_bt: Array, fields: int) -> Array:
    """Which field each token belongs to, float[b, t, fields]: nothing where there is no such segment."""
    last = fields_bs.shape[1] - 1
    field_bt = jnp.take_along_axis(fields_bs, jnp.clip(segment_bt, 0, last), axis=1)
    return jax.nn.one_hot(jnp.where((segment_bt < 0) | (segment_bt > last), -1, field_bt), fields)
