"""Segments of one space under several markers, and segments that hold general tokens and fragments in their order."""

from __future__ import annotations

import itertools
import random
from typing import Any

import numpy as np
import pytest
import reference
from hypothesis import given, settings
from hypothesis import strategies as st
from test_round_trip import check

from omnijax.errors import VocabularyError
from omnijax.vocab import Documents, GeneralIds, Marker, SecondaryIds, Segment, Space, Vocabulary, encode
from omnijax.vocab.cost import Count, item_digits, segment_tokens
from omnijax.vocab.documents import GENERAL

WAYS = [way for way in itertools.product(["grouped", "inline"], ["after", "before", "none"], ["minimal", "fixed"])
        if way[1:] != ("none", "minimal")]  # fmt: skip


def large(layout: Any, position: Any, width: Any, **changes: Any) -> Vocabulary:
    """A vocabulary with two spaces: pieces have 2 digits, and patches have 12."""
    parts: dict[str, Any] = {
        "positions": 3 if position == "none" else 9,
        "digits": 256,
        "base": 256,
        "spaces": (Space("piece", 2**16), Space("patch", 2**96)),
        "control": ("caption", "photo", "painting", "piece", "note", "eos"),
        "markers": (
            Marker("caption", "piece", general=True),
            Marker("photo", "patch"),
            Marker("painting", "patch"),
            Marker("note", "patch", general=True),
        ),
    }
    return Vocabulary(layout=layout, position=position, width=width, **{**parts, **changes})


@pytest.mark.parametrize("layout", ["grouped", "inline"])
def test_a_piece_in_a_caption_is_written_in_its_own_digits(layout: str) -> None:
    """Bytes and pieces: two digits for each piece, though ids on the common line would take 13."""
    v = large(layout, "before", "fixed")
    assert v.most_digits == 13
    spaces, ids = np.array([GENERAL, 0, GENERAL, 0], np.int32), np.array([65, 258, 66, 2**16 - 1])
    caption = Segment(v.control.index("caption"), spaces, ids)
    tokens = [v.symbols()[token] for token in encode(v, Documents.of([[caption]])).tokens.array]
    assert tokens == ["caption", "A", "p_2", "v_1", "v_2", "B", "p_4", "v_255", "v_255", "eos"]
    assert item_digits(v, "piece") == Count(2, 2, 2)
    assert segment_tokens(v, "caption", Count(4, 4, 4)) == Count(13, 13, 13)
    assert segment_tokens(v, "photo", Count(1, 1, 1)) == Count(14, 14, 14).plus(int(layout == "grouped"))


@pytest.mark.parametrize("way", WAYS, ids=str)
@settings(max_examples=6)
@given(seed=st.integers(0, 2**32))
def test_what_is_written_comes_back(way: tuple[str, str, str], seed: int) -> None:
    """The encoder writes the same tokens as the slow reference, for documents with all these segments."""
    v = large(*way, digit_order=("big", "little")[seed % 2], check_digit=seed % 3 == 0)
    source = random.Random(seed)
    check(v, [reference.random_document(v, source, 80) for _ in range(4)], seed, decoded=False)


# Those of `make test` have each layout, each position and each width.
@pytest.mark.parametrize(
    "way", [pytest.param(way, marks=() if way in WAYS[::4] else pytest.mark.proof) for way in WAYS], ids=str
)
def test_the_decoder_reads_them_back(way: tuple[str, str, str]) -> None:
    v, source = large(*way), random.Random(str(way))
    check(v, [reference.random_document(v, source, 80) for _ in range(8)], seed=1)


def test_two_markers_of_one_space_write_the_same_digits() -> None:
    v = large("grouped", "after", "minimal")
    patch = SecondaryIds("patch", np.array([[1, 2, 3]], np.uint32))
    one, other = (
        encode(v, Documents.of([[Segment.of(v, name, patch)]])).tokens.array for name in ("photo", "painting")
    )
    assert one[1:].tolist() == other[1:].tolist()
    assert one[0] + 1 == other[0]


@pytest.mark.parametrize(
    "marker, ids",
    [
        ("caption", SecondaryIds("patch", np.array([1]))),
        ("photo", SecondaryIds("piece", np.array([1]))),
        ("photo", GeneralIds(np.array([1]))),
        ("piece", GeneralIds(np.array([1]))),
    ],
)
def test_foreign_items_are_refused(marker: str, ids: Any) -> None:
    v = large("grouped", "before", "fixed")
    with pytest.raises(VocabularyError, match="holds fragments of one space, and general tokens only if"):
        encode(v, Documents.of([[Segment.of(v, marker, ids)]]))


def test_more_items_than_positions_are_refused() -> None:
    """Positions count all items, but only fragments write one."""
    v = large("grouped", "before", "fixed")
    spaces = np.array([GENERAL] * 8 + [0, GENERAL], np.int32)
    caption = v.control.index("caption")
    with pytest.raises(VocabularyError, match="item 9 of segment 0"):
        encode(v, Documents.of([[Segment(caption, spaces, np.arange(10))]]))
    assert encode(v, Documents.of([[Segment(caption, np.roll(spaces, -1), np.arange(10))]])).tokens.array.size == 14
