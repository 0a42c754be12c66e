"""What the tests of sampling share: prompts, targets, and reading what was drawn."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from omnijax import testing
from omnijax.config import BatchConfig, Config, EvalConfig, ModelConfig, SampleConfig, Task, Writing
from omnijax.evaluate import TrainedRun
from omnijax.modalities import Codes, Items, Modality, Picture
from omnijax.model.build import model_of
from omnijax.model.transformer import Params, Transformer
from omnijax.sample.generate import Generator, padded, read_segment
from omnijax.sample.sampler import SegmentTarget
from omnijax.source import SEQUENCE, Source
from omnijax.vocab.documents import Documents
from omnijax.vocab.encode import encode
from omnijax.vocab.vocabulary import Vocabulary

TEXT = "text"
PLAIN = SampleConfig()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Bounded(testing.RandomRecords):
    """Texts of 1 to 4 letters, pictures of exactly 5 codes, speech of 1 to 6."""

    @property
    def fields(self) -> Mapping[str, Modality]:
        return {
            TEXT: testing.Letters(most=4),
            "image": Codes("image", radices=(100,), least=5, most=5),
            "speech": Codes("speech", radices=(20,), most=6),
        }

    def records(self, split: str) -> Sequence[Mapping[str, Any]]:
        random = np.random.default_rng((self.seed, self.splits.index(split)))
        return [
            {
                TEXT: random.integers(0, 8, random.integers(1, 5)),
                "image": random.integers(0, 100, (5, 1)),
                "speech": random.integers(0, 20, (random.integers(1, 7), 1)),
            }
            for _ in range(self.count)
        ]


def drawing(name: str, least: int, most: int, sample: SampleConfig = PLAIN, order: Any = "raster") -> SegmentTarget:
    """A segment to draw: general tokens where it is text, fragments otherwise."""
    return SegmentTarget(name, least, most, "general" if name == TEXT else "fragments", sample, order)


def prompts_of(vocabulary: Vocabulary, documents: Documents, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Documents without their ends, each followed by the marker of a segment; and their lengths."""
    closed = int(vocabulary.end is not None)
    rows = [tokens.array[: tokens.array.size - closed] for tokens in encode(vocabulary, documents).split()]
    return padded([np.append(row, vocabulary.token(name)) for row in rows])


class Read(NamedTuple):
    """What was drawn: ids of each document, and whether it could be read whole."""

    ids: list[np.ndarray]
    decodable: np.ndarray


def read_drawn(vocabulary: Vocabulary, target: SegmentTarget, tokens: np.ndarray) -> Read:
    """Reads what a sampler drew behind the marker of its target."""
    size = {space.name: space.size for space in vocabulary.spaces}
    bounds = {"least": target.min_items, "most": target.max_items}
    name = target.name
    modality: Modality = testing.Letters() if name == TEXT else Codes(name, radices=(size[name],), **bounds)
    each = np.tile(np.array([list(bounds.values())], np.int32), (len(tokens), 1))
    rows = [np.append(vocabulary.token(name), row) for row in np.asarray(tokens)]
    found = read_segment(vocabulary, modality, 0, each, rows)
    return Read([ids_of(items) for items in found.items], found.decodable)


def ids_of(items: Items) -> np.ndarray:
    """Ids of items of one digit."""
    return items.digits[:, 0].astype(np.int64)


def random_params(model: Transformer, scale: float = 2.0, seed: int = 0) -> Params:
    """Random, and so large that what is drawn depends on all that stands before it."""
    random = np.random.default_rng(seed)
    shapes = jax.eval_shape(model.init, jax.random.key(0))
    return jax.tree.map(lambda leaf: random.normal(scale=scale, size=leaf.shape).astype(leaf.dtype), shapes)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Gallery(Source):
    """Tiny pictures of every size, under two markers of their own, with a name and a title of up to two letters.

    A third of the records have no sketch. Each also has an interleaved document.
    """

    count: int = 64

    @property
    def fields(self) -> Mapping[str, Modality]:
        letters = testing.Letters(most=2)
        picture = Picture(height=2, width=2, levels=2, patch=1, variable=True)
        return {"name": letters, "title": letters, "photo": picture, "sketch": picture}

    def records(self, split: str) -> Sequence[Mapping[str, Any]]:
        random = np.random.default_rng((self.seed, self.splits.index(split)))

        def letters() -> np.ndarray:
            return random.integers(0, testing.LETTERS, random.integers(1, 3))

        def picture() -> np.ndarray:
            return random.integers(0, 2, random.integers(1, 3, 2)).astype(np.uint8)

        made = {"name": letters, "title": letters, "photo": picture, "sketch": picture}
        found = []
        for number in range(self.count):
            record: dict[str, Any] = {field: make() for field, make in made.items()}
            if number % 3 == 0:
                record["sketch"] = None
            chosen = random.choice(list(made), random.integers(1, 5))
            found.append({**record, SEQUENCE: [(str(field), made[field]()) for field in chosen]})
        return found


def gallery(*tasks: Task, **data: Any) -> Config:
    """A configuration with a tiny model over `Gallery`."""
    return Config(
        Gallery(**data),
        BatchConfig(tasks),
        model=ModelConfig(depth=1, width=16, heads=2, kv_heads=1, head_size=8, mlp_width=16),
        writing=Writing(base=2, t_pad=False),
        eval=EvalConfig(batch_size=64),
    )


def untrained(config: Config, scale: float = 0.5) -> TrainedRun:
    """A run with random parameters, in no directory."""
    model = model_of(config)
    return TrainedRun(Path("nowhere"), config, Generator(config, model, random_params(model, scale)), 0)
