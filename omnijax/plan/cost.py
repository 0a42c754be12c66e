"""What each base would cost an experiment, computed without training: tokens, softmax, logits, FLOPs.

Everything but the base stays as it is. The figures assume that all ids are equally likely, and that a segment has as
many items as lie midway between the limits of its modality.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any

from omnijax.config import Config, Task
from omnijax.data.columns import markers_of
from omnijax.errors import ConfigError, VocabularyError
from omnijax.model.build import grouping_of
from omnijax.model.flops import TRAINING, backbone_flops, head_flops, row_flops
from omnijax.model.transformer import ROWS_MULTIPLE
from omnijax.source import SEQUENCE
from omnijax.vocab.cost import Count, document_tokens, item_digits, item_tokens, rebased, segment_tokens, space_of
from omnijax.vocab.radix import Base
from omnijax.vocab.rules import LARGEST_BASE
from omnijax.vocab.vocabulary import Vocabulary

USUAL_BASES = (2, 3, 4, 8, 9, 10, 16, 17, 32, 36, 64, 100, 128, 256, 289, 512, 1000, 1024, 4096, 65536)


@dataclasses.dataclass(frozen=True)
class Cost:
    """What a base costs. Items are those of each space, segments those of each modality, documents those of each task.

    Attributes:
        digits: of an item, without its check digit.
        steps: tokens of an item.
        segments: tokens of a segment.
        documents: tokens of a document, by the names of its fields.
        softmax_rows: number of primary tokens.
        padded_rows: rows of the embedding and the head, with padding.
        sequence_length: of the experiment; that of the longest document if a typical one doesn't fit.
        logits_bytes: of the float32 logits of one (micro-)batch over all devices.
        item_flops: of a forward pass over an item.
        document_flops: of a forward pass over a document.
        training_flops: of training on one document, as the mean over an epoch.
    """

    digits: dict[str, Count]
    steps: dict[str, Count]
    segments: dict[str, Count]
    documents: dict[str, Count]
    softmax_rows: int
    padded_rows: int
    sequence_length: int
    logits_bytes: int
    item_flops: dict[str, float]
    document_flops: dict[str, float]
    training_flops: float

    @property
    def longest(self) -> int:
        """Tokens of the longest document that the bounds of `eval.targets` allow."""
        return max(document.most for document in self.documents.values())


@dataclasses.dataclass(frozen=True)
class Candidate:
    """A base and what it costs.

    Attributes:
        base: one radix, or one for each digit place.
        refused: why the experiment can't use the base; empty if it can.
        cost: None if no vocabulary has this base.
    """

    base: Base
    refused: str
    cost: Cost | None


@dataclasses.dataclass(frozen=True)
class Costs:
    """What all candidates cost.

    Attributes:
        items: of a segment of each modality that the tasks use.
        candidates: in order, mixed radices last.
        chosen: the base of the experiment.
        cheapest: the base with the fewest training FLOPs, and of these the one with the smallest softmax; None if no
            base is possible.
    """

    items: dict[str, Count]
    candidates: tuple[Candidate, ...]
    chosen: Base
    cheapest: Base | None

    def of(self, base: Base) -> Candidate:
        """The candidate with a base."""
        return next(candidate for candidate in self.candidates if candidate.base == base)


def compare_bases(config: Config, further: Iterable[Base] = ()) -> Costs:
    """What the usual bases, the experiment's own base and further ones would cost the experiment.

    Raises:
        ConfigError: no target says how many items a segment of a task has.
        VocabularyError: a modality has no marker, or more items than positions.
    """
    chosen = config.vocabulary.base
    bases = sorted({*USUAL_BASES, chosen, *further}, key=lambda base: (isinstance(base, tuple), base))
    items = segment_items(config)
    cost_of(config, config.vocabulary, items)  # raises what is wrong with the experiment itself
    candidates = tuple(_candidate(config, base, items) for base in bases)
    costs = {c.base: c.cost for c in candidates if c.cost is not None and not c.refused}
    cheapest = min(costs, key=lambda base: (costs[base].training_flops, costs[base].softmax_rows), default=None)
    return Costs(items, candidates, chosen, cheapest)


def segment_items(config: Config) -> dict[str, Count]:
    """How many items a segment has, by its marker, from the limits of the modalities of the tasks' fields."""
    found = {}
    for task in config.batch.tasks:
        for field in fields_of_task(config, task):
            modality = config.data.fields[field]
            for marker, (least, most) in zip(markers_of(field, modality), modality.limits, strict=True):
                found[marker] = Count(least, (least + most) / 2, most)
    return found


def fields_of_task(config: Config, task: Task) -> tuple[str, ...]:
    """Fields of the documents of a task; an interleaved document is counted with each field once."""
    return tuple(config.data.fields) if task.names == (SEQUENCE,) else task.names


def task_segments(config: Config, task: Task) -> tuple[str, tuple[str, ...]]:
    """Name of a task, and the markers of the segments of its documents."""
    fields = fields_of_task(config, task)
    markers = [marker for field in fields for marker in markers_of(field, config.data.fields[field])]
    return "->".join(fields), tuple(markers)


def cost_of(config: Config, vocabulary: Vocabulary, items: dict[str, Count]) -> Cost:
    """What an experiment costs with a vocabulary.

    Attention is computed over whole sequences and masked, so every token of a document pays for all tokens of its
    sequence. In a model that steps once an item, every item pays for all items.

    Args:
        config: the experiment.
        vocabulary: used instead of its own.
        items: of a segment of each modality.

    Raises:
        VocabularyError: it can't write these segments.
    """
    batch = config.batch
    spaces = {marker: space.name for marker in items if (space := space_of(vocabulary, marker)) is not None}
    digits = {marker: item_digits(vocabulary, space) for marker, space in spaces.items()}
    steps = {marker: item_tokens(vocabulary, space) for marker, space in spaces.items()}
    segments = {marker: segment_tokens(vocabulary, marker, count) for marker, count in items.items()}
    named = [task_segments(config, task) for task in batch.tasks]
    documents = {name: document_tokens(vocabulary, [segments[one] for one in markers]) for name, markers in named}
    fits = max(document.mean for document in documents.values()) <= batch.sequence_length
    sequence_length = batch.sequence_length if fits else max(document.most for document in documents.values())
    rows = padded_rows(vocabulary)
    by_item = config.model.head != "token"
    keys = batch.sequence_items if by_item else sequence_length - 1  # the last token of a row is only ever a target
    step = backbone_flops(config.model, keys, grouping_of(vocabulary).longest)
    written = head_flops(config.model, rows)
    item_flops = {name: (1 if by_item else each.mean) * step + each.mean * written for name, each in steps.items()}
    document_flops = {}
    for name, markers in named:
        tokens, saved = documents[name].mean, 0.0
        if by_item:  # a token outside of items is a step by itself
            saved = sum(items[one].mean * (steps[one].mean - 1) for one in markers if one in spaces)
        document_flops[name] = (tokens - saved) * step + tokens * written
    repeats = [task.repeats for task in batch.tasks]
    epoch = sum(document_flops[name] * times for (name, _), times in zip(named, repeats, strict=True))
    return Cost(
        digits,
        steps,
        segments,
        documents,
        vocabulary.size,
        rows,
        sequence_length,
        batch.size // config.optim.accumulate * (sequence_length - 1) * rows * 4,
        item_flops,
        document_flops,
        TRAINING * epoch / sum(repeats),
    )


def padded_rows(vocabulary: Vocabulary) -> int:
    """Rows of the softmax, with padding."""
    return -(-vocabulary.size // ROWS_MULTIPLE) * ROWS_MULTIPLE


def step_flops(config: Config) -> int:
    """FLOPs of one training step; padding counts, because it is computed as well."""
    read = config.batch.sequence_length - 1
    items, places = min(config.batch.sequence_items, read), grouping_of(config.vocabulary).longest
    return TRAINING * config.batch.size * row_flops(config.model, padded_rows(config.vocabulary), read, items, places)


def parse_base(text: str) -> Base:
    """Reads a base such as `17`, or `64,64,4096` with the radix of the most significant digit first.

    Raises:
        ConfigError: the text is no base.
    """
    radices = tuple(int(part) for part in text.split(",") if part.isdigit())
    if len(radices) <= text.count(",") or not all(2 <= radix <= LARGEST_BASE for radix in radices):
        rule = f"a base is a whole number in 2 … {LARGEST_BASE}, or several with commas between them"
        raise ConfigError("--bases", text, rule, "write, for example, 17 or 64,64,4096")
    return radices[0] if len(radices) == 1 else radices


def to_dict(part: Any) -> Any:
    """Costs, or a part of them, as JSON; a count has its least, mean and most."""
    if isinstance(part, Count):
        return part._asdict()
    part = vars(part) if dataclasses.is_dataclass(part) else part
    if isinstance(part, dict):
        return {name: to_dict(value) for name, value in part.items()}
    return [to_dict(value) for value in part] if isinstance(part, tuple) else part


def _candidate(config: Config, base: Base, items: dict[str, Count]) -> Candidate:
    try:
        cost = cost_of(config, rebased(config.vocabulary, base), items)
    except VocabularyError as error:
        return Candidate(base, str(error), None)
    if cost.sequence_length == config.batch.sequence_length:
        return Candidate(base, "", cost)
    needs = f"a typical document doesn't fit in a sequence of {config.batch.sequence_length}"
    return Candidate(base, f"{needs}: set batch.sequence_length to {cost.sequence_length}", cost)
