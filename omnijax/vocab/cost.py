"""What writing costs, from the vocabulary alone: digits and tokens of items, segments and documents.

`encode` writes exactly these numbers of tokens. If a number depends on the ids (minimal width) or on the number of
items, a `Count` has the smallest, the mean and the largest value. A mean assumes that all ids of a space are equally
frequent, so that the assignment makes no difference.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import operator
from collections.abc import Iterable
from typing import NamedTuple

from omnijax.errors import VocabularyError
from omnijax.vocab.radix import Base, radices_of, width_of
from omnijax.vocab.vocabulary import Space, Vocabulary


class Count(NamedTuple):
    """The smallest value, the mean, and the largest value of a number that may vary."""

    least: int
    mean: float
    most: int

    def plus(self, other: Count | int) -> Count:
        """The sum of this number and another one, or a constant."""
        return Count(*map(operator.add, self, other if isinstance(other, Count) else (other,) * 3))

    def times(self, other: Count) -> Count:
        """The product of this number and an independent one."""
        return Count(*map(operator.mul, self, other))


def rebased(vocabulary: Vocabulary, base: Base) -> Vocabulary:
    """The same vocabulary in another radix, with as many digit tokens; a bad radix raises a `VocabularyError`."""
    if base == vocabulary.base:
        return vocabulary
    return dataclasses.replace(vocabulary, base=base, digits=max(base) if isinstance(base, tuple) else base)


def item_digits(vocabulary: Vocabulary, space: str) -> Count:
    """Digits of a fragment, without its check digit; raises a `VocabularyError` if no space has this name.

    If a marker opens segments of the space, the fragment is in such a segment; otherwise in an untyped segment.
    """
    index, tables = vocabulary.space_index(space), vocabulary.contexts
    context = 1 + index if index in tables.spaces[tables.of_control] else 0
    widest = int(tables.widths[context])
    if vocabulary.width == "fixed":
        return Count(widest, widest, widest)
    first = 0 if context else tables.offsets[1 + index]
    end = first + vocabulary.spaces[index].size
    # Numbers from the product of the last k radices on have more than k digits. All numbers have more than 0.
    reaches = [math.prod(radices_of(vocabulary.base, k)) if k else 0 for k in range(widest)]
    longer = [end - max(first, reach) for reach in reaches if reach < end]
    return Count(sum(count == end - first for count in longer), sum(longer) / (end - first), len(longer))


def item_tokens(vocabulary: Vocabulary, space: str | None) -> Count:
    """Tokens of a fragment of this space (digits, check digit, position), or of a general token if it is None.

    Raises a `VocabularyError` if no space has this name.
    """
    if space is None:
        return Count(1, 1, 1)
    return item_digits(vocabulary, space).plus(vocabulary.fragment_tokens(0) - int(vocabulary.contexts.widths[0]))


def segment_tokens(vocabulary: Vocabulary, marker: str, items: Count) -> Count:
    """Tokens of a segment of items of one kind: its marker, its items, and `aos` if it has one. `eos` isn't counted.

    `marker` is the name of the control token that opens the segment. If the segment is typed, all items are fragments
    of its space; otherwise they are general tokens. Raises a `VocabularyError` if no marker has this name, or if there
    are more items than positions.
    """
    space = space_of(vocabulary, marker)
    if space is not None and vocabulary.position != "none" and items.most > vocabulary.last_position:
        rule = f"the last position that can be written is {vocabulary.last_position}"
        fix = "raise vocabulary.positions or vocabulary.position_places"
        raise VocabularyError(f"items of a segment of {marker}", items.most, rule, fix)
    each, context = item_tokens(vocabulary, space.name if space else None), vocabulary.context(marker)
    return items.times(each).plus(1 + int(vocabulary.contexts.grouped[context]))


def position_tokens(items: int) -> tuple[int, int]:
    """Number of position tokens, and places of a position, that number the items of the longest segment.

    These are the fewest places with at most 256 tokens, and then the fewest tokens. Positions count from 1.

    >>> position_tokens(255), position_tokens(256), position_tokens(1024)
    ((256, 1), (17, 2), (33, 2))
    """
    places = width_of(items, 256)
    return next(positions for positions in range(2, 257) if positions**places > items), places


def document_tokens(vocabulary: Vocabulary, segments: Iterable[Count]) -> Count:
    """Number of tokens of a document: the sum over its segments, and one for `eos` if the vocabulary has it."""
    end = int(vocabulary.end is not None)
    return functools.reduce(Count.plus, segments, Count(end, end, end))


def space_of(vocabulary: Vocabulary, marker: str) -> Space | None:
    """The space of the segments that a marker opens; None if they are untyped."""
    index = vocabulary.contexts.spaces[vocabulary.context(marker)]
    return None if index < 0 else vocabulary.spaces[index]
