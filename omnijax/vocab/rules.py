"""Checks of a vocabulary: parts that are out of bounds, and ways of writing that nobody could read back."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

from omnijax.errors import VocabularyError

END = "eos"
MOST_TOKENS = 2**28
"""Most tokens of each kind. All ids together then fit into 32 bits."""
LARGEST_BASE = 2**16
"""Largest radix for ids of any size. A digit below it has 16 bits, so 32-bit arithmetic on the device is enough."""
LARGEST_FLAT_BASE = 2**22
"""Largest radix if all ids are below 2^31, so that 32 bits are enough. One token can then write a whole item."""
Made = TypeVar("Made")
_CHOICES = {
    "layout": ("grouped", "inline"),
    "position": ("after", "before", "none"),
    "width": ("minimal", "fixed"),
    "digit_order": ("big", "little"),
}
Rule = tuple[bool, str, object, str, str]
"""Whether a rule holds, the field and the value that it is about, the rule, and the fix."""


def enforce(rules: Iterable[Rule], prefix: str = "") -> None:
    """Raises a `VocabularyError` for the first rule that doesn't hold; `prefix` goes before its field.

    Later rules may rely on earlier ones. The error names the field, the value, the rule and the fix.
    """
    for holds, field, value, rule, fix in rules:
        if not holds:
            raise VocabularyError(prefix + field, value, rule, fix)


def from_parts(kind: type[Made], parts: Any, field: str) -> Made:
    """A dataclass from its fields, as JSON stores them. Raises a `VocabularyError` if a field is unknown or missing."""
    needed = {one.name: one.default is dataclasses.MISSING for one in dataclasses.fields(kind)}  # type: ignore[arg-type]
    given = parts if isinstance(parts, dict) else {}
    for name in sorted(name for name in {*given, *needed} if name not in (given if needed.get(name) else needed)):
        rule = f"the parts of {kind.__name__} are {', '.join(needed)}"
        fix = "give all without a default, and no other"
        raise VocabularyError(f"{field}.{name}", given.get(name, parts), rule, fix)
    return kind(**{name: tuple(part) if isinstance(part, list) else part for name, part in given.items()})


def vocabulary_rules(v: Any) -> Iterator[Rule]:
    """What a vocabulary must keep: parts within their bounds, and ways of writing that can be read back."""
    for rules in (_types, _numbers, _spaces, _markers, _readable):
        yield from rules(v)


def _types(v: Any) -> Iterator[Rule]:
    spaces, markers = "each must be a Space with a name", "each is a Marker of two names and a truth value"
    for field, holds, rule, fix in (
        ("spaces", lambda one: _are(str, getattr(one, "name", None)), spaces, "write Space('image', 100)"),
        ("control", lambda one: _are(str, one), "names must be strings", "write them in quotes"),
        ("general_names", lambda one: _are(str, one), "names must be strings", "write them in quotes"),
        ("markers", _is_marker, markers, "write Marker('photo', 'patch', general=True)"),
    ):
        value = getattr(v, field)
        whole = "must be a tuple, so that the vocabulary is hashable"
        yield isinstance(value, tuple), field, value, whole, "a tuple of one needs a comma: ('eos',)"
        yield all(map(holds, value)), field, value, rule, fix
    for field, choices in _CHOICES.items():
        value = getattr(v, field)
        yield value in choices, field, value, f"must be one of {', '.join(choices)}", "choose one"
    yield isinstance(v.check_digit, bool), "check_digit", v.check_digit, "must be true or false", "choose one"


def _are(kind: type, *values: object) -> bool:
    return all(isinstance(value, kind) and isinstance(value, bool) == (kind is bool) for value in values)


def _is_marker(one: Any) -> bool:
    return hasattr(one, "space") and _are(str, one.name, one.space) and _are(bool, one.general)


def _numbers(v: Any) -> Iterator[Rule]:
    for field, least in (("general", 0), ("positions", 0), ("digits", 2), ("position_places", 1)):
        value = getattr(v, field)
        rule = f"must be a whole number in {least} … {MOST_TOKENS}"
        yield _are(int, value) and least <= value <= MOST_TOKENS, field, value, rule, "choose such a number"
    radices = v.base if isinstance(v.base, tuple) else (v.base,)
    whole = len(radices) > 0 and all(_are(int, radix) and 2 <= radix <= LARGEST_FLAT_BASE for radix in radices)
    yield whole, "base", v.base, f"a radix must be a whole number in 2 … {LARGEST_FLAT_BASE}", "change it"
    rule = f"a digit needs a token of its own, and there are {v.digits} digit tokens"
    fix = f"lower it, or set digits to at least {max(radices)}"
    yield max(radices) <= v.digits, "base", v.base, rule, fix
    rule = f"there must be one for each of the {v.general} general tokens"
    yield len(v.general_names) in (0, v.general), "general_names", v.general_names, rule, "name all or none"


def _spaces(v: Any) -> Iterator[Rule]:
    names = [space.name for space in v.spaces]
    yield "" not in names, "spaces", "", "a space must have a name", "name it"
    sized = len(names) > 0 and all(_are(int, space.size) and space.size >= 1 for space in v.spaces)
    rule = "there must be at least one space, and each must have at least one fragment"
    yield sized, "spaces", v.spaces, rule, "add fragments; a size must be an int"
    yield len(set(names)) == len(names), "spaces", v.spaces, "names must differ", "rename one"
    for space in v.spaces:
        where, capacity = f"spaces.{space.name}.capacity", space.capacity
        enough = _are(int, capacity) and (capacity == 0 or capacity >= space.size)
        yield enough, where, capacity, f"must be 0 or at least the size, {space.size}", "raise it"
        yield not capacity or v.width == "fixed", where, capacity, "minimal width has room for every id", "leave it out"
    yield len(set(v.control)) == len(v.control), "control", v.control, "names must differ", "rename one"
    yield not {"pad", "aos"} & set(v.control), "control", v.control, "pad and aos are there already", "leave them out"
    yield END not in names, "spaces", v.spaces, f"{END} closes a document and can't open a segment", "rename the space"
    small = sum(space.room for space in v.spaces) < 2**31
    rule = f"a radix above {LARGEST_BASE} needs ids that are all below 2^31"
    yield small or v.check_base <= LARGEST_BASE, "base", v.base, rule, f"use {LARGEST_BASE} or less"


def _markers(v: Any) -> Iterator[Rule]:
    """Markers must be control tokens, have a space, and not mislead by the name of another space."""
    spaces, names = [space.name for space in v.spaces], [marker.name for marker in v.markers]
    for marker in v.markers:
        name, where = marker.name, f"markers.{marker.name}"
        rule = f"the name of a marker must be a control token other than {END}"
        yield name in v.control and name != END, where, name, rule, "add the name to vocabulary.control"
        rule = "a control token opens segments of one kind"
        yield names.count(name) == 1, where, name, rule, "keep one of the markers"
        yield marker.space in spaces, where, marker.space, f"the spaces are {', '.join(spaces)}", "use one of them"
        rule = f"a control token with the name of a space opens segments of that space, not of {marker.space}"
        yield name not in spaces or name == marker.space, where, name, rule, "rename the marker"


def _readable(v: Any) -> Iterator[Rule]:
    radices = v.base if isinstance(v.base, tuple) else (v.base,) * 2
    run = "v_1 v_0 are the ids [1, 0]" if v.digit_order == "big" else "v_0 v_1 are the ids [0, 1]"
    check = ", check digits left out" * v.check_digit
    rule = f"with minimal width nothing says where an id ends: {run} and also the one id {radices[-1]}{check}"
    apart = v.position != "none" or v.width == "fixed"
    yield apart, "position", "none", rule, "use width='fixed', or a position token"
    reach, rooms = math.prod(radices), [space.room for space in v.spaces]
    longest = max(sum(space.size for space in v.spaces[:-1]) + rooms[-1], *rooms)
    rule = f"its digits write {reach} ids, and all spaces together need {longest}"
    enough = isinstance(v.base, int) or longest <= reach
    yield enough, "base", v.base, rule, f"put a place in front: {(-(-longest // reach), *radices)}"
    rule = "position is none, so that no position is written"
    one_place = v.position != "none" or v.position_places == 1
    yield one_place, "position_places", v.position_places, rule, "leave it at 1"
    rule = "positions count from 1: with p_0 alone the first place would be written as the second is"
    fix = "use at least 2, better items of a segment + 1"
    yield v.position == "none" or v.positions >= 2, "positions", v.positions, rule, fix
