"""From fragments of one modality to fragments of another, or to the rest of the same: prompt, sample, decode."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import rich.progress
from jaxtyping import Bool, Int, Int64, PRNGKeyArray

from omnijax.config import Config, SampleConfig, Target
from omnijax.data.corpus import segment
from omnijax.errors import ConfigError, VocabularyError
from omnijax.model.transformer import Transformer
from omnijax.sample.sampler import Sampler
from omnijax.vocab.assemble import assemble
from omnijax.vocab.decode import Error, Kind, decode
from omnijax.vocab.documents import GENERAL, Documents, Segment
from omnijax.vocab.encode import encode
from omnijax.vocab.ids import Numbers, PrimaryIds
from omnijax.vocab.vocabulary import PAD, Vocabulary

Fragments = Sequence[Numbers]
Known = Sequence[tuple[Int64[np.ndarray, " items"], Numbers]]
"""Of each document, some positions of a segment, from 1, and the fragments there."""


class Generated(NamedTuple):
    """What was generated.

    Attributes:
        fragments: of each document, those that could be read.
        decodable: the document is one of the vocabulary, closed, and has as many items as its target allows.
        rejected: how many fragments of each were drawn again because of their check digit.
    """

    fragments: list[Numbers]
    decodable: Bool[np.ndarray, " n"]
    rejected: Int[np.ndarray, " n"]


NOTHING = Generated([], np.zeros(0, bool), np.zeros(0, np.int32))


@dataclasses.dataclass(frozen=True, eq=False)
class Generator:
    """Generates with one set of parameters.

    Attributes:
        config: of the run; its `eval.targets` say what can be generated, and how.
        model: of the run.
        params: as trained.
        progress: gets a bar while something is generated; None for none.
    """

    config: Config
    model: Transformer
    params: Any
    progress: rich.progress.Progress | None = None

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
        generated = Generated(list(fragments), np.ones(len(fragments), bool), np.zeros(len(fragments), np.int32))
        for number, (source, target) in enumerate(zip(route, route[1:], strict=False)):
            step = self.generate(source, generated.fragments, target, jax.random.fold_in(key, number))
            decodable, rejected = generated.decodable & step.decodable, generated.rejected + step.rejected
            generated = Generated(step.fragments, decodable, rejected)
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
        wanted = self._wanted(target, sample)
        if not len(fragments):
            return NOTHING
        prompts = prompt(self.config.vocabulary, source, fragments, target)
        drawn, rejected = self._draw(wanted, *prompts, key)
        return read_generated(self.config.vocabulary, wanted, drawn, rejected)

    def complete(
        self,
        target: str,
        known: Known,
        key: PRNGKeyArray,
        before: tuple[str, Fragments] | None = None,
        sample: SampleConfig | None = None,
    ) -> Generated:
        """Generates what is missing of segments of which some fragments are known, in an order that the model chooses.

        Args:
            target: name of the modality of the segments.
            known: of each document, what is known; it stays as it is.
            key: draws the tokens.
            before: another modality and its fragments in each document, to generate behind; None for nothing.
            sample: how tokens are drawn, instead of as the target says.

        Returns:
            The fragments by position, known ones included.

        Raises:
            ConfigError: the position of a fragment isn't written before it, so that the model can't choose it, or its
                digits have no end of their own.
            VocabularyError: a target without fragments, or positions that can't be.
        """
        vocabulary = self.config.vocabulary
        if vocabulary.position != "before":
            rule = "what is missing can be written only where its position comes first"
            raise ConfigError("vocabulary.position", vocabulary.position, rule, "train with position='before'")
        if vocabulary.width != "fixed":
            rule = "the last known fragment has no end before what follows it, and could get another digit"
            raise ConfigError("vocabulary.width", vocabulary.width, rule, "train with width='fixed'")
        vocabulary.space_index(target)
        if not known:
            return NOTHING
        wanted = dataclasses.replace(self._wanted(target, sample), order="any")
        parts = known_parts(vocabulary, wanted, known)
        prompts = _padded(parts)
        if before is not None:
            openings, lengths = prompt(vocabulary, *before, target)
            rows = zip(openings, lengths, parts, strict=True)
            prompts = _padded([np.append(row[:length], part[1:]) for row, length, part in rows])
        drawn, rejected = self._draw(wanted, *prompts, key)
        written = [np.append(part[1:], row) for part, row in zip(parts, drawn, strict=True)]
        return read_generated(vocabulary, wanted, _padded(written)[0], rejected)

    def _wanted(self, target: str, sample: SampleConfig | None) -> Target:
        wanted = self.target(target)
        return wanted if sample is None else dataclasses.replace(wanted, sample=sample)

    def _draw(
        self, target: Target, prompts: Int[np.ndarray, "n t"], lengths: Int[np.ndarray, " n"], key: PRNGKeyArray
    ) -> tuple[Int[np.ndarray, "n m"], Int[np.ndarray, " n"]]:
        """Samples behind prompts, as many side by side as the configuration says; tokens and rejections."""
        sampler = _sampler(self.model, self.config.vocabulary, target)
        with _bar(self.progress, f"  {target.name}") as progress:
            return sampler(self.params, prompts, lengths, key, self.config.eval.batch_size, progress)


@contextlib.contextmanager
def _bar(progress: rich.progress.Progress | None, name: str) -> Iterator[Callable[[float], None] | None]:
    """A bar of its own, which moves with the share that is done, and goes away."""
    if progress is None:
        yield None
        return
    bar = progress.add_task(name, total=1.0)
    try:
        yield lambda share: progress.update(bar, completed=share)
    finally:
        progress.remove_task(bar)


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
    return _padded([np.append(tokens.array[: tokens.array.size - closed], marker) for tokens in encoded.split()])


def known_parts(vocabulary: Vocabulary, target: Target, known: Known) -> list[Int[np.ndarray, " t"]]:
    """Segments that begin with the fragments that are known, each behind its position, and go on from there.

    Args:
        vocabulary: with positions before their fragments.
        target: what the segments are to be.
        known: of each segment.

    Raises:
        VocabularyError: a position that is given twice or out of bounds, or an id outside its space.
    """
    segments: list[Segment] = []
    orders = []
    for places, ids in known:
        if not np.issubdtype(places.dtype, np.integer):
            raise VocabularyError("known", places.dtype, "positions are whole numbers", "convert them")
        places = places.astype(np.int64)
        outside = (places < 1) | (places > target.max_items)
        if outside.any() or np.unique(places).size != places.size or len(places) != len(ids):
            rule = f"one fragment for each of some of the positions 1 … {target.max_items}"
            raise VocabularyError("known", (places.tolist(), len(ids)), rule, "give each position once")
        # The encoder writes whole segments: what isn't known is there as fragment 0, behind what is, and cut off.
        whole = np.zeros((places.max(initial=0), *ids.shape[1:]), ids.dtype)
        whole[places - 1] = ids
        first = sum(part.ids.shape[0] for part in segments)
        segments.append(segment(vocabulary, target.name, whole))
        orders.append(first + np.append(places - 1, np.setdiff1d(np.arange(len(whole)), places - 1)))
    encoded = encode(vocabulary, Documents.of([part] for part in segments), np.concatenate(orders))
    return [
        _cut(vocabulary, tokens.array, len(places)) for tokens, (places, _) in zip(encoded.split(), known, strict=True)
    ]


def _cut(vocabulary: Vocabulary, tokens: Int[np.ndarray, " t"], fragments: int) -> Int[np.ndarray, " s"]:
    """The tokens of a document before the position of the fragment behind so many."""
    positions = np.flatnonzero((tokens >= vocabulary.position_start) & (tokens < vocabulary.digit_start))
    closed = tokens.size - (vocabulary.end is not None)
    return tokens[: np.append(positions, closed)[fragments * vocabulary.position_places]]


def _padded(rows: Sequence[Int[np.ndarray, " t"]]) -> tuple[Int[np.ndarray, "n t"], Int[np.ndarray, " n"]]:
    """Rows of tokens padded on the right, and their lengths."""
    lengths = np.array([row.size for row in rows], np.int32)
    padded = np.full((len(rows), lengths.max()), PAD, np.int32)
    for line, row in zip(padded, rows, strict=True):
        line[: row.size] = row
    return padded, lengths


def read_generated(
    vocabulary: Vocabulary, target: Target, drawn: Int[np.ndarray, "n t"], rejected: Int[np.ndarray, " n"] | None = None
) -> Generated:
    """Reads sampled tokens, which stand behind the marker of the target, as its fragments.

    Args:
        vocabulary: that the tokens are of.
        target: what they were to be.
        drawn: as a `Sampler` returns them.
        rejected: likewise; None for none.
    """
    marker = vocabulary.token(target.name)
    tokens = np.concatenate([np.full((len(drawn), 1), marker, np.int32), drawn], axis=1)
    reading = jax.device_get(decode(vocabulary, PrimaryIds(jnp.asarray(tokens))))
    typed = vocabulary.contexts.of_control[marker - vocabulary.control_start] > 0
    fragment, general = reading.kind == Kind.FRAGMENT, reading.kind == Kind.GENERAL
    items = (fragment if typed else general) & (reading.segment == 1)
    counts = items.sum(axis=1)
    decodable = (
        (reading.error == Error.NONE).all(axis=1)
        & (tokens == (PAD if vocabulary.end is None else vocabulary.end)).any(axis=1)
        & (reading.segment <= 2).all(axis=1)
        & ~((general | fragment) & ~items).any(axis=1)
        & (target.min_items <= counts)
        & (counts <= target.max_items)
    )
    found = []
    for documents in assemble(vocabulary, reading):
        first = documents[0][0]
        found.append(first.ids[(first.spaces == GENERAL) != typed])
    return Generated(found, decodable, np.zeros(len(drawn), np.int32) if rejected is None else rejected)
