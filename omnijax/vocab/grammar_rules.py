"""What is asked of segments beyond that they can be read, and the tables by segment marker that it makes."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from omnijax.errors import VocabularyError
from omnijax.vocab.grammar_digits import digit_tables
from omnijax.vocab.vocabulary import END, Vocabulary

LARGEST = 2**31 - 1
MOST_PLACES = 2**16
"""Positions that can be told apart when they come in any order: each has a bit of the state."""


@dataclasses.dataclass(frozen=True)
class SegmentRule:
    """What is asked of the segments that one control token opens.

    Attributes:
        marker: the control token.
        least: items of such a segment at least.
        most: items of such a segment at most.
        holds: kind of the items: `general` tokens, `fragments`, or `any` of them that the marker's type lets in.
        then: control tokens that may follow the segment, `eos` among them; None for all. Without `eos` in the
            vocabulary every segment may also be the last one.
    """

    marker: str
    least: int = 0
    most: int = LARGEST
    holds: Literal["any", "general", "fragments"] = "any"
    then: tuple[str, ...] | None = None


class SegmentRows(NamedTuple):
    """What each segment may hold, int32[rows]; or, picked from these, int32[batch].

    A row for each control token that opens it, one for an unmarked segment, and one for what opens a document.

    Attributes:
        start: row of the digit automaton where a fragment begins.
        least: items at least.
        most: items at most.
        general: 1 where general tokens can stand there.
        fragments: 1 where fragments can.
        opens: 1 where `aos` can.
    """

    start: Any
    least: Any
    most: Any
    general: Any
    fragments: Any
    opens: Any


def last_position(vocabulary: Vocabulary) -> int:
    """Largest position that can be written, as far as 32 bits go; as many where none is written."""
    return LARGEST - 1 if vocabulary.position == "none" else min(vocabulary.last_position, LARGEST - 1)


def check_rules(
    vocabulary: Vocabulary, rules: tuple[SegmentRule, ...], start: tuple[str, ...] | None, order: str
) -> None:
    """Refuses rules that no document can keep.

    Raises:
        VocabularyError: names the rule.
    """
    v = vocabulary
    given: tuple[tuple[str, object], ...] = (("rules", rules), ("start", start or ()))
    for field, value in given:
        if not isinstance(value, tuple):
            rule = "must be a tuple, so that the grammar can be a key"
            raise VocabularyError(field, value, rule, "a tuple of one needs a comma")
    if order not in ("raster", "any"):
        raise VocabularyError("order", order, "must be one of raster, any", "choose one")
    if order == "any" and v.position == "none":
        rule = "without position tokens nothing says where a fragment belongs"
        raise VocabularyError("order", order, rule, "use position before or after, or order='raster'")
    markers = [rule.marker for rule in rules]
    for one in rules:
        where = f"rules.{one.marker}"
        v.token(one.marker)
        if one.marker == END:
            raise VocabularyError("rules", END, "it closes a document and opens no segment", "drop the rule")
        if markers.count(one.marker) > 1:
            raise VocabularyError("rules", one.marker, "one rule for each marker", "make one of them")
        if not 0 <= one.least <= one.most <= LARGEST:
            fix = "swap, raise or lower them"
            raise VocabularyError(where, (one.least, one.most), f"0 ≤ least ≤ most ≤ {LARGEST}", fix)
        if one.holds not in ("any", "general", "fragments"):
            raise VocabularyError(where, one.holds, "holds is one of any, general, fragments", "choose one")
        general, fragments = _holds(v, one.marker, one.holds)
        if one.least > 0 and not (general or fragments):
            raise VocabularyError(where, one.least, "no item can stand in such a segment", "set least to 0")
        if not general and one.least > last_position(v):
            rule = f"the position tokens reach {v.last_position}"
            raise VocabularyError(where, one.least, rule, "raise positions or position_places")
        for name in one.then or ():
            v.token(name)
    if start == ():
        raise VocabularyError("start", start, "a document has to begin", "name a control token, or None for all")
    for name in start or ():
        v.token(name)
        if name == END:
            raise VocabularyError("start", END, "it closes a document and opens no segment", "leave it out")
    _check_ends(v, rules)


def _check_ends(v: Vocabulary, rules: tuple[SegmentRule, ...]) -> None:
    """Every segment must have a way to the end of its document, however long."""
    if v.end is None:
        return
    then = {name: v.control for name in v.control if name != END}
    then.update({rule.marker: rule.then for rule in rules if rule.then is not None})
    ending = {END}
    while more := {name for name, after in then.items() if name not in ending and ending & set(after)}:
        ending |= more
    for name in then:
        if name not in ending:
            rule = f"no way leads on from there to {END}"
            raise VocabularyError(f"rules.{name}", then[name], rule, f"add {END} to what may follow")


def segment_rows(
    vocabulary: Vocabulary, rules: tuple[SegmentRule, ...], start: tuple[str, ...] | None
) -> tuple[SegmentRows, NDArray[np.bool_]]:
    """What segments may hold, and which control tokens may follow, bool[rows, control], by rules that are checked."""
    v, starts = vocabulary, digit_tables(vocabulary).starts
    of_marker = {rule.marker: rule for rule in rules}
    names: list[str | None] = [*v.control, None, None]
    rows, follow = [], np.ones((len(names), len(v.control)), bool)
    for row, name in enumerate(names):
        rule = of_marker[name] if name in of_marker else SegmentRule(name or "")
        context = v.contexts.of_control[row] if name is not None else 0
        general, fragments = _holds(v, name, rule.holds)
        rows.append([starts[context], rule.least, rule.most, general, fragments, v.layout == "grouped"])
        if rule.then is not None:
            follow[row] = [token in rule.then for token in v.control]
    follow[-1] = [token != END and (start is None or token in start) for token in v.control]
    if start is not None:  # then no segment is without its marker
        rows[-1][3:] = [False, False, False]
    return SegmentRows(*np.array(rows, np.int32).T), follow


def places_needed(v: Vocabulary, rows: SegmentRows) -> int:
    """Largest position that segments can hold in any order.

    Raises:
        VocabularyError: more than the state has bits for.
    """
    most = [int(most) for most, fragments in zip(rows.most, rows.fragments) if fragments]
    if not rows.fragments[-1]:
        most.pop()  # no segment is unmarked
    largest = min(last_position(v), max(most, default=0))
    if largest > MOST_PLACES:
        rule = f"order 'any' keeps a bit for each position, for {MOST_PLACES} at most"
        raise VocabularyError("order", "any", rule, "give a start, and rules with the most items of each segment")
    return largest


def _holds(v: Vocabulary, marker: str | None, holds: str) -> tuple[bool, bool]:
    """Whether general tokens, and whether fragments, can stand in such a segment."""
    if marker == END:
        return False, False
    typed = marker is not None and v.contexts.of_control[v.control.index(marker)] > 0
    return not typed and v.general > 0 and holds != "fragments", holds != "general"
