"""The model that steps once an item, held against slow ways to say the same."""

import dataclasses
import functools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import random_data
import reference
from hypothesis import given, settings
from hypothesis import strategies as st
from sampling import drawing, prompts_of, random_params

from omnijax import testing
from omnijax.config import Config, EvalConfig, MeshConfig, SampleConfig, Task, Writing
from omnijax.config.writing import vocabulary_of
from omnijax.data.columns import end_to_end
from omnijax.data.corpus import Corpus
from omnijax.errors import ConfigError
from omnijax.evaluate import likelihoods
from omnijax.evaluate.likelihoods import document_sums, forms_of
from omnijax.experiment import load_experiment
from omnijax.model.build import grouping_of, model_of, with_natural_digits
from omnijax.model.groups import Grouping
from omnijax.model.items import ItemTransformer
from omnijax.model.shards import ALONE
from omnijax.sample.sampler import Sampler
from omnijax.step import losses
from omnijax.step.sharding import make_mesh
from omnijax.step.state import gradients_of, init_state
from omnijax.vocab.decode import Kind
from omnijax.vocab.encode import encode

DIGITS = pathlib.Path(__file__).parents[1] / "experiments" / "digits.py"
HEADS = ("depth", "parallel")

WRITING = Writing(base=5, t_pad=False)
SMALL = random_data.small_vocabulary()
WAYS = {
    "before": WRITING,
    "after": dataclasses.replace(WRITING, position="after"),
    "none": dataclasses.replace(WRITING, position="none"),
    "inline": dataclasses.replace(WRITING, layout="inline"),
    "little": dataclasses.replace(WRITING, digit_order="little"),
    "check digit": dataclasses.replace(WRITING, check_digit=True),
    "two places": dataclasses.replace(WRITING, positions=8, position_places=2),
    "mixed": dataclasses.replace(WRITING, base=(2, 5, 4, 5)),
    "one digit": dataclasses.replace(WRITING, base=100, position="none"),
}


def small(head: str, writing: Writing = WRITING, **batch: int) -> Config:
    config = random_data.small_config(load_experiment(DIGITS), pathlib.Path("nowhere"))
    batch = {"sequence_items": 30, "sequence_length": 161} | batch
    return dataclasses.replace(
        config,
        writing=writing,
        batch=dataclasses.replace(config.batch, **batch),
        model=dataclasses.replace(config.model, depth=1, head=head),
    )


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    return random_data.random_corpus(SMALL, 40, most_items=7)


@pytest.fixture(scope="module", params=HEADS)
def trained(request, corpus: Corpus) -> tuple[Config, ItemTransformer, dict]:
    """Random parameters, the scales of norms too."""
    config = small(request.param)
    model = model_of(config)
    assert isinstance(model, ItemTransformer)
    return config, model, jax.device_put(random_params(model, scale=0.3))


# ------------------------------------------------------------------ which tokens make an item

ends_of = jax.jit(Grouping.ends, static_argnums=0)
items_of = jax.jit(Grouping.items, static_argnums=(0, 4))


@pytest.mark.parametrize("writing", WAYS.values(), ids=WAYS)
@settings(max_examples=25)
@given(seed=st.integers(0, 2**32 - 1))
def test_items_end_where_the_decoder_says(writing: Writing, seed: int) -> None:
    vocabulary = vocabulary_of(writing, testing.RandomRecords().fields)
    corpus = random_data.random_corpus(vocabulary, 3, most_items=7, seed=seed)
    documents = end_to_end([corpus.documents([i], ("image", "text", "speech")[: 1 + i]) for i in range(3)])
    tokens = encode(vocabulary, documents).tokens.array
    row = np.pad(tokens, (0, 400 - tokens.size))  # of one length, so that the program is compiled once
    kinds = np.array([one.kind for one in reference.read(vocabulary, row.tolist())])
    np.testing.assert_array_equal(ends_of(grouping_of(vocabulary), row[None])[0], kinds != Kind.PART)


def slow_items(grouping: Grouping, tokens: list[int], ends: list[bool]) -> list[list[int]]:
    found: list[list[int]] = [[]]
    for token, end in zip(tokens, ends, strict=True):
        found[-1].append(token)
        if end:
            found.append([])
    return [item for item in found if item]


def test_rows_of_items_hold_the_tokens_of_the_rows(corpus: Corpus) -> None:
    config = small("depth")
    batch, grouping = random_data.batches_of(corpus, config.batch)[0], grouping_of(SMALL)
    inputs = (batch["tokens"], batch["positions"], batch["documents"], config.batch.sequence_items)
    items = jax.device_get(items_of(grouping, *inputs))
    for row in range(config.batch.size):
        read = batch["documents"][row] >= 0
        expected = slow_items(grouping, batch["tokens"][row, read].tolist(), items.ends[row, read].tolist())
        found = [items.tokens[row, i, items.there[row, i]].tolist() for i in range(len(expected))]
        assert found == expected
        position, before = -1, None
        first = np.cumsum([0, *map(len, expected)])
        for number in range(len(expected)):
            document = batch["documents"][row, first[number]]
            position = 0 if document != before else position + 1
            assert (items.positions[row, number], items.documents[row, number]) == (position, document)
            before = document
        assert (items.documents[row, len(expected) :] == -1).all()


@pytest.mark.parametrize(
    "change, said",
    [
        ({"writing": dataclasses.replace(WRITING, width="minimal", position="after")}, "writing.width"),
        ({"batch": {"sequence_items": 0}}, "batch.sequence_items"),
        ({"mesh": MeshConfig(context=2)}, "mesh.context"),
    ],
)
def test_a_head_that_cannot_be_had_is_refused(change: dict, said: str) -> None:
    config = small("depth", **change.pop("batch", {}))
    with pytest.raises(ConfigError, match=said):
        model_of(dataclasses.replace(config, **change))


# ------------------------------------------------------------------ what the logits look at


def test_rows_say_the_same_as_their_documents_alone(trained, corpus: Corpus) -> None:
    config, model, params = trained
    batch = random_data.batches_of(corpus, config.batch)[0]
    inputs = (batch["tokens"], batch["positions"], batch["documents"])
    packed = jax.jit(lambda *given: model(params, *given, most_items=config.batch.sequence_items))(*inputs)
    alone = jax.jit(lambda *given: model(params, *given))
    for row in range(3):
        for document in range(batch["documents"][row].max() + 1):
            here = batch["documents"][row] == document
            tokens = np.zeros_like(batch["tokens"][:1])
            tokens[0, : here.sum()] = batch["tokens"][row, here]
            logits = alone(tokens, np.arange(tokens.size)[None], np.zeros_like(tokens))
            np.testing.assert_allclose(packed[row, here], logits[0, : here.sum()], atol=3e-5)


def test_a_token_sees_what_stands_before_it_and_nothing_behind(trained, corpus: Corpus) -> None:
    config, model, params = trained
    tokens = encode(SMALL, corpus.documents([0], ("image", "text"))).tokens.array
    at = np.arange(tokens.size)
    ends = np.asarray(ends_of(model.grouping, tokens[None]))[0]
    item = np.cumsum(ends) - ends

    items = items_of(model.grouping, tokens[None], at[None], np.zeros_like(tokens)[None], tokens.size)
    number = jnp.zeros_like(items.tokens).at[0, item, np.asarray(items.place)[0]].set(at)

    @jax.jit
    @jax.jacobian
    def slopes(embedded: jax.Array) -> jax.Array:
        """Of one direction of the logits behind each token, where each has an embedding of its own."""
        own = {**params, "ends": {**params["ends"], "embed": embedded}}
        states = model._behind(own, items._replace(tokens=number), None, ALONE)
        logits = model.logits(model.head_parameters(own, ALONE), *states, ALONE)[0]
        return logits @ jax.random.normal(jax.random.key(0), (logits.shape[1],))

    seen = np.asarray(slopes(params["ends"]["embed"][tokens])).any(axis=2)
    whole_items = ends[:, None] & (item[None, :] <= item[:, None]) | (item[None, :] < item[:, None])
    same_item = item[None, :] == item[:, None]
    expected = whole_items if config.model.head == "parallel" else whole_items | (same_item & (at[None] <= at[:, None]))
    np.testing.assert_array_equal(seen, expected)


def test_bits_need_no_more_steps_than_a_document_has_items(trained, corpus: Corpus, monkeypatch) -> None:
    config, model, params = trained
    form = next(form for form in forms_of(config) if form.fields == ("image", "text"))
    found = []
    for width in (1, 64):  # exactly as many steps as the longest document has items, or more
        monkeypatch.setattr(likelihoods, "WIDTH", width)
        found.append(document_sums(config, model, params, corpus.documents(range(20), form.fields), form))
    assert found[0]["renormalised"].min() > 0
    for name, sums in found[0].items():
        np.testing.assert_allclose(sums, found[1][name], rtol=1e-5, atol=1e-4, err_msg=name)


def test_a_field_has_the_same_bits_whether_those_before_it_are_learned(trained, corpus: Corpus) -> None:
    config, model, params = trained
    for form in forms_of(config):
        documents = corpus.documents(range(20), form.fields)
        whole, last = (
            document_sums(config, model, params, documents, form._replace(learned=(first, True)))
            for first in (True, False)
        )
        for name in ("raw", "renormalised", "content", "structure", "exact", "wrong", "places"):
            np.testing.assert_allclose(last[name][:, 1], whole[name][:, 1], rtol=1e-5, atol=1e-4, err_msg=name)
            assert name not in ("raw", "renormalised", "content", "places") or not last[name][:, 0].any()


# ------------------------------------------------------------------ token by token


def test_reading_token_by_token_says_the_same_as_whole_rows(trained, corpus: Corpus) -> None:
    _, model, params = trained
    rows = [row.array for row in encode(SMALL, corpus.documents(range(4), ("image", "text"))).split()]
    most = max(row.size for row in rows)
    tokens = np.stack([np.pad(row, (0, most - row.size)) for row in rows])
    positions = np.broadcast_to(np.arange(most), tokens.shape)
    whole = jax.jit(model.__call__)(params, tokens, positions, np.zeros_like(tokens))

    ends = np.asarray(ends_of(model.grouping, tokens))
    begun = np.array([np.flatnonzero(row)[5 + number] + 1 for number, row in enumerate(ends)], np.int32)
    unstacked = model.unstacked(params)
    logits, memory = jax.jit(model.begin)(unstacked, model.empty_memory(4, 64), jnp.asarray(tokens), begun)
    read, found = begun.copy(), [{int(at) - 1: row} for at, row in zip(begun, logits, strict=True)]
    step = jax.jit(model.read)
    steps_of_backbone = 0
    while (waiting := read < [row.size for row in rows]).any():
        now = tokens[np.arange(4), np.minimum(read, most - 1)]
        before = int(memory.cache.length.sum())
        logits, memory, did = step(unstacked, memory, logits, jnp.asarray(now)[:, None], jnp.asarray(waiting, np.int32))
        steps_of_backbone += int(memory.cache.length.sum()) > before
        for row in np.flatnonzero(did):
            found[row][int(read[row])] = logits[row]
        read += np.asarray(did)
    for row, by_place in enumerate(found):
        for place, here in by_place.items():
            np.testing.assert_allclose(here, whole[row, place], atol=3e-5)
    assert steps_of_backbone == max((ends[row, begun[row] : rows[row].size]).sum() for row in range(4))


@pytest.mark.parametrize(
    "head, way",
    [
        pytest.param("depth", "before", marks=pytest.mark.proof),  # the next one also writes positions first
        ("depth", "check digit"),
        ("parallel", "after"),
        ("depth", "one digit"),
    ],
)
def test_samples_are_what_a_slow_loop_writes(head: str, way: str) -> None:
    """Greedy, under the grammar: each token from a whole forward pass."""
    config = small(head, WAYS[way])
    vocabulary = config.vocabulary
    corpus = random_data.random_corpus(vocabulary, 10, most_items=5)
    model = model_of(config)
    params = random_params(model, scale=1.0)
    sampler = Sampler.of(model, vocabulary, drawing("image", 2, 4, SampleConfig(temperature=0.0)))
    prompts, lengths = prompts_of(vocabulary, corpus.documents(range(10), ("text",)), "image")
    drawn = sampler(params, prompts, lengths, jax.random.key(0), rows=4)
    grammar, forward = sampler.grammar, jax.jit(model.__call__)
    advance, mask = jax.jit(grammar.advance), jax.jit(grammar.mask)
    room = prompts.shape[1] + drawn.shape[1]
    for row in range(4):
        tokens, state = prompts[row, : lengths[row]].tolist(), grammar.start_state(1)
        for token in tokens:
            state = advance(state, np.array([token]))
        while tokens[-1] != vocabulary.end:
            padded = np.zeros((1, room), np.int32)
            padded[0, : len(tokens)] = tokens
            positions = np.arange(room)[None]
            logits = forward(params, padded, positions, np.where(positions < len(tokens), 0, -1))[0, len(tokens) - 1]
            tokens.append(int(np.argmax(np.where(mask(state)[0], logits, -np.inf))))
            state = advance(state, np.array(tokens[-1:]))
        behind = tokens[lengths[row] :]
        assert drawn[row, : len(behind)].tolist() == behind
        assert not drawn[row, len(behind) :].any()


# ------------------------------------------------------------------ training


@pytest.mark.parametrize(
    "head, mesh, accumulate",
    [
        ("depth", MeshConfig(2, 2, 1, 2), 2),
        ("parallel", MeshConfig(2, 4), 1),
    ],
)
def test_every_mesh_has_the_same_gradients(head: str, mesh: MeshConfig, accumulate: int, corpus: Corpus) -> None:
    """Also in micro-batches."""
    config = small(head)
    model, batch = model_of(config), random_data.batches_of(corpus, config.batch)[0]
    params = random_params(model, scale=0.3)

    def gradients(mesh: MeshConfig, accumulate: int) -> tuple:
        changed = dataclasses.replace(config, optim=dataclasses.replace(config.optim, accumulate=accumulate))
        devices = make_mesh(mesh, None if mesh.data > 1 else jax.devices()[:1])
        found = jax.jit(functools.partial(gradients_of, changed, model, devices))(params, batch, jax.random.key(0))
        return jax.device_get(found)

    found, expected = gradients(mesh, accumulate), gradients(MeshConfig(1), 1)
    jax.tree.map(lambda one, other: np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5), found, expected)


@pytest.mark.parametrize("mesh", [MeshConfig(1), MeshConfig(2, 4), MeshConfig(2, 2, 1, 2)])
@pytest.mark.parametrize("head", ["token", "depth"])
def test_targets_of_weight_zero_can_be_skipped(
    head: str, mesh: MeshConfig, corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With few of them in a row, so that devices skip different numbers of chunks."""
    monkeypatch.setattr(losses, "CHUNK", 16)
    plain = small(head)
    silent = dataclasses.replace(plain.batch.tasks[0], weights=(0.0, 1.0))
    tasks = (*plain.batch.tasks, silent)
    sparse = dataclasses.replace(plain, batch=dataclasses.replace(plain.batch, tasks=tasks))
    model, batch = model_of(plain), random_data.batches_of(corpus, plain.batch)[0]
    kept = np.random.default_rng(0).random(batch["weights"].shape) < 0.3
    kept[0] = False
    batch = {**batch, "weights": batch["weights"] * kept}
    params = random_params(model, scale=0.3)

    def gradients(config: Config, mesh: MeshConfig) -> tuple:
        devices = make_mesh(mesh, None if mesh.data > 1 else jax.devices()[:1])
        return jax.device_get(
            jax.jit(functools.partial(gradients_of, config, model, devices))(params, batch, jax.random.key(0))
        )

    found, expected = gradients(sparse, mesh), gradients(plain, MeshConfig(1))
    jax.tree.map(lambda one, other: np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5), found, expected)


def test_a_depth_head_learns_what_goes_with_what_and_parallel_heads_cannot() -> None:
    """Each picture is one of two patches that share no digit: one bit an item, three to independent digits."""
    random = np.random.default_rng(0)
    pair = np.array([7, 93])  # 012 and 333 in base 5
    records = [pair[random.integers(0, 2, 6)] for _ in range(200)]
    for head, least, most in (("depth", 0.99, 1.1), ("parallel", 2.9, 3.2)):
        config = small(head, WAYS["none"], sequence_items=36, sequence_length=97)
        batch = dataclasses.replace(config.batch, tasks=(Task(("image",), weights=(1.0,)),))
        config = dataclasses.replace(config, batch=batch, eval=EvalConfig())
        v = config.vocabulary
        corpus = Corpus(v, {"image": random_data.column_of(v, "image", records)})
        model, batches = model_of(config), random_data.batches_of(corpus, config.batch)
        optimizer = optax.adam(1e-2)

        def nats_of_items(params, batch, model=model, v=v):
            """Of all digits of the batch, for each item."""
            logits = model(params, batch["tokens"], batch["positions"], batch["documents"])
            nats = optax.softmax_cross_entropy_with_integer_labels(logits, batch["targets"])
            digits = (batch["targets"] >= v.digit_start) & (batch["targets"] < v.aos)
            return 3 * (nats * digits).sum() / digits.sum()

        @jax.jit
        def step(params, state, batch, nats_of_items=nats_of_items, optimizer=optimizer):
            nats, gradients = jax.value_and_grad(nats_of_items)(params, batch)
            updates, state = optimizer.update(gradients, state)
            return optax.apply_updates(params, updates), state, nats

        params = random_params(model, scale=0.3)
        state = optimizer.init(params)
        for number in range(90):
            params, state, _ = step(params, state, batches[number])
        bits = np.mean([step(params, state, batches[number])[2] for number in range(90, 100)]) / np.log(2)
        assert least <= bits < most, head  # the draws of a finite corpus cost a little more or less than one bit


def test_digits_with_similar_natural_digits_begin_with_similar_embeddings() -> None:
    parts, plain = (2, 10), small("depth", dataclasses.replace(WRITING, base=20))
    config = dataclasses.replace(plain, model=dataclasses.replace(plain.model, width=512, natural_digits=parts))
    v = config.vocabulary
    params = model_of(config).init(jax.random.key(1))
    changed = with_natural_digits(config, params, jax.random.key(2))
    rows = slice(v.digit_start, v.digit_start + 20)
    same, others = changed["ends"].pop("embed"), params["ends"].pop("embed")
    jax.tree.map(np.testing.assert_array_equal, changed, params)
    np.testing.assert_array_equal(np.delete(same, np.r_[rows], 0), np.delete(others, np.r_[rows], 0))
    state = init_state(config, model_of(config), make_mesh(config.mesh))  # a run begins with them, too
    assert np.corrcoef(jax.device_get(state.params["ends"]["embed"])[rows])[0, 1] > 0.5
    near = np.corrcoef(same[rows])
    ordered = near[0, : parts[1]]  # against the digits that differ in the last natural digit alone
    assert (np.diff(ordered) < 0).all()
    assert near[0, 1] > near[0, parts[1]]  # the last one has more levels, so that two of them are more similar
    assert np.abs(np.corrcoef(others[rows]) - np.eye(20)).max() < 0.3


@pytest.mark.parametrize("wrong", [(2, 3), (1, 16), (0,)])
def test_natural_digits_have_to_multiply_up_to_the_base(wrong: tuple[int, ...]) -> None:
    config = small("depth")
    with pytest.raises(ConfigError, match="model.natural_digits"):
        dataclasses.replace(config, model=dataclasses.replace(config.model, natural_digits=wrong))
