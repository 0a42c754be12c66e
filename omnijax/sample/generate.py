"""From items of some fields to items of another, or to the rest of the same: prompt, sample, decode."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import rich.progress
from jaxtyping import Bool, Int, PRNGKeyArray

from omnijax.config import Config, SampleConfig, Target
from omnijax.data.columns import Column, Encoded, segments_of, side_by_side
from omnijax.errors import ConfigError
from omnijax.modalities.base import GENERAL, Items, Modality
from omnijax.model.transformer import Transformer
from omnijax.sample.document_grammar import holds, segment_markers
from omnijax.sample.sampler import Sampler, SegmentTarget
from omnijax.vocab.assemble import assemble
from omnijax.vocab.decode import Error, Kind, decode
from omnijax.vocab.documents import Documents, Segment
from omnijax.vocab.encode import encode
from omnijax.vocab.ids import PrimaryIds
from omnijax.vocab.vocabulary import PAD, Vocabulary

Given = Mapping[str, Sequence[Items]]
"""For each field, in the order in which they stand, the items of one signal for each document."""


class Generated(NamedTuple):
    """What was generated.

    Attributes:
        items: of each document, those that could be read.
        decodable: whether each document could be read whole, with as many items as its modality allows.
    """

    items: list[Items]
    decodable: Bool[np.ndarray, " n"]


@dataclasses.dataclass(frozen=True, eq=False)
class Generator:
    """Generates with one set of parameters.

    Attributes:
        config: of the run; its tasks say what can be generated, its `eval.targets` how.
        model: of the run.
        params: as trained.
        progress: gets a bar while something is generated; None for none.
    """

    config: Config
    model: Transformer
    params: Any
    progress: rich.progress.Progress | None = None

    def along(self, route: Sequence[str], items: Sequence[Items], key: PRNGKeyArray) -> Generated:
        """Goes from the first field of a route to the last, one document for each step of the way."""
        generated = Generated(list(items), np.ones(len(items), bool))
        for number, (source, target) in enumerate(zip(route, route[1:], strict=False)):
            step = self.generate({source: generated.items}, target, jax.random.fold_in(key, number))
            generated = Generated(step.items, generated.decodable & step.decodable)
        return generated

    def generate(
        self, given: Given, field: str, key: PRNGKeyArray, sample: SampleConfig | None = None, count: int = 1
    ) -> Generated:
        """Generates a field behind others.

        Args:
            given: the fields that stand before it; {} for none.
            field: to generate.
            key: draws the tokens.
            sample: how tokens are drawn, instead of as the target says.
            count: number of documents, where nothing is given.

        Raises:
            ConfigError: no task trains the field.
        """
        target, modality = self._target(field, sample), self.config.data.fields[field]
        rows = self._prompts(given) if given else [np.zeros(0, np.int32)] * count
        found = Generated([Items.joined([])] * len(rows), np.ones(len(rows), bool))
        for number, marker in enumerate(segment_markers(field, modality) if rows else ()):
            opened = [np.append(row, self.config.vocabulary.token(marker)) for row in rows]
            starts = np.array([len(row) for row in rows])
            each = zip(found.items, found.decodable, strict=True)
            bounds = [modality.bounds(items) if good else modality.limits[number] for items, good in each]
            segment = DrawnSegment(modality, number, marker, np.array(bounds, np.int32))
            key = jax.random.fold_in(key, number) if number else key
            read, rows = self._draw(segment, target, opened, starts, key)
            both = found.decodable & read.decodable
            chained = [Items.chained(old, new) for old, new in zip(found.items, read.items, strict=True)]
            kept = [new if good else old for new, old, good in zip(chained, found.items, both, strict=True)]
            found = Generated(kept if number else read.items, both)
        return found

    def complete(
        self,
        field: str,
        items: Sequence[Items],
        known: Sequence[Bool[np.ndarray, " items"]],
        key: PRNGKeyArray,
        given: Given | None = None,
        sample: SampleConfig | None = None,
    ) -> Generated:
        """Generates what is missing of signals of which some fragments are known, in an order that the model chooses.

        Args:
            field: of the signals.
            items: whole signals, one for each document. A header is taken as known.
            known: which of their items are known; these stay as they are, and the others are not looked at.
            key: draws the tokens.
            given: fields that stand before it; None for nothing.
            sample: how tokens are drawn, instead of as the target says.

        Returns:
            The items by position, known ones included.

        Raises:
            ConfigError: positions aren't written before their fragments, or digits have no end of their own, or the
                field is written in general tokens.
        """
        v, modality, target = self.config.vocabulary, self.config.data.fields[field], self._target(field, sample)
        self._check_completion(field, modality)
        if not items:
            return Generated([], np.zeros(0, bool))
        part = len(modality.parts) - 1
        documents = documents_of(self.config, {**(given or {}), field: items})
        # The encoder writes whole segments: what isn't known is there behind what is, and is cut off.
        order, counts = np.arange(documents.spaces.size), []
        first_segments = np.cumsum(documents.document_segments) - documents.document_segments
        ends = np.cumsum(np.add.reduceat(documents.segment_items, first_segments))
        for one, mask, end in zip(items, known, ends, strict=True):
            body = np.asarray(mask)[one.part == part]
            order[end - len(body) : end] = end - len(body) + np.argsort(~body, kind="stable")
            counts.append(int(body.sum()))
        markers = segment_markers(field, modality)
        context = int(v.contexts.of_control[v.token(markers[-1]) - v.control_start])
        each = v.fragment_tokens(context)
        rows = [tokens.array for tokens in encode(v, documents, order).split()]
        starts = np.array([np.flatnonzero(row == v.token(markers[-1]))[-1] for row in rows])
        ahead = 1 + v.contexts.grouped[context]
        opened = [row[: start + ahead + n * each] for row, start, n in zip(rows, starts, counts, strict=True)]
        bounds = np.array([modality.limits[0] if part == 0 else (len(one.of(part, 1)),) * 2 for one in items], np.int32)
        wanted = dataclasses.replace(target, order="any")
        read, _ = self._draw(DrawnSegment(modality, part, markers[-1], bounds), wanted, opened, starts, key)
        heads = [_only(one, one.part < part) for one in items]
        whole = [Items.chained(head, body) for head, body in zip(heads, read.items, strict=True)]
        return read._replace(items=whole if part else read.items)

    def _target(self, field: str, sample: SampleConfig | None) -> Target:
        target = self.config.target(field)
        return dataclasses.replace(target, sample=sample or target.sample)

    def _check_completion(self, field: str, modality: Modality) -> None:
        writing = self.config.writing
        for knob, value, rule in (
            ("position", "before", "what is missing can be written only where its position comes first"),
            ("width", "fixed", "the last known fragment has no end of its own, and could get another digit"),
        ):
            if getattr(writing, knob) != value:
                raise ConfigError(f"writing.{knob}", getattr(writing, knob), rule, f"train with {knob}={value!r}")
        if not modality.parts or modality.general:
            rule = "general tokens have no positions, so that nothing says where they are missing"
            raise ConfigError("field", field, rule, "complete a field of fragments")

    def _draw(
        self,
        segment: DrawnSegment,
        target: Target,
        opened: Sequence[Int[np.ndarray, " t"]],
        starts: Int[np.ndarray, " n"],
        key: PRNGKeyArray,
    ) -> tuple[Generated, list[Int[np.ndarray, " t"]]]:
        """Draws the rest of a segment of each document.

        Args:
            segment: what it is.
            target: how tokens are drawn.
            opened: tokens of each document up to where it goes on.
            starts: where the segment's marker stands in each.
            key: draws them.

        Returns:
            The segments, and the tokens of the documents up to their ends.
        """
        v, modality = self.config.vocabulary, segment.modality
        sampler = _sampler(self.model, v, segment_target(self.config, target.name, segment.number, target))
        bounded = len(modality.limits) > 1 and target.sample.grammar  # nothing else keeps bounds
        exact = {"least_n": segment.bounds[:, 0], "most_n": segment.bounds[:, 1]} if bounded else {}
        prompts, lengths = padded(opened)
        with _bar(self.progress, f"  {segment.marker}") as progress:
            drawn = sampler(self.params, prompts, lengths, key, self.config.eval.batch_size, progress, **exact)
        rows = [np.append(row, tokens) for row, tokens in zip(opened, drawn, strict=True)]
        read = read_segment(v, segment, [row[start:] for row, start in zip(rows, starts, strict=True)])
        ends = [_end(v, tokens) for tokens in drawn]
        closed = [np.append(row, tokens[:end]) for row, tokens, end in zip(opened, drawn, ends, strict=True)]
        return read, closed

    def _prompts(self, given: Given) -> list[Int[np.ndarray, " t"]]:
        """Tokens of the given fields of each document, without the token that closes it."""
        if not len(next(iter(given.values()))):
            return []
        encoded = encode(self.config.vocabulary, documents_of(self.config, given))
        closed = int(self.config.vocabulary.end is not None)
        return [tokens.array[: tokens.array.size - closed] for tokens in encoded.split()]


def documents_of(config: Config, given: Given) -> Documents:
    """Items of some fields as documents: a segment for each part of each field, in the order of the fields."""
    columns = []
    for field, items in given.items():
        count = len(items)
        encoded = Encoded(field, Items.joined(items), np.arange(count), np.zeros(count, np.int64))
        segments = segments_of(config.vocabulary, config.data.fields[field], encoded)
        columns.append(Column([segments], count).take(np.arange(count)))
    return side_by_side(columns)


class DrawnSegment(NamedTuple):
    """A segment of some documents to be drawn.

    Attributes:
        modality: that it is of.
        number: of its segments.
        marker: opens it.
        bounds: int32[n, 2], fewest and most items in each document.
    """

    modality: Modality
    number: int
    marker: str
    bounds: Int[np.ndarray, "n 2"]


def segment_target(config: Config, field: str, number: int, target: Target | None = None) -> SegmentTarget:
    """What a sampler has to know of a segment of a field.

    Args:
        config: of the run.
        field: name of the field.
        number: of the segment, one for each part; -1 for the last.
        target: how tokens are drawn, instead of as the configuration says.

    Raises:
        ConfigError: no task trains the field.
    """
    modality, target = config.data.fields[field], target or config.target(field)
    least, most = modality.limits[number]
    marker = segment_markers(field, modality)[number]
    return SegmentTarget(marker, least, most, holds(modality), target.sample, target.order)


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
def _sampler(model: Transformer, vocabulary: Vocabulary, target: SegmentTarget) -> Sampler:
    """One sampler for each way of sampling, so that its loop is compiled once."""
    return Sampler.of(model, vocabulary, target)


def _only(items: Items, mask: Bool[np.ndarray, " items"]) -> Items:
    """Some items of one sequence."""
    return Items(items.part[mask], items.digits[mask], np.array([mask.sum()], np.int64))


def _end(vocabulary: Vocabulary, tokens: Int[np.ndarray, " t"]) -> int:
    """Where a drawn segment ends: before the first token that closes it, or padding."""
    closing = (tokens == PAD) | (tokens >= vocabulary.control_start)
    return int(np.argmax(closing)) if closing.any() else len(tokens)


def padded(rows: Sequence[Int[np.ndarray, " t"]]) -> tuple[Int[np.ndarray, "n t"], Int[np.ndarray, " n"]]:
    """Rows of tokens padded on the right, and their lengths."""
    lengths = np.array([row.size for row in rows], np.int32)
    filled = np.full((len(rows), lengths.max()), PAD, np.int32)
    for line, row in zip(filled, rows, strict=True):
        line[: row.size] = row
    return filled, lengths


def read_segment(vocabulary: Vocabulary, segment: DrawnSegment, rows: Sequence[Int[np.ndarray, " t"]]) -> Generated:
    """Reads sampled segments, each of which begins with its marker.

    Args:
        vocabulary: that the tokens are of.
        segment: what they were to be.
        rows: tokens of each segment, and of the end of its document.
    """
    modality, tokens = segment.modality, padded(rows)[0]
    reading = jax.device_get(decode(vocabulary, PrimaryIds(jnp.asarray(tokens))))
    fragment, general = reading.kind == Kind.FRAGMENT, reading.kind == Kind.GENERAL
    fits = {"general": general, "fragments": fragment, "any": general | fragment}[holds(modality)]
    items = fits & (reading.segment == 1)
    counts = items.sum(axis=1)
    decodable = (
        (reading.error == Error.NONE).all(axis=1)
        & (tokens == (PAD if vocabulary.end is None else vocabulary.end)).any(axis=1)
        & (reading.segment <= 2).all(axis=1)
        & ~((general | fragment) & ~items).any(axis=1)
        & (segment.bounds[:, 0] <= counts)
        & (counts <= segment.bounds[:, 1])
    )
    number = segment.number
    found = [items_of(vocabulary, modality, number, documents[0][0]) for documents in assemble(vocabulary, reading)]
    return Generated(found, decodable)


def items_of(vocabulary: Vocabulary, modality: Modality, number: int, read: Segment) -> Items:
    """The items of a segment that belong to its modality.

    Args:
        vocabulary: that the ids are of.
        modality: of the segment.
        number: of its part.
        read: the segment.
    """
    parts = [Items.joined([])]
    general = read.spaces == GENERAL
    ids = read.ids[general] if read.ids.ndim == 1 else read.ids[general, 0].astype(np.int64)
    of_general = Items.one(GENERAL, ids[:, None]) if modality.general or not modality.parts else parts[0]
    if not modality.parts:
        return of_general
    part = modality.parts[number]
    inside = read.spaces == vocabulary.space_index(part.name)
    fragments = Items.one(number, part.digits(read.ids[inside]))
    if not modality.general:
        return fragments
    kept = np.flatnonzero(general | inside)
    order = np.argsort(np.concatenate([np.flatnonzero(general), np.flatnonzero(inside)]), kind="stable")
    both = Items.chained(of_general, fragments)
    return Items(both.part[order], both.digits[order], np.array([len(kept)], np.int64))
