"""The grammar of a configuration: the documents that it trains on, as the one object that knows what may follow."""

from __future__ import annotations

from typing import Literal

from omnijax.config import Config
from omnijax.vocab.grammar import Grammar
from omnijax.vocab.grammar_rules import LARGEST, SegmentRule
from omnijax.vocab.vocabulary import END


def grammar_of(config: Config, order: Literal["raster", "any"] = "raster") -> Grammar:
    """Which tokens can follow in the documents of a configuration.

    Its tasks say which segment opens a document and which ones follow which; its targets how many items a segment has;
    the vocabulary what these are. Data is checked, and the likelihood renormalised, with this grammar.

    Args:
        config: of a run.
        order: in which the fragments of a segment stand.
    """
    forms = tuple(dict.fromkeys(task.modalities for task in config.batch.tasks))
    bounds = {target.name: (target.min_items, target.max_items) for target in config.eval.targets}
    spaces = {space.name for space in config.vocabulary.spaces}
    ending = (END,) if END in config.vocabulary.control else ()
    follow: dict[str, dict[str, None]] = {}
    for form in forms:
        for name, following in zip(form, (*form[1:], *ending), strict=False):
            follow.setdefault(name, {})[following] = None
        follow.setdefault(form[-1], {})
    rules = []
    for name, followers in sorted(follow.items()):
        least, most = bounds.get(name, (0, LARGEST))
        rules.append(SegmentRule(name, least, most, "fragments" if name in spaces else "general", tuple(followers)))
    return Grammar(config.vocabulary, tuple(rules), tuple(dict.fromkeys(form[0] for form in forms)), order)
