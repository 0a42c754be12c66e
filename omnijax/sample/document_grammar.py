"""The grammar of a configuration: the documents that it trains on, as the one object that knows what may follow."""

from __future__ import annotations

from typing import Literal

from omnijax.config import Config
from omnijax.data.columns import markers_of
from omnijax.modalities.base import Modality
from omnijax.source import SEQUENCE
from omnijax.vocab.grammar import Grammar, SegmentRule
from omnijax.vocab.vocabulary import END


def holds(modality: Modality) -> Literal["any", "general", "fragments"]:
    """Kinds of items in the segments of a modality."""
    if not modality.parts:
        return "general"
    return "any" if modality.general else "fragments"


def grammar_of(config: Config, order: Literal["raster", "any"] = "raster") -> Grammar:
    """Which tokens can follow in the documents of a configuration.

    Its tasks say which field opens a document and which ones follow which; the modalities how many items a segment has;
    the vocabulary what these are. Data is checked, and the likelihood renormalised, with this grammar.

    Args:
        config: of a run.
        order: in which the fragments of a segment stand.
    """
    fields = config.data.fields
    openers: dict[str, None] = {}
    follow: dict[str, dict[str, None]] = {}
    kinds: dict[str, tuple[Modality, int]] = {}
    for task in config.batch.tasks:
        interleaved = task.names == (SEQUENCE,)
        names = tuple(fields) if interleaved else task.names
        openers |= dict.fromkeys(names if interleaved else names[:1])
        for place, field in enumerate(names):
            markers = markers_of(field, fields[field])
            behind = [*names, END] if interleaved else [(*names, END)[place + 1]]
            again = [field] * (field in config.data.several)
            nexts = [[marker] for marker in markers[1:]] + [behind + again]
            for number, (marker, found) in enumerate(zip(markers, nexts, strict=True)):
                kinds[marker] = (fields[field], number)
                follow[marker] = follow.get(marker, {}) | dict.fromkeys(found)
    rules = []
    for marker, followers in sorted(follow.items()):
        modality, number = kinds[marker]
        rules.append(SegmentRule(marker, *modality.limits[number], holds(modality), tuple(followers)))
    return Grammar(config.vocabulary, tuple(rules), tuple(openers), order)
