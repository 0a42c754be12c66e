"""The two-level vocabulary as one immutable value: what tokens there are, and how an item is written with them.

The *primary* vocabulary is all the model sees, laid out as `pad | general | p_0… | v_0… | aos | control`. The
*secondary* vocabulary is one number line of fragments, cut into named spaces, and addressed by digits in a radix.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
from typing import Any, Literal

import numpy as np

from omnijax.errors import VocabularyError
from omnijax.vocab.digits import digit_count

PAD = 0
END = "eos"
LARGEST = 2**31 - 1


@dataclasses.dataclass(frozen=True)
class Space:
    """A named, contiguous range of secondary ids.

    Attributes:
        name: for people, and for the control token of the same name that opens a segment of this space.
        size: number of fragments in it.
    """

    name: str
    size: int


@dataclasses.dataclass(frozen=True)
class Vocabulary:
    """What can be written, and how. Hashable, so that `jax.jit` takes it as a static argument.

    A segment opened by a control token with the name of a space is *typed*: it holds fragments of that space alone and
    writes their ids within the space. Every other segment is untyped: it may mix general tokens with fragments of all
    spaces, and writes ids on the common number line, as the worked example does.

    Attributes:
        general: number of general tokens; 256 are the bytes.
        positions: number of position tokens `p_0 …`; `p_0` is never written, so a segment holds `positions - 1` items.
        digits: number of digit tokens `v_0 …`.
        base: the radix, 2 ≤ base ≤ digits. The source's rule is digits - 1: the largest value a digit token expresses.
        spaces: the secondary vocabulary, in the order of its ids.
        control: names of the control tokens: segment markers, and `eos`, which closes a document.
        layout: `grouped` puts the general tokens first, then `aos`, then the fragments; `inline` keeps the order.
        position: where the position token of a fragment stands: `after` its digits, `before` them, or `none`.
        width: `minimal` writes no leading zeros; `fixed` writes as many digits as the largest id of the space has.
        general_names: how general tokens are shown; bytes by default.

    Raises:
        VocabularyError: a part out of its bounds, or a way of writing that can't be read back.
    """

    positions: int
    digits: int
    base: int
    spaces: tuple[Space, ...]
    general: int = 256
    control: tuple[str, ...] = ()
    layout: Literal["grouped", "inline"] = "grouped"
    position: Literal["after", "before", "none"] = "after"
    width: Literal["minimal", "fixed"] = "minimal"
    general_names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _check_parts(self)
        _check_readable(self)

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

    @functools.cached_property
    def contexts(self) -> Contexts:
        """What the digits of a segment mean: row 0 for an untyped segment, row 1 + s for one of space s."""
        sizes = np.array([self.secondary_size, *(space.size for space in self.spaces)], np.int64)
        offsets = np.concatenate([[0], np.cumsum(sizes[:-1]) - sizes[0]]).astype(np.int64)
        offsets[0] = 0
        if self.width == "fixed" and len(self.spaces) > 1:
            sizes[0] = 0  # several widths, and nothing that says which: no fragments without a type
        widths = np.array([digit_count(int(size) - 1, self.base) if size else 0 for size in sizes])
        names = [space.name for space in self.spaces]
        typed = np.array([1 + names.index(name) if name in names else 0 for name in self.control], np.int64)
        return Contexts(sizes, offsets, widths, typed)

    @property
    def most_digits(self) -> int:
        """Digits of the longest id that can be written."""
        return int(self.contexts.widths.max())

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
        sizes: int64[contexts], ids that can be written there; 0 where fragments can't stand.
        offsets: int64[contexts], what is added to the number that is written to get the secondary id.
        widths: int64[contexts], digits of the largest id.
        of_control: int64[control], context of the segment that each control token opens.
    """

    sizes: np.ndarray
    offsets: np.ndarray
    widths: np.ndarray
    of_control: np.ndarray


def _space(part: Any) -> Space:
    if isinstance(part, Space):
        return part
    if not isinstance(part, dict) or set(part) != {"name", "size"}:
        raise VocabularyError("vocabulary.spaces", part, "a space has a name and a size", "give both, and nothing else")
    return Space(**part)


def _check_parts(vocabulary: Vocabulary) -> None:
    def require(holds: bool, field: str, rule: str, fix: str) -> None:
        if not holds:
            raise VocabularyError(f"vocabulary.{field}", getattr(vocabulary, field), rule, fix)

    for field, choices in (
        ("layout", ("grouped", "inline")),
        ("position", ("after", "before", "none")),
        ("width", ("minimal", "fixed")),
    ):
        require(getattr(vocabulary, field) in choices, field, f"must be one of {', '.join(choices)}", "choose one")
    for field, least in (("general", 0), ("positions", 0), ("digits", 2), ("base", 2)):
        value = getattr(vocabulary, field)
        whole = isinstance(value, int) and not isinstance(value, bool)
        require(whole and value >= least, field, f"must be a whole number ≥ {least}", "raise it")
    require(
        vocabulary.base <= vocabulary.digits,
        "base",
        f"a digit needs a token of its own, and there are {vocabulary.digits} digit tokens",
        f"lower the base, or set digits to at least {vocabulary.base}",
    )
    names = vocabulary.general_names
    require(
        len(names) in (0, vocabulary.general),
        "general_names",
        f"one for each of {vocabulary.general}",
        "name all or none",
    )
    spaces = [space.name for space in vocabulary.spaces]
    require(
        len(spaces) > 0 and all(type(space.size) is int and space.size >= 1 for space in vocabulary.spaces),
        "spaces",
        "at least one, each with a whole number ≥ 1 of fragments",
        "add fragments",
    )
    require(len(set(spaces)) == len(spaces), "spaces", "names must differ", "rename one")
    require(
        vocabulary.secondary_size <= LARGEST, "spaces", f"at most {LARGEST} secondary ids in all", "use smaller spaces"
    )
    control = vocabulary.control
    require(len(set(control)) == len(control), "control", "names must differ", "rename one")
    require(not {"pad", "aos"} & set(control), "control", "pad and aos are there already", "leave them out")
    require(END not in spaces, "spaces", f"{END} closes a document and can't open a segment", "rename the space")


def _check_readable(vocabulary: Vocabulary) -> None:
    """Refuses what no reader could take apart again, with the two readings that collide."""
    if vocabulary.position == "none" and vocabulary.width == "minimal":
        raise VocabularyError(
            "vocabulary.position",
            "none",
            "with minimal width nothing says where an id ends: v_1 v_0 is the ids 1, 0 and also the one id "
            f"{vocabulary.base}",
            "use width='fixed', or a position token",
        )
    spaces = [space.name for space in vocabulary.spaces]
    if vocabulary.width == "fixed" and len(spaces) > 1 and not set(spaces) & set(vocabulary.control):
        raise VocabularyError(
            "vocabulary.width",
            "fixed",
            f"each space has its own number of digits, and nothing says whether they are of {spaces[0]} or {spaces[1]}",
            "add a control token with the name of each space, or use width='minimal'",
        )
    if vocabulary.position != "none" and vocabulary.positions < 2:
        raise VocabularyError(
            "vocabulary.positions",
            vocabulary.positions,
            "positions count from 1, so that p_0 alone places nothing",
            "set it to the largest number of items in a segment + 1",
        )
