"""What a vocabulary refuses to be: parts out of bounds, and ways of writing that no reader could take apart again."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from omnijax.errors import VocabularyError
from omnijax.vocab.radix import from_digits

if TYPE_CHECKING:
    from omnijax.vocab.vocabulary import Vocabulary

END = "eos"
LARGEST_BASE = 2**16
"""A digit has a row of the softmax; and 16 bits of it let the device reckon with ids of any size in 32 bits."""
LARGEST_FLAT_BASE = 2**22
"""Where all ids are below 2^31, no reckoning with them leaves 32 bits: a space can have one token an item."""


def check_parts(vocabulary: Vocabulary) -> None:
    """Refuses parts that are out of their bounds.

    Raises:
        VocabularyError: names the part.
    """

    def require(holds: bool, field: str, rule: str, fix: str) -> None:
        if not holds:
            raise VocabularyError(f"vocabulary.{field}", getattr(vocabulary, field), rule, fix)

    for field in ("spaces", "control", "general_names"):
        rule, fix = "must be a tuple, so that the vocabulary can be a key", "a tuple of one needs a comma: ('eos',)"
        require(isinstance(getattr(vocabulary, field), tuple), field, rule, fix)
    for field in ("control", "general_names"):
        named = all(isinstance(name, str) for name in getattr(vocabulary, field))
        require(named, field, "names are texts", "write them in quotes")
    spaces = [getattr(space, "name", None) for space in vocabulary.spaces]
    rule = "each is a Space with a name"
    require(all(isinstance(name, str) for name in spaces), "spaces", rule, "write Space('image', 100)")
    for field, choices in (
        ("layout", ("grouped", "inline")),
        ("position", ("after", "before", "none")),
        ("width", ("minimal", "fixed")),
        ("digit_order", ("big", "little")),
    ):
        require(getattr(vocabulary, field) in choices, field, f"must be one of {', '.join(choices)}", "choose one")
    require(isinstance(vocabulary.check_digit, bool), "check_digit", "must be true or false", "choose one")
    for field, least in (("general", 0), ("positions", 0), ("digits", 2), ("position_places", 1)):
        value = getattr(vocabulary, field)
        require(_whole(value) and value >= least, field, f"must be a whole number ≥ {least}", "raise it")
    base = vocabulary.base
    radices = base if isinstance(base, tuple) else (base,)
    rule = f"a radix, or one for each digit place, is a whole number in 2 … {LARGEST_FLAT_BASE}"
    whole = all(_whole(r) and 2 <= r <= LARGEST_FLAT_BASE for r in radices)
    require(len(radices) > 0 and whole, "base", rule, "change it")
    rule = f"a digit needs a token of its own, and there are {vocabulary.digits} digit tokens"
    require(max(radices) <= vocabulary.digits, "base", rule, f"lower it, or set digits to at least {max(radices)}")
    names = vocabulary.general_names
    require(
        len(names) in (0, vocabulary.general),
        "general_names",
        f"one for each of {vocabulary.general}",
        "name all or none",
    )
    rule = "at least one, each with a whole number ≥ 1 of fragments"
    sized = all(_whole(space.size) and space.size >= 1 for space in vocabulary.spaces)
    require(len(spaces) > 0 and sized, "spaces", rule, "add fragments; a size is a plain int")
    require(len(set(spaces)) == len(spaces), "spaces", "names must differ", "rename one")
    for space in vocabulary.spaces:
        where = f"vocabulary.spaces.{space.name}.capacity"
        if not (_whole(space.capacity) and (space.capacity == 0 or space.capacity >= space.size)):
            raise VocabularyError(where, space.capacity, f"must be 0 or at least the size, {space.size}", "raise it")
        if space.capacity and vocabulary.width == "minimal":
            raise VocabularyError(where, space.capacity, "minimal width has room for every id", "leave it out")
    control = vocabulary.control
    require(len(set(control)) == len(control), "control", "names must differ", "rename one")
    require(not {"pad", "aos"} & set(control), "control", "pad and aos are there already", "leave them out")
    require(END not in spaces, "spaces", f"{END} closes a document and can't open a segment", "rename the space")
    small = sum(space.room for space in vocabulary.spaces) < 2**31
    rule = f"a radix above {LARGEST_BASE} needs ids that are all below 2^31"
    require(small or max(radices) <= LARGEST_BASE, "base", rule, f"use {LARGEST_BASE} or less")


def check_readable(vocabulary: Vocabulary) -> None:
    """Refuses what no reader could take apart again.

    Raises:
        VocabularyError: says which two encodings collide.
    """
    v = vocabulary
    if v.position == "none" and v.width == "minimal":
        rule = f"with minimal width nothing says where an id ends: {_collision(v)}"
        raise VocabularyError("vocabulary.position", "none", rule, "use width='fixed', or a position token")
    if isinstance(v.base, tuple):
        longest = sum(space.size for space in v.spaces[:-1]) + v.spaces[-1].room
        longest = max(longest, *(space.room for space in v.spaces))
        if longest > math.prod(v.base):
            rule = (
                f"its digits write {math.prod(v.base)} ids, so that id {math.prod(v.base)} would be written as id 0 is"
            )
            raise VocabularyError("vocabulary.base", v.base, rule, f"add places until they write {longest}")
    if v.position == "none" and v.position_places > 1:
        rule = "position is none, so that no position is written"
        raise VocabularyError("vocabulary.position_places", v.position_places, rule, "leave it at 1")
    if v.position != "none" and v.positions < 2:
        rule = "positions count from 1: with p_0 alone the first place would be written as the second is"
        raise VocabularyError(
            "vocabulary.positions", v.positions, rule, "use at least 2, better items of a segment + 1"
        )


def _collision(v: Vocabulary) -> str:
    """A run of digits that is several ids and also one, where neither width nor position says where an id ends."""
    radices = v.base if isinstance(v.base, tuple) else (v.base,) * 5
    if v.check_digit and len(set(radices)) == 1 and len(radices) >= 5:
        last = radices[0] - 1
        run, ids = [1, last, last, 1, 1, last], [1, last, 1]  # alternating sums: 1 - 1, -1 + 1, 1 - 1
        digits, radices = run[:5], radices[:5]
    else:
        run = ids = digits = [1, 0] if v.digit_order == "big" else [0, 1]
        radices = radices[-2:]
    one = from_digits(digits if v.digit_order == "big" else digits[::-1], radices)
    check = ", check digits left out" if v.check_digit and run == digits else ""
    return f"{' '.join(f'v_{k}' for k in run)} are the ids {ids} and also the one id {one}{check}"


def _whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
