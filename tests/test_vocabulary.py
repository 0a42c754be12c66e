"""The vocabulary as a value: what it refuses and why, its layout, its text form and its fingerprint."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import numpy as np
import pytest
import reference

from omnijax.errors import VocabularyError
from omnijax.vocab.encode import encode
from omnijax.vocab.vocabulary import LARGEST, Space, Vocabulary

SPACES = (Space("image", 100), Space("speech", 20))


def build(**changes: Any) -> Vocabulary:
    parts = {"positions": 8, "digits": 6, "base": 5, "spaces": SPACES, "control": ("image", "speech", "eos")}
    return Vocabulary(**{**parts, **changes})


def refused(**changes: Any) -> VocabularyError:
    with pytest.raises(VocabularyError) as caught:
        build(**changes)
    error = caught.value
    for part in (error.field, repr(error.value), error.rule, error.fix):
        assert part in str(error)
        assert part
    return error


@pytest.mark.parametrize(
    "field, value",
    [
        ("base", 7),
        ("base", 1),
        ("base", 0),
        ("base", -3),
        ("base", 2.0),
        ("base", True),
        ("digits", 1),
        ("digits", "10"),
        ("positions", -1),
        ("positions", 1.5),
        ("positions", 0),
        ("positions", 1),
        ("general", -1),
        ("general", None),
        ("layout", "nested"),
        ("position", "middle"),
        ("width", "maximal"),
        ("general_names", ("A", "B")),
        ("control", ("image", "image")),
        ("control", ("pad",)),
        ("control", ("aos", "eos")),
        ("spaces", ()),
        ("spaces", (Space("image", 0),)),
        ("spaces", (Space("image", -5),)),
        ("spaces", (Space("image", 3), Space("image", 3))),
        ("spaces", (Space("eos", 3),)),
        ("spaces", (Space("a", LARGEST), Space("b", 1))),
        ("spaces", (Space("a", 2**80),)),
    ],
)
def test_a_part_out_of_its_bounds_is_refused(field: str, value: Any) -> None:
    error = refused(**{field: value})
    assert error.field.startswith(f"vocabulary.{field}")
    assert error.value == value


def test_a_base_larger_than_the_digit_tokens_says_what_to_do() -> None:
    error = refused(base=7)
    assert "6 digit tokens" in error.rule
    assert "at least 7" in error.fix


@pytest.mark.parametrize("size", [2.0, "3", None])
def test_a_size_that_is_no_whole_number_is_refused(size: Any) -> None:
    assert refused(spaces=(Space("image", size),)).field.startswith("vocabulary.spaces")


def test_digits_that_nothing_ends_are_refused() -> None:
    error = refused(position="none", width="minimal")
    assert error.field == "vocabulary.position"
    assert "v_1 v_0" in error.rule
    assert "width='fixed'" in error.fix


def test_several_widths_that_nothing_tells_apart_are_refused() -> None:
    error = refused(width="fixed", control=("eos",))
    assert error.field == "vocabulary.width"
    assert "image" in error.rule
    assert "speech" in error.rule
    assert build(width="fixed", control=("eos",), spaces=SPACES[:1]).most_digits == 3
    assert build(width="minimal", control=("eos",)).most_digits == 3


def test_everything_else_can_be_read_back() -> None:
    for layout, position, width in reference.WAYS:
        assert build(layout=layout, position=position, width=width).size == 1 + 256 + 8 + 6 + 1 + 3


def test_the_most_ids_there_can_be() -> None:
    vocabulary = build(spaces=(Space("a", 2**30), Space("b", 2**30 - 1)), base=2)
    assert vocabulary.secondary_size == LARGEST == 2**31 - 1
    assert vocabulary.most_digits == 31


def test_primary_ids_are_laid_out_in_the_order_of_the_source() -> None:
    vocabulary = build(general=3, general_names=("A", "B", "C"))
    assert vocabulary.symbols() == (
        ["pad", "A", "B", "C"]
        + [f"p_{k}" for k in range(8)]
        + [f"v_{k}" for k in range(6)]
        + ["aos", "image", "speech", "eos"]
    )
    at = vocabulary.symbols().index
    assert vocabulary.position_start == at("p_0")
    assert vocabulary.digit_start == at("v_0")
    assert vocabulary.aos == at("aos")
    assert vocabulary.control_start == at("image")
    assert vocabulary.token("speech") == at("speech")
    assert vocabulary.end == at("eos")
    assert vocabulary.size == len(vocabulary.symbols())
    assert build(control=("image", "speech")).end is None


def test_general_tokens_are_shown_as_bytes() -> None:
    symbols = build().symbols()
    assert symbols[1 + ord("a")] == "a"
    assert symbols[1] == "<00>"
    assert symbols[1 + 255] == "<ff>"
    assert len(set(symbols)) == len(symbols)


def test_names_that_do_not_exist() -> None:
    assert build().space_index("speech") == 1
    for look_up in (build().token, build().space_index):
        with pytest.raises(VocabularyError) as caught:
            look_up("smell")
        assert caught.value.value == "smell"
        assert "image" in caught.value.rule


@pytest.mark.parametrize("name", reference.VOCABULARIES)
def test_contexts_are_those_of_the_reference(name: str) -> None:
    v = reference.VOCABULARIES[name]
    types = [None, *range(len(v.spaces))]
    assert v.contexts.sizes.tolist() == [reference.fragment_size(v, typed) for typed in types]
    assert v.contexts.widths.tolist() == [reference.digit_places(v, typed) for typed in types]
    assert v.contexts.offsets.tolist() == [0 if typed is None else reference.offset(v, typed) for typed in types]
    of_control = [reference.space_of_marker(v, marker) for marker in range(len(v.control))]
    assert v.contexts.of_control.tolist() == [0 if typed is None else 1 + typed for typed in of_control]


@pytest.mark.parametrize("name", reference.VOCABULARIES)
def test_json_round_trip(name: str) -> None:
    vocabulary = reference.VOCABULARIES[name]
    again = Vocabulary.from_json(vocabulary.to_json())
    assert again == vocabulary
    assert hash(again) == hash(vocabulary)
    assert again.fingerprint == vocabulary.fingerprint
    assert again.to_json() == vocabulary.to_json()


def test_parts_as_a_dictionary() -> None:
    vocabulary = build(general=1, general_names=("A",))
    assert Vocabulary.from_dict(dataclasses.asdict(vocabulary)) == vocabulary


@pytest.mark.parametrize(
    "change, field",
    [
        (lambda parts: parts.update(bse=10), "bse"),
        (lambda parts: parts.pop("base"), "base"),
        (lambda parts: parts.pop("spaces"), "spaces"),
        (lambda parts: parts.update(base=40), "vocabulary.base"),
        (lambda parts: parts.update(spaces=[{"name": "image"}]), "spaces"),
        (lambda parts: parts.update(spaces=[{"name": "image", "size": 3, "colour": 1}]), "spaces"),
        (lambda parts: parts.update(spaces=7), "spaces"),
    ],
)
def test_a_text_that_is_no_vocabulary(change: Any, field: str) -> None:
    parts = json.loads(build().to_json())
    change(parts)
    with pytest.raises(VocabularyError) as caught:
        Vocabulary.from_json(json.dumps(parts))
    assert field in caught.value.field


@pytest.mark.parametrize("text", ["", "{", "[]", "3", '"base"'])
def test_a_text_that_is_no_json_object(text: str) -> None:
    with pytest.raises(VocabularyError):
        Vocabulary.from_json(text)


def test_immutable_and_usable_as_a_key() -> None:
    vocabulary = build()
    with pytest.raises(dataclasses.FrozenInstanceError):
        vocabulary.base = 3  # type: ignore[misc]
    assert {vocabulary: 1}[build()] == 1
    assert vocabulary != build(base=6)
    assert vocabulary.contexts is vocabulary.contexts  # looking at it changes nothing
    assert vocabulary == build()


GOLDEN_FINGERPRINT = "da70d2d9d1a51767"


def test_the_fingerprint_stays() -> None:
    assert build().fingerprint == GOLDEN_FINGERPRINT, (
        "the fingerprint of an unchanged vocabulary changed, so that no earlier checkpoint can be loaded. Put a new "
        "value here only when what a token means has changed (a new field of Vocabulary does that), with a line in "
        f"CHANGELOG.md. Now: {build().fingerprint}"
    )


@pytest.mark.parametrize(
    "changes",
    [
        {"positions": 9},
        {"digits": 7},
        {"base": 6},
        {"spaces": SPACES[::-1]},
        {"spaces": (Space("image", 101), SPACES[1])},
        {"spaces": (Space("picture", 100), SPACES[1])},
        {"general": 255},
        {"control": ("speech", "image", "eos")},
        {"layout": "inline"},
        {"position": "before"},
        {"width": "fixed"},
        {"general_names": tuple(map(str, range(256)))},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_the_fingerprint_changes_with_every_field(changes: dict[str, Any]) -> None:
    changed = build(**changes)
    assert changed.fingerprint != build().fingerprint
    assert len(changed.fingerprint) == 16
    assert int(changed.fingerprint, 16) >= 0


def test_every_field_is_in_the_list_above() -> None:
    marks = test_the_fingerprint_changes_with_every_field.pytestmark
    tried = {field for mark in marks for changes in mark.args[1] for field in changes}
    assert tried == {field.name for field in dataclasses.fields(Vocabulary)}


def test_a_grown_space_changes_no_old_id() -> None:
    """Stable prefix: a space that grows at the end of the number line, or is appended, leaves the old encodings."""
    small, large = build(), build(spaces=(*SPACES[:1], Space("speech", 4000), Space("touch", 9)))
    documents = [[(reference.UNMARKED, [(0, 99), (1, number), (reference.GENERAL, 7)])] for number in range(20)]
    for document in documents:
        assert reference.encode(small, document) == reference.encode(large, document)
    encoded = [encode(v, reference.to_library(documents)).tokens for v in (small, large)]
    np.testing.assert_array_equal(*encoded)
