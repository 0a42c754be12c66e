"""The two-level vocabulary as one immutable value: which tokens exist, and how an item is written with them.

The *primary* vocabulary is all that the model sees. Its order is `pad | general | p_0… | v_0… | aos | control`. The
*secondary* vocabulary is one number line of fragments, divided into named spaces. Digits in a radix address it.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import itertools
import json
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from omnijax.errors import VocabularyError
from omnijax.vocab.assignment import KINDS, Assignment, Identity, assignment_from_dict
from omnijax.vocab.numbers import limbs_for
from omnijax.vocab.radix import Base, radices_for, radices_of, to_digits, width_of
from omnijax.vocab.rules import END as END
from omnijax.vocab.rules import enforce, from_parts, vocabulary_rules

PAD = 0


@dataclasses.dataclass(frozen=True)
class Space:
    """A named, contiguous range of secondary ids.

    Attributes:
        name: name of the space. A control token of the same name opens a segment of this space.
        size: number of fragments, without a limit.
        capacity: number of ids that fixed width leaves room for, so that the space can grow; 0 stands for `size`.
        assignment: says which number is written for each fragment.
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
class Marker:
    """A control token that opens typed segments. Several markers may share a space.

    Attributes:
        name: the control token; it must be in `Vocabulary.control`.
        space: name of the space whose fragments the segment holds.
        general: whether the segment may also hold general tokens. Such a segment keeps the order of its items in every
            layout, so that it has no `aos`.
    """

    name: str
    space: str
    general: bool = False


@dataclasses.dataclass(frozen=True)
class Vocabulary:
    """What can be written, and how. It is hashable, so that `jax.jit` takes it as a static argument.

    A segment is *typed* if its control token has the name of a space or is a `Marker`. It holds fragments of that one
    space and writes their ids within the space. With `Marker.general` it holds general tokens, too. All other segments
    are untyped: they may mix general tokens with fragments of all spaces. An untyped segment writes ids on the common
    number line, as the worked example does. With fixed width each id there takes as many digits as the end of the line.
    Raises a `VocabularyError` if a part is out of its bounds, or if what is written could not be read back.

    Attributes:
        general: number of general tokens. 256 general tokens are the bytes.
        positions: number of position tokens `p_0 …`. Positions count from 1, so that `p_0` never occurs if a position
            takes one token.
        digits: number of digit tokens `v_0 …`.
        base: the radix, 2 ≤ base ≤ digits; or a radix for each digit place, most significant first. A shorter number
            then uses the last radices. The rule of the source is digits - 1, the largest value of a digit token.
        spaces: the secondary vocabulary, in the order of its ids.
        control: names of the control tokens: segment markers, and `eos`, which closes a document.
        markers: control tokens that open segments of a space with another name, or segments with general tokens.
        layout: `grouped` puts the general tokens first, then `aos`, then the fragments; `inline` keeps the order.
        position: place of the position token of a fragment: `after` its digits, `before` them, or `none`.
        width: `minimal` writes no leading zeros; `fixed` writes as many digits as the largest id of the space has.
        digit_order: `big` writes the most significant digit first, `little` the least significant digit.
        position_places: number of position tokens of a position, most significant first, in radix `positions`. With 2
            places a segment can have `positions ** 2 - 1` items.
        check_digit: whether another digit follows those of a fragment. It is in the largest radix and follows from the
            alternating sum of the digits.
        general_names: names under which general tokens are shown; bytes by default.
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
    markers: tuple[Marker, ...] = ()

    def __post_init__(self) -> None:
        enforce(vocabulary_rules(self), "vocabulary.")
        for space in self.spaces:
            where = f"vocabulary.spaces.{space.name}"
            if type(space.assignment) not in KINDS.values():
                rule = f"must be one of {', '.join(kind.__name__ for kind in KINDS.values())}"
                raise VocabularyError(f"{where}.assignment", space.assignment, rule, "see omnijax.vocab.assignment")
            try:
                space.assignment.check(space.size, radices_for(space.size, self.base))
            except VocabularyError as error:
                raise VocabularyError(f"{where}.{error.field}", error.value, error.rule, error.fix) from error

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
        """Primary id of `aos`, the boundary between general tokens and fragments."""
        return self.digit_start + self.digits

    @property
    def control_start(self) -> int:
        """Primary id of the first control token."""
        return self.aos + 1

    @property
    def size(self) -> int:
        """Number of primary tokens, which is the number of rows of the embedding and of the softmax."""
        return self.control_start + len(self.control)

    @property
    def secondary_size(self) -> int:
        """Number of secondary ids, over all spaces."""
        return sum(space.size for space in self.spaces)

    @property
    def end(self) -> int | None:
        """Primary id of `eos`; None if documents have no closing token."""
        return self.token(END) if END in self.control else None

    @property
    def limbs(self) -> int:
        """Number of 32-bit limbs of a secondary id. Ids below 2^31 are a single int32."""
        return limbs_for(self.secondary_size)

    @property
    def last_position(self) -> int:
        """Largest position that can be written, which bounds the items of a segment; 0 if no positions are written."""
        return 0 if self.position == "none" else int(self.positions**self.position_places) - 1

    @property
    def check_base(self) -> int:
        """Radix of the check digit, which is the largest radix."""
        return max(self.base) if isinstance(self.base, tuple) else self.base

    @functools.cached_property
    def contexts(self) -> Contexts:
        """What the kinds of segments hold, and what their digits mean."""
        names = [space.name for space in self.spaces]
        marked = {marker.name: (marker.space, marker.general) for marker in self.markers}
        opened = {name: (name, False) for name in names if name in self.control} | marked
        with_general = [name for name in names if (name, True) in opened.values()]
        rows = [("", True), *((name, False) for name in names), *((name, True) for name in with_general)]
        spaces = [names.index(name) if name else -1 for name, _ in rows]
        starts = [0, *itertools.accumulate(space.size for space in self.spaces)]
        sizes = [self.secondary_size if space < 0 else self.spaces[space].size for space in spaces]
        line = starts[-2] + self.spaces[-1].room
        widths = [width_of((line if space < 0 else self.spaces[space].room) - 1, self.base) for space in spaces]
        radices = radices_of(self.base, max(widths))
        general = np.array([general for _, general in rows])
        return Contexts(
            sizes=tuple(sizes),
            offsets=tuple(0 if space < 0 else starts[space] for space in spaces),
            widths=np.array(widths, np.int64),
            of_control=np.array([rows.index(opened.get(name, rows[0])) for name in self.control], np.int64),
            bounds=np.array([to_digits(size - 1, radices) for size in sizes], np.int32),
            radices=radices,
            spaces=np.array(spaces, np.int64),
            general=general,
            grouped=(self.layout == "grouped") & ~(general & (np.array(spaces) >= 0)),
        )

    @property
    def most_digits(self) -> int:
        """Number of digits of the longest id, without its check digit."""
        return len(self.contexts.radices)

    def fragment_tokens(self, context: int) -> int:
        """Number of tokens of the longest fragment of a context. With fixed width all fragments have it."""
        places = 0 if self.position == "none" else self.position_places
        return int(self.contexts.widths[context]) + self.check_digit + places

    def radices(self, context: int) -> tuple[int, ...]:
        """Radices of the largest id of a context, which is a row of `contexts`; most significant first."""
        return radices_of(self.base, int(self.contexts.widths[context]))

    def token(self, name: str) -> int:
        """Primary id of a control token; raises a `VocabularyError` if none has this name."""
        return self.control_start + _index("control", "control tokens", self.control, name)

    def context(self, marker: str) -> int:
        """Row in `contexts` of segments that a control token opens; raises a `VocabularyError` if none has the name."""
        return int(self.contexts.of_control[self.token(marker) - self.control_start])

    def space_index(self, name: str) -> int:
        """Index of a space by its name; raises a `VocabularyError` if none has it."""
        return _index("space", "spaces", [space.name for space in self.spaces], name)

    def symbols(self) -> list[str]:
        """Names of all primary tokens, by id."""
        general = self.general_names or tuple(f"<{i:02x}>" if not 32 < i < 127 else chr(i) for i in range(self.general))
        positions = [f"p_{k}" for k in range(self.positions)]
        return ["pad", *general, *positions, *(f"v_{k}" for k in range(self.digits)), "aos", *self.control]

    def to_json(self) -> str:
        """A text from whose parts `from_dict` makes an equal vocabulary. Equal vocabularies give the same text.

        A vocabulary without `markers` gives the text that it gave before this field existed.
        """
        parts = dataclasses.asdict(self)
        if not self.markers:
            del parts["markers"]
        return json.dumps(parts, sort_keys=True)

    @classmethod
    def from_dict(cls, parts: dict[str, Any]) -> Vocabulary:
        """The vocabulary with these parts, as `dataclasses.asdict` gives them; else raises a `VocabularyError`."""
        given = dict(parts) if isinstance(parts, dict) else {}
        for field, kind in (("spaces", _space), ("markers", functools.partial(from_parts, Marker))):
            if isinstance(given.get(field), (list, tuple)):
                given[field] = tuple(kind(part, f"vocabulary.{field}") for part in given[field])
        return from_parts(cls, given, "vocabulary")

    @functools.cached_property
    def fingerprint(self) -> str:
        """16 hexadecimal digits. They change whenever the meaning of a token changes."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()[:16]


@dataclasses.dataclass(frozen=True)
class Contexts:
    """Tables over the contexts of a vocabulary, which are the kinds of segments.

    Row 0 is for untyped segments and row 1 + s for segments that hold fragments of space s alone. After these there is
    a row for each space that has a marker with general tokens.

    Attributes:
        sizes: number of ids that can be written in each context.
        offsets: what is added to a written number to get the secondary id, for each context.
        widths: int64[contexts], digits of the largest id; with fixed width, of the largest id that there is room for.
        of_control: int64[control], context of the segment that each control token opens.
        bounds: int32[contexts, most digits], digits of the largest id, most significant first, zeros in front.
        radices: radices of these digit places.
        spaces: int64[contexts], index of the space of a typed segment; -1 for untyped segments.
        general: bool[contexts], whether general tokens can stand there.
        grouped: bool[contexts], whether general tokens come first, then `aos`, then fragments.
    """

    sizes: tuple[int, ...]
    offsets: tuple[int, ...]
    widths: np.ndarray
    of_control: np.ndarray
    bounds: np.ndarray
    radices: tuple[int, ...]
    spaces: np.ndarray
    general: np.ndarray
    grouped: np.ndarray


def _index(field: str, what: str, names: Sequence[str], name: str) -> int:
    if name not in names:
        raise VocabularyError(field, name, f"the {what} are {', '.join(names) or 'none'}", "use one of them")
    return names.index(name)


def _space(parts: Any, field: str) -> Space:
    if isinstance(parts, dict) and "assignment" in parts:
        parts = parts | {"assignment": assignment_from_dict(parts["assignment"])}
    return from_parts(Space, parts, field)
