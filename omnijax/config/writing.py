"""How items are written in primary tokens, and the vocabulary that follows from it and from the fields of the data."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Literal

import numpy as np

from omnijax.errors import ConfigError, check_known
from omnijax.modalities.base import Modality
from omnijax.source import SEQUENCE, modalities_of
from omnijax.vocab.assignment import Assignment, Identity
from omnijax.vocab.cost import position_tokens
from omnijax.vocab.radix import Base
from omnijax.vocab.vocabulary import END, Marker, Space, Vocabulary


@dataclasses.dataclass(frozen=True)
class Writing:
    """How fragments are written. Spaces, markers and the number of position tokens follow from the data's fields."""

    base: Base = 256
    """The radix; or one for each digit place, most significant first."""
    digits: int = 0
    """Number of digit tokens; 0 is the largest radix."""
    position: Literal["after", "before", "none"] = "before"
    """Where the position token of a fragment stands: `before` its digits, so that the model knows where it writes;
    `after` them; or nowhere."""
    positions: int = 0
    """Number of position tokens; 0 is as many as the longest segment needs, in as few places as 256 tokens allow."""
    position_places: int = 1
    """Position tokens that a position is written with, where `positions` is given."""
    width: Literal["minimal", "fixed"] = "fixed"
    """`minimal` writes no leading zeros; `fixed` writes as many digits as the largest id of the space has."""
    layout: Literal["grouped", "inline"] = "grouped"
    """`grouped` puts general tokens first, then `aos`, then fragments; `inline` keeps the order."""
    digit_order: Literal["big", "little"] = "big"
    """`big` writes the most significant digit first."""
    check_digit: bool = False
    """Whether one more digit, which the others determine, follows the digits of a fragment."""
    t_pad: bool = True
    """Whether entry 0 of the secondary vocabulary is `t_pad`, as in the source document."""
    assignments: tuple[tuple[str, Assignment], ...] = ()
    """Which number each fragment of a space gets, by the space's name; its id where a space isn't named."""


def vocabulary_of(writing: Writing, fields: Mapping[str, Modality]) -> Vocabulary:
    """The vocabulary of some fields.

    `eos` is the first control token. Each field appends its marker, and each modality a space for each of its parts, so
    that a field that is appended later moves no token, unless it needs more position tokens.

    Raises:
        ConfigError: a field's name that can't be a marker, or not exactly one owner of general tokens.
        VocabularyError: a way of writing that can't be read back.
    """
    modalities = modalities_of(fields)
    _check_names(fields)
    owners = [modality for modality in modalities.values() if modality.general]
    if len(owners) > 1:
        names = ", ".join(owner.name for owner in owners)
        raise ConfigError("data.fields", names, "one modality owns the general tokens", "use one of them")
    parts = [part for modality in modalities.values() for part in modality.parts]
    assigned = dict(writing.assignments)
    for name in assigned:
        check_known("writing.assignments", name, [part.name for part in parts], "the spaces are")
    spaces = [Space(part.name, part.fragments, part.capacity, assigned.get(part.name, Identity())) for part in parts]
    # The marker of each field, and behind the first field of a modality those of its further parts.
    markers = [name for field, one in fields.items() for name in (field, *(part.name for part in one.parts[1:]))]
    positions, places = writing.positions, writing.position_places
    if positions == 0 and writing.position != "none":
        longest = max((most for one in modalities.values() if one.parts for _, most in one.limits), default=1)
        positions, places = position_tokens(longest)
    return Vocabulary(
        positions=positions,
        digits=writing.digits or int(np.max(writing.base)),
        base=writing.base,
        spaces=(*[Space("t_pad", 1)] * writing.t_pad, *spaces),
        general=owners[0].general if owners else 0,
        control=tuple(dict.fromkeys([END, *markers])),
        layout=writing.layout,
        position=writing.position,
        width=writing.width,
        digit_order=writing.digit_order,
        position_places=places,
        check_digit=writing.check_digit,
        markers=tuple(
            Marker(field, one.parts[0].name, one.general > 0)
            for field, one in fields.items()
            if one.parts and (one.general or field != one.parts[0].name)
        ),
    )


def _check_names(fields: Mapping[str, Modality]) -> None:
    if not fields:
        raise ConfigError("data.fields", (), "a source has at least one field", "define `fields`")
    for field in fields:
        if not field or set(field) & set("/|>=, ") or field in (SEQUENCE, END, "pad", "aos", "t_pad"):
            rule = f"a field's name has none of / | > = , and isn't {SEQUENCE}, {END}, pad, aos or t_pad"
            raise ConfigError("data.fields", field, rule, "rename the field")
