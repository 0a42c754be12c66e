"""From items of some fields to items of another, or to the rest of the same: prompt, sample, decode."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import rich.progress
from jaxtyping import Bool, Int, PRNGKeyArray

from omnijax.config import Config, SampleConfig, Target
from omnijax.data.columns import Column, Encoded, markers_of, segments_of, side_by_side
from omnijax.errors import ConfigError, VocabularyError
from omnijax.modalities.base import GENERAL, Items, Modality
from omnijax.model.transformer import Transformer
from omnijax.sample.document_grammar import holds
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

    def along(self, route: Sequence[str], items: Sequence[Items], key: PRNGKeyArray) -> list[Generated]:
        """Generates the second field of a route from the first, the third from the second, and so on.

        Returns what was generated of each field behind the first. A signal counts as decodable only if the signals
        that it was generated from are decodable.
        """
        steps = [Generated(list(items), np.ones(len(items), bool))]
        for number, (source, target) in enumerate(zip(route, route[1:], strict=False)):
            step = self.generate({source: steps[-1].items}, target, jax.random.fold_in(key, number))
            steps.append(Generated(step.items, steps[-1].decodable & step.decodable))
        return steps[1:]

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
        target, modality = self.config.target(field), self.config.data.fields[field]
        target = dataclasses.replace(target, sample=sample or target.sample)
        rows = self.prompts(given) if given else [np.zeros(0, np.int32)] * count
        found = Generated([Items.joined([])] * len(rows), np.ones(len(rows), bool))
        for number, marker in enumerate(markers_of(field, modality) if rows else ()):
            opened = [np.append(row, self.config.vocabulary.token(marker)) for row in rows]
            each = zip(found.items, found.decodable, strict=True)
            bounds = [modality.bounds(items) if good else modality.limits[number] for items, good in each]
            key = jax.random.fold_in(key, number) if number else key
            read, rows = self._draw(target, number, np.array(bounds, np.int32), opened, key)
            chained = [Items.chained(old, new) for old, new in zip(found.items, read.items, strict=True)]
            found = Generated(chained, found.decodable & read.decodable)
        return found

    def complete(
        self,
        field: str,
        items: Sequence[Items],
        known: Sequence[Bool[np.ndarray, " items"]],
        key: PRNGKeyArray,
        given: Given | None = None,
    ) -> Generated:
        """Generates what is missing of signals of which some fragments are known, in an order that the model chooses.

        Returns the items by position, known ones included. Raises a `ConfigError` as `check_completion`.

        Args:
            field: of the signals.
            items: whole signals, one for each document. A header is taken as known.
            known: which of their items are known; these stay as they are, and the others are not looked at.
            key: draws the tokens.
            given: fields that stand before it; None for nothing.
        """
        check_completion(self.config, field)
        v, modality = self.config.vocabulary, self.config.data.fields[field]
        target = dataclasses.replace(self.config.target(field), order="any")
        if not items:
            return Generated([], np.zeros(0, bool))
        # The encoder writes whole segments: what isn't known is there behind what is, and is cut off.
        part = len(modality.parts) - 1
        unknown = [~np.asarray(mask)[one.part == part] for one, mask in zip(items, known, strict=True)]
        each = v.fragment_tokens(v.context(markers_of(field, modality)[-1]))
        rows = self.prompts({**(given or {}), field: items}, [np.argsort(mask, kind="stable") for mask in unknown])
        opened = [row[: row.size - each * mask.sum()] for row, mask in zip(rows, unknown, strict=True)]
        bounds = np.array([[mask.size] * 2 if part else modality.limits[0] for mask in unknown], np.int32)
        read, _ = self._draw(target, part, bounds, opened, key)
        heads = [[Items.one(number, one.digits[one.part == number]) for number in range(part)] for one in items]
        return read._replace(items=[Items.chained(*head, new) for head, new in zip(heads, read.items, strict=True)])

    def _draw(
        self,
        target: Target,
        number: int,
        bounds: Int[np.ndarray, "n 2"],
        opened: Sequence[Int[np.ndarray, " t"]],
        key: PRNGKeyArray,
    ) -> tuple[Generated, list[Int[np.ndarray, " t"]]]:
        """Draws the rest of a segment of each document.

        `number` is that of the segment, one for each part; `bounds` are the fewest and most items in each document;
        `opened` are its tokens up to where the segment goes on. Returns the segments, and the tokens of the documents
        up to their ends.
        """
        v, modality = self.config.vocabulary, self.config.data.fields[target.name]
        wanted = segment_target(self.config, target.name, number, target)
        bounded = len(modality.limits) > 1 and target.sample.grammar  # nothing else keeps bounds
        drawn = self._completed(wanted, *padded(opened), key, bounds if bounded else None)
        starts = [np.flatnonzero(row == v.token(wanted.name))[-1] for row in opened]
        rows = [np.append(row[at:], tokens) for row, at, tokens in zip(opened, starts, drawn, strict=True)]
        read = read_segment(v, modality, number, bounds, rows)
        closing = np.pad((drawn == PAD) | (drawn >= v.control_start), ((0, 0), (0, 1)), constant_values=True)
        ends = np.argmax(closing, axis=1)  # the first token that closes the segment, or padding
        return read, [np.append(row, tokens[:end]) for row, tokens, end in zip(opened, drawn, ends, strict=True)]

    def _completed(
        self,
        target: SegmentTarget,
        prompts_nt: Int[np.ndarray, "n t"],
        lengths_n: Int[np.ndarray, " n"],
        key: PRNGKeyArray,
        bounds_n2: Int[np.ndarray, "n 2"] | None,
    ) -> Int[np.ndarray, "n m"]:
        """The tokens of a segment that follow each prompt, as a `Sampler` gives them."""
        bars = self.progress or rich.progress.Progress(disable=True)
        bar = bars.add_task(f"  {target.name}", total=1.0)
        drawn = Sampler.of(self.model, self.config.vocabulary, target)(
            self.params,
            prompts_nt,
            lengths_n,
            key,
            self.config.eval.batch_size,
            lambda share: bars.update(bar, completed=share),
            bounds_n2,
        )
        bars.remove_task(bar)
        return drawn

    def prompts(
        self, given: Given, order: Sequence[Int[np.ndarray, " n"]] | None = None
    ) -> list[Int[np.ndarray, " t"]]:
        """Tokens of the given fields of each document, without the token that closes it.

        `order` is that in which the last items of each document are written; None for their own.
        """
        if not len(next(iter(given.values()))):
            return []
        documents = documents_of(self.config, given)
        places = None
        if order is not None:
            places = np.arange(documents.spaces.size)
            ends = np.cumsum(documents.segment_items)[np.cumsum(documents.document_segments) - 1]
            for one, end in zip(order, ends, strict=True):
                places[end - len(one) : end] = end - len(one) + one
        encoded = encode(self.config.vocabulary, documents, places)
        closed = int(self.config.vocabulary.end is not None)
        return [tokens.array[: tokens.array.size - closed] for tokens in encoded.split()]


def check_generation(config: Config, model: Transformer) -> None:
    """Checks that a sampler can be built for each field that the run generates. Nothing is compiled.

    Raises a `ConfigError` if a field can't be sampled, because of its target or vocabulary, or can't be completed.
    """
    for field in config.generated:
        for number in range(max(1, len(config.data.fields[field].parts))):
            try:
                Sampler.of(model, config.vocabulary, segment_target(config, field, number))
            except VocabularyError as error:
                raise ConfigError(f"data.{field}", error.value, error.rule, error.fix) from error
    for one in config.eval.completions:
        check_completion(config, one.field)


def check_completion(config: Config, field: str) -> None:
    """Checks that signals of a field can be completed.

    Raises a `ConfigError` if positions aren't written before their fragments, if ids have no fixed width, or if the
    field is written in general tokens.
    """
    v, modality = config.vocabulary, config.data.fields[field]
    for knob, value, rule in (
        ("position", "before", "what is missing can be written only where its position comes first"),
        ("width", "fixed", "the last known fragment has no end of its own, and could get another digit"),
    ):
        if getattr(v, knob) != value:
            raise ConfigError(f"writing.{knob}", getattr(v, knob), rule, f"train with {knob}={value!r}")
    if not modality.parts or modality.general:
        rule = "general tokens have no positions, so that nothing says where they are missing"
        raise ConfigError("field", field, rule, "complete a field of fragments")


def documents_of(config: Config, given: Given) -> Documents:
    """Items of some fields as documents: a segment for each part of each field, in the order of the fields."""
    columns = []
    for field, items in given.items():
        count = len(items)
        encoded = Encoded(field, Items.joined(items), np.arange(count), np.zeros(count, np.int64))
        segments = segments_of(config.vocabulary, config.data.fields[field], encoded)
        columns.append(Column([segments], count).take(np.arange(count)))
    return side_by_side(columns)


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
    marker, limits = markers_of(field, modality)[number], modality.limits[number]
    return SegmentTarget(marker, *limits, holds(modality), target.sample, target.order)


def padded(rows: Sequence[Int[np.ndarray, " t"]]) -> tuple[Int[np.ndarray, "n t"], Int[np.ndarray, " n"]]:
    """Rows of tokens padded on the right, and their lengths."""
    lengths = np.array([row.size for row in rows], np.int32)
    filled = np.full((len(rows), lengths.max()), PAD, np.int32)
    for line, row in zip(filled, rows, strict=True):
        line[: row.size] = row
    return filled, lengths


def read_segment(
    vocabulary: Vocabulary,
    modality: Modality,
    number: int,
    bounds: Int[np.ndarray, "n 2"],
    rows: Sequence[Int[np.ndarray, " t"]],
) -> Generated:
    """Reads sampled segments.

    Args:
        vocabulary: that the tokens are of.
        modality: of the segments.
        number: of the segments, one for each part.
        bounds: fewest and most items of each segment.
        rows: tokens of each segment from its marker to the end of its document.
    """
    tokens = padded(rows)[0]
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
        & (bounds[:, 0] <= counts)
        & (counts <= bounds[:, 1])
    )
    documents = assemble(vocabulary, reading)
    return Generated([items_of(vocabulary, modality, number, segments[0]) for segments, *_ in documents], decodable)


def items_of(vocabulary: Vocabulary, modality: Modality, number: int, read: Segment) -> Items:
    """The items of a segment that belong to its modality.

    Args:
        vocabulary: that the ids are of.
        modality: of the segment.
        number: of its part.
        read: the segment.
    """
    part = modality.parts[number] if modality.parts else None
    inside, general = np.zeros(read.spaces.size, bool), read.spaces == GENERAL
    digits = np.zeros((inside.size, 1 if part is None else len(part.radices)), np.uint32)
    digits[:, 0] = read.ids if read.ids.ndim == 1 else read.ids[:, 0]
    if part is not None:
        inside = read.spaces == vocabulary.space_index(part.name)
        digits[inside] = part.digits(read.ids[inside])
    kept = inside | general if part is None or modality.general else inside
    return Items(np.where(inside, number, GENERAL)[kept].astype(np.int8), digits[kept], np.array([kept.sum()]))
