"""What the decoder reports for each token: kinds and errors."""

from __future__ import annotations

import enum
from typing import NamedTuple

from jaxtyping import Array, Int, UInt32


class Kind(enum.IntEnum):
    """What a token is."""

    PAD = 0
    GENERAL = 1
    FRAGMENT = 2
    """The last token of a fragment. The fragment is reported there."""
    PART = 3
    """Any other token of a fragment."""
    AOS = 4
    CONTROL = 5
    ERROR = 6


class Error(enum.IntEnum):
    """What is wrong with a token. If several errors apply, the one with the lowest number is reported.

    If the stream ends inside a fragment, `CUT_OFF` stands for what is missing there.
    """

    NONE = 0
    NOT_A_TOKEN = 1
    """The number is outside the primary vocabulary."""
    WRONG_PLACE = 2
    """A token of this kind can't stand in this part of this segment."""
    POSITION_WITHOUT_DIGITS = 3
    DIGITS_WITHOUT_POSITION = 4
    POSITION_INCOMPLETE = 5
    """There are position tokens, but fewer than a position takes."""
    WRONG_WIDTH = 6
    """The number of digits, check digit included, is wrong here. With minimal width: too many or too few."""
    CUT_OFF = 7
    """The stream ended inside a fragment."""
    DIGIT_NOT_BELOW_BASE = 8
    LEADING_ZERO = 9
    ID_OUT_OF_RANGE = 10
    WRONG_CHECK_DIGIT = 11
    POSITION_ZERO = 12
    POSITION_OUT_OF_RANGE = 13
    """The position is larger than the number of items of the segment. Malformed items count."""
    POSITION_TWICE = 14


class Reading(NamedTuple):
    """What stands at each token. All fields are [..., tokens], int32 except for `high`.

    Attributes:
        kind: a `Kind`.
        error: an `Error`.
        id: number of a general token or a control token; or the secondary id of a fragment, which is the offset of the
            space plus the written number (`assemble` undoes assignments); -1 elsewhere. Low 32 bits of wide ids.
        position: written position of a fragment, from 1; 0 elsewhere.
        segment: number of control tokens up to and with this token.
        length: number of tokens of the item that ends here; 0 elsewhere.
        high: uint32, further limbs of the secondary id, least significant first; empty if all ids fit 32 bits.
    """

    kind: Int[Array, "*b t"]
    error: Int[Array, "*b t"]
    id: Int[Array, "*b t"]
    position: Int[Array, "*b t"]
    segment: Int[Array, "*b t"]
    length: Int[Array, "*b t"]
    high: tuple[UInt32[Array, "*b t"], ...] = ()
