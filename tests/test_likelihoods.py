"""Bits and first guesses of a split, against plain sums; and data that the grammar doesn't accept."""

import dataclasses
import itertools
import pathlib
from collections.abc import Mapping
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import random_data

from omnijax import testing
from omnijax.config import Config, Task
from omnijax.data.columns import end_to_end
from omnijax.data.corpus import Corpus
from omnijax.errors import DataError
from omnijax.evaluate.likelihoods import bits_per_item, forms_of, writing_order
from omnijax.experiment import load_experiment
from omnijax.modalities import Codes, Modality
from omnijax.model.transformer import Params, Transformer
from omnijax.sample.document_grammar import grammar_of
from omnijax.vocab.encode import encode
from omnijax.vocab.ids import PrimaryIds

DIGITS = pathlib.Path(__file__).parents[1] / "experiments" / "digits.py"
TASKS = (
    Task(("image", "text"), weights=(1.0, 5.0), random_order=(0.5, 0.0)),
    Task(("text", "speech"), weights=(0.0, 1.0)),
)
RECORDS = 6


@dataclasses.dataclass(frozen=True)
class Moving(Codes):
    """Codes that have a view."""

    views: ClassVar[tuple[str, ...]] = ("moved",)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shorter(testing.RandomRecords):
    """Random records whose speech may not be as long, and whose pictures have a view."""

    speech: int = 7

    @property
    def fields(self) -> Mapping[str, Modality]:
        speech, image = Codes("speech", radices=(20,), most=self.speech), Moving("image", radices=(100,), most=7)
        return {**super().fields, "speech": speech, "image": image}


@pytest.fixture(scope="module")
def config(tmp_path_factory) -> Config:
    config = random_data.small_config(load_experiment(DIGITS), tmp_path_factory.mktemp("none"))
    return dataclasses.replace(
        config,
        batch=dataclasses.replace(config.batch, tasks=TASKS),
        model=dataclasses.replace(config.model, depth=1),
        eval=dataclasses.replace(config.eval, targets=(), routes=(), batch_size=3),
    )


@pytest.fixture(scope="module")
def corpus(config: Config) -> Corpus:
    return random_data.random_corpus(config.vocabulary, RECORDS, most_items=7)


@pytest.fixture(scope="module")
def model(config: Config) -> Transformer:
    return Transformer(config.model, config.vocabulary.size)


@pytest.fixture(scope="module")
def params(model: Transformer) -> Params:
    random = np.random.default_rng(0)
    shapes = jax.eval_shape(model.init, jax.random.key(0))
    return jax.tree.map(lambda leaf: random.normal(scale=0.5, size=leaf.shape).astype(leaf.dtype), shapes)


@pytest.fixture(scope="module")
def found(config: Config, model: Transformer, params: Params, corpus: Corpus) -> dict:
    return bits_per_item(config, model, params, corpus, RECORDS)


def test_forms_are_those_of_the_tasks_in_every_order_that_they_have(config: Config, found: dict) -> None:
    names = ["image", "text|image", "image, any order", "text|image, any order", "speech|text"]
    assert list(found) == names  # a segment without weight has no likelihood
    always = dataclasses.replace(TASKS[0], random_order=(1.0, 0.0))
    moved = Task(("image/moved", "text"), weights=(1.0, 1.0))
    for tasks, expected in (((always,), [(True, False)]), ((moved, TASKS[0]), [(False, False), (True, False)])):
        changed = dataclasses.replace(config, data=Shorter(), batch=dataclasses.replace(config.batch, tasks=tasks))
        assert [form.shuffled for form in forms_of(changed)] == expected


def test_bits_and_wrong_first_guesses_are_those_of_plain_sums(
    config: Config, model: Transformer, params: Params, corpus: Corpus, found: dict
) -> None:
    """One document at a time, token by token."""
    v, rights = config.vocabulary, set()
    kinds = ("general", "position", "digit_0", "digit_1", "digit_2")

    @jax.jit
    def forward(params: Params, tokens_bt: jax.Array) -> jax.Array:
        positions_bt = jnp.broadcast_to(jnp.arange(tokens_bt.shape[1]), tokens_bt.shape)
        return model(params, tokens_bt, positions_bt, jnp.zeros_like(tokens_bt))

    for form in forms_of(config):
        documents = corpus.documents(range(RECORDS), form.fields)
        rows = encode(v, documents, writing_order(config, documents, form)).split()
        sums = [dict.fromkeys((*kinds, "items"), 0.0) for _ in form.fields]
        wrong, count = ([dict.fromkeys(kinds, 0) for _ in form.fields] for _ in range(2))
        exact: list[list[bool]] = [[] for _ in form.fields]
        masks = jax.jit(grammar_of(config, form.order).masks)
        for row in rows:
            tokens = np.asarray(row.array)
            padded = np.pad(tokens, (0, 80 - tokens.size))[None]  # of one shape, to be compiled once
            legal = np.asarray(masks(PrimaryIds(jnp.asarray(padded)))[0])
            logits = np.asarray(forward(params, jnp.asarray(padded))[0], np.float64)
            bits = (np.log(np.exp(logits).sum(axis=1, keepdims=True)) - logits) / np.log(2)
            segment, place = -1, 0
            for at, token in enumerate(tokens.tolist()):
                segment += token >= v.control_start and token != v.end
                digit = v.digit_start <= token < v.aos
                place = place + 1 if digit else 0
                if digit:
                    kind = f"digit_{place - 1}"
                elif token < v.digit_start:
                    kind = "general" if token < v.position_start else "position"
                else:
                    continue
                sums[segment][kind] += bits[at - 1, token]
                sums[segment]["items"] += kind in ("general", "position")
                wrong[segment][kind] += int(np.argmax(logits[at - 1])) != token
                count[segment][kind] += 1
                if kind in ("general", "position"):
                    exact[segment].append(True)
                exact[segment][-1] &= int(np.argmax(np.where(legal[at], logits[at - 1], -np.inf))) == token
        for number in np.flatnonzero(form.learned):
            entry, total = found[form.name(number)], sums[number]
            items = total.pop("items")
            assert entry["items"] == pytest.approx(items / RECORDS)
            assert entry["raw"] == pytest.approx(sum(total.values()) / items, rel=1e-4)
            assert entry["position"] == pytest.approx(total["position"] / items, rel=1e-4)
            places = [total[kind] / items for kind in kinds[2:] if count[number][kind]]
            assert entry["by_place"] == pytest.approx(places, rel=1e-4)
            assert entry["errors"] == pytest.approx(
                {kind: wrong[number][kind] / count[number][kind] for kind in kinds if count[number][kind]}
            )
            assert 0 <= entry["leak"] <= entry["raw"]
            assert entry["tokens"] == pytest.approx(sum(count[number].values()) / items)
            assert entry["exact"] == np.mean(exact[number])
            rights |= set(exact[number])
    assert rights == {False, True}


def test_in_random_order_only_shuffled_segments_are(config: Config, corpus: Corpus) -> None:
    _, form, _ = forms_of(config)
    documents = corpus.documents(range(RECORDS), form.fields)
    order = writing_order(config, documents, form)
    assert order is not None
    ends = np.cumsum(documents.segment_items)
    changed = []
    for number, (start, end) in enumerate(zip(ends - documents.segment_items, ends, strict=True)):
        assert sorted(order[start:end]) == list(range(start, end))
        changed.append(order[start:end].tolist() != list(range(start, end)))
        assert not (number % 2 and changed[-1])
    assert any(changed)
    other = dataclasses.replace(config, eval=dataclasses.replace(config.eval, seed=1))
    assert (writing_order(config, documents, form) == order).all()
    assert (writing_order(other, documents, form) != order).any()


# ---------------------------------------------------------------------- the grammar of a configuration


@pytest.mark.parametrize("order", ["raster", "any"])
def test_the_grammar_accepts_the_documents_of_the_tasks_and_no_others(config: Config, corpus: Corpus, order) -> None:
    grammar = grammar_of(config, order)
    accepts = jax.jit(lambda tokens: grammar.accepts(PrimaryIds(tokens)))
    names = ("text", "image", "speech")
    forms = [form for length in (1, 2, 3) for form in itertools.permutations(names, length)]
    encoded = encode(config.vocabulary, end_to_end([corpus.documents([0], form) for form in forms])).split()
    rows = np.zeros((len(forms), max(row.array.size for row in encoded)), np.int32)
    for row, tokens in zip(rows, encoded, strict=True):
        row[: tokens.array.size] = tokens.array
    # After an image comes text, after text speech or the end, after speech the end; nothing begins with speech.
    expected = {("text",), ("image", "text"), ("text", "speech"), ("image", "text", "speech")}
    assert {form for form, accepted in zip(forms, accepts(jnp.asarray(rows)), strict=True) if accepted} == expected


def test_a_record_that_the_grammar_does_not_accept_is_named(
    config: Config, model: Transformer, params: Params, corpus: Corpus
) -> None:
    lengths = corpus.columns["speech"].items.tolist()
    most = sorted(lengths)[-2]
    record = next(number for number, length in enumerate(lengths) if length > most)
    batch = dataclasses.replace(config.batch, tasks=TASKS[1:])
    strict = dataclasses.replace(config, data=Shorter(speech=most), batch=batch)
    assert strict.vocabulary == config.vocabulary
    with pytest.raises(DataError) as caught:
        bits_per_item(strict, model, params, corpus, RECORDS)
    assert caught.value.field == f"record {record} as text → speech"
    assert f"{lengths[record]} items of speech" in str(caught.value)
    assert "limits of the modalities" in caught.value.fix
