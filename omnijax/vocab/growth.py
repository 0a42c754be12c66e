"""Growth: how a vocabulary may change so that everything written before keeps its tokens (the stable prefix)."""

from __future__ import annotations

from collections.abc import Iterator

from omnijax.vocab.rules import END, Rule, enforce
from omnijax.vocab.vocabulary import Vocabulary

_SAME = ["general", "positions", "digits", "layout", "position", "width", "digit_order", "position_places"]
_SAME += ["check_digit", "general_names"]


def check_growth(old: Vocabulary, new: Vocabulary, number_line: bool = True) -> None:
    """Checks that every document of the old vocabulary is written with the same tokens in the new one.

    The new vocabulary may have more spaces and control tokens behind the old ones, more ids in the last space, more
    places in front of a mixed radix, and another capacity. Everything else must stay. Raises a `VocabularyError` that
    names what would be written differently.

    Args:
        old: the vocabulary that documents are written in.
        new: the vocabulary that it becomes.
        number_line: whether untyped segments of old documents may have fragments, which are written on the common
            number line. If not, every space may be enlarged, and with fixed width a new space may have any size.
    """
    for rules in (_tokens(old, new), _base(old, new), _spaces(old, new, number_line), _widths(old, new, number_line)):
        enforce(rules, "vocabulary.")


def _tokens(old: Vocabulary, new: Vocabulary) -> Iterator[Rule]:
    """Each old token must keep its primary id, and each control token must open the same kind of segment."""
    for name in _SAME:
        was, is_ = getattr(old, name), getattr(new, name)
        rule = f"it was {was!r}, and what is written before would be read differently"
        yield was == is_, name, is_, rule, f"keep {was!r}; only control tokens and fragments can be added"
    first, more = new.control[: len(old.control)], new.control[len(old.control) :]
    rule = f"the first {len(old.control)} were {', '.join(old.control)}"
    yield first == old.control, "control", new.control, rule, f"append to {old.control}"
    rule = f"every document would be written with {END} at its end"
    yield END not in more, "control", new.control, rule, f"leave {END} out"
    for name in old.control:
        was, is_ = _held(old, name), _held(new, name)
        field = "markers" if name in {marker.name for marker in (*old.markers, *new.markers)} else "spaces"
        rule = f"segments that {name} opens hold {was}, and would hold {is_}"
        yield was == is_, field, name, rule, "give new markers and new spaces other names"


def _held(v: Vocabulary, marker: str) -> str:
    """The items that a segment opened by this control token may hold, in words."""
    context = v.context(marker)
    general = " and general tokens" * int(v.contexts.general[context])
    return f"fragments of {v.spaces[v.contexts.spaces[context]].name}{general}" if context else "items of any kind"


def _base(old: Vocabulary, new: Vocabulary) -> Iterator[Rule]:
    longer = isinstance(old.base, tuple) and isinstance(new.base, tuple) and new.base[-len(old.base) :] == old.base
    rule = f"it was {old.base}, and the largest id would get other digits"
    fix = "keep it; only places in front of a mixed radix can be added"
    yield old.base == new.base or longer, "base", new.base, rule, fix
    rule = f"check digits are in the largest radix, which was {old.check_base}"
    same = not new.check_digit or old.check_base == new.check_base
    yield same, "base", new.base, rule, f"add no radix above {old.check_base}"


def _spaces(old: Vocabulary, new: Vocabulary, number_line: bool) -> Iterator[Rule]:
    names = tuple(space.name for space in old.spaces)
    found = tuple(space.name for space in new.spaces[: len(names)])
    rule = f"the old spaces are {', '.join(names)}, and the first ones here {', '.join(found)}"
    fix = "put new spaces behind them: each id of an unmarked segment counts the spaces before its own"
    yield names == found, "spaces", found, rule, fix
    for was, is_ in zip(old.spaces, new.spaces, strict=False):
        field, fix = f"spaces.{was.name}.", "put the new fragments into a space of their own, behind the others"
        rule = f"it was {was.size}, and a space can only be enlarged"
        yield is_.size >= was.size, field + "size", is_.size, rule, f"use {was.size} or more"
        last = is_.size == was.size or not number_line or was is old.spaces[-1]
        rule = f"it was {was.size}, and the fragments of the spaces behind it would get other numbers"
        yield last, field + "size", is_.size, rule, fix
        keeps = is_.assignment.keeps(was.assignment, was.size < is_.size)
        both = f"{was.assignment!r} of {was.size} ids and {is_.assignment!r} of {is_.size} ids"
        rule = f"{both} don't give each old id its old number"
        yield keeps, field + "assignment", is_.assignment.kind, rule, f"keep the assignment, or {fix}"


def _widths(old: Vocabulary, new: Vocabulary, number_line: bool) -> Iterator[Rule]:
    """With fixed width, the fragments of each context must keep their number of digits."""
    opened = set(old.contexts.spaces[old.contexts.of_control].tolist())  # -1 for untyped segments
    for space in sorted({-1, *opened} if number_line else opened - {-1}) if new.width == "fixed" else ():
        was, is_ = (int(v.contexts.widths[1 + space]) for v in (old, new))
        field = f"spaces.{old.spaces[space].name}" if space >= 0 else "spaces"
        what = f"of {old.spaces[space].name}" if space >= 0 else "in unmarked segments"
        rule = f"fragments {what} are written with {was} digits, and would be with {is_}"
        yield was == is_, field, is_, rule, f"set capacity so that it takes {was} digits, or add less"
