"""The two-level vocabulary as one immutable value: what tokens there are, and how an item is written with them.

The *primary* vocabulary is all the model sees, laid out as `pad | general | p_0… | v_0… | aos | control`. The
*secondary* vocabulary is one number line of fragments, cut into named spaces, and addressed by digits in a radix.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import itertools
import json
from typing import Any, Literal

import numpy as np

from omnijax.errors import VocabularyError
from omnijax.vocab.assignment import KINDS, Assignment, Identity, assignment_from_dict
from omnijax.vocab.radix import Base, radices_of, to_digits, width_of
from omnijax.vocab.rules import END as END
from omnijax.vocab.rules import check_parts, check_readable

PAD = 0


@dataclasses.dataclass(frozen=True)
class Space:
    """A named, contiguous range of secondary ids.

    Attributes:
        name: for people, and for the control token of the same name that opens a segment of this space.
        size: number of fragments in it; as large as one likes.
        capacity: number of ids that fixed width leaves room for, so that the space can grow; 0 is `size`.
        assignment: which number each fragment is written as.
    """

    name: str
    size: int
    capacity: int = 0
    assignment: Assignment = Identity()

    @property
    def room(self) -> int:
        """Number of ids that fixed width has digits for."""
        return self.capacity or self.size


@dataclasses.dataclass(frozen=True)
class Vocabulary:
    """What can be written, and how. Hashable, so that `jax.jit` takes it as a static argument.

    A segment opened by a control token with the name of a space is *typed*: it holds fragments of that space alone and
    writes their ids within the space. Every other segment is untyped: it may mix general tokens with fragments of all
    spaces, and writes ids on the common number line, as the worked example does; with fixed width,
    in as many digits as the end of that line takes.

    Attributes:
        general: number of general tokens; 256 are the bytes.
        positions: number of position tokens `p_0 …`. Positions count from 1: with one token each, `p_0` is not written.
        digits: number of digit tokens `v_0 …`.
        base: the radix, 2 ≤ base ≤ digits; or one for each digit place, most significant first, of which a shorter
            number takes the last ones. The source's rule is digits - 1: the largest value a digit token expresses.
        spaces: the secondary vocabulary, in the order of its ids.
        control: names of the control tokens: segment markers, and `eos`, which closes a document.
        layout: `grouped` puts the general tokens first, then `aos`, then the fragments; `inline` keeps the order.
        position: where the position token of a fragment stands: `after` its digits, `before` them, or `none`.
        width: `minimal` writes no leading zeros; `fixed` writes as many digits as the largest id of the space has.
        digit_order: `big` writes the most significant digit first, `little` the least.
        position_places: position tokens that a position is written with, most significant first, in radix `positions`:
            2 of them let a segment have `positions ** 2 - 1` items.
        check_digit: one more digit behind those of a fragment, in the largest radix, that their alternating sum gives.
        general_names: how general tokens are shown; bytes by default.

    Raises:
        VocabularyError: a part out of its bounds, or a way of writing that can't be read back.
    """

    positions: int
    digits: int
    base: Base
    spaces: tuple[Space, ...]
    general: int = 256
    control: tuple[str, ...] = ()
    layout: Literal["grouped", "inline"] = "grouped"
    position: Literal["after", "before", "none"] = "after"
    width: Literal["minimal", "fixed"] = "minimal"
    digit_order: Literal["big", "little"] = "big"
    position_places: int = 1
    check_digit: bool = False
    general_names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_parts(self)
        check_readable(self)
        for space in self.spaces:
            _check_assignment(space, radices_of(self.base, width_of(space.size - 1, self.base)))

    @property
    def position_start(self) -> int:
        """Primary id of `p_0`."""
        return 1 + self.general

    @property
    def digit_start(self) -> int:
        """Primary id of `v_0`."""
        return self.position_start + self.positions

    @property
    def aos(self) -> int:
        """Primary id of the boundary between general tokens and fragments."""
        return self.digit_start + self.digits

    @property
    def control_start(self) -> int:
        """Primary id of the first control token."""
        return self.aos + 1

    @property
    def size(self) -> int:
        """Number of primary tokens: rows of the embedding and of the softmax."""
        return self.control_start + len(self.control)

    @property
    def secondary_size(self) -> int:
        """Number of secondary ids, over all spaces."""
        return sum(space.size for space in self.spaces)

    @property
    def end(self) -> int | None:
        """Primary id of `eos`, or None where documents have no closing token."""
        return self.token(END) if END in self.control else None

    @property
    def limbs(self) -> int:
        """32-bit limbs of a secondary id. Ids below 2^31 are one int32, and the only ones that need no thought."""
        return max(1, -(-(self.secondary_size - 1).bit_length() // 32))

    @property
    def last_position(self) -> int:
        """Largest position that can be written: the most items of a segment; 0 where positions aren't written."""
        return 0 if self.position == "none" else int(self.positions**self.position_places) - 1

    @property
    def check_base(self) -> int:
        """Radix of the check digit: the largest of all."""
        return max(self.base) if isinstance(self.base, tuple) else self.base

    @functools.cached_property
    def contexts(self) -> Contexts:
        """What the digits of a segment mean: row 0 for an untyped segment, row 1 + s for one of space s."""
        sizes = [self.secondary_size, *(space.size for space in self.spaces)]
        rooms = [sizes[0] - self.spaces[-1].size + self.spaces[-1].room, *(space.room for space in self.spaces)]
        offsets = [0, 0, *itertools.accumulate(sizes[1:-1])]
        widths = [width_of(room - 1, self.base) for room in rooms]
        radices = radices_of(self.base, max(widths))
        bounds = [to_digits(size - 1, radices) for size in sizes]
        names = [space.name for space in self.spaces]
        typed = np.array([1 + names.index(name) if name in names else 0 for name in self.control], np.int64)
        return Contexts(
            tuple(sizes), tuple(offsets), np.array(widths, np.int64), typed, np.array(bounds, np.int32), radices
        )

    @property
    def most_digits(self) -> int:
        """Digits of the longest id that can be written, its check digit not counted."""
        return len(self.contexts.radices)

    def radices(self, context: int) -> tuple[int, ...]:
        """Radices of the largest id of a context (row of `contexts`), most significant first."""
        return radices_of(self.base, int(self.contexts.widths[context]))

    def token(self, name: str) -> int:
        """Primary id of a control token.

        Raises:
            VocabularyError: there is no control token of this name.
        """
        if name not in self.control:
            raise VocabularyError(
                "control", name, f"the control tokens are {', '.join(self.control) or 'none'}", "use one of them"
            )
        return self.control_start + self.control.index(name)

    def space_index(self, name: str) -> int:
        """Index of a space by its name.

        Raises:
            VocabularyError: there is no space of this name.
        """
        names = [space.name for space in self.spaces]
        if name not in names:
            raise VocabularyError("space", name, f"the spaces are {', '.join(names)}", "use one of them")
        return names.index(name)

    def symbols(self) -> list[str]:
        """Names of all primary tokens, by id."""
        general = self.general_names or tuple(f"<{i:02x}>" if not 32 < i < 127 else chr(i) for i in range(self.general))
        positions = [f"p_{k}" for k in range(self.positions)]
        digits = [f"v_{k}" for k in range(self.digits)]
        return ["pad", *general, *positions, *digits, "aos", *self.control]

    def to_json(self) -> str:
        """A text that `from_json` turns into an equal vocabulary; the same for equal vocabularies."""
        return json.dumps(dataclasses.asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Vocabulary:
        """The vocabulary that `to_json` wrote.

        Raises:
            VocabularyError: the text is not that of a vocabulary.
        """
        try:
            parts = json.loads(text)
        except json.JSONDecodeError as error:
            raise VocabularyError(
                "vocabulary", text[:40], "must be the text that to_json writes", str(error)
            ) from error
        return cls.from_dict(parts)

    @classmethod
    def from_dict(cls, parts: dict[str, Any]) -> Vocabulary:
        """The vocabulary with these parts, as `dataclasses.asdict` gives them.

        Raises:
            VocabularyError: a part is unknown, missing, or has no possible value.
        """
        if not isinstance(parts, dict):
            raise VocabularyError("vocabulary", parts, "must be a mapping of its parts", "give what to_json writes")
        known = {field.name for field in dataclasses.fields(cls)}
        needed = {field.name for field in dataclasses.fields(cls) if field.default is dataclasses.MISSING}
        for name in [*sorted(set(parts) - known), *sorted(needed - set(parts))]:
            raise VocabularyError(name, parts.get(name), f"a vocabulary has {', '.join(sorted(known))}", "give these")
        values: dict[str, Any] = {name: tuple(part) if isinstance(part, list) else part for name, part in parts.items()}
        spaces = parts["spaces"]
        if not isinstance(spaces, (list, tuple)):
            raise VocabularyError("vocabulary.spaces", spaces, "must be a list of spaces", "give name and size of each")
        values["spaces"] = tuple(_space(part) for part in spaces)
        return cls(**values)

    @functools.cached_property
    def fingerprint(self) -> str:
        """16 hexadecimal digits that change with anything that changes what a token means."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()[:16]


@dataclasses.dataclass(frozen=True)
class Contexts:
    """Tables over the contexts of a vocabulary, row 0 for untyped segments, then one for each space.

    Attributes:
        sizes: of each context, how many ids can be written there.
        offsets: of each context, what is added to the number that is written to get the secondary id.
        widths: int64[contexts], digits of the largest id; with fixed width, of the last one there is room for.
        of_control: int64[control], context of the segment that each control token opens.
        bounds: int32[contexts, most digits], digits of the largest id, most significant first, zeros in front.
        radices: of these places.
    """

    sizes: tuple[int, ...]
    offsets: tuple[int, ...]
    widths: np.ndarray
    of_control: np.ndarray
    bounds: np.ndarray
    radices: tuple[int, ...]


def _check_assignment(space: Space, radices: tuple[int, ...]) -> None:
    where = f"vocabulary.spaces.{space.name}"
    if type(space.assignment) not in KINDS.values():
        rule = f"must be one of {', '.join(kind.__name__ for kind in KINDS.values())}"
        raise VocabularyError(f"{where}.assignment", space.assignment, rule, "see omnijax.vocab.assignment")
    try:
        space.assignment.check(space.size, radices)
    except VocabularyError as error:
        raise VocabularyError(f"{where}.{error.field}", error.value, error.rule, error.fix) from error


def _space(part: Any) -> Space:
    if isinstance(part, Space):
        return part
    known = {field.name for field in dataclasses.fields(Space)}
    if not isinstance(part, dict) or not {"name", "size"} <= set(part) <= known:
        rule = f"a space has {', '.join(sorted(known))}"
        raise VocabularyError("vocabulary.spaces", part, rule, "give name and size, and nothing but these")
    return Space(**{**part, "assignment": assignment_from_dict(part.get("assignment", {"kind": "identity"}))})
