"""What a vocabulary may become without a change to anything that was written in it: the stable prefix."""

from __future__ import annotations

import itertools

from omnijax.errors import VocabularyError
from omnijax.vocab.radix import check_digit, radices_of, to_digits, width_of
from omnijax.vocab.vocabulary import END, Vocabulary

_SAME = ("layout", "position", "width", "digit_order", "position_places", "check_digit", "general_names")


def check_growth(old: Vocabulary, new: Vocabulary) -> None:
    """Checks that every document of the old vocabulary is written with the same tokens in the new one.

    The new one may have more spaces and control tokens, each behind those that are there; more ids in the last space;
    more places in front of a mixed radix; another capacity. All that is in the old one stays as it is.

    Raises:
        VocabularyError: names what would be written otherwise.
    """
    _check_tokens(old, new)
    for name in _SAME:
        was, is_ = getattr(old, name), getattr(new, name)
        if was != is_:
            raise _refusal(name, is_, f"it was {was!r}, and everything would be written otherwise", f"keep {was!r}")
    _check_base(old, new)
    _check_spaces(old, new)
    _check_widths(old, new)
    _check_assignments(old, new)


def _check_tokens(old: Vocabulary, new: Vocabulary) -> None:
    """Holds every token that is there to its primary id, and every control token to what it opens."""
    for name, moved in (("general", "position_start"), ("positions", "digit_start"), ("digits", "aos")):
        was, is_ = getattr(old, name), getattr(new, name)
        if was != is_:
            token = {"general": "p_0", "positions": "v_0", "digits": "aos"}[name]
            rule = f"it was {was}: {token} would be token {getattr(new, moved)}, and it is {getattr(old, moved)}"
            raise _refusal(name, is_, rule, f"keep {was}; only control tokens and fragments can be added")
    for index, (was, is_) in enumerate(itertools.zip_longest(old.control, new.control[: len(old.control)])):
        if was != is_:
            rule = f"token {old.control_start + index} is {was}, and would be {is_ or 'none'}"
            raise _refusal("control", new.control, rule, f"append to {old.control}")
    added = new.control[len(old.control) :]
    if END in added:
        rule = f"every document would be written with {END} at its end"
        raise _refusal("control", new.control, rule, f"leave {END} out")
    spaces = ["all", *(space.name for space in new.spaces)]
    for name, was, is_ in zip(old.control, old.contexts.of_control, new.contexts.of_control, strict=False):
        if (was == 0) != (is_ == 0):
            rule = f"segments that {name} opens hold items of any kind, and would hold fragments of {spaces[is_]} alone"
            raise _refusal("spaces", name, rule, "give the new space another name")


def _check_base(old: Vocabulary, new: Vocabulary) -> None:
    longer = (
        isinstance(old.base, tuple)
        and isinstance(new.base, tuple)
        and new.base[len(new.base) - len(old.base) :] == old.base
    )
    if old.base != new.base and not longer:
        rule = f"it was {old.base}, and the largest id would get other digits"
        raise _refusal("base", new.base, rule, "keep it; only places in front of a mixed radix can be added")
    if new.check_digit and old.check_base != new.check_base:
        rule = f"check digits are in the largest radix, which was {old.check_base}"
        raise _refusal("base", new.base, rule, f"add no radix above {old.check_base}")


def _check_spaces(old: Vocabulary, new: Vocabulary) -> None:
    names = [space.name for space in old.spaces]
    found = [space.name for space in new.spaces[: len(names)]]
    if names != found:
        rule = f"the old spaces are {', '.join(names)}, and the first ones here {', '.join(found)}"
        fix = "put new spaces behind them: each id of an unmarked segment counts the spaces before its own"
        raise _refusal("spaces", tuple(found), rule, fix)
    for index, (was, is_) in enumerate(zip(old.spaces, new.spaces, strict=False)):
        if is_.size < was.size:
            rule = f"it was {was.size}, and fragment {was.size - 1} could not be written any more"
            raise _refusal(f"spaces.{was.name}.size", is_.size, rule, "a space can only be enlarged")
        if is_.size > was.size and index + 1 < len(names):
            change = _change(old, new, 0, old.contexts.offsets[index + 2], new.contexts.offsets[index + 2])
            rule = f"it was {was.size}, and only the last space can be enlarged: {names[index + 1]}'s {change}"
            raise _refusal(f"spaces.{was.name}.size", is_.size, rule, "put the new fragments into a space at the end")


def _check_widths(old: Vocabulary, new: Vocabulary) -> None:
    """With fixed width, holds every context to its number of digits."""
    if new.width != "fixed":
        return
    for context in sorted({0, *old.contexts.of_control.tolist()}):  # those that something can be written in
        was, is_ = old.contexts.widths[context], new.contexts.widths[context]
        if was != is_:
            where = f"spaces.{old.spaces[context - 1].name}" if context else "spaces"
            what = f"fragments of {old.spaces[context - 1].name}" if context else "fragments in unmarked segments"
            rule = f"{what} are written with {was} digits, and would be with {is_}: {_change(old, new, context, 0, 0)}"
            fix = f"set capacity so that it takes {was} digits (or leave out what makes it larger)"
            if is_ > was:
                fix = "add less; or begin with a vocabulary whose last space has the capacity for it"
            raise _refusal(where, int(is_), rule, fix)


def _check_assignments(old: Vocabulary, new: Vocabulary) -> None:
    for was, is_ in zip(old.spaces, new.spaces, strict=False):
        sizes = was.size, is_.size
        radices = tuple(radices_of(v.base, width_of(size - 1, v.base)) for v, size in zip((old, new), sizes))
        if not is_.assignment.keeps(was.assignment, sizes, (radices[0], radices[1])):
            rule = (
                f"{was.assignment!r} of {was.size} ids and {is_.assignment!r} of {is_.size} ids "
                "don't give each old id its old number"
            )
            fix = "put the new fragments into a space of their own, behind the others"
            if was.size == is_.size:
                fix = f"keep {was.assignment!r}"
            raise _refusal(f"spaces.{was.name}.assignment", is_.assignment.kind, rule, fix)


def _change(old: Vocabulary, new: Vocabulary, context: int, was: int, is_: int) -> str:
    """What becomes of a fragment whose number in a context was `was` and would be `is_`."""
    before, after = _written(old, context, was), _written(new, context, is_)
    kind = "an unmarked" if context == 0 else "its own"
    return f"number {was} in {kind} segment is {before}, and would be {after}"


def _written(v: Vocabulary, context: int, number: int) -> str:
    radices = v.radices(context)
    if v.width == "minimal":
        radices = radices_of(v.base, width_of(number, v.base))
    digits = to_digits(number, radices)
    check = [check_digit(digits, v.check_base)] if v.check_digit else []
    ordered = digits if v.digit_order == "big" else digits[::-1]
    return " ".join(f"v_{digit}" for digit in [*ordered, *check])


def _refusal(field: str, value: object, rule: str, fix: str) -> VocabularyError:
    return VocabularyError(f"vocabulary.{field}", value, rule, fix)
