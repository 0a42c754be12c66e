"""The grammar of a configuration: the documents that it trains on, as the one object that knows what may follow."""

from __future__ import annotations

from typing import Literal

from omnijax.config import Config
from omnijax.modalities.base import Modality
from omnijax.source import SEQUENCE
from omnijax.vocab.grammar import Grammar, SegmentRule
from omnijax.vocab.vocabulary import END


def segment_markers(field: str, modality: Modality) -> tuple[str, ...]:
    """Control tokens that open the segments of a signal, in order: the field's, then one for each further part."""
    return (field, *(part.name for part in modality.parts[1:]))


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
    follow: dict[str, dict[str, None]] = {}
    rules: dict[str, tuple[Modality, int]] = {}
    openers: dict[str, None] = {}
    for task in config.batch.tasks:
        names = tuple(fields) if task.names == (SEQUENCE,) else task.names
        openers |= dict.fromkeys(names if task.names == (SEQUENCE,) else names[:1])
        for place, field in enumerate(names):
            markers = segment_markers(field, fields[field])
            rules |= {marker: (fields[field], number) for number, marker in enumerate(markers)}
            for marker, next_marker in zip(markers, markers[1:], strict=False):
                follow.setdefault(marker, {})[next_marker] = None
            behind = dict.fromkeys([*names[place + 1 : place + 2], *[END] * (place == len(names) - 1)])
            if task.names == (SEQUENCE,):
                behind = dict.fromkeys([*names, END])
            if field in config.data.several:
                behind[field] = None
            follow.setdefault(markers[-1], {}).update(behind)
    found = []
    for marker, followers in sorted(follow.items()):
        modality, number = rules[marker]
        least, most = modality.limits[number]
        found.append(SegmentRule(marker, least, most, holds(modality), tuple(followers)))
    return Grammar(config.vocabulary, tuple(found), tuple(openers), order)
