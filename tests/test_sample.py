import dataclasses
import pathlib
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from omnijax import testing
from omnijax.config import Config, SampleConfig, Target
from omnijax.data.corpus import Corpus, segment
from omnijax.errors import ConfigError, VocabularyError
from omnijax.experiment import load_experiment
from omnijax.generate import Generator, prompt, read_generated
from omnijax.model.transformer import Params, Transformer
from omnijax.sample import Sampler, most_tokens, pick
from omnijax.vocab.documents import Documents
from omnijax.vocab.encode import encode
from omnijax.vocab.grammar import Grammar
from omnijax.vocab.vocabulary import PAD

DIGITS = pathlib.Path(__file__).parents[1] / "experiments" / "digits.py"
GREEDY = SampleConfig(temperature=0.0)
TARGETS = (Target("text", 2, 4), Target("image", 5, 5), Target("speech", 1, 6))
ROWS = 6


@pytest.fixture(scope="module", autouse=True)
def quick_compiler() -> Iterator[None]:
    """Sampling loops take long to compile; what they give is held against a reference made the same way."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture(scope="module")
def config(tmp_path_factory) -> Config:
    config = testing.small_config(load_experiment(DIGITS), tmp_path_factory.mktemp("none"))
    return dataclasses.replace(config, eval=dataclasses.replace(config.eval, targets=TARGETS, rows=4))


@pytest.fixture(scope="module")
def model(config: Config) -> Transformer:
    return Transformer(config.model, config.vocabulary.size)


@pytest.fixture(scope="module")
def params(model: Transformer) -> Params:
    """Random, and so large that what is drawn depends on all that stands before it."""
    random = np.random.default_rng(0)
    shapes = jax.eval_shape(model.init, jax.random.key(0))
    return jax.tree.map(lambda leaf: random.normal(scale=2, size=leaf.shape).astype(leaf.dtype), shapes)


@pytest.fixture(scope="module")
def generator(config: Config, model: Transformer, params: Params) -> Generator:
    return Generator(config, model, params)


@pytest.fixture(scope="module")
def corpus(config: Config) -> Corpus:
    return testing.random_corpus(config.vocabulary, ROWS, most_items=7)


def target(name: str, sample: SampleConfig = GREEDY) -> Target:
    """A target of the configuration, sampled in another way."""
    return dataclasses.replace(next(one for one in TARGETS if one.name == name), sample=sample)


# ---------------------------------------------------------------------- one token


@pytest.mark.parametrize(
    "sample",
    [
        SampleConfig(),
        SampleConfig(temperature=0.5),
        SampleConfig(top_k=3),
        SampleConfig(top_k=99),
        SampleConfig(top_p=0.6),
        SampleConfig(temperature=2.0, top_k=5, top_p=0.8),
    ],
    ids=str,
)
def test_tokens_are_drawn_with_the_stated_probabilities(sample: SampleConfig) -> None:
    random = np.random.default_rng(1)
    logits_v, legal_v = random.normal(size=12) * 2, random.random(12) < 0.8
    expected = np.where(legal_v, np.exp(logits_v / sample.temperature), 0)
    expected /= expected.sum()
    kept = np.argsort(-expected)[: sample.top_k or None]
    before = np.cumsum(np.sort(expected)[::-1]) - np.sort(expected)[::-1]
    kept = kept[before[: len(kept)] < sample.top_p]
    allowed = np.zeros(12, bool)
    allowed[kept] = True
    expected = np.where(allowed, expected, 0)
    expected /= expected.sum()

    draws = 20_000
    logits_bv = jnp.broadcast_to(jnp.asarray(logits_v, jnp.float32), (draws, 12))
    drawn = pick(sample, logits_bv, jnp.broadcast_to(legal_v, (draws, 12)), jax.random.key(0))
    found = np.bincount(drawn, minlength=12) / draws
    assert not found[expected == 0].any()
    np.testing.assert_allclose(found, expected, atol=4 * 0.5 / np.sqrt(draws))
    assert drawn.dtype == jnp.int32


def test_temperature_zero_takes_the_likeliest_legal_token() -> None:
    logits_bv = jnp.asarray(np.random.default_rng(2).normal(size=(50, 9)), jnp.float32)
    legal_bv = jnp.asarray(np.random.default_rng(3).random((50, 9)) < 0.5).at[:, 4].set(True)
    found = pick(GREEDY, logits_bv, legal_bv, jax.random.key(0))
    np.testing.assert_array_equal(found, np.argmax(np.where(legal_bv, logits_bv, -np.inf), axis=-1))


@pytest.mark.parametrize(
    "field, change",
    [("temperature", -0.1), ("temperature", float("nan")), ("top_k", -1), ("top_p", 0.0), ("top_p", 1.1)],
)
def test_impossible_ways_of_sampling_are_refused(config: Config, model: Transformer, field: str, change: float) -> None:
    sample = dataclasses.replace(SampleConfig(), **{field: change})
    with pytest.raises(ConfigError) as caught:
        Sampler.of(model, config.vocabulary, target("text", sample))
    assert caught.value.field == f"sample.{field}"


# ---------------------------------------------------------------------- whole segments


def slow_greedy(config: Config, generator: Generator, name: str, prompt_t: np.ndarray, grammar: bool) -> list[int]:
    """One document, token by token: the whole forward pass for each, and no cache."""
    automaton = Grammar.of(config.vocabulary, {name: (target(name).min_items, target(name).max_items)}, ("eos",))
    forward, mask, advance = jax.jit(generator.model.__call__), jax.jit(automaton.mask), jax.jit(automaton.advance)
    tokens, most = list(prompt_t), most_tokens(config.vocabulary, target(name))
    state = automaton.start(1)
    for token in tokens:
        state = advance(state, jnp.asarray([token]))
    room = len(tokens) + most
    while len(tokens) < room and tokens[-1] != config.vocabulary.end:
        padded = np.zeros((1, room), np.int32)
        padded[0, : len(tokens)] = tokens
        logits_btv = forward(generator.params, padded, np.arange(room)[None], np.zeros_like(padded))
        logits_v = np.asarray(logits_btv)[0, len(tokens) - 1]
        if grammar:
            logits_v = np.where(np.asarray(mask(state))[0], logits_v, -np.inf)
        tokens.append(int(np.argmax(logits_v)))
        state = advance(state, jnp.asarray(tokens[-1:]))
    return tokens[len(prompt_t) :]


@pytest.mark.parametrize("name", ["text", "image", "speech"])
def test_greedy_sampling_takes_the_likeliest_token_of_the_whole_forward_pass(
    config: Config, generator: Generator, corpus: Corpus, name: str
) -> None:
    """In a batch of prompts of different lengths, with a cache and the grammar, against one document at a time."""
    source = "speech" if name == "image" else "image"
    prompts, lengths = prompt(config.vocabulary, source, corpus.fragments[source], name)
    assert len(set(lengths)) > 2
    sampler = Sampler.of(generator.model, config.vocabulary, target(name))
    drawn = np.asarray(sampler(generator.params, prompts, lengths, jax.random.key(0)))
    for row in range(3):
        expected = slow_greedy(config, generator, name, prompts[row, : lengths[row]], grammar=True)
        assert expected[-1] == config.vocabulary.end
        assert drawn[row, : len(expected)].tolist() == expected
        assert (drawn[row, len(expected) :] == PAD).all()


def test_without_the_grammar_too(config: Config, generator: Generator, corpus: Corpus) -> None:
    free = dataclasses.replace(GREEDY, grammar=False)
    prompts, lengths = prompt(config.vocabulary, "image", corpus.fragments["image"], "text")
    sampler = Sampler.of(generator.model, config.vocabulary, target("text", free))
    drawn = np.asarray(sampler(generator.params, prompts, lengths, jax.random.key(0)))
    for row in range(2):
        expected = slow_greedy(config, generator, "text", prompts[row, : lengths[row]], grammar=False)
        assert drawn[row, : len(expected)].tolist() == expected


def test_a_finished_row_says_nothing_more(config: Config, generator: Generator, corpus: Corpus) -> None:
    """Without the grammar, and with every token as likely as any other: what ends a row is `eos` alone."""
    level = jax.tree.map(jnp.zeros_like, generator.params)
    prompts, lengths = prompt(config.vocabulary, "text", corpus.fragments["text"], "image")
    sampler = Sampler.of(generator.model, config.vocabulary, target("image", SampleConfig(grammar=False)))
    drawn = np.concatenate([sampler(level, prompts, lengths, jax.random.key(seed)) for seed in range(4)])
    ended = [(row, int(np.argmax(row == config.vocabulary.end))) for row in drawn if config.vocabulary.end in row]
    assert 5 < len(ended) < len(drawn)
    assert all((row[end + 1 :] == PAD).all() for row, end in ended)
    assert len(np.unique(drawn)) == config.vocabulary.size


@pytest.mark.parametrize("name", ["text", "image", "speech"])
def test_the_grammar_makes_everything_decodable_whatever_the_parameters(
    config: Config, model: Transformer, corpus: Corpus, name: str
) -> None:
    source = "text" if name == "image" else "image"
    free = dataclasses.replace(SampleConfig(), grammar=False)
    undecodable = 0
    for seed in range(4):
        random = np.random.default_rng(seed)
        shapes = jax.eval_shape(model.init, jax.random.key(0))
        params = jax.tree.map(lambda leaf: random.normal(size=leaf.shape).astype(leaf.dtype), shapes)  # noqa: B023
        generator = Generator(config, model, params)
        found = generator.generate(source, corpus.fragments[source], name, jax.random.key(seed))
        assert found.decodable.all()
        wanted = target(name)
        size = {space.name: space.size for space in config.vocabulary.spaces} | {"text": config.vocabulary.general}
        for ids in found.fragments:
            assert wanted.min_items <= len(ids) <= wanted.max_items
            assert ((ids >= 0) & (ids < size[name])).all()
        loose = generator.generate(source, corpus.fragments[source], name, jax.random.key(seed), free)
        undecodable += np.sum(~loose.decodable)
    assert undecodable > 12


def test_rows_do_not_influence_one_another_and_follow_the_key(
    config: Config, generator: Generator, corpus: Corpus
) -> None:
    prompts, lengths = prompt(config.vocabulary, "text", corpus.fragments["text"], "speech")
    sampler = Sampler.of(generator.model, config.vocabulary, target("speech", SampleConfig()))
    drawn = np.asarray(sampler(generator.params, prompts, lengths, jax.random.key(0)))
    order = [0, 2, 3, 4, 5, 1]
    again = np.asarray(sampler(generator.params, prompts[order], lengths[order], jax.random.key(0)))
    np.testing.assert_array_equal(drawn[0], again[0])
    assert not np.array_equal(drawn[1:], again[1:])
    np.testing.assert_array_equal(sampler(generator.params, prompts, lengths, jax.random.key(0)), drawn)
    assert not np.array_equal(sampler(generator.params, prompts, lengths, jax.random.key(1)), drawn)
    for row in drawn:
        (ends,) = np.flatnonzero(row == config.vocabulary.end)
        assert (row[ends + 1 :] == PAD).all()
        assert (row[:ends] != PAD).all()
    assert len({int(np.argmax(row == config.vocabulary.end)) for row in drawn}) > 1


# ---------------------------------------------------------------------- generating


def test_a_prompt_is_the_document_without_its_end_and_the_marker(config: Config, corpus: Corpus) -> None:
    vocabulary = config.vocabulary
    prompts, lengths = prompt(vocabulary, "image", corpus.fragments["image"], "text")
    for row, length, ids in zip(prompts, lengths, corpus.fragments["image"], strict=True):
        whole = encode(vocabulary, Documents.of([[segment(vocabulary, "image", ids)]])).tokens
        assert row[:length].tolist() == [*whole[:-1], vocabulary.token("text")]
        assert (row[length:] == PAD).all()


def test_a_last_partial_batch_gives_its_own_rows(config: Config, generator: Generator, corpus: Corpus) -> None:
    """Six documents, four at a time: the greedy results are those of six at a time."""
    fragments = corpus.fragments["text"]
    found = generator.generate("text", fragments, "image", jax.random.key(0), GREEDY)
    sampler = Sampler.of(generator.model, config.vocabulary, target("image"))
    drawn = sampler(generator.params, *prompt(config.vocabulary, "text", fragments, "image"), jax.random.key(0))
    expected = read_generated(config.vocabulary, target("image"), np.asarray(drawn))
    assert len(found.fragments) == ROWS
    assert len({tuple(ids) for ids in expected.fragments}) == ROWS
    for one, other in zip(found.fragments, expected.fragments, strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_route_goes_through_each_of_its_modalities(generator: Generator, corpus: Corpus) -> None:
    key = jax.random.key(5)
    found = generator.along(("image", "text", "speech"), corpus.fragments["image"], key)
    words = generator.generate("image", corpus.fragments["image"], "text", jax.random.fold_in(key, 0))
    expected = generator.generate("text", words.fragments, "speech", jax.random.fold_in(key, 1))
    for one, other in zip(found.fragments, expected.fragments, strict=True):
        np.testing.assert_array_equal(one, other)
    assert found.decodable.all()


def test_what_was_written_is_read_again_and_damage_is_noticed(config: Config, corpus: Corpus) -> None:
    vocabulary, wanted = config.vocabulary, Target("speech", 1, 7)
    encoded = encode(
        vocabulary, Documents.of([segment(vocabulary, "speech", ids)] for ids in corpus.fragments["speech"])
    )
    drawn = np.full((ROWS, 40), PAD, np.int32)
    for row, tokens in zip(drawn, encoded.split(), strict=True):
        row[: tokens.size - 1] = tokens[1:]
    found = read_generated(vocabulary, wanted, drawn)
    assert found.decodable.all()
    for ids, expected in zip(found.fragments, corpus.fragments["speech"], strict=True):
        np.testing.assert_array_equal(ids, expected)

    ends = np.argmax(drawn == vocabulary.end, axis=1)
    rows = np.arange(ROWS)
    for place, token in (
        (ends, PAD),  # not closed
        (ends, vocabulary.token("text")),  # another segment
        (ends - 1, vocabulary.aos),  # a digit that is none
        (ends - 1, vocabulary.size + 3),  # no token at all
        (0 * ends, 1),  # a general token where fragments belong
    ):
        damaged = drawn.copy()
        damaged[rows, place] = token
        assert not read_generated(vocabulary, wanted, damaged).decodable.any(), token
    assert not read_generated(vocabulary, Target("speech", 8, 9), drawn).decodable.any()
    assert not read_generated(vocabulary, Target("speech", 0, 0), drawn).decodable.any()


def test_only_targets_of_the_configuration_are_generated(config: Config, generator: Generator) -> None:
    with pytest.raises(ConfigError, match="the run can generate text, image, speech"):
        generator.target("smell")
    with pytest.raises(VocabularyError, match="position tokens reach 7"):
        Sampler.of(generator.model, config.vocabulary, Target("image", 8, 8))


@pytest.mark.parametrize("name, items, most", [("text", 4, 4 + 2), ("image", 5, 5 * 4 + 2), ("speech", 6, 6 * 3 + 2)])
def test_a_sampler_has_room_for_the_longest_segment(config: Config, name: str, items: int, most: int) -> None:
    """Digits and a position token for each item, `aos` and `eos`."""
    assert most_tokens(config.vocabulary, target(name)) == most
    ids = np.zeros(items, np.int64)
    tokens = encode(config.vocabulary, Documents.of([[segment(config.vocabulary, name, ids)]])).tokens
    assert tokens.size - 1 == most
