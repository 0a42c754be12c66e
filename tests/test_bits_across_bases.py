"""Bits per item don't depend on the radix when the distribution doesn't, by the very code that measures arms."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import random_data

from omnijax import testing
from omnijax.config import BatchConfig, Config, EvalConfig, Task, Writing
from omnijax.data.corpus import Corpus
from omnijax.evaluate.likelihoods import bits_per_item
from omnijax.modalities import Codes, Modality
from omnijax.source import Source
from omnijax.sweep.arms import arms_of, bases, chain, flat, knob, positions, product
from omnijax.vocab.numbers import to_digits
from omnijax.vocab.vocabulary import PAD, Vocabulary

SIZE, RECORDS, ITEMS, WORD, LEAK = 600, 40, 5, 3, 0.3
BASES = (2, 17, 256, (4, 300))
pytestmark = pytest.mark.slow


@dataclasses.dataclass(frozen=True)
class Spelled(testing.Letters):
    """Words of three of twenty letters."""

    general: ClassVar[int] = 20

    @property
    def limits(self) -> tuple[tuple[int, int], ...]:
        return ((WORD, WORD),)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Words(Source):
    """A word, and five items."""

    @property
    def fields(self) -> Mapping[str, Modality]:
        return {"text": Spelled(), "image": Codes("image", radices=(SIZE,), least=ITEMS, most=ITEMS)}


class ByHand:
    """A model whose next token has the probability that a distribution over the items of a space gives it.

    A digit has the share of the numbers that go on with it among those that begin as the item does, in the order in
    which digits are written; a byte its own probability; what the grammar or the position forces, all of it.
    """

    def __init__(self, v: Vocabulary, words: np.ndarray):
        radices = v.radices(1 + v.space_index("image"))
        digits = to_digits(np.arange(np.prod(radices, dtype=np.int64)), radices)
        self.v, self.words = v, words
        self.digits = digits if v.digit_order == "big" else digits[:, ::-1]

    def behind(self, numbers: jax.Array, tokens_bt: jax.Array, *_: Any, **more: Any) -> tuple[jax.Array, jax.Array]:
        shape = jax.ShapeDtypeStruct((*tokens_bt.shape, self.v.size), jnp.float32)
        return jax.pure_callback(self.log_probabilities, shape, numbers, tokens_bt), jnp.zeros_like(tokens_bt)

    def head_parameters(self, numbers: jax.Array, shards: Any) -> Any:
        return None

    def logits(self, head: Any, states_btv: jax.Array, places_bt: jax.Array, shards: Any) -> jax.Array:
        return states_btv

    def log_probabilities(self, numbers: Any, tokens_bt: Any) -> np.ndarray:
        numbers, tokens = np.asarray(numbers), np.asarray(tokens_bt)
        found = np.full((*tokens.shape, self.v.size), -np.inf, np.float32)
        for row, sequence in enumerate(tokens.tolist()):
            read: list[int] = []
            for place, following in enumerate([*sequence[1:], PAD]):
                probabilities = np.zeros(self.v.size)
                if self.v.digit_start <= following < self.v.aos:
                    read = [] if len(read) == self.digits.shape[1] else read
                    begun = (self.digits[:, : len(read)] == read).all(axis=1)
                    mass = np.bincount(self.digits[begun, len(read)], numbers[begun])
                    probabilities[self.v.digit_start : self.v.digit_start + mass.size] = mass / mass.sum()
                    read = [*read, following - self.v.digit_start]
                elif 1 <= following < self.v.position_start:
                    probabilities[1 : 1 + self.v.general] = self.words
                else:
                    probabilities[following], read = 1.0, []
                with np.errstate(divide="ignore"):
                    found[row, place] = np.log(probabilities)
        return found


@pytest.fixture(scope="module")
def config() -> Config:
    """Three letters, then five items of a space of 600, which fills none of the radices but its own."""
    batch = BatchConfig(tasks=(Task(("text", "image"), weights=(1.0, 1.0)),))
    return Config(Words(), batch, writing=Writing(base=17, t_pad=False), eval=EvalConfig(batch_size=RECORDS))


@pytest.fixture(scope="module", params=[BASES, pytest.param((3, 16), marks=pytest.mark.proof)], ids=str)
def arms(config: Config, request: pytest.FixtureRequest) -> dict[str, Config]:
    others = product(bases(17, (4, 300)), positions("none"), knob("writing.digit_order", "little", name="order"))
    found = arms_of(config, chain(bases(*request.param), others, flat()))
    assert len(found) == len(request.param) + 3
    return found


@pytest.fixture(scope="module")
def drawn() -> tuple[np.ndarray, np.ndarray, dict[str, list[np.ndarray]]]:
    """Probabilities of items and of bytes, and records drawn from them."""
    random = np.random.default_rng(0)
    items, words = random.dirichlet(np.full(SIZE, 0.3)), random.dirichlet(np.full(20, 0.5))
    return (
        items,
        words,
        {
            "text": [random.choice(20, WORD, p=words) for _ in range(RECORDS)],
            "image": [random.choice(SIZE, ITEMS, p=items) for _ in range(RECORDS)],
        },
    )


@pytest.fixture(scope="module")
def models(arms: dict[str, Config], drawn: Any) -> dict[str, Any]:
    """One for each arm: its parameters are the probabilities, so that it is compiled once."""
    return {name: ByHand(config.vocabulary, drawn[1]) for name, config in arms.items()}


def measured(config: Config, model: Any, numbers: np.ndarray, drawn: Any) -> dict[str, dict[str, Any]]:
    _, _, records = drawn
    columns = {name: random_data.column_of(config.vocabulary, name, rows) for name, rows in records.items()}
    corpus = Corpus(config.vocabulary, columns)
    return bits_per_item(config, model, jnp.asarray(numbers), corpus, RECORDS)


def writable(config: Config) -> int:
    """How many numbers so many digits write."""
    v = config.vocabulary
    return int(np.prod(v.radices(1 + v.space_index("image")), dtype=np.int64))


def bits(probabilities: np.ndarray, records: list[np.ndarray]) -> float:
    return float(np.mean(-np.log2(probabilities[np.concatenate(records)])))


def padded(numbers: np.ndarray, size: int) -> np.ndarray:
    return np.concatenate([numbers, np.zeros(size - len(numbers))])


def test_the_same_distribution_has_the_same_bits_in_every_base_and_flat(
    arms: dict[str, Config], models: dict[str, Any], drawn: Any
) -> None:
    items, words, records = drawn
    for name, config in arms.items():
        found = measured(config, models[name], padded(items, writable(config)), drawn)
        assert found["image|text"]["raw"] == pytest.approx(bits(items, records["image"]), abs=1e-5), name
        assert found["image|text"]["renormalised"] == pytest.approx(bits(items, records["image"]), abs=1e-5), name
        assert found["image|text"]["position"] == 0, name
        assert sum(found["image|text"]["by_place"]) == pytest.approx(found["image|text"]["digits"], abs=1e-5), name
        assert found["text"]["raw"] == pytest.approx(bits(words, records["text"]), abs=1e-5), name


def test_what_is_spent_on_ids_that_are_none_is_the_leak_in_every_base(
    arms: dict[str, Config], models: dict[str, Any], drawn: Any
) -> None:
    """Raw bits are those of the distribution over all numbers; the grammar takes back what it can tell apart."""
    items, _, records = drawn
    expected, spent = bits(items, records["image"]), -np.log2(1 - LEAK)
    told = set()
    for name, config in arms.items():
        size = writable(config)
        if size == SIZE:  # every number is an id
            continue
        numbers = padded((1 - LEAK) * items, size)
        numbers[SIZE:] = LEAK / (size - SIZE)
        found = measured(config, models[name], numbers, drawn)["image|text"]
        assert found["raw"] == pytest.approx(expected + spent, abs=1e-5), name
        assert found["leak"] == pytest.approx(found["raw"] - found["renormalised"], abs=1e-6), name
        assert found["leak"] > 0, name

        v = config.vocabulary
        first = to_digits(np.arange(size), v.radices(1 + v.space_index("image")))[:, 0]
        foreign = first > first[SIZE - 1]
        if v.digit_order == "big" and foreign.any():  # by the first digit: all of it is taken back
            told.add(name)
            numbers[SIZE:] = 0
            numbers[foreign] = LEAK / foreign.sum()
            found = measured(config, models[name], numbers, drawn)["image|text"]
            assert found["renormalised"] == pytest.approx(expected, abs=1e-5), name
            assert found["leak"] == pytest.approx(spent, abs=1e-5), name
    assert told == {"base=16", "base=17", "base=256", "base=4x300"} & set(arms)
