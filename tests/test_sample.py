import dataclasses
import functools
import importlib.util
import itertools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from omnijax import testing
from omnijax.config import Config, SampleConfig, Target
from omnijax.data.corpus import Corpus, segment
from omnijax.errors import ConfigError, VocabularyError
from omnijax.experiment import load_experiment
from omnijax.model.transformer import Params, Transformer
from omnijax.sample.generate import Generator, known_parts, prompt, read_generated
from omnijax.sample.pick_token import pick
from omnijax.sample.sampler import PROMPT, Sampler, most_tokens
from omnijax.vocab.documents import Documents
from omnijax.vocab.encode import encode
from omnijax.vocab.radix import check_digit, to_digits
from omnijax.vocab.vocabulary import PAD, Space, Vocabulary

pytestmark = pytest.mark.usefixtures("quick_compiler")

EXPERIMENTS = pathlib.Path(__file__).parents[1] / "experiments"
DIGITS = EXPERIMENTS / "digits.py"
GREEDY = SampleConfig(temperature=0.0)
TARGETS = (Target("text", 2, 4), Target("image", 5, 5), Target("speech", 1, 6))
ROWS = 6


@pytest.fixture(scope="module")
def config(tmp_path_factory) -> Config:
    config = testing.small_config(load_experiment(DIGITS), tmp_path_factory.mktemp("none"))
    return dataclasses.replace(config, eval=dataclasses.replace(config.eval, targets=TARGETS, batch_size=4))


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
    drawn = pick(sample, logits_bv, jnp.broadcast_to(legal_v, (draws, 12)), jax.random.split(jax.random.key(0), draws))
    found = np.bincount(drawn, minlength=12) / draws
    assert not found[expected == 0].any()
    np.testing.assert_allclose(found, expected, atol=4 * 0.5 / np.sqrt(draws))
    assert drawn.dtype == jnp.int32


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
        ("retries", -1),
        ("retries", 1),
    ],
)
def test_impossible_ways_of_sampling_are_refused(config: Config, model: Transformer, field: str, change: float) -> None:
    sample = dataclasses.replace(SampleConfig(), **{field: change})
    with pytest.raises(ConfigError) as caught:
        Sampler.of(model, config.vocabulary, target("text", sample))
    assert caught.value.field == f"sample.{field}"


@pytest.mark.parametrize("change", [{"temperature": 0.0}, {"grammar": False}])
def test_drawing_again_needs_chance_and_a_grammar(change: dict) -> None:
    with pytest.raises(ConfigError, match=r"sample\.retries"):
        Sampler.of(Fake(CHECKED.size), CHECKED, Target("code", 1, 1, SampleConfig(retries=1, **change)))


# ---------------------------------------------------------------------- whole segments


quick_pick = jax.jit(pick, static_argnums=0)


@functools.cache
def automaton(sampler: Sampler):
    """The grammar of a sampler, one row."""
    grammar = sampler.pen.grammar
    return grammar.start_state(1), jax.jit(grammar.mask), jax.jit(grammar.advance)


def slow_sample(sampler: Sampler, logits_behind, prompt_t: np.ndarray, key: jax.Array) -> list[int]:
    """One document, token by token: logits of all that stands before each, no cache, no token that isn't drawn."""
    state, mask, advance = automaton(sampler)
    tokens, end = list(prompt_t), sampler.pen.grammar.vocabulary.end
    for token in tokens:
        state = advance(state, np.array([token]))
    for number in range(sampler.pen.most):
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
    config: Config, generator: Generator, corpus: Corpus, name: str
) -> None:
    """In a batch of prompts of different lengths, with a cache and forced tokens, against one document at a time."""
    forward = jax.jit(generator.model.__call__)
    source = "speech" if name == "image" else "image"
    prompts, lengths = prompt(config.vocabulary, source, corpus.fragments[source], name)
    assert len(set(lengths)) > 2
    sampler = Sampler.of(
        generator.model, config.vocabulary, target(name, GREEDY if name == "speech" else SampleConfig())
    )
    room = prompts.shape[1] + sampler.pen.most
    drawn = np.asarray(sampler(generator.params, prompts, lengths, jax.random.key(0)).tokens)

    def logits_behind(tokens: list[int]) -> jax.Array:
        padded = np.zeros((1, room), np.int32)
        padded[0, : len(tokens)] = tokens
        return forward(generator.params, padded, np.arange(room)[None], np.zeros_like(padded))[0, len(tokens) - 1]

    for row, key in enumerate(row_keys(jax.random.key(0), 3)):
        check_row(drawn[row], slow_sample(sampler, logits_behind, prompts[row, : lengths[row]], key))


# ---------------------------------------------------------------------- rows out of step

PASSES: list[int] = []


@dataclasses.dataclass(frozen=True)
class Fake:
    """A model whose logits follow from all tokens before, and whose cache is these tokens. Notes its passes' widths."""

    tokens: int

    def init(self, seed: int, scale: float = 1.5) -> jax.Array:
        return jnp.asarray(np.random.default_rng(seed).normal(size=(97, self.tokens)) * scale, jnp.float32)

    def unstacked(self, params):
        return params

    def empty_cache(self, rows: int, slots: int) -> jax.Array:
        return jnp.full((rows, 1, slots), -99, jnp.int32)

    def extend(self, params, cache, tokens_bt, positions_bt, only_b, mesh):
        jax.debug.callback(lambda: PASSES.append(tokens_bt.shape[1]))
        rows, _, slots = cache.shape
        cache = cache.at[jnp.arange(rows)[:, None], 0, positions_bt].set(tokens_bt, mode="drop")
        last = jnp.take_along_axis(positions_bt, only_b[:, None], axis=1)
        terms = jnp.where(jnp.arange(slots)[None] <= last, (cache[:, 0] + 1) * (jnp.arange(slots)[None] % 7 + 2), 0)
        return params[terms.sum(axis=1) % len(params)][:, None], cache

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
    return prompt(vocabulary, "text", [random.integers(0, 6, random.integers(1, 5)) for _ in range(rows)], name)


@pytest.mark.parametrize("way, name", [*((way, "image") for way in WAYS), (WAYS[1], "sound")], ids=str)
def test_forced_tokens_without_a_pass_change_no_other_token(way: dict, name: str) -> None:
    """Whatever step each row is at: against documents sampled alone, with every token drawn."""
    v = vocabulary_of(**way)
    model, order = Fake(v.size), "any" if v.position == "before" and v.layout == "inline" else "raster"
    wanted = Target(name, 1, 4, SampleConfig(), order)
    sampler, params = Sampler.of(model, v, wanted), model.init(0)
    prompts, lengths = some_prompts(v, name)
    PASSES.clear()
    drawn = np.asarray(sampler(params, prompts, lengths, jax.random.key(1)).tokens)
    jax.effects_barrier()
    skipping = PASSES.copy()
    behind = functools.partial(model.logits_behind, params)
    for row, key in enumerate(row_keys(jax.random.key(1), len(prompts))):
        check_row(drawn[row], slow_sample(sampler, behind, prompts[row, : lengths[row]], key))
    PASSES.clear()
    plain = Sampler.of(model, v, wanted, skip=False)
    np.testing.assert_array_equal(plain(params, prompts, lengths, jax.random.key(1)).tokens, drawn)
    jax.effects_barrier()
    assert set(PASSES[1:]) == {1}
    assert len(PASSES) == (drawn != PAD).sum(axis=1).max()
    assert set(skipping[1:]) <= {1, 1 + sampler.ahead}
    assert len(skipping) < len(PASSES)


def test_what_is_forced_throughout_takes_one_pass() -> None:
    """A picture of one fragment that there is, at positions in order: the whole segment is known before it is drawn."""
    v = dataclasses.replace(vocabulary_of(), spaces=(Space("image", 1), Space("sound", 5)))
    sampler = Sampler.of(Fake(v.size), v, Target("image", 3, 3))
    PASSES.clear()
    drawn = np.asarray(sampler(Fake(v.size).init(0), *some_prompts(v, "image"), jax.random.key(0)).tokens)
    jax.effects_barrier()
    symbols = [v.symbols()[token] for token in drawn[5]]
    assert symbols == ["v_0", "p_1", "v_0", "p_2", "v_0", "p_3", "eos"]
    assert (drawn == drawn[0]).all()
    assert PASSES.copy() == [PROMPT + sampler.ahead]


def test_pictures_of_the_demo_are_drawn_in_as_many_passes_as_they_have_digits(config: Config) -> None:
    v = config.vocabulary
    sampler = Sampler.of(Fake(v.size), v, Target("image", 5, 5))
    prompts = np.full((4, 1), v.token("image"), np.int32)
    PASSES.clear()
    drawn = np.asarray(sampler(Fake(v.size).init(0), prompts, np.ones(4, np.int32), jax.random.key(0)).tokens)
    jax.effects_barrier()
    assert (drawn != PAD).sum(axis=1).tolist() == [5 * 4 + 2] * 4
    assert PASSES.copy() == [PROMPT + 2, *[1, 1, 2] * 4, 1, 1]


# ---------------------------------------------------------------------- check digits


@dataclasses.dataclass(frozen=True)
class Table:
    """A model whose logits follow from how many tokens stand before."""

    tokens: int

    def unstacked(self, params):
        return params

    def empty_cache(self, rows: int, slots: int) -> jax.Array:
        return jnp.zeros((rows, 1, slots), jnp.int32)

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


@pytest.mark.parametrize("retries", [0, 1, 3])
@pytest.mark.parametrize("skip", [True, False])
def test_drawing_again_where_the_check_digit_is_wrong_raises_the_share_of_right_ids(retries: int, skip: bool) -> None:
    """Ids, and numbers of rejections, come as often as by the sum over all ids that can be drawn."""
    v, meant, rows = CHECKED, 11, 3000
    p_digit = np.full((2, 5), 0.1) + 0.5 * np.eye(5)[to_digits(meant, (5, 5))]
    right = check_digit(to_digits(meant, (5, 5)), 5)
    p_check = np.full(5, 0.05) + 0.75 * np.eye(5)[right]
    logits = np.full((8, v.size), -30.0)
    digits = slice(v.digit_start, v.digit_start + 5)
    logits[1, digits], logits[2, digits], logits[3, digits] = map(np.log, (*p_digit, p_check))

    # Ids are below 23: of what begins with digit 4, only three digits can follow.
    p_id = {}
    for high, low in itertools.product(range(5), range(5)):
        if high * 5 + low < 23:
            p_id[high * 5 + low] = p_digit[0, high] * p_digit[1, low] / (p_digit[1, :3].sum() if high == 4 else 1)
    accepted = {k: p * p_check[check_digit(to_digits(k, (5, 5)), 5)] for k, p in p_id.items()}
    again = 1 - sum(accepted.values())
    expected = [sum(again**k for k in range(retries)) * accepted[i] + again**retries * p_id[i] for i in range(23)]
    assert sum(expected) == pytest.approx(1)

    sampler = Sampler.of(Table(v.size), v, Target("code", 1, 1, SampleConfig(retries=retries)), skip)
    prompts = np.full((rows, 1), v.token("code"), np.int32)
    drawn, rejected = sampler(jnp.asarray(logits), prompts, np.ones(rows, np.int32), jax.random.key(2))
    found = read_generated(v, Target("code", 1, 1), np.asarray(drawn), np.asarray(rejected))
    assert found.decodable.all()
    share = np.bincount(np.concatenate(found.fragments), minlength=23) / rows
    np.testing.assert_allclose(share, expected, atol=4 * 0.5 / np.sqrt(rows))
    assert found.rejected.mean() == pytest.approx(sum(again**k for k in range(1, retries + 1)), abs=0.08)
    assert found.rejected.max() == retries
    assert expected[meant] == pytest.approx({0: 0.36, 1: 0.54, 3: 0.70}[retries], abs=0.02)


@pytest.mark.parametrize("position", ["before", "after", "none"])
def test_digits_that_are_forced_are_counted_again_after_a_rejection(position: str) -> None:
    """With room to grow the first digit is always 0; as many rejections come, whether it is drawn or written."""
    spaces = (Space("code", 25, capacity=125),)
    v = dataclasses.replace(CHECKED, spaces=spaces, position=position)
    rows, logits = 1000, jnp.zeros((12, v.size))
    for skip in (True, False):
        sampler = Sampler.of(Table(v.size), v, Target("code", 2, 2, SampleConfig(retries=9)), skip)
        prompts = np.full((rows, 1), v.token("code"), np.int32)
        drawn, rejected = sampler(logits, prompts, np.ones(rows, np.int32), jax.random.key(5))
        assert read_generated(v, Target("code", 2, 2), np.asarray(drawn)).decodable.all()
        mean = sum(0.8**k for k in range(1, 10))  # four of five check digits are wrong
        assert float(rejected.mean()) / 2 == pytest.approx(mean, abs=0.35)


def test_rejections_send_rows_back_to_where_the_fragment_began() -> None:
    """Logits follow from all tokens before: what comes out is as likely as what a slow sampler takes."""
    v = vocabulary_of(position="before", width="fixed", check_digit=True)
    wanted = Target("image", 1, 3, SampleConfig(retries=2))
    model = Fake(v.size)
    params = model.init(4, 0.8)
    skipping, plain = (Sampler.of(model, v, wanted, skip) for skip in (True, False))
    prompts, lengths = some_prompts(v, "image", 40)
    drawn, rejected = map(np.asarray, skipping(params, prompts, lengths, jax.random.key(0)))
    for one, other in zip(plain(params, prompts, lengths, jax.random.key(0)), (drawn, rejected), strict=True):
        np.testing.assert_array_equal(one, other)
    assert read_generated(v, wanted, drawn).decodable.all()
    assert 1 < rejected.max() <= 3 * 2
    for row, key in enumerate(row_keys(jax.random.key(0), 40)):
        assert slow_retries(skipping, params, prompts[row, : lengths[row]], key) == (
            drawn[row][: np.argmax(drawn[row] == v.end) + 1].tolist(),
            rejected[row],
        )


def slow_retries(sampler: Sampler, params: jax.Array, prompt_t: np.ndarray, key: jax.Array) -> tuple[list[int], int]:
    """One document under rejection, fragment by fragment, position before and fixed width."""
    (state, mask, advance), v, model = automaton(sampler), sampler.pen.grammar.vocabulary, sampler.model
    tokens, rejected, width = list(prompt_t), 0, sampler.pen.width
    for token in tokens:
        state = advance(state, np.array([token]))

    def drawn(tokens: list[int], legal: np.ndarray, attempts: int) -> int:
        number = len(tokens) - len(prompt_t) + sampler.pen.most * attempts
        keys = jax.random.fold_in(key, number)[None]
        return int(quick_pick(sampler.config, model.logits_behind(params, tokens)[None], legal, keys)[0])

    while tokens[-1] != v.end:
        for attempts in range(sampler.config.retries + 1):
            longer, after = list(tokens), state
            for digit in range(-1, width + 1):
                legal = mask(after)
                if digit == -1 and attempts:
                    legal = legal.at[:, v.end].set(False)
                if digit == width and attempts < sampler.config.retries:
                    legal = np.zeros_like(legal)
                    legal[:, v.digit_start : v.digit_start + v.check_base] = True
                longer.append(drawn(longer, legal, attempts))
                wrong = not mask(after)[0, longer[-1]]
                after = advance(after, np.array(longer[-1:]))
                if longer[-1] == v.end:
                    break
            if not wrong:
                break
            rejected += 1
        tokens, state = longer, after
    return tokens[len(prompt_t) :], rejected


def test_rejected_fragments_leave_the_number_of_items_alone() -> None:
    """An end is never rejected: were it drawn anew each time, rows would end early."""
    v, rows = CHECKED, 2000
    logits = np.zeros((20, v.size))
    logits[:, v.end] = np.log(1 / 2)
    sampler = Sampler.of(Table(v.size), v, Target("code", 0, 3, SampleConfig(retries=9)))
    prompts = np.full((rows, 1), v.token("code"), np.int32)
    drawn, rejected = sampler(jnp.asarray(logits), prompts, np.ones(rows, np.int32), jax.random.key(0))
    items = (np.asarray(drawn) != PAD).sum(axis=1) // 4
    ends = [1 / 3, 2 / 3 / 3, 4 / 9 / 3, 8 / 27]
    np.testing.assert_allclose(np.bincount(items, minlength=4) / rows, ends, atol=4 * 0.5 / np.sqrt(rows))
    assert np.asarray(rejected).sum() / items.sum() == pytest.approx(sum(0.8**k for k in range(1, 10)), rel=0.1)


# ---------------------------------------------------------------------- the rest of the loop


def test_a_finished_row_says_nothing_more(config: Config, generator: Generator, corpus: Corpus) -> None:
    """Without the grammar, and with every token as likely as any other: what ends a row is `eos` alone."""
    level = jax.tree.map(jnp.zeros_like, generator.params)
    prompts, lengths = prompt(config.vocabulary, "text", corpus.fragments["text"], "image")
    sampler = Sampler.of(generator.model, config.vocabulary, target("image", SampleConfig(grammar=False)))
    drawn = np.concatenate([sampler(level, prompts, lengths, jax.random.key(seed)).tokens for seed in range(4)])
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
    drawn = np.asarray(sampler(generator.params, prompts, lengths, jax.random.key(0)).tokens)
    order = [0, 2, 3, 4, 5, 1]
    again = np.asarray(sampler(generator.params, prompts[order], lengths[order], jax.random.key(0)).tokens)
    np.testing.assert_array_equal(drawn[0], again[0])
    assert not np.array_equal(drawn[1:], again[1:])
    np.testing.assert_array_equal(sampler(generator.params, prompts, lengths, jax.random.key(0)).tokens, drawn)
    assert not np.array_equal(sampler(generator.params, prompts, lengths, jax.random.key(1)).tokens, drawn)
    for row in drawn:
        (ends,) = np.flatnonzero(row == config.vocabulary.end)
        assert (row[ends + 1 :] == PAD).all()
        assert (row[:ends] != PAD).all()
    assert len({int(np.argmax(row == config.vocabulary.end)) for row in drawn}) > 1


def fuzz_sample():
    """The program `experiments/bench/fuzz_sample.py`, as a module."""
    spec = importlib.util.spec_from_file_location("fuzz_sample", EXPERIMENTS / "bench" / "fuzz_sample.py")
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    assert spec.loader is not None
    spec.loader.exec_module(module)
    return module


def test_samples_of_every_layout_pass_the_checker_and_are_written_again_the_same() -> None:
    """A few of the ways of the fuzzer; run it by itself for all of them, and for more samples."""
    fuzz = fuzz_sample()
    ways = list(fuzz.ways())
    assert len(ways) == 40
    for option in ("layout", "position", "width", "digit_order", "check_digit", "position_places", "base", "end"):
        assert len({getattr(way.vocabulary, option) for way in ways}) > 1, option
    assert {way.target.order for way in ways} == {"raster", "any"}
    assert {way.target.name for way in ways} == {"text", "image", "sound"}
    for number in (9, 22, 39):
        counts = fuzz.fuzz(ways[number], 40, seed=number)
        assert (counts.failed, counts.samples, counts.free) == (0, 40, 40)
        assert counts.passed < 20


# ---------------------------------------------------------------------- generating


def test_a_prompt_is_the_document_without_its_end_and_the_marker(config: Config, corpus: Corpus) -> None:
    vocabulary = config.vocabulary
    prompts, lengths = prompt(vocabulary, "image", corpus.fragments["image"], "text")
    for row, length, ids in zip(prompts, lengths, corpus.fragments["image"], strict=True):
        whole = encode(vocabulary, Documents.of([[segment(vocabulary, "image", ids)]])).tokens.array
        assert row[:length].tolist() == [*whole[:-1], vocabulary.token("text")]
        assert (row[length:] == PAD).all()


def test_a_last_partial_batch_gives_its_own_rows(config: Config, generator: Generator, corpus: Corpus) -> None:
    """Six documents, four at a time: the greedy results are those of six at a time."""
    fragments = corpus.fragments["text"]
    found = generator.generate("text", fragments, "image", jax.random.key(0), GREEDY)
    sampler = Sampler.of(generator.model, config.vocabulary, target("image"))
    drawn = sampler(generator.params, *prompt(config.vocabulary, "text", fragments, "image"), jax.random.key(0))
    expected = read_generated(config.vocabulary, target("image"), np.asarray(drawn.tokens))
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
        row[: tokens.array.size - 1] = tokens.array[1:]
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


def test_known_fragments_stay_and_the_rest_is_filled_in(config: Config, corpus: Corpus) -> None:
    """In an order that the model chooses, also behind another segment."""
    v = config.vocabulary
    model = Fake(v.size)
    generator = Generator(config, model, model.init(0))
    random = np.random.default_rng(0)
    known = []
    for row in range(ROWS):
        places = 1 + random.permutation(5)[:row]
        known.append((places, random.integers(0, 100, row)))
    alone = generator.complete("image", known, jax.random.key(0))
    behind = generator.complete("image", known, jax.random.key(0), before=("text", corpus.fragments["text"]))
    for found in (alone, behind):
        assert found.decodable.all()
        assert not found.rejected.any()
        for ids, (places, given) in zip(found.fragments, known, strict=True):
            assert ids.shape == (5,)
            np.testing.assert_array_equal(ids[places - 1], given)
    assert any((one != other).any() for one, other in zip(alone.fragments, behind.fragments, strict=True))
    np.testing.assert_array_equal(alone.fragments[5], behind.fragments[5])  # all of it was known
    others = [(places, 99 - given) for places, given in known]
    changed = generator.complete("image", others, jax.random.key(0)).fragments
    np.testing.assert_array_equal(changed[0], alone.fragments[0])


@pytest.mark.parametrize("way", [{"width": "minimal"}, {"width": "fixed", "check_digit": True, "position_places": 2}])
def test_a_part_that_is_known_is_the_beginning_of_the_segment_in_that_order(way: dict) -> None:
    v = vocabulary_of(position="before", layout="grouped", **way)
    places, ids = np.array([4, 1, 3]), np.array([28, 0, 5])
    (part,) = known_parts(v, Target("image", 1, 5), [(places, ids)])
    whole = np.array([0, 7, 5, 28])
    order = np.array([3, 0, 2, 1])
    tokens = encode(v, Documents.of([[segment(v, "image", whole)]]), order).tokens.array
    rest = {"minimal": 1 + 2, "fixed": 2 + 4 + 1}[v.width]  # of fragment 7, which is `21` in radix 3
    assert part.tolist() == tokens[: -1 - rest].tolist()
    (everything,) = known_parts(v, Target("image", 1, 5), [(order + 1, whole[order])])
    assert everything.tolist() == tokens[:-1].tolist()
    (nothing,) = known_parts(v, Target("image", 1, 5), [(places[:0], ids[:0])])
    assert nothing.tolist() == [v.token("image"), v.aos]


def test_what_can_not_be_completed_is_refused(config: Config, generator: Generator) -> None:
    key = jax.random.key(0)
    for places in ([0, 1], [1, 1], [5, 6], [1, 2, 3]):
        with pytest.raises(VocabularyError, match=r"some of the positions 1 … 5"):
            generator.complete("image", [(np.array(places), np.array([1, 2]))], key)
    with pytest.raises(VocabularyError):
        generator.complete("image", [(np.array([1, 2]), np.array([1, 100]))], key)
    after = dataclasses.replace(config, vocabulary=dataclasses.replace(config.vocabulary, position="after"))
    with pytest.raises(ConfigError) as caught:
        dataclasses.replace(generator, config=after).complete("image", [], key)
    assert caught.value.field == "vocabulary.position"
    shortest = dataclasses.replace(config, vocabulary=dataclasses.replace(config.vocabulary, width="minimal"))
    with pytest.raises(ConfigError, match="could get another digit"):
        dataclasses.replace(generator, config=shortest).complete("image", [], key)
    with pytest.raises(VocabularyError, match="text"):
        generator.complete("text", [], key)
    assert generator.complete("image", [], key).fragments == []
    assert generator.generate("text", [], "image", key).fragments == []
    assert generator.along(("text", "image"), [], key).fragments == []
    with pytest.raises(VocabularyError, match="whole numbers"):
        generator.complete("image", [(np.array([1.0]), np.array([2]))], key)


def test_fragments_in_any_order_come_at_all_positions(config: Config) -> None:
    v = config.vocabulary
    model, wanted = Fake(v.size), dataclasses.replace(target("image", SampleConfig()), order="any")
    sampler = Sampler.of(model, v, wanted)
    prompts = np.full((40, 1), v.token("image"), np.int32)
    drawn = np.asarray(sampler(model.init(1), prompts, np.ones(40, np.int32), jax.random.key(0)).tokens)
    assert read_generated(v, wanted, drawn).decodable.all()
    positions = drawn[:, 1:-1].reshape(40, 5, 4)[:, :, 0] - v.position_start
    assert (np.sort(positions, axis=1) == np.arange(1, 6)).all()
    assert len(np.unique(positions, axis=0)) > 20


def test_only_targets_of_the_configuration_are_generated(config: Config, generator: Generator) -> None:
    with pytest.raises(ConfigError, match="the run can generate text, image, speech"):
        generator.target("smell")
    with pytest.raises(VocabularyError, match="the position tokens reach 7"):
        Sampler.of(generator.model, config.vocabulary, Target("image", 8, 8))


@pytest.mark.parametrize("name, items, most", [("text", 4, 4 + 2), ("image", 5, 5 * 4 + 2), ("speech", 6, 6 * 3 + 2)])
def test_a_sampler_has_room_for_the_longest_segment(config: Config, name: str, items: int, most: int) -> None:
    """Digits and a position token for each item, `aos` and `eos`."""
    assert most_tokens(config.vocabulary, target(name)) == most
    ids = np.zeros(items, np.int64)
    tokens = encode(config.vocabulary, Documents.of([[segment(config.vocabulary, name, ids)]])).tokens.array
    assert tokens.size - 1 == most
