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
class Costs:
    """What all bases cost.

    Attributes:
        items: of a segment of each modality that the tasks use.
        costs: by base, mixed radices last.
        refused: why no vocabulary has a base, for those bases.
        chosen: the base of the experiment.
        cheapest: the base with the fewest training FLOPs, and of these the one with the smallest softmax; None if no
            typical document fits in a sequence of the experiment, whatever the base.
    """

    items: dict[str, Count]
    costs: dict[Base, Cost]
    refused: dict[Base, str]
    chosen: Base
    cheapest: Base | None


def compare_bases(config: Config, further: Iterable[Base] = ()) -> Costs:
    """What the usual bases, the experiment's own base and further ones would cost the experiment.

    Raises:
        ConfigError: no target says how many items a segment of a task has.
        VocabularyError: a modality has no marker, or more items than positions.
    """
    chosen = config.vocabulary.base
    costs, refused = {chosen: cost_of(config, config.vocabulary)}, {}
    for base in {*USUAL_BASES, *further} - {chosen}:
        try:
            costs[base] = cost_of(config, rebased(config.vocabulary, base))
        except VocabularyError as error:
            refused[base] = str(error)
    costs = dict(sorted(costs.items(), key=lambda pair: (isinstance(pair[0], tuple), pair[0])))
    fit = {base: cost for base, cost in costs.items() if cost.sequence_length == config.batch.sequence_length}
    cheapest = min(fit, key=lambda base: (fit[base].training_flops, fit[base].softmax_rows), default=None)
    return Costs(segment_items(config), costs, refused, chosen, cheapest)


def task_segments(config: Config, task: Task) -> tuple[str, list[tuple[str, Count]]]:
    """Name of a task, and the marker and the number of items of each segment of its documents.

    Numbers of items come from the limits of the modalities. An interleaved document is counted with each field once.
    """
    names = tuple(config.data.fields) if task.names == (SEQUENCE,) else task.names
    fields = [(name, config.data.fields[name]) for name in names]
    return "->".join(names), [
        (marker, Count(least, (least + most) / 2, most))
        for name, modality in fields
        for marker, (least, most) in zip(markers_of(name, modality), modality.limits, strict=True)
    ]


def segment_items(config: Config) -> dict[str, Count]:
    """How many items a segment of the tasks has, by its marker."""
    return {marker: count for task in config.batch.tasks for marker, count in task_segments(config, task)[1]}


def cost_of(config: Config, vocabulary: Vocabulary) -> Cost:
    """What an experiment costs with a vocabulary.

    Attention is computed over whole sequences and masked, so every token of a document pays for all tokens of its
    sequence. In a model that steps once an item, every item pays for all items. Raises a `VocabularyError` if it can't
    write these segments.
    """
    batch, items = config.batch, segment_items(config)
    spaces = {marker: space.name for marker in items if (space := space_of(vocabulary, marker)) is not None}
    steps = {marker: item_tokens(vocabulary, space) for marker, space in spaces.items()}
    segments = {marker: segment_tokens(vocabulary, marker, count) for marker, count in items.items()}
    tasks = [task_segments(config, task) for task in batch.tasks]
    documents = {name: document_tokens(vocabulary, [segments[one] for one, _ in parts]) for name, parts in tasks}
    fits = max(document.mean for document in documents.values()) <= batch.sequence_length
    sequence_length = batch.sequence_length if fits else max(document.most for document in documents.values())
    rows = padded_rows(vocabulary)
    by_item = config.model.head != "token"
    keys = batch.sequence_items if by_item else sequence_length - 1  # the last token of a row is only ever a target
    step = backbone_flops(config.model, keys, grouping_of(vocabulary).longest)
    written = head_flops(config.model, rows)
    document_flops = {}
    for name, parts in tasks:
        saved = sum(count.mean * (steps[one].mean - 1) for one, count in parts if one in spaces) if by_item else 0.0
        document_flops[name] = (documents[name].mean - saved) * step + documents[name].mean * written
    epoch = sum(document_flops[name] * task.repeats for task, (name, _) in zip(batch.tasks, tasks, strict=True))
    return Cost(
        {marker: item_digits(vocabulary, space) for marker, space in spaces.items()},
        steps,
        segments,
        documents,
        vocabulary.size,
        rows,
        sequence_length,
        batch.size // config.optim.accumulate * (sequence_length - 1) * rows * 4,
        {name: (1 if by_item else each.mean) * step + each.mean * written for name, each in steps.items()},
        document_flops,
        TRAINING * epoch / sum(task.repeats for task in batch.tasks),
    )


def padded_rows(vocabulary: Vocabulary) -> int:
    """Rows of the softmax, with padding."""
    return -(-vocabulary.size // ROWS_MULTIPLE) * ROWS_MULTIPLE


def step_flops(config: Config) -> int:
    """FLOPs of one training step; padding counts, because it is computed as well."""
    read = config.batch.sequence_length - 1
    items, places = min(config.batch.sequence_items, read), grouping_of(config.vocabulary).longest
    return TRAINING * config.batch.size * row_flops(config.model, padded_rows(config.vocabulary), read, items, places)


def items_per_token(config: Config) -> float:
    """Items in a token of the experiment's documents, on average over an epoch."""
    documents = cost_of(config, config.vocabulary).documents
    read = written = 0.0
    for task in config.batch.tasks:
        name, segments = task_segments(config, task)
        written += task.repeats * documents[name].mean
        read += task.repeats * sum(count.mean for _, count in segments)
    return read / written


def parse_base(text: str) -> Base:
    """Reads a base such as `17`, or `64,64,4096`, most significant digit first; else raises a `ConfigError`."""
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
        return {name_of(name): to_dict(value) for name, value in part.items()}
    return part


def name_of(base: Base | str) -> str:
    """A base as `--bases` takes it; a name as it is."""
    return ",".join(map(str, base)) if isinstance(base, tuple) else str(base)
