"""From fragments of one modality to fragments of another, by a trained model: prompt, sample, decode."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Int, Int64, PRNGKeyArray

from omnijax.config import Config, SampleConfig, Target
from omnijax.data.corpus import segment
from omnijax.errors import ConfigError
from omnijax.model.transformer import Transformer
from omnijax.sample import Sampler
from omnijax.vocab.decode import Error, Kind, decode
from omnijax.vocab.documents import Documents
from omnijax.vocab.encode import encode
from omnijax.vocab.vocabulary import Vocabulary

Fragments = Sequence[Int64[np.ndarray, " items"]]


class Generated(NamedTuple):
    """What was generated.

    Attributes:
        fragments: of each document, those that could be read.
        decodable: the document is one of the vocabulary, closed, and has as many items as its target allows.
    """

    fragments: list[Int64[np.ndarray, " items"]]
    decodable: Bool[np.ndarray, " n"]


@dataclasses.dataclass(frozen=True, eq=False)
class Generator:
    """Generates with one set of parameters.

    Attributes:
        config: of the run; its `eval.targets` say what can be generated, and how.
        model: of the run.
        params: as trained.
    """

    config: Config
    model: Transformer
    params: Any

    def target(self, name: str) -> Target:
        """The target of a modality.

        Raises:
            ConfigError: the configuration has none of this name.
        """
        for target in self.config.eval.targets:
            if target.name == name:
                return target
        names = ", ".join(target.name for target in self.config.eval.targets)
        raise ConfigError("target", name, f"the run can generate {names}", "choose one of these")

    def along(self, route: Sequence[str], fragments: Fragments, key: PRNGKeyArray) -> Generated:
        """Goes from the first modality of a route to the last, one document for each step of the way."""
        generated = Generated(list(fragments), np.ones(len(fragments), bool))
        for number, (source, target) in enumerate(zip(route, route[1:], strict=False)):
            step = self.generate(source, generated.fragments, target, jax.random.fold_in(key, number))
            generated = Generated(step.fragments, generated.decodable & step.decodable)
        return generated

    def generate(
        self, source: str, fragments: Fragments, target: str, key: PRNGKeyArray, sample: SampleConfig | None = None
    ) -> Generated:
        """Generates the target's modality behind each document of the source's.

        Args:
            source: name of the modality of `fragments`.
            fragments: of each document, ids within the modality's own space.
            target: name of the modality to generate.
            key: draws the tokens.
            sample: how tokens are drawn, instead of as the target says.
        """
        wanted = self.target(target)
        if sample is not None:
            wanted = dataclasses.replace(wanted, sample=sample)
        prompts, lengths = prompt(self.config.vocabulary, source, fragments, target)
        sampler = _sampler(self.model, self.config.vocabulary, wanted)
        rows = min(self.config.eval.rows, len(fragments))
        drawn = []
        for start in range(0, len(fragments), rows):
            index = np.arange(start, start + rows) % len(fragments)  # a last, partial batch is filled up with others
            tokens = sampler(self.params, prompts[index], lengths[index], jax.random.fold_in(key, start))
            drawn.append(np.asarray(tokens)[: len(fragments) - start])
        return read_generated(self.config.vocabulary, wanted, np.concatenate(drawn))


@functools.lru_cache(maxsize=32)
def _sampler(model: Transformer, vocabulary: Vocabulary, target: Target) -> Sampler:
    """One sampler for each way of sampling, so that its loop is compiled once."""
    return Sampler.of(model, vocabulary, target)


def prompt(
    vocabulary: Vocabulary, source: str, fragments: Fragments, target: str
) -> tuple[Int[np.ndarray, "n t"], Int[np.ndarray, " n"]]:
    """Documents of one segment that end with the marker of the segment to come, padded, and their lengths."""
    encoded = encode(vocabulary, Documents.of([segment(vocabulary, source, ids)] for ids in fragments))
    marker = vocabulary.token(target)
    closed = int(vocabulary.end is not None)
    documents = [np.append(tokens[: tokens.size - closed], marker) for tokens in encoded.split()]
    lengths = np.array([tokens.size for tokens in documents], np.int32)
    prompts = np.zeros((len(documents), lengths.max()), np.int32)
    for row, tokens in zip(prompts, documents, strict=True):
        row[: tokens.size] = tokens
    return prompts, lengths


def read_generated(vocabulary: Vocabulary, target: Target, drawn: Int[np.ndarray, "n t"]) -> Generated:
    """Reads sampled tokens, which stand behind the marker of the target, as its fragments.

    Args:
        vocabulary: that the tokens are of.
        target: what they were to be.
        drawn: as a `Sampler` returns them.
    """
    marker = vocabulary.token(target.name)
    tokens = np.concatenate([np.full((len(drawn), 1), marker, np.int32), drawn], axis=1)
    reading = jax.device_get(decode(vocabulary, jnp.asarray(tokens)))
    typed = int(vocabulary.contexts.of_control[marker - vocabulary.control_start])
    kind = Kind.FRAGMENT if typed else Kind.GENERAL
    offset = int(vocabulary.contexts.offsets[typed])
    items = (reading.kind == kind) & (reading.segment == 1)
    counts = items.sum(axis=1)
    foreign = ((reading.kind == Kind.GENERAL) | (reading.kind == Kind.FRAGMENT)) & ~items
    decodable = (
        (reading.error == Error.NONE).all(axis=1)
        & (tokens == (vocabulary.end if vocabulary.end is not None else 0)).any(axis=1)
        & (reading.segment <= 2).all(axis=1)
        & ~foreign.any(axis=1)
        & (target.min_items <= counts)
        & (counts <= target.max_items)
    )
    return Generated([reading.id[row][items[row]] - offset for row in range(len(drawn))], decodable)
