"""Documents side by side: in rows that are filled again, over a cache that grows, on a mesh. Tokens stay the same."""

import dataclasses
import re

import jax
import numpy as np
import pytest
from random_data import small_vocabulary
from sampling import drawing, random_params, read_drawn

from omnijax.config import MeshConfig, ModelConfig, SampleConfig
from omnijax.errors import ConfigError
from omnijax.model.transformer import Params, Transformer
from omnijax.sample.decode_loop import Programs
from omnijax.sample.sampler import Sampler
from omnijax.step.sharding import make_mesh, parameter_shardings
from omnijax.vocab.vocabulary import PAD, Vocabulary

V = small_vocabulary()
MODEL = Transformer(ModelConfig(depth=2, width=32, heads=4, kv_heads=2, head_size=8, mlp_width=64), V.size)
SAMPLER = Sampler.of(MODEL, V, drawing("image", 1, 5, SampleConfig(top_p=0.95)))
KEY = jax.random.key(5)
DOCUMENTS = 10


@pytest.fixture(scope="module")
def params() -> Params:
    return random_params(MODEL)


@pytest.fixture(scope="module")
def prompts() -> tuple[np.ndarray, np.ndarray]:
    """A text of 0 to 4 tokens each, and the marker of a picture."""
    random, lengths = np.random.default_rng(1), np.arange(DOCUMENTS) % 5 + 2
    tokens = np.where(np.arange(6) < lengths[:, None], random.integers(1, 1 + V.general, (DOCUMENTS, 6)), PAD)
    tokens[:, 0], tokens[np.arange(DOCUMENTS), lengths - 1] = V.token("text"), V.token("image")
    return tokens, lengths


@pytest.fixture(scope="module")
def drawn(params: Params, prompts: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """All side by side, on one device, with a cache that is whole at once."""
    found = SAMPLER(params, *prompts, KEY)
    assert len(set((found != PAD).sum(axis=1))) > 2
    return found


def test_rows_that_are_done_are_filled_again_and_tokens_follow_from_the_document_alone(
    params: Params, prompts: tuple[np.ndarray, np.ndarray], drawn: np.ndarray
) -> None:
    shares: list[float] = []
    np.testing.assert_array_equal(SAMPLER(params, *prompts, KEY, rows=4, progress=shares.append), drawn)
    assert len(shares) > 3
    assert shares == sorted(shares)
    assert 0 < shares[0] < 0.5
    assert shares[-1] == 1
    # Other documents all around: the last one keeps its tokens.
    tokens, lengths = (np.where(np.arange(DOCUMENTS) < 9, x[::-1].T, x.T).T for x in prompts)
    others = SAMPLER(params, tokens, lengths, KEY, rows=4)
    np.testing.assert_array_equal(others[9], drawn[9])
    assert (others[:9] != drawn[:9]).any(axis=1).sum() > 6


def items_of(drawn: np.ndarray, vocabulary: Vocabulary = V) -> list[int]:
    """Number of fragments of each document."""
    return [len(ids) for ids in read_drawn(vocabulary, drawing("image", 0, 5), drawn).ids]


def test_documents_of_one_call_have_bounds_of_their_own(params: Params, prompts: tuple, drawn: np.ndarray) -> None:
    """Exact lengths, in rows that are filled again; -1 stands for the target's bound, and one program serves all."""
    exact = np.array([3, 1, 5, 2, 4, 0, 2, 5, 1, 3])
    found = SAMPLER(params, *prompts, KEY, rows=4, bounds_n2=np.stack([exact, exact], axis=1))
    assert items_of(found) == exact.tolist()
    assert read_drawn(V, drawing("image", 0, 5), found).decodable.all()
    compiled = [program._cache_size() for program in (Programs.begin, Programs.chunk)]
    other = np.array([5, 5, 1, 1, 3, 3, 2, 2, 4, 4])
    again = SAMPLER(params, *prompts, KEY, rows=4, bounds_n2=np.stack([other, other], axis=1))
    assert items_of(again) == other.tolist()
    free = np.full((DOCUMENTS, 2), -1)
    np.testing.assert_array_equal(SAMPLER(params, *prompts, KEY, rows=4, bounds_n2=free), drawn)
    assert [program._cache_size() for program in (Programs.begin, Programs.chunk)] == compiled
    assert min(items_of(drawn)) < 4 <= min(items_of(SAMPLER(params, *prompts, KEY, rows=4, bounds_n2=free + [5, 0])))


@pytest.mark.parametrize("least, most", [(3, 2), (0, 6), (6, -1)])
def test_bounds_that_no_segment_can_keep_are_refused(params: Params, prompts: tuple, least: int, most: int) -> None:
    with pytest.raises(ConfigError, match="of document 0"):
        SAMPLER(params, *prompts, KEY, bounds_n2=np.tile([least, most], (DOCUMENTS, 1)))
    free = Sampler.of(MODEL, V, drawing("image", 1, 5, SampleConfig(grammar=False)))
    with pytest.raises(ConfigError, match=r"sample\.grammar"):
        free(params, *prompts, KEY, bounds_n2=np.tile([2, -1], (DOCUMENTS, 1)))


def test_a_cache_that_grows_changes_nothing(
    params: Params, prompts: tuple[np.ndarray, np.ndarray], drawn: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    rooms = []
    grown = Programs.grown
    monkeypatch.setattr(Programs, "grown", lambda self, loop, room: (rooms.append(room), grown(self, loop, room))[1])
    np.testing.assert_array_equal(dataclasses.replace(SAMPLER, block=12)(params, *prompts, KEY), drawn)
    assert rooms == [36]


PROOFS = [pytest.param(one, marks=pytest.mark.proof) for one in ((2, 2, 1, 2), (1, 4, 2, 1))]


@pytest.mark.parametrize("sizes", [(1, 2, 2, 2), *PROOFS], ids=str)
def test_a_mesh_draws_the_tokens_of_one_device(
    params: Params, prompts: tuple[np.ndarray, np.ndarray], drawn: np.ndarray, sizes: tuple[int, int, int, int]
) -> None:
    """And what crosses between devices is what a few tokens take, never weights or slots of the cache."""
    mesh = make_mesh(MeshConfig(*sizes))
    split = jax.device_put(params, parameter_shardings(mesh, params))
    np.testing.assert_array_equal(SAMPLER(split, *prompts, KEY), drawn)

    abstract = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding), split)
    program = SAMPLER.lower(abstract, 8, 20).compile().as_text()
    crossing = re.findall(r"= \(?\w+\[([\d,]*)\]\S* (?:all-|reduce-scatter|collective-)", program)
    assert len(crossing) > 10
    widest = 2 * 8 * max(MODEL.config.mlp_width, V.size)  # two tokens of eight rows
    assert max(np.prod([int(size) for size in shape.split(",") if size]) for shape in crossing) <= widest
    cache = f"[{8 // sizes[0] // sizes[1]},{2 // sizes[3]},{32 + SAMPLER.most_tokens},8]"
    assert f"f32{cache}" in program
