"""Digit noise: what it changes, how often, and that it is the same again."""

import dataclasses
import functools
import itertools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import random_data
from jax.sharding import Mesh

from omnijax.config import Config, MeshConfig
from omnijax.data.pipeline import Batch
from omnijax.errors import ConfigError
from omnijax.experiment import load_experiment, override
from omnijax.model.transformer import Transformer
from omnijax.step.noise import digit_radices, with_digit_noise
from omnijax.step.sharding import make_mesh, put_batch
from omnijax.step.state import State, abstract_batch, abstract_state, init_state, make_step
from omnijax.vocab.documents import Documents, Segment
from omnijax.vocab.encode import encode
from omnijax.vocab.radix import radices_of, width_of
from omnijax.vocab.vocabulary import Space, Vocabulary

DIGITS = pathlib.Path(__file__).parents[1] / "experiments" / "digits.py"
SHARE = 0.3


@pytest.fixture(scope="module")
def config(tmp_path_factory) -> Config:
    """On eight devices."""
    small = random_data.small_config(load_experiment(DIGITS), tmp_path_factory.mktemp("none"))
    model = dataclasses.replace(small.model, depth=1)
    return dataclasses.replace(small, model=model, mesh=MeshConfig(2, 2, 2))


@pytest.fixture(scope="module")
def batch(config: Config) -> Batch:
    return random_data.batches_of(random_data.random_corpus(config.vocabulary, 20, most_items=7), config.batch)[0]


def with_noise(config: Config, share: float) -> Config:
    return dataclasses.replace(config, train=dataclasses.replace(config.train, digit_noise=share))


compiled_noise = jax.jit(with_digit_noise, static_argnums=(0, 3, 4))


def noisy(config: Config, batch: Batch, step: int, share: float = SHARE, seed: int = 0) -> np.ndarray:
    """On one device."""
    return np.asarray(compiled_noise(config.vocabulary, batch["tokens"], batch["kinds"], share, seed, step))


def is_digit(vocabulary: Vocabulary, tokens: np.ndarray) -> np.ndarray:
    return (tokens >= vocabulary.digit_start) & (tokens < vocabulary.aos)


def test_the_share_of_digits_is_drawn_evenly_and_nothing_else_changes(config: Config, batch: Batch) -> None:
    vocabulary = config.vocabulary
    digits = is_digit(vocabulary, batch["tokens"])
    found = np.stack([noisy(config, batch, step) for step in range(40)])
    np.testing.assert_array_equal(found[:, ~digits], np.broadcast_to(batch["tokens"][~digits], (40, (~digits).sum())))
    drawn, clean = found[:, digits] - vocabulary.digit_start, batch["tokens"][digits] - vocabulary.digit_start
    assert drawn.min() == 0
    assert drawn.max() == vocabulary.base - 1
    # A digit that is drawn is the same again once in `base`; five standard deviations of that count.
    changed, rate = drawn != clean, SHARE * (1 - 1 / vocabulary.base)
    assert abs(changed.mean() - rate) < 5 * np.sqrt(rate * (1 - rate) / changed.size)
    for digit, other in itertools.permutations(range(vocabulary.base), 2):
        to_other = (drawn == other)[:, clean == digit]
        expected = SHARE / vocabulary.base
        assert abs(to_other.mean() - expected) < 5 * np.sqrt(expected / to_other.size)


def test_the_noise_of_a_step_is_the_same_again_and_of_no_other_step_or_seed(config: Config, batch: Batch) -> None:
    found = noisy(config, batch, 3)
    np.testing.assert_array_equal(found, noisy(config, batch, 3))
    others = [noisy(config, batch, 4), noisy(config, batch, 3, seed=1), batch["tokens"]]
    assert all((found != other).any() for other in others)


def mixed(base: int | tuple[int, ...], position: str, width: str, order: str, check: bool) -> Vocabulary:
    largest = max(base) if isinstance(base, tuple) else base
    return Vocabulary(
        positions=10,
        digits=largest,
        base=base,
        spaces=(Space("image", 100), Space("speech", 7)),
        control=("image", "speech", "eos"),
        position=position,  # type: ignore[arg-type]
        width=width,  # type: ignore[arg-type]
        digit_order=order,  # type: ignore[arg-type]
        check_digit=check,
    )


WAYS = [
    way
    for way in itertools.product(
        [5, (3, 5, 9), (9, 2, 7)], ["before", "after", "none"], ["fixed", "minimal"], ["big", "little"], [False, True]
    )
    if way[1:3] != ("none", "minimal")
]


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_each_digit_is_drawn_below_the_radix_that_it_is_written_in(way: tuple) -> None:
    """Against the radices of each item, one by one."""
    vocabulary = mixed(*way)
    random = np.random.default_rng(0)
    documents, expected = [], []
    for _ in range(6):
        segments = []
        for space in random.permutation(2):
            ids = random.integers(0, vocabulary.spaces[space].size, random.integers(1, 9))
            segments.append(Segment(int(space), np.full(ids.size, space, np.int32), ids))
            for number in ids.tolist():
                width = (
                    vocabulary.contexts.widths[space + 1] if way[2] == "fixed" else width_of(number, vocabulary.base)
                )
                radices = radices_of(vocabulary.base, int(width))
                expected += [*(radices if way[3] == "big" else radices[::-1]), *[vocabulary.check_base] * way[4]]
        documents.append(segments)
    encoded = encode(vocabulary, Documents.of(documents))
    room = (0, 500 - encoded.kinds.size)
    tokens, kinds = np.pad(encoded.tokens.array, room)[None], np.pad(encoded.kinds, room)[None]  # one sequence
    found = np.asarray(digit_radices(vocabulary, jnp.asarray(kinds)))
    digits = is_digit(vocabulary, tokens)
    assert found[digits].tolist() == expected
    assert not found[~digits].any()


@functools.cache
def made(config: Config) -> tuple[Mesh, jax.stages.Wrapped]:
    model, mesh = Transformer(config.model, config.vocabulary.size), make_mesh(config.mesh)
    return mesh, make_step(config, model, mesh)


@pytest.fixture(scope="module")
def fresh(config: Config) -> State:
    mesh, _ = made(config)
    return jax.device_get(init_state(config, Transformer(config.model, config.vocabulary.size), mesh))


def state_after(config: Config, state: State, batches: list[Batch]) -> State:
    mesh, step = made(config)
    for batch in batches:
        state, _ = step(state, put_batch(mesh, batch))
    return jax.device_get(state)


def test_the_step_reads_the_noise_and_predicts_what_is_clean(config: Config, batch: Batch, fresh: State) -> None:
    """A step with digit noise equals a plain step that reads the noisy rows and predicts the clean targets.

    The step runs on eight devices, and the noise is made on one: it doesn't depend on the mesh.
    """
    rough = with_noise(config, SHARE)
    by_hand: Batch = {**batch, "tokens": noisy(config, batch, step=0, seed=config.train.seed)}
    cases = ((rough, batch), (config, by_hand), (config, batch))
    found, expected, clean = (state_after(one, fresh, [rows]) for one, rows in cases)
    leaves = [jax.tree.leaves(state.opt_state) for state in (found, expected, clean)]
    assert all(np.allclose(one, other, rtol=1e-4, atol=1e-7) for one, other in zip(*leaves[:2], strict=True))
    assert not all(np.allclose(one, other, rtol=1e-4, atol=1e-7) for one, other in zip(*leaves[1:], strict=True))


def test_noise_is_that_of_the_step_after_a_resume(config: Config, batch: Batch, fresh: State) -> None:
    rough = with_noise(config, SHARE)
    whole = state_after(rough, fresh, [batch] * 3)
    resumed = state_after(rough, state_after(rough, fresh, [batch] * 2), [batch])
    assert all(
        np.array_equal(one, other) for one, other in zip(jax.tree.leaves(whole), jax.tree.leaves(resumed), strict=True)
    )


def test_no_noise_leaves_the_compiled_step_as_it_is(config: Config) -> None:
    def lowered(config: Config) -> str:
        mesh, step = made(config)
        state = abstract_state(config, Transformer(config.model, config.vocabulary.size), mesh)
        return step.lower(state, abstract_batch(config, mesh)).as_text()

    without = lowered(config)
    assert "threefry" not in without
    assert "random_bits" not in without
    assert lowered(with_noise(config, SHARE)) != without


@pytest.mark.parametrize("share", [-0.1, 1.0])
def test_a_share_that_can_not_be_is_refused(share: float) -> None:
    with pytest.raises(ConfigError) as caught:
        override(load_experiment(DIGITS), ["--train.digit_noise", str(share)])
    assert caught.value.field == "train.digit_noise"
