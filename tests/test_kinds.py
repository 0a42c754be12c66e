"""Kinds of tokens: every token of a document has one, and digits are told apart by their place."""

from __future__ import annotations

import random

import numpy as np
import pytest
import reference
from reference import VOCABULARIES

from omnijax.vocab import numbers
from omnijax.vocab.documents import Documents, Segment
from omnijax.vocab.encode import encode
from omnijax.vocab.ids import SecondaryIds
from omnijax.vocab.kinds import FIXED_KINDS, kind_names
from omnijax.vocab.vocabulary import Space, Vocabulary

ROWS, TOKENS = 64, 40


def kinds_of(v: Vocabulary, document: reference.Document) -> list[str]:
    """Kind of each token, from what is written for each item."""
    kinds = []
    for marker, items in document:
        tokens = reference.encode_segment(v, (marker, items))
        fragments = [
            kind
            for space, number in items
            if space != reference.GENERAL
            for kind in _kinds_of_fragment(v, marker, (space, number))
        ]
        general = ["general"] * sum(space == reference.GENERAL for space, _ in items)
        written = ["control"] * (marker != reference.UNMARKED)
        if reference.is_grouped(v, marker):
            written += [*general, "aos", *fragments]
        else:
            for space, number in items:
                is_general = space == reference.GENERAL
                written += ["general"] if is_general else _kinds_of_fragment(v, marker, (space, number))
        assert len(written) == len(tokens)
        kinds += written
    return kinds + ["control"] * ("eos" in v.control)


def _kinds_of_fragment(v: Vocabulary, marker: int, item: reference.Item) -> list[str]:
    places = 0 if v.position == "none" else v.position_places
    count = len(reference.encode_item(v, marker, item, 1)) - places - v.check_digit
    digits = [f"digit_{place}" for place in range(count)]
    run = (digits if v.digit_order == "big" else digits[::-1]) + ["check"] * v.check_digit
    position = ["position"] * places
    return run + position if v.position == "after" else position + run


@pytest.mark.parametrize("name", VOCABULARIES)
@pytest.mark.parametrize("block", [1, 7, numbers.BLOCK])
def test_kinds_of_documents(name: str, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many items are written at a time."""
    monkeypatch.setattr(numbers, "BLOCK", block)
    v, source = VOCABULARIES[name], random.Random(17)
    documents = [reference.random_document(v, source, TOKENS) for _ in range(ROWS)]
    encoded, names = encode(v, reference.to_library(documents, v)), kind_names(v)
    assert encoded.kinds.dtype == np.uint8
    assert [names[kind] for kind in encoded.kinds] == [kind for document in documents for kind in kinds_of(v, document)]


@pytest.mark.parametrize("layout", ["grouped", "inline"])
def test_kinds_follow_the_order_of_writing(layout: str) -> None:
    """Items of 1, 2 and 3 digits, written backwards."""
    v = Vocabulary(
        general=2,
        positions=9,
        digits=4,
        base=4,
        spaces=(Space("x", 64),),
        control=("x",),
        layout=layout,  # type: ignore[arg-type]
    )
    segment = Segment.of(v, "x", SecondaryIds("x", np.array([3, 7, 63])))
    encoded = encode(v, Documents.of([[segment]]), np.array([2, 1, 0]))
    written = [kind_names(v)[kind] for kind in encoded.kinds]
    items = [f"digit_{place}" if place >= 0 else "position" for place in (0, 1, 2, -1, 0, 1, -1, 0, -1)]
    assert written == ["control", *["aos"] * (layout == "grouped"), *items]


def test_more_kinds_than_bytes() -> None:
    v = Vocabulary(positions=2, digits=2, base=2, spaces=(Space("x", 2**300),), control=("x",), width="fixed")
    ids = SecondaryIds("x", np.full((1, 10), 7, np.uint32))
    kinds = encode(v, Documents.of([[Segment.of(v, "x", ids)]])).kinds
    assert kinds.dtype == np.uint16
    assert kinds.tolist() == [4, 3, *range(5, 305), 2]


def test_names() -> None:
    assert kind_names(VOCABULARIES["typed inline none fixed"]) == (*FIXED_KINDS, *(f"digit_{k}" for k in range(4)))
    assert kind_names(VOCABULARIES["little, check"])[-1] == "check"
    assert FIXED_KINDS == ("pad", "general", "position", "aos", "control")
