import dataclasses
import functools
import importlib.util
import itertools
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import random_data
from sampling import TEXT, Bounded, drawing, ids_of, prompts_of, random_params, read_drawn

from omnijax.config import Config, SampleConfig
from omnijax.errors import ConfigError, DataError, VocabularyError
from omnijax.experiment import load_experiment
from omnijax.modalities import GENERAL, Items
from omnijax.model.cache import Cache
from omnijax.model.transformer import Params, Transformer
from omnijax.sample.decode_loop import pick
from omnijax.sample.generate import Generated, Generator, documents_of
from omnijax.sample.sampler import PROMPT, Sampler, SegmentTarget, most_tokens
from omnijax.vocab.assemble import assemble
from omnijax.vocab.decode import decode
from omnijax.vocab.documents import Documents, Segment
from omnijax.vocab.encode import encode
from omnijax.vocab.ids import GeneralIds, PrimaryIds, SecondaryIds
from omnijax.vocab.radix import to_digits
from omnijax.vocab.vocabulary import PAD, Marker, Space, Vocabulary

EXPERIMENTS = pathlib.Path(__file__).parents[1] / "experiments"
DIGITS = EXPERIMENTS / "digits.py"
GREEDY = SampleConfig(temperature=0.0)
BOUNDS = {"text": (1, 4), "image": (5, 5), "speech": (1, 6)}
ROWS = 6


@pytest.fixture(scope="module")
def config(tmp_path_factory) -> Config:
    """All documents are sampled side by side, so that tests share the programs of a target."""
    small = random_data.small_config(load_experiment(DIGITS), tmp_path_factory.mktemp("none"))
    evaluated = dataclasses.replace(small.eval, targets=(), batch_size=ROWS)
    return dataclasses.replace(small, data=Bounded(), model=dataclasses.replace(small.model, depth=1), eval=evaluated)


@pytest.fixture(scope="module")
def model(config: Config) -> Transformer:
    return Transformer(config.model, config.vocabulary.size)


@pytest.fixture(scope="module")
def params(model: Transformer) -> Params:
    return random_params(model, seed=1)


@pytest.fixture(scope="module")
def generator(config: Config, model: Transformer, params: Params) -> Generator:
    return Generator(config, model, params)


@pytest.fixture(scope="module")
def given(config: Config) -> dict[str, list[Items]]:
    """Items of some records, by field."""
    records = config.data.records("test")[:ROWS]
    return {
        name: modality.encode([record[name] for record in records]).split()
        for name, modality in config.data.fields.items()
    }


def target(name: str, sample: SampleConfig = GREEDY, order: Any = "raster") -> SegmentTarget:
    """The segment of a field of the configuration."""
    return drawing(name, *BOUNDS[name], sample, order)


def prompts_behind(config: Config, given: dict[str, list[Items]], source: str, name: str) -> Any:
    """Documents of one field, with the marker of another behind them."""
    return prompts_of(config.vocabulary, documents_of(config, {source: given[source]}), name)


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
    drawn = pick(sample, logits_bv, jnp.broadcast_to(legal_v, (draws, 12)), jax.random.split(jax.random.key(0), draws))
    found = np.bincount(drawn, minlength=12) / draws
    assert not found[expected == 0].any()
    np.testing.assert_allclose(found, expected, atol=4 * 0.5 / np.sqrt(draws))
    assert drawn.dtype == jnp.int32


@pytest.mark.parametrize(
    "sample, drawn",
    [
        (SampleConfig(temperature=1e-300), {3}),
        (SampleConfig(temperature=1e-46), {3}),
        (SampleConfig(temperature=1e-38), {3}),
        (SampleConfig(temperature=1e30), {1, 2, 3}),
        (SampleConfig(top_p=1e-46), {3}),
        (SampleConfig(top_p=5e-324), {3}),
        (SampleConfig(top_k=2**31 - 1), {1, 2, 3}),
    ],
    ids=str,
)
def test_extreme_knobs_draw_legal_tokens(sample: SampleConfig, drawn: set[int]) -> None:
    sample.check("sample")
    logits_bv = jnp.tile(jnp.array([0.0, 1, 2, 3, -jnp.inf, 30]), (100, 1))
    legal_bv = jnp.tile(jnp.array([False, True, True, True, True, False]), (100, 1))
    found = pick(sample, logits_bv, legal_bv, jax.random.split(jax.random.key(0), 100))
    assert set(np.unique(found)) == drawn


def test_temperature_zero_takes_the_likeliest_legal_token() -> None:
    logits_bv = jnp.asarray(np.random.default_rng(2).normal(size=(50, 9)), jnp.float32)
    legal_bv = jnp.asarray(np.random.default_rng(3).random((50, 9)) < 0.5).at[:, 4].set(True)
    found = pick(GREEDY, logits_bv, legal_bv, jax.random.split(jax.random.key(0), 50))
    np.testing.assert_array_equal(found, np.argmax(np.where(legal_bv, logits_bv, -np.inf), axis=-1))


@pytest.mark.parametrize(
    "field, change",
    [
        ("temperature", -0.1),
        ("temperature", float("nan")),
        ("top_k", -1),
        ("top_p", 0.0),
        ("top_p", 1.1),
    ],
)
def test_impossible_ways_of_sampling_are_refused(config: Config, model: Transformer, field: str, change: float) -> None:
    sample = dataclasses.replace(SampleConfig(), **{field: change})
    with pytest.raises(ConfigError) as caught:
        Sampler.of(model, config.vocabulary, target("text", sample))
    assert caught.value.field == f"sample.{field}"


# ---------------------------------------------------------------------- whole segments


quick_pick = jax.jit(pick, static_argnums=0)


@functools.cache
def automaton(sampler: Sampler):
    """The grammar of a sampler, one row."""
    grammar = sampler.grammar
    return grammar.start_state(1), jax.jit(grammar.mask), jax.jit(grammar.advance)


def slow_sample(sampler: Sampler, logits_behind, prompt_t: np.ndarray, key: jax.Array) -> list[int]:
    """One document, token by token: logits of all that stands before each, no cache, no token that isn't drawn."""
    state, mask, advance = automaton(sampler)
    tokens, end = list(prompt_t), sampler.grammar.vocabulary.end
    for token in tokens:
        state = advance(state, np.array([token]))
    for number in range(sampler.most_tokens):
        legal = mask(state) if sampler.config.grammar else None
        logits = jnp.asarray(logits_behind(tokens))[None]
        token = int(quick_pick(sampler.config, logits, legal, jax.random.fold_in(key, number)[None])[0])
        tokens.append(token)
        if token == (PAD if end is None else end):
            break
        state = advance(state, np.array([token]))
    return tokens[len(prompt_t) :]


def row_keys(key: jax.Array, rows: int) -> list[jax.Array]:
    return [jax.random.fold_in(key, row) for row in range(rows)]


def check_row(drawn_t: np.ndarray, expected: list[int]) -> None:
    assert drawn_t[: len(expected)].tolist() == expected
    assert (drawn_t[len(expected) :] == PAD).all()


@pytest.mark.parametrize("name", ["text", "image", "speech"])
def test_sampling_takes_the_tokens_of_the_whole_forward_pass(
    config: Config, generator: Generator, given: dict, name: str
) -> None:
    """In a batch of prompts of different lengths, with a cache and forced tokens, against one document at a time."""
    forward = jax.jit(generator.model.__call__)
    source = "speech" if name == TEXT else TEXT
    prompts, lengths = prompts_behind(config, given, source, name)
    assert len(set(lengths)) > 2
    sample = GREEDY if name == "image" else SampleConfig()
    sampler = Sampler.of(generator.model, config.vocabulary, target(name, sample))
    room = prompts.shape[1] + sampler.most_tokens
    drawn = np.asarray(sampler(generator.params, prompts, lengths, jax.random.key(0)))

    def logits_behind(tokens: list[int]) -> jax.Array:
        padded = np.zeros((1, room), np.int32)
        padded[0, : len(tokens)] = tokens
        return forward(generator.params, padded, np.arange(room)[None], np.zeros_like(padded))[0, len(tokens) - 1]

    for row, key in enumerate(row_keys(jax.random.key(0), 3)):
        check_row(drawn[row], slow_sample(sampler, logits_behind, prompts[row, : lengths[row]], key))


# ---------------------------------------------------------------------- rows out of step

PASSES: list[int] = []


@dataclasses.dataclass(frozen=True)
class Fake(Transformer):
    """A model whose logits follow from all tokens before, and whose cache is these tokens. Notes its passes' widths."""

    tokens: int

    def init(self, seed: int, scale: float = 1.5) -> jax.Array:
        return jnp.asarray(np.random.default_rng(seed).normal(size=(97, self.tokens)) * scale, jnp.float32)

    def unstacked(self, params):
        return params

    def empty_memory(self, rows: int, slots: int) -> Cache:
        return Cache((jnp.full((rows, 1, slots), -99, jnp.int32),), (), jnp.zeros(rows, jnp.int32))

    def extend(self, params, cache, tokens_bt, positions_bt, only_b, mesh):
        jax.debug.callback(lambda: PASSES.append(tokens_bt.shape[1]))
        (seen,) = cache.keys
        rows, _, slots = seen.shape
        seen = seen.at[jnp.arange(rows)[:, None], 0, positions_bt].set(tokens_bt, mode="drop")
        last = jnp.take_along_axis(positions_bt, only_b[:, None], axis=1)
        terms = jnp.where(jnp.arange(slots)[None] <= last, (seen[:, 0] + 1) * (jnp.arange(slots)[None] % 7 + 2), 0)
        return params[terms.sum(axis=1) % len(params)][:, None], cache._replace(keys=(seen,))

    @staticmethod
    def logits_behind(params, tokens: list[int]) -> jax.Array:
        return params[sum((token + 1) * (place % 7 + 2) for place, token in enumerate(tokens)) % len(params)]


def vocabulary_of(**change) -> Vocabulary:
    """Six tokens of text and two spaces, so that forced tokens abound, at different places in different rows."""
    parts = {"layout": "inline", "position": "after", "width": "minimal"} | change
    spaces = (Space("image", 30), Space("sound", 2))
    control = ("text", "image", "sound", "eos")
    return Vocabulary(general=6, positions=6, digits=3, base=3, spaces=spaces, control=control, **parts)


WAYS = (
    {},
    {"position": "before", "width": "fixed", "layout": "grouped"},
    {"position": "after", "width": "fixed", "check_digit": True, "position_places": 2},
    {"position": "before", "width": "fixed", "check_digit": True, "digit_order": "little"},
    {"position": "none", "width": "fixed", "check_digit": True, "layout": "grouped"},
    {"position": "before"},
)


def some_prompts(vocabulary: Vocabulary, name: str, rows: int = 12) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(3)
    words = [GeneralIds(random.integers(0, 6, random.integers(1, 5))) for _ in range(rows)]
    return prompts_of(vocabulary, Documents.of([Segment.of(vocabulary, TEXT, word)] for word in words), name)


@pytest.mark.parametrize(
    "way, name",
    [
        (WAYS[0], "image"),
        (WAYS[2], "image"),
        (WAYS[3], "image"),
        (WAYS[4], "sound"),
        *(pytest.param(WAYS[number], "image", marks=pytest.mark.proof) for number in (1, 4, 5)),
        pytest.param(WAYS[1], "sound", marks=pytest.mark.proof),
    ],
    ids=str,
)
def test_forced_tokens_without_a_pass_change_no_other_token(way: dict, name: str) -> None:
    """Whatever step each row is at: against documents sampled alone, with every token drawn."""
    v = vocabulary_of(**way)
    model, order = Fake(v.size), "any" if v.position == "before" and v.layout == "inline" else "raster"
    wanted = drawing(name, 1, 4, SampleConfig(), order)
    sampler, params = Sampler.of(model, v, wanted), model.init(0)
    prompts, lengths = some_prompts(v, name)
    PASSES.clear()
    drawn = np.asarray(sampler(params, prompts, lengths, jax.random.key(1)))
    jax.effects_barrier()
    skipping = PASSES.copy()
    behind = functools.partial(model.logits_behind, params)
    for row, key in enumerate(row_keys(jax.random.key(1), len(prompts))):
        check_row(drawn[row], slow_sample(sampler, behind, prompts[row, : lengths[row]], key))
    PASSES.clear()
    plain = Sampler.of(model, v, wanted, skip=False)
    np.testing.assert_array_equal(plain(params, prompts, lengths, jax.random.key(1)), drawn)
    jax.effects_barrier()
    assert set(PASSES[1:]) == {1}
    assert len(PASSES) == (drawn != PAD).sum(axis=1).max()
    assert set(skipping[1:]) <= {1, 1 + sampler.most_forced}
    assert len(skipping) < len(PASSES)


def test_what_is_forced_throughout_takes_one_pass() -> None:
    """A picture of one fragment that there is, at positions in order: the whole segment is known before it is drawn."""
    v = dataclasses.replace(vocabulary_of(), spaces=(Space("image", 1), Space("sound", 5)))
    sampler = Sampler.of(Fake(v.size), v, drawing("image", 3, 3))
    PASSES.clear()
    drawn = np.asarray(sampler(Fake(v.size).init(0), *some_prompts(v, "image"), jax.random.key(0)))
    jax.effects_barrier()
    symbols = [v.symbols()[token] for token in drawn[5]]
    assert symbols == ["v_0", "p_1", "v_0", "p_2", "v_0", "p_3", "eos"]
    assert (drawn == drawn[0]).all()
    assert PASSES.copy() == [PROMPT + sampler.most_forced]


def test_pictures_of_the_demo_are_drawn_in_as_many_passes_as_they_have_digits(config: Config) -> None:
    v = config.vocabulary
    sampler = Sampler.of(Fake(v.size), v, drawing("image", 5, 5))
    prompts = np.full((4, 1), v.token("image"), np.int32)
    PASSES.clear()
    drawn = np.asarray(sampler(Fake(v.size).init(0), prompts, np.ones(4, np.int32), jax.random.key(0)))
    jax.effects_barrier()
    assert (drawn != PAD).sum(axis=1).tolist() == [5 * 4 + 2] * 4
    assert PASSES.copy() == [PROMPT + 2, *[1, 1, 2] * 4, 1, 1]


# ---------------------------------------------------------------------- check digits


@dataclasses.dataclass(frozen=True)
class Table(Transformer):
    """A model whose logits follow from how many tokens stand before."""

    tokens: int

    def unstacked(self, params):
        return params

    def empty_memory(self, rows: int, slots: int) -> Cache:
        return Cache((jnp.zeros((rows, 1, slots), jnp.int32),), (), jnp.zeros(rows, jnp.int32))

    def extend(self, params, cache, tokens_bt, positions_bt, only_b, mesh):
        return params[jnp.take_along_axis(positions_bt, only_b[:, None], axis=1)], cache


CHECKED = Vocabulary(
    general=1,
    positions=4,
    digits=5,
    base=5,
    spaces=(Space("code", 23),),
    control=("code", "eos"),
    layout="inline",
    position="before",
    width="fixed",
    check_digit=True,
)


@pytest.mark.parametrize("skip", [True, False])
def test_check_digits_are_right_and_ids_come_as_often_as_their_digits(skip: bool) -> None:
    """Whatever the model thinks of the check digit: the grammar leaves no choice for it."""
    v, meant, rows = CHECKED, 11, 3000
    p_digit = np.full((2, 5), 0.1) + 0.5 * np.eye(5)[to_digits(meant, (5, 5))]
    high, low = to_digits(meant, (5, 5))
    right = (high - low) % 5
    p_check = np.full(5, 0.05) + 0.75 * np.eye(5)[right]
    logits = np.full((8, v.size), -30.0)
    digits = slice(v.digit_start, v.digit_start + 5)
    logits[1, digits], logits[2, digits], logits[3, digits] = map(np.log, (*p_digit, p_check))

    # Ids are below 23: of what begins with digit 4, only three digits can follow.
    expected = np.zeros(23)
    for high, low in itertools.product(range(5), range(5)):
        if high * 5 + low < 23:
            expected[high * 5 + low] = p_digit[0, high] * p_digit[1, low] / (p_digit[1, :3].sum() if high == 4 else 1)
    assert sum(expected) == pytest.approx(1)

    sampler = Sampler.of(Table(v.size), v, drawing("code", 1, 1), skip)
    prompts = np.full((rows, 1), v.token("code"), np.int32)
    drawn = sampler(jnp.asarray(logits), prompts, np.ones(rows, np.int32), jax.random.key(2))
    found = read_drawn(v, drawing("code", 1, 1), np.asarray(drawn))
    assert found.decodable.all()
    share = np.bincount(np.concatenate(found.ids), minlength=23) / rows
    np.testing.assert_allclose(share, expected, atol=4 * 0.5 / np.sqrt(rows))
    assert expected[meant] == pytest.approx(0.36, abs=0.02)


# ---------------------------------------------------------------------- the rest of the loop


def test_a_finished_row_says_nothing_more(config: Config, generator: Generator, given: dict) -> None:
    """Without the grammar, and with every token as likely as any other: what ends a row is `eos` alone."""
    level = jax.tree.map(jnp.zeros_like, generator.params)
    prompts, lengths = prompts_behind(config, given, "text", "image")
    sampler = Sampler.of(generator.model, config.vocabulary, target("image", SampleConfig(grammar=False)))
    drawn = np.concatenate([sampler(level, prompts, lengths, jax.random.key(seed)) for seed in range(4)])
    ended = [(row, int(np.argmax(row == config.vocabulary.end))) for row in drawn if config.vocabulary.end in row]
    assert 5 < len(ended) < len(drawn)
    assert all((row[end + 1 :] == PAD).all() for row, end in ended)
    assert len(np.unique(drawn)) == config.vocabulary.size


@pytest.mark.parametrize("name", ["text", "image", "speech"])
def test_the_grammar_makes_everything_decodable_whatever_the_parameters(
    config: Config, model: Transformer, given: dict, name: str
) -> None:
    size = {space.name: space.size for space in config.vocabulary.spaces} | {TEXT: config.vocabulary.general}
    least, most = BOUNDS[name]
    for seed in range(4):
        generator = Generator(config, model, random_params(model, 1.0, seed))
        source = "speech" if name == TEXT else TEXT
        found = generator.generate({source: given[source]}, name, jax.random.key(seed))
        assert found.decodable.all()
        for items in found.items:
            assert least <= len(ids_of(items)) <= most
            assert (ids_of(items) < size[name]).all()


@pytest.mark.parametrize("name", ["image", *(pytest.param(one, marks=pytest.mark.proof) for one in (TEXT, "speech"))])
def test_without_the_grammar_much_can_not_be_read(config: Config, model: Transformer, given: dict, name: str) -> None:
    free, undecodable = SampleConfig(grammar=False), 0
    for seed in range(4):
        generator = Generator(config, model, random_params(model, 1.0, seed))
        source = "speech" if name == TEXT else TEXT
        found = generator.generate({source: given[source]}, name, jax.random.key(seed), free)
        undecodable += np.sum(~found.decodable)
    assert undecodable > 12


def test_rows_do_not_influence_one_another_and_follow_the_key(
    config: Config, generator: Generator, given: dict
) -> None:
    prompts, lengths = prompts_behind(config, given, "text", "speech")
    sampler = Sampler.of(generator.model, config.vocabulary, target("speech", SampleConfig()))
    drawn = np.asarray(sampler(generator.params, prompts, lengths, jax.random.key(2)))
    order = [0, 2, 3, 4, 5, 1]
    again = np.asarray(sampler(generator.params, prompts[order], lengths[order], jax.random.key(2)))
    np.testing.assert_array_equal(drawn[0], again[0])
    assert not np.array_equal(drawn[1:], again[1:])
    np.testing.assert_array_equal(sampler(generator.params, prompts, lengths, jax.random.key(2)), drawn)
    assert not np.array_equal(sampler(generator.params, prompts, lengths, jax.random.key(1)), drawn)
    for row in drawn:
        (ends,) = np.flatnonzero(row == config.vocabulary.end)
        assert (row[ends + 1 :] == PAD).all()
        assert (row[:ends] != PAD).all()
    assert len({int(np.argmax(row == config.vocabulary.end)) for row in drawn}) > 1


def fuzz_sample(monkeypatch: pytest.MonkeyPatch):
    """The program `experiments/bench/fuzz_sample.py`, as a module."""
    monkeypatch.syspath_prepend(EXPERIMENTS / "bench")
    spec = importlib.util.spec_from_file_location("fuzz_sample", EXPERIMENTS / "bench" / "fuzz_sample.py")
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    assert spec.loader is not None
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("number", [5, 30, *(pytest.param(one, marks=pytest.mark.proof) for one in (9, 22, 39))])
def test_samples_of_every_layout_pass_the_checker_and_are_written_again_the_same(
    monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """A few of the ways of the fuzzer; run it by itself for all of them, and for more samples."""
    fuzz = fuzz_sample(monkeypatch)
    ways = list(fuzz.ways())
    assert len(ways) == 40
    for option in ("layout", "position", "width", "digit_order", "check_digit", "position_places", "base", "end"):
        assert len({getattr(way.vocabulary, option) for way in ways}) > 1, option
    assert {way.target.order for way in ways} == {"raster", "any"}
    assert {way.target.name for way in ways} == {"text", "image", "sound"}
    counts = fuzz.fuzz(ways[number], 40, seed=number)
    assert (counts.failed, counts.samples, counts.free) == (0, 40, 40)
    assert counts.passed < 20


# ---------------------------------------------------------------------- generating


def test_a_given_field_is_its_document_without_the_end(config: Config, generator: Generator, given: dict) -> None:
    v = config.vocabulary
    rows = generator.prompts({"image": given["image"], TEXT: given[TEXT]})
    for row, image, text in zip(rows, given["image"], given[TEXT], strict=True):
        segments = [Segment.of(v, "image", SecondaryIds("image", ids_of(image)))]
        segments.append(Segment.of(v, TEXT, GeneralIds(ids_of(text))))
        whole = encode(v, Documents.of([segments])).tokens.array
        np.testing.assert_array_equal(row, whole[:-1])


def test_a_last_partial_batch_gives_its_own_rows(config: Config, generator: Generator, given: dict) -> None:
    """Six documents, four at a time: the greedy results are those of six at a time."""
    by_four = dataclasses.replace(config, eval=dataclasses.replace(config.eval, batch_size=4))
    generator = dataclasses.replace(generator, config=by_four)
    found = generator.generate({TEXT: given[TEXT]}, "image", jax.random.key(0), GREEDY)
    sampler = Sampler.of(generator.model, config.vocabulary, target("image"))
    drawn = sampler(generator.params, *prompts_behind(config, given, TEXT, "image"), jax.random.key(0))
    expected = read_drawn(config.vocabulary, target("image"), drawn)
    assert len(found.items) == ROWS
    assert len({tuple(ids) for ids in expected.ids}) == ROWS
    for items, ids in zip(found.items, expected.ids, strict=True):
        np.testing.assert_array_equal(ids_of(items), ids)


def test_a_route_goes_through_each_of_its_fields(generator: Generator, given: dict) -> None:
    key = jax.random.key(5)
    steps = generator.along(("image", TEXT, "speech"), given["image"], key)
    words = generator.generate({"image": given["image"]}, TEXT, jax.random.fold_in(key, 0))
    spoken = generator.generate({TEXT: words.items}, "speech", jax.random.fold_in(key, 1))
    for found, expected in zip(steps, (words, spoken), strict=True):
        for one, other in zip(found.items, expected.items, strict=True):
            np.testing.assert_array_equal(one.digits, other.digits)
        assert found.decodable.all()


def test_what_was_written_is_read_again_and_damage_is_noticed(config: Config, given: dict) -> None:
    vocabulary, meant = config.vocabulary, target("speech")
    encoded = encode(vocabulary, documents_of(config, {"speech": given["speech"]}))
    drawn = np.full((ROWS, 40), PAD, np.int32)
    for row, tokens in zip(drawn, encoded.split(), strict=True):
        row[: tokens.array.size - 1] = tokens.array[1:]
    found = read_drawn(vocabulary, meant, drawn)
    assert found.decodable.all()
    for ids, expected in zip(found.ids, given["speech"], strict=True):
        np.testing.assert_array_equal(ids, ids_of(expected))

    ends = np.argmax(drawn == vocabulary.end, axis=1)
    rows = np.arange(ROWS)
    for place, token in (
        (ends, PAD),  # not closed
        (ends, vocabulary.token(TEXT)),  # another segment
        (ends - 1, vocabulary.aos),  # a digit that is none
        (ends - 1, vocabulary.size + 3),  # no token at all
        (0 * ends, 1),  # a general token where fragments belong
    ):
        damaged = drawn.copy()
        damaged[rows, place] = token
        assert not read_drawn(vocabulary, meant, damaged).decodable.any(), token
    assert not read_drawn(vocabulary, drawing("speech", 8, 9), drawn).decodable.any()
    assert not read_drawn(vocabulary, drawing("speech", 0, 0), drawn).decodable.any()


def some_pictures(random: np.random.Generator) -> tuple[list[Items], list[np.ndarray]]:
    """A picture for each row; of the n-th, n patches are known."""
    items = [Items.one(0, random.integers(0, 100, (5, 1))) for _ in range(ROWS)]
    known = [np.isin(np.arange(5), random.permutation(5)[:row]) for row in range(ROWS)]
    return items, known


def test_known_fragments_stay_and_the_rest_is_filled_in(config: Config, given: dict) -> None:
    """In an order that the model chooses, also behind another segment."""
    model = Fake(config.vocabulary.size)
    generator = Generator(config, model, model.init(0))
    items, known = some_pictures(np.random.default_rng(0))
    alone = generator.complete("image", items, known, jax.random.key(0))
    behind = generator.complete("image", items, known, jax.random.key(0), given={TEXT: given[TEXT]})
    for found in (alone, behind):
        assert found.decodable.all()
        for made, whole, mask in zip(found.items, items, known, strict=True):
            assert made.digits.shape == (5, 1)
            np.testing.assert_array_equal(made.digits[mask], whole.digits[mask])
    pairs = zip(alone.items, behind.items, strict=True)
    assert any((one.digits != other.digits).any() for one, other in pairs)
    np.testing.assert_array_equal(alone.items[5].digits, behind.items[5].digits)  # all of it was known
    # What isn't known isn't looked at.
    masks = (mask[:, None] for mask in known)
    others = [Items.one(0, np.where(mask, one.digits, 7)) for one, mask in zip(items, masks, strict=True)]
    changed = generator.complete("image", others, known, jax.random.key(0))
    for one, other in zip(alone.items, changed.items, strict=True):
        np.testing.assert_array_equal(one.digits, other.digits)


@pytest.mark.parametrize("way", [{}, {"check_digit": True, "positions": 3, "position_places": 2}], ids=str)
def test_what_is_known_is_the_beginning_of_the_segment_in_that_order(
    config: Config, given: dict, way: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Behind another field, too: what the sampler gets is the document, cut behind the last known fragment."""
    changed = dataclasses.replace(config, writing=dataclasses.replace(config.writing, **way))
    v, model = changed.vocabulary, Fake(changed.vocabulary.size)
    items, known = some_pictures(np.random.default_rng(1))
    asked: list[np.ndarray] = []

    def draw(self: Generator, target: Any, number: int, bounds: Any, opened: Any, key: Any) -> Any:
        assert target.order == "any"
        asked.extend(opened)
        return Generated(items, np.ones(ROWS, bool)), []

    monkeypatch.setattr(Generator, "_draw", draw)
    generator = Generator(changed, model, model.init(0))
    for before in ({}, {TEXT: given[TEXT]}):
        asked.clear()
        generator.complete("image", items, known, jax.random.key(0), before)
        for row, (one, mask) in enumerate(zip(items, known, strict=True)):
            order = np.argsort(~mask, kind="stable")
            documents = documents_of(changed, {name: [parts[row]] for name, parts in before.items()} | {"image": [one]})
            first = documents.spaces.size - 5
            tokens = encode(v, documents, np.append(np.arange(first), first + order)).tokens.array
            each = 3 + v.check_digit + v.position_places  # three digits in base 5
            assert asked[row].tolist() == tokens[: tokens.size - 1 - each * (5 - mask.sum())].tolist()


def test_what_can_not_be_completed_is_refused(config: Config, generator: Generator) -> None:
    key = jax.random.key(0)
    short = [Items.one(0, np.ones((4, 1), np.uint32))]
    with pytest.raises(DataError, match="allows 5 … 5 items"):
        generator.complete("image", short, [np.ones(4, bool)], key)
    for knob, value, rule in (
        ("position", "after", "only where its position comes first"),
        ("width", "minimal", "could get another digit"),
    ):
        changed = dataclasses.replace(config, writing=dataclasses.replace(config.writing, **{knob: value}))
        with pytest.raises(ConfigError, match=rule) as caught:
            dataclasses.replace(generator, config=changed).complete("image", [], [], key)
        assert caught.value.field == f"writing.{knob}"
    with pytest.raises(ConfigError, match="general tokens have no positions") as caught:
        generator.complete(TEXT, [], [], key)
    assert caught.value.value == TEXT
    assert generator.complete("image", [], [], key).items == []
    assert generator.generate({TEXT: []}, "image", key).items == []
    assert generator.along((TEXT, "image"), [], key)[-1].items == []


def test_fragments_in_any_order_come_at_all_positions(config: Config) -> None:
    v = config.vocabulary
    model, meant = Fake(v.size), target("image", SampleConfig(), "any")
    sampler = Sampler.of(model, v, meant)
    prompts = np.full((40, 1), v.token("image"), np.int32)
    drawn = np.asarray(sampler(model.init(1), prompts, np.ones(40, np.int32), jax.random.key(0)))
    assert read_drawn(v, meant, drawn).decodable.all()
    positions = drawn[:, 1:-1].reshape(40, 5, 4)[:, :, 0] - v.position_start
    assert (np.sort(positions, axis=1) == np.arange(1, 6)).all()
    assert len(np.unique(positions, axis=0)) > 20


@pytest.mark.parametrize("layout", ["grouped", "inline"])
def test_segments_may_mix_general_tokens_and_fragments(layout: Any) -> None:
    """Text whose items are bytes or pieces. Such a segment has no `aos`."""
    v = Vocabulary(
        general=8,
        positions=8,
        digits=8,
        base=8,
        spaces=(Space("piece", 300), Space("image", 64)),
        control=("caption", "image", "eos"),
        markers=(Marker("caption", "piece", general=True),),
        layout=layout,
        position="before",
        width="fixed",
        check_digit=True,
    )
    model, meant = Fake(v.size), SegmentTarget("caption", 2, 4, "any")
    assert most_tokens(v, meant) == 4 * 5 + 1
    prompts = np.full((60, 1), v.token("caption"), np.int32)
    drawn = Sampler.of(model, v, meant)(model.init(1), prompts, np.ones(60, np.int32), jax.random.key(0))
    rows = np.concatenate([prompts, drawn], axis=1)
    read = [documents[0] for documents in assemble(v, decode(v, PrimaryIds(jnp.asarray(rows))))]
    assert [encode(v, Documents.of([one])).tokens.array.tolist() for one in read] == [
        row[: list(row).index(v.end) + 1].tolist() for row in rows
    ]
    kinds = np.array([np.bincount(segment.spaces + 1, minlength=2) for (segment,) in read])
    assert (kinds > 0).all(axis=1).any()
    assert set(kinds.sum(axis=1).tolist()) == {2, 3, 4}


def test_only_fields_that_are_trained_are_generated(config: Config, generator: Generator) -> None:
    with pytest.raises(ConfigError, match="the run can generate text, image, speech"):
        generator.generate({}, "smell", jax.random.key(0))
    with pytest.raises(VocabularyError, match=f"the position tokens reach {config.vocabulary.positions - 1}"):
        Sampler.of(generator.model, config.vocabulary, drawing("image", 99, 99))


@pytest.mark.parametrize("name, items, most", [(TEXT, 4, 4 + 2), ("image", 5, 5 * 4 + 2), ("speech", 6, 6 * 3 + 2)])
def test_a_sampler_has_room_for_the_longest_segment(config: Config, name: str, items: int, most: int) -> None:
    """Digits and a position token for each item, `aos` and `eos`."""
    assert most_tokens(config.vocabulary, target(name)) == most
    whole = Items.one(GENERAL if name == TEXT else 0, np.zeros((items, 1), np.uint32))
    assert encode(config.vocabulary, documents_of(config, {name: [whole]})).tokens.array.size - 1 == most
