"""What a decoder says of a stream: kinds, errors, and a row of them for each token."""

from __future__ import annotations

import enum
from typing import NamedTuple

from jaxtyping import Array, Int, UInt32


class Kind(enum.IntEnum):
    """What a token is."""

    PAD = 0
    GENERAL = 1
    FRAGMENT = 2
    """The last token of a fragment, where it is reported."""
    PART = 3
    """Any other token of a fragment."""
    AOS = 4
    CONTROL = 5
    ERROR = 6


class Error(enum.IntEnum):
    """What is wrong with a token: the first that applies, in this order.

    Where the stream ends inside a fragment, `CUT_OFF` stands for what is missing there.
    """

    NONE = 0
    NOT_A_TOKEN = 1
    """Outside the primary vocabulary."""
    WRONG_PLACE = 2
    """A kind of token that can't stand in this part of this segment."""
    POSITION_WITHOUT_DIGITS = 3
    DIGITS_WITHOUT_POSITION = 4
    POSITION_INCOMPLETE = 5
    """Some position tokens, but fewer than a position is written with."""
    WRONG_WIDTH = 6
    """Not as many digits as an id takes here, its check digit counted; with minimal width, too many or too few."""
    CUT_OFF = 7
    """The stream ended inside a fragment."""
    DIGIT_NOT_BELOW_BASE = 8
    LEADING_ZERO = 9
    ID_OUT_OF_RANGE = 10
    WRONG_CHECK_DIGIT = 11
    POSITION_ZERO = 12
    POSITION_OUT_OF_RANGE = 13
    """Beyond the number of items that the segment has, well read or not."""
    POSITION_TWICE = 14


class Reading(NamedTuple):
    """What stands at each token, all [..., tokens]; int32 but for `high`.

    Attributes:
        kind: a `Kind`.
        error: an `Error`.
        id: of a general token, of a control token, or secondary id over all spaces (offset of the space and the number
            that is written; `assemble` undoes assignments); -1 elsewhere. Of wide ids, the low 32 bits.
        position: item position of a fragment as it is written, from 1; 0 elsewhere.
        segment: number of control tokens up to here.
        length: tokens of the item that ends here; 0 elsewhere.
        high: uint32, further limbs of the secondary id, the least significant first; empty where all ids fit 32 bits.
    """

    kind: Int[Array, "*b t"]
    error: Int[Array, "*b t"]
    id: Int[Array, "*b t"]
    position: Int[Array, "*b t"]
    segment: Int[Array, "*b t"]
    length: Int[Array, "*b t"]
    high: tuple[UInt32[Array, "*b t"], ...] = ()
