"""Growth: how a vocabulary may change so that everything written before keeps its tokens (the stable prefix)."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from omnijax.vocab.radix import check_digit, radices_of, to_digits, width_of
from omnijax.vocab.rules import END, Rule, enforce
from omnijax.vocab.vocabulary import Vocabulary

_SAME = ("layout", "position", "width", "digit_order", "position_places", "check_digit", "general_names")


def check_growth(old: Vocabulary, new: Vocabulary, number_line: bool = True) -> None:
    """Checks that every document of the old vocabulary is written with the same tokens in the new one.

    The new vocabulary may have more spaces and control tokens behind the old ones, more ids in the last space, more
    places in front of a mixed radix, and another capacity. Everything else must stay.

    Args:
        old: the vocabulary that documents are written in.
        new: the vocabulary that it becomes.
        number_line: whether untyped segments of old documents may have fragments, which are written on the common
            number line. If not, every space may be enlarged, and with fixed width a new space may have any size.

    Raises:
        VocabularyError: names what would be written differently.
    """
    sizes = _spaces(old, new, number_line), _widths(old, new, number_line)
    for rules in (_tokens(old, new), _base(old, new), *sizes, _assignments(old, new)):
        enforce(rules, "vocabulary.")


def _tokens(old: Vocabulary, new: Vocabulary) -> Iterator[Rule]:
    """Each old token must keep its primary id, and each control token must open the same kind of segment."""
    for name, token, start in (
        ("general", "p_0", "position_start"),
        ("positions", "v_0", "digit_start"),
        ("digits", "aos", "aos"),
    ):
        was, is_ = getattr(old, name), getattr(new, name)
        rule = f"it was {was}: {token} would be token {getattr(new, start)}, and it is {getattr(old, start)}"
        yield was == is_, name, is_, rule, f"keep {was}; only control tokens and fragments can be added"
    for index, (was, is_) in enumerate(itertools.zip_longest(old.control, new.control[: len(old.control)])):
        rule = f"token {old.control_start + index} is {was}, and would be {is_ or 'none'}"
        yield was == is_, "control", new.control, rule, f"append to {old.control}"
    rule = f"every document would be written with {END} at its end"
    yield END not in new.control[len(old.control) :], "control", new.control, rule, f"leave {END} out"
    for name in old.control:
        was, is_ = _held(old, name), _held(new, name)
        field = "markers" if name in {marker.name for marker in (*old.markers, *new.markers)} else "spaces"
        rule = f"segments that {name} opens hold {was}, and would hold {is_}"
        yield was == is_, field, name, rule, "give new markers and new spaces other names"
    for name in _SAME:
        was, is_ = getattr(old, name), getattr(new, name)
        yield was == is_, name, is_, f"it was {was!r}, and everything would be written differently", f"keep {was!r}"


def _held(v: Vocabulary, marker: str) -> str:
    """The items that a segment opened by this control token may hold, in words."""
    context = v.contexts.of_control[v.control.index(marker)]
    if context == 0:
        return "items of any kind"
    alone = "and general tokens" if v.contexts.general[context] else "alone"
    return f"fragments of {v.spaces[v.contexts.spaces[context]].name} {alone}"


def _base(old: Vocabulary, new: Vocabulary) -> Iterator[Rule]:
    both = isinstance(old.base, tuple) and isinstance(new.base, tuple)
    longer = both and new.base[len(new.base) - len(old.base) :] == old.base  # type: ignore[arg-type, index]
    rule = f"it was {old.base}, and the largest id would get other digits"
    fix = "keep it; only places in front of a mixed radix can be added"
    yield old.base == new.base or longer, "base", new.base, rule, fix
    rule = f"check digits are in the largest radix, which was {old.check_base}"
    same = not new.check_digit or old.check_base == new.check_base
    yield same, "base", new.base, rule, f"add no radix above {old.check_base}"


def _spaces(old: Vocabulary, new: Vocabulary, number_line: bool) -> Iterator[Rule]:
    names = [space.name for space in old.spaces]
    found = tuple(space.name for space in new.spaces[: len(names)])
    rule = f"the old spaces are {', '.join(names)}, and the first ones here {', '.join(found)}"
    fix = "put new spaces behind them: each id of an unmarked segment counts the spaces before its own"
    yield tuple(names) == found, "spaces", found, rule, fix
    for index, (was, is_) in enumerate(zip(old.spaces, new.spaces, strict=False)):
        field = f"spaces.{was.name}.size"
        rule = f"it was {was.size}, and fragment {was.size - 1} could not be written any more"
        yield is_.size >= was.size, field, is_.size, rule, "a space can only be enlarged"
        if number_line and is_.size > was.size and index + 1 < len(names):
            change = _change(old, new, 0, old.contexts.offsets[index + 2], new.contexts.offsets[index + 2])
            rule = f"it was {was.size}, and only the last space can be enlarged: {names[index + 1]}'s {change}"
            yield False, field, is_.size, rule, "put the new fragments into a space at the end"


def _widths(old: Vocabulary, new: Vocabulary, number_line: bool) -> Iterator[Rule]:
    """With fixed width, the fragments of each context must keep their number of digits."""
    opened = old.contexts.spaces[old.contexts.of_control].tolist()
    written = {0, *(1 + space for space in opened)} if new.width == "fixed" else set()  # contexts that can occur
    for context in sorted(written if number_line else written - {0}):
        was, is_ = int(old.contexts.widths[context]), int(new.contexts.widths[context])
        where = f"spaces.{old.spaces[context - 1].name}" if context else "spaces"
        what = f"fragments of {old.spaces[context - 1].name}" if context else "fragments in unmarked segments"
        rule = f"{what} are written with {was} digits, and would be with {is_}: {_change(old, new, context, 0, 0)}"
        fix = f"set capacity so that it takes {was} digits (or leave out what makes it larger)"
        if is_ > was:
            fix = "add less; or begin with a vocabulary whose last space has the capacity for it"
        yield was == is_, where, is_, rule, fix


def _assignments(old: Vocabulary, new: Vocabulary) -> Iterator[Rule]:
    for was, is_ in zip(old.spaces, new.spaces, strict=False):
        sizes = was.size, is_.size
        radices = tuple(radices_of(v.base, width_of(size - 1, v.base)) for v, size in zip((old, new), sizes))
        keeps = is_.assignment.keeps(was.assignment, sizes, (radices[0], radices[1]))
        both = f"{was.assignment!r} of {was.size} ids and {is_.assignment!r} of {is_.size} ids"
        fix = "put the new fragments into a space of their own, behind the others"
        if was.size == is_.size:
            fix = f"keep {was.assignment!r}"
        field, rule = f"spaces.{was.name}.assignment", f"{both} don't give each old id its old number"
        yield keeps, field, is_.assignment.kind, rule, fix


def _change(old: Vocabulary, new: Vocabulary, context: int, was: int, is_: int) -> str:
    """Says how the digits of a fragment change whose number in a context was `was` and would be `is_`."""
    kind = "an unmarked" if context == 0 else "its own"
    return f"number {was} in {kind} segment is {_digits(old, context, was)}, and would be {_digits(new, context, is_)}"


def _digits(v: Vocabulary, context: int, number: int) -> str:
    radices = radices_of(v.base, width_of(number, v.base)) if v.width == "minimal" else v.radices(context)
    digits = to_digits(number, radices)
    check = [check_digit(digits, v.check_base)] if v.check_digit else []
    ordered = digits if v.digit_order == "big" else digits[::-1]
    return " ".join(f"v_{digit}" for digit in [*ordered, *check])
