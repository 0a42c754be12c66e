"""What each radix would cost an experiment, before anything is trained: tokens, softmax, logits, FLOPs.

Everything but the radix stays as it is. Ids are taken to be drawn evenly, numbers of items to lie midway between those
that `eval.targets` allows.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any

from omnijax.config import Config
from omnijax.errors import ConfigError, VocabularyError
from omnijax.model.build import grouping_of
from omnijax.model.flops import TRAINING, backbone_flops, head_flops, row_flops
from omnijax.model.transformer import ROWS_MULTIPLE
from omnijax.vocab.cost import Count, document_tokens, item_digits, item_tokens, rebased, segment_tokens, space_of
from omnijax.vocab.radix import Base
from omnijax.vocab.rules import LARGEST_BASE
from omnijax.vocab.vocabulary import Vocabulary

USUAL_BASES = (2, 3, 4, 8, 9, 10, 16, 17, 32, 36, 64, 100, 128, 256, 289, 512, 1000, 1024, 4096, 65536)


@dataclasses.dataclass(frozen=True)
class Cost:
    """What a base costs.

    Attributes:
        digits: of an item of each space, its check digit not counted.
        steps: tokens of an item of each space.
        segments: tokens of a segment of each modality.
        documents: tokens of a document of each task, `image->text`.
        softmax_rows: primary tokens.
        padded_rows: what the model makes of them.
        sequence_length: tokens of a row: the experiment's, or those of the longest document where it doesn't fit.
        logits_bytes: float32 logits of one (micro-)batch, over all devices.
        item_flops: of a forward pass over an item of each space.
        document_flops: of a forward pass over a document of each task.
        training_flops: of training on a document, the mean over an epoch.
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
        """Tokens of the longest document that `eval.targets` allows."""
        return max(document.most for document in self.documents.values())


@dataclasses.dataclass(frozen=True)
class Candidate:
    """A base, and what it costs.

    Attributes:
        base: the radix, or one for each digit place.
        refused: why the experiment can't use it as it is; empty where it can.
        cost: None where there is no vocabulary with this base.
    """

    base: Base
    refused: str
    cost: Cost | None


@dataclasses.dataclass(frozen=True)
class Costs:
    """All candidates, held against each other.

    Attributes:
        items: of a segment of each modality that the tasks use.
        candidates: in order, mixed radices last.
        chosen: the base of the experiment.
        cheapest: with the fewest training FLOPs; of equals the one with the smallest softmax. None where none can be.
        front: the Pareto front: bases that no other one dominates.
        dominating: bases of the front that dominate the chosen one.
    """

    items: dict[str, Count]
    candidates: tuple[Candidate, ...]
    chosen: Base
    cheapest: Base | None
    front: tuple[Base, ...]
    dominating: tuple[Base, ...]

    def of(self, base: Base) -> Candidate:
        """The candidate with a base."""
        return next(candidate for candidate in self.candidates if candidate.base == base)


def compare_bases(config: Config, further: Iterable[Base] = ()) -> Costs:
    """What the usual bases, the experiment's own and further ones would cost it.

    One base dominates another that it is nowhere worse and somewhere better than: steps of an item of each space that
    the tasks use, training FLOPs, softmax rows, bytes of logits.

    Raises:
        ConfigError: a segment of a task has no target that says how many items there are.
        VocabularyError: a modality has no marker, or more items than positions.
    """
    chosen = config.vocabulary.base
    bases = sorted({*USUAL_BASES, chosen, *further}, key=lambda base: (isinstance(base, tuple), base))
    items = segment_items(config)
    cost_of(config, config.vocabulary, items)  # whatever is wrong with the experiment itself is an error
    candidates = tuple(_candidate(config, base, items) for base in bases)

    used = [space.name for name in items if (space := space_of(config.vocabulary, name)) is not None]
    costs = {c.base: c.cost for c in candidates if c.cost is not None and not c.refused}
    measures = {base: _measures(cost, used) for base, cost in costs.items()}
    front = tuple(
        base for base in measures if not any(_dominates(other, measures[base]) for other in measures.values())
    )
    cheapest = min(costs, key=lambda base: (costs[base].training_flops, costs[base].softmax_rows), default=None)
    own = measures.get(chosen)
    dominating = tuple(base for base in front if own is not None and _dominates(measures[base], own))
    return Costs(items, candidates, chosen, cheapest, front, dominating)


def segment_items(config: Config) -> dict[str, Count]:
    """How many items a segment of each modality of the tasks has, by `eval.targets`.

    Raises:
        ConfigError: there is no target that says so.
    """
    names = dict.fromkeys(name for task in config.batch.tasks for name in task.modalities)
    targets = {target.name: target for target in config.eval.targets}
    for name in names:
        if name not in targets:
            rule = f"one for {name!r} must say how many items a segment of it has"
            raise ConfigError("eval.targets", ", ".join(targets), rule, "add it")
    bounds = {name: (targets[name].min_items, targets[name].max_items) for name in names}
    return {name: Count(least, (least + most) / 2, most) for name, (least, most) in bounds.items()}


def cost_of(config: Config, vocabulary: Vocabulary, items: dict[str, Count]) -> Cost:
    """What an experiment costs with a vocabulary.

    Attention runs over whole rows, masked, so every token of a document pays for all tokens of its row; where the model
    steps once an item, every item for all items.

    Args:
        config: the experiment.
        vocabulary: to be used instead of its own.
        items: of a segment of each modality.

    Raises:
        VocabularyError: it can't write these segments.
    """
    batch, spaces = config.batch, [space.name for space in vocabulary.spaces]
    digits = {name: item_digits(vocabulary, name) for name in spaces}
    steps = {name: item_tokens(vocabulary, name) for name in spaces}
    segments = {name: segment_tokens(vocabulary, name, count) for name, count in items.items()}
    documents = {
        "->".join(task.modalities): document_tokens(vocabulary, [segments[name] for name in task.modalities])
        for task in batch.tasks
    }
    fits = max(document.mean for document in documents.values()) <= batch.sequence_length
    sequence_length = batch.sequence_length if fits else max(document.most for document in documents.values())
    rows = -(-vocabulary.size // ROWS_MULTIPLE) * ROWS_MULTIPLE
    by_item = config.model.head != "token"
    keys = batch.sequence_items if by_item else sequence_length - 1  # the last token of a row is only ever a target
    step = backbone_flops(config.model, keys, grouping_of(vocabulary).longest)
    written = head_flops(config.model, rows)
    item_flops = {name: (1 if by_item else each.mean) * step + each.mean * written for name, each in steps.items()}
    document_flops = {}
    for task in batch.tasks:
        name = "->".join(task.modalities)
        tokens, saved = documents[name].mean, 0.0
        if by_item:  # whatever is no item is a step by itself
            parts = [(items[one].mean, space_of(vocabulary, one)) for one in task.modalities]
            saved = sum(count * (steps[space.name].mean - 1) for count, space in parts if space is not None)
        document_flops[name] = (tokens - saved) * step + tokens * written
    epoch = [document_flops["->".join(task.modalities)] for task in batch.tasks for _ in range(task.repeats)]
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
        TRAINING * sum(epoch) / len(epoch),
    )


def padded_rows(config: Config) -> int:
    """Rows of the softmax, padding included."""
    return -(-config.vocabulary.size // ROWS_MULTIPLE) * ROWS_MULTIPLE


def step_flops(config: Config) -> int:
    """FLOPs of one training step; padding counts, since it is computed."""
    read = config.batch.sequence_length - 1
    items, places = min(config.batch.sequence_items, read), grouping_of(config.vocabulary).longest
    return TRAINING * config.batch.size * row_flops(config.model, padded_rows(config), read, items, places)


def parse_base(text: str) -> Base:
    """A base as people write it: `17`, or `64,64,4096`, most significant first.

    Raises:
        ConfigError: it is none.
    """
    try:
        radices = tuple(int(part) for part in text.split(","))
    except ValueError as error:
        rule = "a base is a whole number, or several with commas between them"
        raise ConfigError("--bases", text, rule, "write, for example, 17 or 64,64,4096") from error
    if not all(2 <= radix <= LARGEST_BASE for radix in radices):
        raise ConfigError("--bases", text, f"a radix is in 2 … {LARGEST_BASE}", "write, for example, 17 or 64,64,4096")
    return radices[0] if len(radices) == 1 else radices


def to_dict(costs: Costs) -> dict[str, Any]:
    """As JSON has it; every count as its least, mean and most."""
    return {field.name: _plain(getattr(costs, field.name)) for field in dataclasses.fields(costs)}


def _candidate(config: Config, base: Base, items: dict[str, Count]) -> Candidate:
    try:
        cost = cost_of(config, rebased(config.vocabulary, base), items)
    except VocabularyError as error:
        return Candidate(base, str(error), None)
    if cost.sequence_length == config.batch.sequence_length:
        return Candidate(base, "", cost)
    needs = f"a typical document doesn't fit in a row of {config.batch.sequence_length}"
    return Candidate(base, f"{needs}: set batch.sequence_length to {cost.sequence_length}", cost)


def _measures(cost: Cost, used: list[str]) -> tuple[float, ...]:
    return (*(cost.steps[name].mean for name in used), cost.training_flops, cost.softmax_rows, cost.logits_bytes)


def _dominates(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    return one != other and all(a <= b for a, b in zip(one, other, strict=True))


def _plain(value: Any) -> Any:
    if isinstance(value, Count):
        return value._asdict()
    if dataclasses.is_dataclass(value):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {name: _plain(part) for name, part in value.items()}
    return [_plain(part) for part in value] if isinstance(value, tuple) else value
