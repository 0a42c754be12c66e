"""Kinds of tokens: every token of a document has one, and digits are told apart by their place."""

from __future__ import annotations

import random

import jax.numpy as jnp
import numpy as np
import pytest
import reference
from reference import VOCABULARIES

from omnijax.vocab.ids import PrimaryIds
from omnijax.vocab.kinds import FIXED_KINDS, kind_names, token_kinds
from omnijax.vocab.vocabulary import Vocabulary

ROWS, TOKENS = 64, 40


def kinds_of(v: Vocabulary, document: reference.Document) -> list[str]:
    """Kind of each token, from what is written for each item."""
    kinds = []
    for marker, items in document:
        typed = reference.space_of_marker(v, marker)
        tokens = reference.encode_segment(v, (marker, items))
        fragments = [
            kind
            for space, number in items
            if space != reference.GENERAL
            for kind in _kinds_of_fragment(v, typed, (space, number))
        ]
        general = ["general"] * sum(space == reference.GENERAL for space, _ in items)
        written = ["control"] * (marker != reference.UNMARKED)
        if v.layout == "grouped":
            written += [*general, "aos", *fragments]
        else:
            for space, number in items:
                is_general = space == reference.GENERAL
                written += ["general"] if is_general else _kinds_of_fragment(v, typed, (space, number))
        assert len(written) == len(tokens)
        kinds += written
    return kinds + ["control"] * ("eos" in v.control)


def _kinds_of_fragment(v: Vocabulary, typed: int | None, item: reference.Item) -> list[str]:
    places = 0 if v.position == "none" else v.position_places
    count = len(reference.encode_item(v, typed, item, 1)) - places - v.check_digit
    digits = [f"digit_{place}" for place in range(count)]
    run = (digits if v.digit_order == "big" else digits[::-1]) + ["check"] * v.check_digit
    position = ["position"] * places
    return run + position if v.position == "after" else position + run


@pytest.mark.parametrize("name", VOCABULARIES)
def test_kinds_of_documents(name: str) -> None:
    v, source = VOCABULARIES[name], random.Random(17)
    documents = [reference.random_document(v, source, TOKENS) for _ in range(ROWS)]
    streams = np.zeros((ROWS, TOKENS), np.int32)
    for row, document in zip(streams, documents):
        tokens = reference.encode(v, document)
        row[: len(tokens)] = tokens
    names = kind_names(v)
    found = token_kinds(v, PrimaryIds(jnp.asarray(streams)))
    assert found.shape == streams.shape
    assert jnp.issubdtype(found.dtype, jnp.integer)
    for row, document in zip(np.asarray(found), documents):
        kinds = kinds_of(v, document)
        assert [names[kind] for kind in row] == kinds + ["pad"] * (TOKENS - len(kinds))


def test_names() -> None:
    assert kind_names(VOCABULARIES["typed inline none fixed"]) == (*FIXED_KINDS, *(f"digit_{k}" for k in range(4)))
    assert kind_names(VOCABULARIES["little, check"])[-1] == "check"
    assert FIXED_KINDS == ("pad", "general", "position", "aos", "control")


def test_digits_beyond_any_id_count_at_the_last_place() -> None:
    v = VOCABULARIES["plain grouped after minimal"]
    tokens = jnp.full((2, 3, 8), v.digit_start + 1)
    kinds = token_kinds(v, PrimaryIds(tokens))
    assert kinds.shape == (2, 3, 8)
    assert (kinds < len(kind_names(v))).all()
    assert [kind_names(v)[kind] for kind in kinds[0, 0].tolist()] == ["digit_0", "digit_1"] + ["digit_2"] * 6
