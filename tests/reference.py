"""The two-level vocabulary once more, slowly and obviously: plain Python integers and lists, one token after another.

What the fast code is held against. Written from the method's rules, with nothing of the fast code but the names of the
kinds and errors. An item is a pair (space, id), a segment a pair (marker, items), a document a list of segments.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from omnijax.vocab import documents as library
from omnijax.vocab.decode import Error, Kind
from omnijax.vocab.ids import Numbers
from omnijax.vocab.radix import Base
from omnijax.vocab.vocabulary import Marker, Space, Vocabulary

PAD = 0
GENERAL = -1
UNMARKED = -1

Item = tuple[int, int]
Segment = tuple[int, list[Item]]
Document = list[Segment]

WAYS = [
    (layout, position, width)
    for layout in ("grouped", "inline")
    for position, width in (
        ("after", "minimal"),
        ("after", "fixed"),
        ("before", "minimal"),
        ("before", "fixed"),
        ("none", "fixed"),
    )
]
"""Every layout, position and width that can be read back."""
PLAIN_WAYS = [WAYS[0], WAYS[3], WAYS[9]]
"""Those of which there is a vocabulary without control tokens, too: every one more is compiled in many tests."""


def _vocabularies() -> dict[str, Vocabulary]:
    found = {}
    for layout, position, width in WAYS:
        way = {"layout": layout, "position": position, "width": width}
        spaces = (Space("t", 1), Space("x", 5), Space("y", 7))
        if (layout, position, width) in PLAIN_WAYS:
            found[f"plain {layout} {position} {width}"] = Vocabulary(
                general=3, positions=6, digits=4, base=3, spaces=spaces, **way
            )
        found[f"typed {layout} {position} {width}"] = Vocabulary(
            general=2,
            positions=0 if position == "none" else 5,
            digits=3 if layout == "grouped" else 2,
            base=2,
            spaces=(Space("image", 11), Space("audio", 4)),
            control=("image", "mixed", "audio", "eos"),
            **way,
        )
    large = (Space("a", 2**30), Space("b", 2**30 - 1))
    found["large, small base"] = Vocabulary(general=1, positions=9, digits=8, base=7, spaces=large, control=("b",))
    found["large, large base"] = Vocabulary(
        positions=300,
        digits=65537,
        base=65536,
        spaces=large,
        control=("a", "b", "eos"),
        layout="inline",
        position="before",
        width="fixed",
    )
    # No general tokens, spaces that no marker opens, one with more digits, a control token that is no space.
    found["narrow"] = Vocabulary(
        general=0,
        positions=4,
        digits=5,
        base=5,
        spaces=(Space("image", 26), Space("unmarked", 3), Space("wider", 130)),
        control=("text", "image"),
        position="before",
        width="fixed",
    )
    # Markers with other names than their spaces, and segments that hold general tokens and fragments of one space.
    for layout, position, width in (("grouped", "after", "minimal"), ("grouped", "none", "fixed"), WAYS[8]):
        found[f"marked {layout} {position} {width}"] = Vocabulary(
            general=2,
            positions=5,
            digits=4,
            base=3,
            spaces=(Space("image", 11), Space("piece", 4)),
            control=("photo", "caption", "painting", "mixed", "piece", "eos"),
            markers=(Marker("photo", "image"), Marker("painting", "image", True), Marker("caption", "piece", True)),
            layout=layout,
            position=position,
            width=width,
        )
    return found | _vocabularies_of_options()


def _vocabularies_of_options() -> dict[str, Vocabulary]:
    """Each two of the options that aren't in `WAYS` meet in one of them: few, since each is compiled in many tests."""
    spaces, control = (Space("x", 40), Space("y", 33)), ("y", "mixed", "eos")
    wide = (Space("a", 2**40 + 1), Space("b", 2**96))
    before, none = ({"position": position, "width": "fixed"} for position in ("before", "none"))
    little, check, inline = {"digit_order": "little"}, {"check_digit": True}, {"layout": "inline"}
    return {
        "mixed radix, little, two position places": Vocabulary(
            general=2, positions=3, position_places=2, digits=6, base=(5, 2, 3, 4), spaces=spaces, control=control,
            **little, **inline,
        ),
        "mixed radix, check, room to grow": Vocabulary(
            general=1, positions=7, digits=5, base=(5, 2, 4, 4), spaces=(spaces[0], Space("y", 33, capacity=90)),
            control=control, **check, **before,
        ),
        "little, check": Vocabulary(
            general=1, positions=8, digits=4, base=3, spaces=spaces, control=control, **little, **check
        ),
        "little, check, none": Vocabulary(
            general=2, positions=2, digits=5, base=4, spaces=spaces, control=control, **little, **check, **none,
            **inline,
        ),
        "mixed radix, check, before, two position places": Vocabulary(
            general=1, positions=3, position_places=2, digits=5, base=(2, 3, 5, 4), spaces=spaces, **check,
            position="before",
        ),
        "wide, two position places": Vocabulary(
            general=1, positions=4, position_places=2, digits=256, base=256, spaces=wide, control=("b", "eos"),
            position="before", **inline,
        ),
        "wide, little, check": Vocabulary(
            general=1, positions=4, position_places=2, digits=1001, base=1000, spaces=wide, control=("a", "b", "eos"),
            width="fixed", **little, **check,
        ),
        "wide, mixed radix, room to grow": Vocabulary(
            general=1, positions=5, digits=40000, base=(40000, 30011) * 8 + (40000,),
            spaces=(wide[0], Space("b", 2**200, capacity=2**256)), control=("b",), **none, **little,
        ),
        "2^32 ids": Vocabulary(
            general=1, positions=9, digits=17, base=16, spaces=(Space("a", 2**31), Space("b", 2**31)), control=("b",),
        ),
    }  # fmt: skip


VOCABULARIES = _vocabularies()


def digits_of(number: int, base: Base) -> list[int]:
    """Most significant first, no leading zeros; 0 is one digit. A mixed radix is used up from its end."""
    radices = list(base) if isinstance(base, tuple) else [base] * (number.bit_length() + 1)
    digits: list[int] = []
    while number or not digits:
        number, digit = divmod(number, radices.pop())
        digits.insert(0, digit)
    return digits


def number_of(digits: list[int], base: Base) -> int:
    """The number with these digits, most significant first."""
    number = 0
    for digit, radix in zip(digits, radices_of(base, len(digits))):
        number = number * radix + digit
    return number


def radices_of(base: Base, count: int) -> tuple[int, ...]:
    """The radix of each of so many digits."""
    return base[len(base) - count :] if isinstance(base, tuple) else (base,) * count


def check_digit_of(v: Vocabulary, digits: list[int]) -> int:
    """What makes the alternating sum a multiple of the largest radix, itself counted with +."""
    largest = max(v.base) if isinstance(v.base, tuple) else v.base
    alternating = sum(digit if back % 2 == 0 else -digit for back, digit in enumerate(reversed(digits)))
    return -alternating % largest


def space_of_marker(v: Vocabulary, marker: int) -> int | None:
    """The space that a segment is of; None where it is untyped."""
    if marker == UNMARKED:
        return None
    name = v.control[marker]
    for one in v.markers:
        if one.name == name:
            name = one.space
    for index, space in enumerate(v.spaces):
        if name == space.name:
            return index
    return None


def holds_general(v: Vocabulary, marker: int) -> bool:
    """Whether a segment may hold general tokens."""
    if space_of_marker(v, marker) is None:
        return True
    return any(one.name == v.control[marker] and one.general for one in v.markers)


def is_grouped(v: Vocabulary, marker: int) -> bool:
    """Whether a segment is written with its general tokens first, then `aos`, then its fragments."""
    return v.layout == "grouped" and not (space_of_marker(v, marker) is not None and holds_general(v, marker))


def fragment_size(v: Vocabulary, typed: int | None) -> int:
    """Ids that can be written in a segment of this type."""
    return sum(space.size for space in v.spaces) if typed is None else v.spaces[typed].size


def offset(v: Vocabulary, space: int) -> int:
    """Secondary id of the first fragment of a space."""
    return sum(before.size for before in v.spaces[:space])


def digit_places(v: Vocabulary, typed: int | None) -> int:
    """Digits of the largest id that such a segment has room for, no check digit among them."""
    last = v.spaces[-1 if typed is None else typed]
    return len(digits_of(fragment_size(v, typed) - last.size + (last.capacity or last.size) - 1, v.base))


def assigned(v: Vocabulary, item: Item, inverse: bool = False) -> int:
    """The number within its space that a fragment is written as, or the fragment that a number is written for."""
    space, number = v.spaces[item[0]], item[1]
    radices = radices_of(v.base, len(digits_of(space.size - 1, v.base)))
    change = space.assignment.inverse if inverse else space.assignment.forward
    (found,) = integers_of(change(numbers_of([number], v), space.size, radices))
    return found


def numbers_of(integers: list[int], v: Vocabulary | None = None) -> Numbers:
    """Integers as arrays hold them: as int64, or in limbs where the vocabulary has ids that don't fit."""
    if v is None or fragment_size(v, None) <= 2**63:
        return np.array(integers, np.int64)
    limbs = [[number >> 32 * limb & 0xFFFFFFFF for limb in range(v.limbs)] for number in integers]
    return np.array(limbs, np.uint32).reshape(len(integers), v.limbs)


def integers_of(numbers: Numbers) -> list[int]:
    """The integers that an array holds."""
    if numbers.ndim == 1:
        return [int(number) for number in numbers.tolist()]
    return [sum(value << 32 * limb for limb, value in enumerate(row)) for row in numbers.tolist()]


def encode_item(v: Vocabulary, marker: int, item: Item, position: int) -> list[int]:
    space, number = item
    typed = space_of_marker(v, marker)
    if space == GENERAL:
        if not holds_general(v, marker):
            raise ValueError("a general token in a typed segment")
        return [1 + number]
    if typed not in (None, space):
        raise ValueError("a fragment that can't stand here")
    digits = digits_of(assigned(v, item) + (offset(v, space) if typed is None else 0), v.base)
    if v.width == "fixed":
        digits = [0] * (digit_places(v, typed) - len(digits)) + digits
    check = [check_digit_of(v, digits)] if v.check_digit else []
    run = (digits if v.digit_order == "big" else digits[::-1]) + check
    written = [1 + v.general + v.positions + digit for digit in run]
    if v.position == "none":
        return written
    places = digits_of(position, v.positions)
    if len(places) > v.position_places:
        raise ValueError("no position token is left")
    places = [0] * (v.position_places - len(places)) + places
    place = [1 + v.general + digit for digit in places]
    return place + written if v.position == "before" else written + place


def encode_segment(v: Vocabulary, segment: Segment, order: list[int] | None = None) -> list[int]:
    """Tokens of one segment, its items in this order of writing; ValueError where it can't be written."""
    marker, items = segment
    aos = 1 + v.general + v.positions + v.digits
    opening = [] if marker == UNMARKED else [aos + 1 + marker]
    order = list(range(len(items))) if order is None else order
    is_general = [items[number][0] == GENERAL for number in order]
    generals_of_order = [number for number, first in zip(order, is_general) if first]
    if generals_of_order != sorted(generals_of_order) or (v.position == "none" and order != sorted(order)):
        raise ValueError("nothing says where these stood")
    written = [encode_item(v, marker, items[number], number + 1) for number in order]
    if not is_grouped(v, marker):
        return opening + sum(written, [])
    if v.position == "none" and is_general != sorted(is_general, reverse=True):
        raise ValueError("nothing says where the general token stood")
    generals = [token for tokens, first in zip(written, is_general) if first for token in tokens]
    fragments = [token for tokens, first in zip(written, is_general) if not first for token in tokens]
    return [*opening, *generals, aos, *fragments]


def encode(v: Vocabulary, document: Document, orders: list[list[int]] | None = None) -> list[int]:
    """Tokens of a document; `orders` has the order of writing of each of its segments."""
    tokens = []
    for segment, order in zip(document, orders or [None] * len(document)):
        tokens += encode_segment(v, segment, order)
    if "eos" in v.control:
        tokens.append(2 + v.general + v.positions + v.digits + v.control.index("eos"))
    return tokens


class Row(NamedTuple):
    """What is read at one token, in the order of `Reading`."""

    kind: int
    error: int
    id: int
    position: int
    segment: int
    length: int


class _Word(NamedTuple):
    """Digits and position tokens that belong together, as they stand in the stream; the last of them is at `end`."""

    end: int
    digits: list[int]
    places: list[int]
    error: int
    typed: int | None


def read(v: Vocabulary, tokens: list[int]) -> list[Row]:
    """Reads a stream from left to right. A segment ends where a control token or the end of the stream stands."""
    first_position, first_digit = 1 + v.general, 1 + v.general + v.positions
    aos = first_digit + v.digits
    rows: list[Row] = []
    words: list[_Word] = []
    marker, segment, aos_seen, items = UNMARKED, 0, False, 0

    def close_segment() -> None:
        taken: set[int] = set()
        for word in words:
            rows[word.end] = _word_row(v, word, items, taken, segment)
        words.clear()

    while len(rows) < len(tokens):
        here = len(rows)
        token = tokens[here]
        typed, grouped = space_of_marker(v, marker), is_grouped(v, marker)
        wrong_place = Row(Kind.ERROR, Error.WRONG_PLACE, -1, 0, segment, 0)
        if token == PAD:
            rows.append(Row(Kind.PAD, 0, -1, 0, segment, 0))
        elif 1 <= token < first_position:
            items += 1
            misplaced = not holds_general(v, marker) or (grouped and aos_seen)
            rows.append(wrong_place if misplaced else Row(Kind.GENERAL, 0, token - 1, 0, segment, 1))
        elif token == aos:
            rows.append(wrong_place if not grouped or aos_seen else Row(Kind.AOS, 0, -1, 0, segment, 0))
            aos_seen = True
        elif aos < token <= aos + len(v.control):
            close_segment()
            marker, segment, aos_seen, items = token - aos - 1, segment + 1, False, 0
            rows.append(Row(Kind.CONTROL, 0, marker, 0, segment, 0))
        elif not first_position <= token < aos:
            rows.append(Row(Kind.ERROR, Error.NOT_A_TOKEN, -1, 0, segment, 0))
        elif v.position == "none" and token < first_digit:
            rows.append(wrong_place)
        else:
            items += 1
            word = _next_word(v, tokens, here, typed)
            if grouped and not aos_seen:
                word = word._replace(error=Error.WRONG_PLACE)
            words.append(word)
            rows.extend([Row(Kind.PART, 0, -1, 0, segment, 0)] * (word.end - here + 1))
    close_segment()
    return rows


def _next_word(v: Vocabulary, tokens: list[int], here: int, typed: int | None) -> _Word:
    """The digits and the position tokens that belong together, from `here` on.

    Of a run of position tokens, as many as a position has places belong to the digits at their side; each of the
    others is a word by itself.
    """
    first_position, first_digit = 1 + v.general, 1 + v.general + v.positions
    aos = first_digit + v.digits
    most = digit_places(v, typed) + v.check_digit

    def run(at: int, start: int, end: int) -> list[int]:
        found: list[int] = []
        while at < len(tokens) and start <= tokens[at] < end:
            found.append(tokens[at] - start)
            at += 1
        return found

    if v.position == "none":
        places, digits = [], run(here, first_digit, aos)[:most]
    elif v.position == "before":
        places = run(here, first_position, first_digit)
        if len(places) > v.position_places:
            places, digits = places[:1], []  # too far from the digits
        else:
            digits = run(here + len(places), first_digit, aos)
    else:
        digits = run(here, first_digit, aos)
        places = run(here + len(digits), first_position, first_digit)[: v.position_places]
        position_before = here > 0 and first_position <= tokens[here - 1] < first_digit
        if not digits and position_before:
            places = places[:1]
    at = here + len(digits) + len(places)
    nothing_follows = at == len(tokens) or tokens[at] == PAD
    return _Word(at - 1, digits, places, _shape_error(v, digits, places, nothing_follows, typed), typed)


def _shape_error(v: Vocabulary, digits: list[int], places: list[int], nothing_follows: bool, typed: int | None) -> int:
    """Whether a fragment has its parts. A part that the end of the stream took away is cut off, not missing."""
    if not digits:
        return Error.CUT_OFF if v.position == "before" and nothing_follows else Error.POSITION_WITHOUT_DIGITS
    if v.position != "none" and len(places) < v.position_places:
        if v.position == "after" and nothing_follows:
            return Error.CUT_OFF
        return Error.POSITION_INCOMPLETE if places else Error.DIGITS_WITHOUT_POSITION
    most = digit_places(v, typed) + v.check_digit
    least = most if v.width == "fixed" else 1 + v.check_digit
    if len(digits) < least:
        return Error.CUT_OFF if v.position != "after" and nothing_follows else Error.WRONG_WIDTH
    return Error.WRONG_WIDTH if len(digits) > most else Error.NONE


def _word_row(v: Vocabulary, word: _Word, items: int, taken: set[int], segment: int) -> Row:
    """What the last token of a fragment reports, now that the segment's number of items is known."""
    error = word.error
    digits = word.digits[: len(word.digits) - v.check_digit]
    digits = digits if v.digit_order == "big" else digits[::-1]
    position = number_of(word.places, v.positions)
    if error == Error.NONE:
        error = _value_error(v, word, digits, position, items, taken)
    if error != Error.NONE:
        return Row(Kind.ERROR, error, -1, 0, segment, 0)
    taken.add(position)
    secondary = number_of(digits, v.base) + (0 if word.typed is None else offset(v, word.typed))
    return Row(Kind.FRAGMENT, 0, secondary, position, segment, len(word.digits) + len(word.places))


def _value_error(v: Vocabulary, word: _Word, digits: list[int], position: int, items: int, taken: set[int]) -> int:
    largest = max(v.base) if isinstance(v.base, tuple) else v.base
    radices = radices_of(v.base, len(digits))
    if any(digit >= radix for digit, radix in zip(digits, radices)) or (v.check_digit and word.digits[-1] >= largest):
        return Error.DIGIT_NOT_BELOW_BASE
    if v.width == "minimal" and digits[0] == 0 and len(digits) > 1:
        return Error.LEADING_ZERO
    if number_of(digits, v.base) >= fragment_size(v, word.typed):
        return Error.ID_OUT_OF_RANGE
    if v.check_digit and word.digits[-1] != check_digit_of(v, digits):
        return Error.WRONG_CHECK_DIGIT
    if v.position == "none":
        return Error.NONE
    if position == 0:
        return Error.POSITION_ZERO
    if position > items:
        return Error.POSITION_OUT_OF_RANGE
    return Error.POSITION_TWICE if position in taken else Error.NONE


def document_of(v: Vocabulary, rows: list[Row]) -> Document:
    """The document that a well-formed stream says; positions put the items of a segment in order."""
    segments: list[tuple[int, list[Row]]] = [(UNMARKED, [])]
    for row in rows:
        if row.kind == Kind.CONTROL and v.control[row.id] != "eos":
            segments.append((row.id, []))
        elif row.kind in (Kind.GENERAL, Kind.FRAGMENT, Kind.AOS):
            segments[-1][1].append(row)
    if len(segments) > 1 and not segments[0][1]:
        segments.pop(0)  # the first segment has a marker
    return [(marker, _items(v, read)) for marker, read in segments]


def _items(v: Vocabulary, rows: list[Row]) -> list[Item]:
    rows = [row for row in rows if row.kind != Kind.AOS]
    if v.position != "none":
        generals = iter([row for row in rows if row.kind == Kind.GENERAL])
        fragments = {row.position: row for row in rows if row.kind == Kind.FRAGMENT}
        rows = [fragments.get(place) or next(generals) for place in range(1, len(rows) + 1)]
    return [(GENERAL, row.id) if row.kind == Kind.GENERAL else _local(v, row.id) for row in rows]


def _local(v: Vocabulary, secondary: int) -> Item:
    space = 0
    while secondary >= v.spaces[space].size:
        secondary -= v.spaces[space].size
        space += 1
    return space, assigned(v, (space, secondary), inverse=True)


def all_segments(v: Vocabulary, marker: int, most_tokens: int, least: int, most: int) -> Iterator[Segment]:
    """Every segment of least … most items that this marker opens and that takes no more tokens."""
    choices = [(GENERAL, number) for number in range(v.general)]
    choices += [(space, number) for space in range(len(v.spaces)) for number in range(v.spaces[space].size)]
    waiting: list[list[Item]] = [[]]
    while waiting:
        items = waiting.pop()
        try:
            tokens = encode_segment(v, (marker, items))
        except ValueError:
            continue  # more items don't make it valid
        if len(tokens) <= most_tokens:
            if len(items) >= least:
                yield marker, items
            if len(items) < most:
                waiting += [[*items, choice] for choice in choices]


def all_documents(
    v: Vocabulary, most_tokens: int, items: dict[str, tuple[int, int]], markers: list[int]
) -> list[list[int]]:
    """Tokens of every document with these markers (or `UNMARKED`) that takes no more tokens, `eos` not counted."""
    segments = {}
    for marker in markers:
        bounds = items.get(v.control[marker], (0, most_tokens)) if marker != UNMARKED else (0, most_tokens)
        written = [encode_segment(v, segment) for segment in all_segments(v, marker, most_tokens, *bounds)]
        segments[marker] = [tokens for tokens in written if tokens]  # what leaves no trace is no segment
    marked = [tokens for marker in markers if marker != UNMARKED for tokens in segments[marker]]
    found = {tuple(tokens) for marker in markers for tokens in segments[marker]}
    waiting = list(found)
    while waiting:
        tokens = waiting.pop()
        for more in marked:
            longer = (*tokens, *more)
            if len(longer) <= most_tokens and longer not in found:
                found.add(longer)
                waiting.append(longer)
    return [[*tokens, *encode(v, [])] for tokens in sorted(found)]


def legal_next(v: Vocabulary, documents: list[list[int]]) -> dict[tuple[int, ...], set[int]]:
    """The tokens that follow each prefix of some document; after a whole document, and from then on, `pad`."""
    follows: dict[tuple[int, ...], set[int]] = {}
    for tokens in documents:
        for place, token in enumerate([*tokens, PAD]):
            follows.setdefault(tuple(tokens[:place]), set()).add(token)
    return follows


def slow_kinds(vocabulary: Vocabulary, tokens: list[int]) -> list[str]:
    """The kind of each token, by what it is and how many digits stand right before it."""
    kinds, place = [], 0
    for token in tokens:
        digit = vocabulary.digit_start <= token < vocabulary.aos
        if digit:
            kinds.append(f"digit_{place}")
        elif token == 0:
            kinds.append("pad")
        elif token < vocabulary.position_start:
            kinds.append("general")
        elif token < vocabulary.digit_start:
            kinds.append("position")
        else:
            kinds.append("aos" if token == vocabulary.aos else "control")
        place = place + 1 if digit else 0
    return kinds


class Bits(NamedTuple):
    """Bits of the item that ends at a token; of its digits by place, the most significant first."""

    content: float
    position: float
    check: float
    places: list[float]


def item_bits(v: Vocabulary, tokens: list[int], bits: list[float]) -> list[Bits]:
    """Sums the bits of the tokens of each item."""
    places = max(digit_places(v, typed) for typed in (None, *range(len(v.spaces))))
    found = []
    for at, row in enumerate(read(v, tokens)):
        parts = bits[at + 1 - row.length : at + 1]
        if row.kind != Kind.FRAGMENT:
            found.append(Bits(sum(parts), 0.0, 0.0, [0.0] * places))
            continue
        split = {"before": v.position_places, "none": 0, "after": len(parts) - v.position_places}[v.position]
        position, run = (parts[split:], parts[:split]) if v.position == "after" else (parts[:split], parts[split:])
        check = run.pop() if v.check_digit else 0.0
        digits = run if v.digit_order == "big" else run[::-1]
        found.append(Bits(sum(digits), sum(position), check, digits + [0.0] * (places - len(digits))))
    return found


def to_library(documents: list[Document], v: Vocabulary | None = None) -> library.Documents:
    """The same documents as the encoder takes them; ids beyond int64 need the vocabulary, which knows their limbs."""
    return library.Documents.of(
        [
            library.Segment(
                marker,
                np.array([space for space, _ in items], np.int32),
                numbers_of([number for _, number in items], v),
            )
            for marker, items in document
        ]
        for document in documents
    )


def markers(v: Vocabulary) -> list[int]:
    """What can open a segment."""
    return [index for index, name in enumerate(v.control) if name != "eos"]


def random_document(v: Vocabulary, source: random.Random, most_tokens: int) -> Document:
    """A valid document of at most so many tokens, from one item or none up to as many as fit."""
    document: Document = []
    for _ in range(source.randint(1, 3) if v.control else 1):
        marker = source.choice(markers(v) + ([] if document else [UNMARKED]))
        if len(encode(v, [*document, (marker, [])])) > most_tokens:
            break
        document.append((marker, []))
        typed = space_of_marker(v, marker)
        spaces = [GENERAL] if holds_general(v, marker) and v.general else []
        spaces += range(len(v.spaces)) if typed is None else [typed]
        for _ in range(source.randint(0, 6)):
            space = source.choice(spaces)
            size = v.general if space == GENERAL else v.spaces[space].size
            item = (space, source.choice([0, size - 1, source.randrange(size), source.randrange(size)]))
            longer = [*document[:-1], (marker, [*document[-1][1], item])]
            try:
                if len(encode(v, longer)) <= most_tokens:
                    document = longer
            except ValueError:
                pass
    # Inline, a segment without marker and items would leave no trace.
    traceless = v.layout == "inline" and document[0] == (UNMARKED, [])
    return random_document(v, source, most_tokens) if traceless else document


def random_documents(v: Vocabulary, count: int, most_tokens: int, seed: int) -> list[Document]:
    """So many of them, always the same."""
    source = random.Random(seed)
    return [random_document(v, source, most_tokens) for _ in range(count)]
