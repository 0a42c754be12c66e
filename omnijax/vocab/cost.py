"""What writing costs, from the vocabulary alone: digits and tokens of items, segments and documents.

`encode` writes exactly these many. Where that depends on the ids (minimal width) or on the number of items, a `Count`
says the least, the mean and the most. A mean takes the ids of a space to be drawn evenly: no assignment changes it.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable
from typing import NamedTuple

from omnijax.errors import VocabularyError
from omnijax.vocab.radix import Base, radices_of
from omnijax.vocab.vocabulary import Space, Vocabulary


class Count(NamedTuple):
    """A number that may vary.

    Attributes:
        least: smallest that there is.
        mean: on average.
        most: largest that there is.
    """

    least: int
    mean: float
    most: int

    def plus(self, other: Count | int) -> Count:
        """The sum of two, or of one and a constant."""
        least, mean, most = other if isinstance(other, Count) else (other, other, other)
        return Count(self.least + least, self.mean + mean, self.most + most)

    def times(self, other: Count) -> Count:
        """The product of two that don't depend on each other."""
        return Count(self.least * other.least, self.mean * other.mean, self.most * other.most)


def rebased(vocabulary: Vocabulary, base: Base) -> Vocabulary:
    """The same vocabulary in another radix, with exactly the digit tokens that this one needs.

    Raises:
        VocabularyError: the radix can't be, or can't write the ids of this vocabulary.
    """
    if base == vocabulary.base:
        return vocabulary
    return dataclasses.replace(vocabulary, base=base, digits=max(base) if isinstance(base, tuple) else base)


def item_digits(vocabulary: Vocabulary, space: str) -> Count:
    """Digits of a fragment, its check digit not counted.

    In a typed segment if there is a marker for the space, else in an untyped one.

    Raises:
        VocabularyError: there is no space of this name.
    """
    index, tables = vocabulary.space_index(space), vocabulary.contexts
    context = 1 + index if 1 + index in tables.of_control else 0
    widest = int(tables.widths[context])
    if vocabulary.width == "fixed":
        return Count(widest, widest, widest)
    first = 0 if context else tables.offsets[1 + index]
    end = first + vocabulary.spaces[index].size
    # More than k digits have the numbers from the product of the last k radices on; more than none have all.
    reaches = [math.prod(radices_of(vocabulary.base, k)) if k else 0 for k in range(widest)]
    longer = [end - max(first, reach) for reach in reaches if reach < end]
    return Count(sum(count == end - first for count in longer), sum(longer) / (end - first), len(longer))


def item_tokens(vocabulary: Vocabulary, space: str | None) -> Count:
    """Tokens of a fragment (digits, check digit, position), or of a general token: the steps to generate it.

    Args:
        vocabulary: that it is written in.
        space: name of its space; None for a general token.

    Raises:
        VocabularyError: there is no space of this name.
    """
    if space is None:
        return Count(1, 1, 1)
    places = vocabulary.position_places if vocabulary.position != "none" else 0
    return item_digits(vocabulary, space).plus(places + int(vocabulary.check_digit))


def segment_tokens(vocabulary: Vocabulary, marker: str, items: Count) -> Count:
    """Tokens of a segment of items of one kind: marker, items, and `aos` where the layout has it; `eos` is not counted.

    Args:
        vocabulary: that it is written in.
        marker: name of the control token that opens it. With a space of this name the items are its fragments, else
            general tokens.
        items: how many there are.

    Raises:
        VocabularyError: there is no marker of this name, or there are more items than positions.
    """
    vocabulary.token(marker)
    space = space_of(vocabulary, marker)
    if space is not None and vocabulary.position != "none" and items.most > vocabulary.last_position:
        rule = f"the last position that can be written is {vocabulary.last_position}"
        fix = "raise vocabulary.positions or vocabulary.position_places"
        raise VocabularyError(f"items of a segment of {marker}", items.most, rule, fix)
    name = None if space is None else space.name
    return items.times(item_tokens(vocabulary, name)).plus(1 + int(vocabulary.layout == "grouped"))


def document_tokens(vocabulary: Vocabulary, segments: Iterable[Count]) -> Count:
    """Tokens of a document with segments of so many tokens: these, and `eos` where the vocabulary has it."""
    total = Count(0, 0, 0).plus(int(vocabulary.end is not None))
    for segment in segments:
        total = total.plus(segment)
    return total


def space_of(vocabulary: Vocabulary, marker: str) -> Space | None:
    """The space whose fragments a marker opens a segment of; None where the segment is untyped."""
    return next((space for space in vocabulary.spaces if space.name == marker), None)
