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
from omnijax.vocab.vocabulary import Space, Vocabulary

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
        # With fixed width, several spaces need markers: the plain vocabulary has one space then.
        spaces = (Space("t", 1), Space("x", 5), Space("y", 7)) if width == "minimal" else (Space("x", 13),)
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
    # No general tokens, a space that no marker opens and that can't be written, a control token that is no space.
    found["narrow"] = Vocabulary(
        general=0,
        positions=4,
        digits=5,
        base=5,
        spaces=(Space("image", 26), Space("unwritable", 3)),
        control=("text", "image"),
        position="before",
        width="fixed",
    )
    return found


VOCABULARIES = _vocabularies()


def digits_of(number: int, base: int) -> list[int]:
    """Most significant first, no leading zeros; 0 is one digit."""
    digits = [number % base]
    while number >= base:
        number //= base
        digits.insert(0, number % base)
    return digits


def space_of_marker(v: Vocabulary, marker: int) -> int | None:
    """The space that a segment is of; None where it is untyped."""
    for index, space in enumerate(v.spaces):
        if marker != UNMARKED and v.control[marker] == space.name:
            return index
    return None


def fragment_size(v: Vocabulary, typed: int | None) -> int:
    """Ids that can be written in a segment of this type; 0 where no fragment can stand."""
    if typed is not None:
        return v.spaces[typed].size
    if v.width == "fixed" and len(v.spaces) > 1:
        return 0
    return sum(space.size for space in v.spaces)


def offset(v: Vocabulary, space: int) -> int:
    """Secondary id of the first fragment of a space."""
    return sum(before.size for before in v.spaces[:space])


def digit_places(v: Vocabulary, typed: int | None) -> int:
    """Digits of the largest id that can be written in such a segment; 0 where there is none."""
    size = fragment_size(v, typed)
    return len(digits_of(size - 1, v.base)) if size else 0


def encode_item(v: Vocabulary, typed: int | None, item: Item, position: int) -> list[int]:
    space, number = item
    if space == GENERAL:
        if typed is not None:
            raise ValueError("a general token in a typed segment")
        return [1 + number]
    if fragment_size(v, typed) == 0 or typed not in (None, space):
        raise ValueError("a fragment that can't stand here")
    digits = digits_of(number if typed is not None else offset(v, space) + number, v.base)
    if v.width == "fixed":
        digits = [0] * (digit_places(v, typed) - len(digits)) + digits
    written = [1 + v.general + v.positions + digit for digit in digits]
    if v.position == "none":
        return written
    if position >= v.positions:
        raise ValueError("no position token is left")
    place = [1 + v.general + position]
    return place + written if v.position == "before" else written + place


def encode_segment(v: Vocabulary, segment: Segment) -> list[int]:
    """Tokens of one segment; ValueError where it can't be written."""
    marker, items = segment
    aos = 1 + v.general + v.positions + v.digits
    opening = [] if marker == UNMARKED else [aos + 1 + marker]
    typed = space_of_marker(v, marker)
    written = [encode_item(v, typed, item, position) for position, item in enumerate(items, start=1)]
    if v.layout == "inline":
        return opening + sum(written, [])
    is_general = [space == GENERAL for space, _ in items]
    if v.position == "none" and is_general != sorted(is_general, reverse=True):
        raise ValueError("nothing says where the general token stood")
    generals = [token for tokens, first in zip(written, is_general) if first for token in tokens]
    fragments = [token for tokens, first in zip(written, is_general) if not first for token in tokens]
    return [*opening, *generals, aos, *fragments]


def encode(v: Vocabulary, document: Document) -> list[int]:
    tokens = [token for segment in document for token in encode_segment(v, segment)]
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
    """Digits with or without a position token, as they stand in the stream; the last of them is at `end`."""

    end: int
    digits: list[int]
    position: int | None
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
        typed = space_of_marker(v, marker)
        wrong_place = Row(Kind.ERROR, Error.WRONG_PLACE, -1, 0, segment, 0)
        if token == PAD:
            rows.append(Row(Kind.PAD, 0, -1, 0, segment, 0))
        elif 1 <= token < first_position:
            items += 1
            misplaced = typed is not None or (v.layout == "grouped" and aos_seen)
            rows.append(wrong_place if misplaced else Row(Kind.GENERAL, 0, token - 1, 0, segment, 1))
        elif token == aos:
            rows.append(wrong_place if v.layout == "inline" or aos_seen else Row(Kind.AOS, 0, -1, 0, segment, 0))
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
            if fragment_size(v, typed) == 0 or (v.layout == "grouped" and not aos_seen):
                word = word._replace(error=Error.WRONG_PLACE)
            words.append(word)
            rows.extend([Row(Kind.PART, 0, -1, 0, segment, 0)] * (word.end - here + 1))
    close_segment()
    return rows


def _next_word(v: Vocabulary, tokens: list[int], here: int, typed: int | None) -> _Word:
    """The digits and the position token that belong together, from `here` on."""
    first_position, first_digit = 1 + v.general, 1 + v.general + v.positions
    aos = first_digit + v.digits
    most = digit_places(v, typed) if v.position == "none" else 0
    digits: list[int] = []
    position = None
    at = here
    if v.position == "before" and first_position <= tokens[at] < first_digit:
        position = tokens[at] - first_position
        at += 1
    while at < len(tokens) and first_digit <= tokens[at] < aos and not (most and len(digits) == most):
        digits.append(tokens[at] - first_digit)
        at += 1
    if v.position == "after" and at < len(tokens) and first_position <= tokens[at] < first_digit:
        position = tokens[at] - first_position
        at += 1
    nothing_follows = at == len(tokens) or tokens[at] == PAD
    return _Word(at - 1, digits, position, _shape_error(v, digits, position, nothing_follows, typed), typed)


def _shape_error(
    v: Vocabulary, digits: list[int], position: int | None, nothing_follows: bool, typed: int | None
) -> int:
    """Whether a fragment has its parts. A part that the end of the stream took away is cut off, not missing."""
    if not digits:
        return Error.CUT_OFF if v.position == "before" and nothing_follows else Error.POSITION_WITHOUT_DIGITS
    if v.position != "none" and position is None:
        return Error.CUT_OFF if v.position == "after" and nothing_follows else Error.DIGITS_WITHOUT_POSITION
    if v.width == "fixed" and len(digits) != digit_places(v, typed):
        too_few = len(digits) < digit_places(v, typed)
        return Error.CUT_OFF if too_few and v.position != "after" and nothing_follows else Error.WRONG_WIDTH
    return Error.NONE


def _word_row(v: Vocabulary, word: _Word, items: int, taken: set[int], segment: int) -> Row:
    """What the last token of a fragment reports, now that the segment's number of items is known."""
    number = 0
    for digit in word.digits:
        number = number * v.base + digit
    error = word.error
    if error == Error.NONE:
        error = _value_error(v, word, number, items, taken)
    if error != Error.NONE:
        return Row(Kind.ERROR, error, -1, 0, segment, 0)
    if word.position is not None:
        taken.add(word.position)
    secondary = number + (0 if word.typed is None else offset(v, word.typed))
    length = len(word.digits) + (word.position is not None)
    return Row(Kind.FRAGMENT, 0, secondary, word.position or 0, segment, length)


def _value_error(v: Vocabulary, word: _Word, number: int, items: int, taken: set[int]) -> int:
    if max(word.digits) >= v.base:
        return Error.DIGIT_NOT_BELOW_BASE
    if v.width == "minimal" and word.digits[0] == 0 and len(word.digits) > 1:
        return Error.LEADING_ZERO
    if number >= fragment_size(v, word.typed):
        return Error.ID_OUT_OF_RANGE
    if word.position is None:
        return Error.NONE
    if word.position == 0:
        return Error.POSITION_ZERO
    if word.position > items:
        return Error.POSITION_OUT_OF_RANGE
    return Error.POSITION_TWICE if word.position in taken else Error.NONE


def document_of(v: Vocabulary, rows: list[Row]) -> Document:
    """The document that a well-formed stream says; positions put the items of a grouped segment in order."""
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
    if v.layout == "grouped" and v.position != "none":
        generals = iter([row for row in rows if row.kind == Kind.GENERAL])
        fragments = {row.position: row for row in rows if row.kind == Kind.FRAGMENT}
        rows = [fragments.get(place) or next(generals) for place in range(1, len(rows) + 1)]
    return [(GENERAL, row.id) if row.kind == Kind.GENERAL else _local(v, row.id) for row in rows]


def _local(v: Vocabulary, secondary: int) -> Item:
    space = 0
    while secondary >= v.spaces[space].size:
        secondary -= v.spaces[space].size
        space += 1
    return space, secondary


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


class Bits(NamedTuple):
    """Bits of the item that ends at a token."""

    content: float
    position: float
    places: list[float]


def item_bits(v: Vocabulary, tokens: list[int], bits: list[float]) -> list[Bits]:
    """Sums the bits of the tokens of each item."""
    places = max(digit_places(v, typed) for typed in (None, *range(len(v.spaces))))
    found = []
    for at, row in enumerate(read(v, tokens)):
        parts = bits[at + 1 - row.length : at + 1]
        position = 0.0
        if row.kind == Kind.FRAGMENT and v.position == "after":
            position = parts.pop()
        if row.kind == Kind.FRAGMENT and v.position == "before":
            position = parts.pop(0)
        by_place = parts if row.kind == Kind.FRAGMENT else []
        found.append(Bits(sum(parts), position, by_place + [0.0] * (places - len(by_place))))
    return found


def to_library(documents: list[Document]) -> library.Documents:
    """The same documents as the encoder takes them."""
    return library.Documents.of(
        [
            library.Segment(
                marker,
                np.array([space for space, _ in items], np.int32),
                np.array([number for _, number in items], np.int64),
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
        spaces = [GENERAL] if typed is None and v.general else []
        if fragment_size(v, typed):
            spaces += range(len(v.spaces)) if typed is None else [typed]
        for _ in range(source.randint(0, 6) if spaces else 0):
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
