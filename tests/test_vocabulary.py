"""The vocabulary as a value: what it refuses and why, its layout, its text form and its fingerprint."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import numpy as np
import pytest
import reference

from omnijax.errors import VocabularyError, shortened
from omnijax.vocab.encode import encode
from omnijax.vocab.radix import radices_of, to_digits
from omnijax.vocab.vocabulary import Marker, Space, Vocabulary

SPACES = (Space("image", 100), Space("speech", 20))


def build(**changes: Any) -> Vocabulary:
    parts = {"positions": 8, "digits": 6, "base": 5, "spaces": SPACES, "control": ("image", "speech", "eos")}
    return Vocabulary(**{**parts, **changes})


def refused(**changes: Any) -> VocabularyError:
    with pytest.raises(VocabularyError) as caught:
        build(**changes)
    error = caught.value
    for part in (error.field, shortened(repr(error.value)), error.rule, error.fix):
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
        ("base", ()),
        ("base", (2, 1)),
        ("base", (2, 7)),
        ("base", (2, 3.0)),
        ("base", "5"),
        ("digit_order", "middle"),
        ("position_places", 0),
        ("position_places", True),
        ("check_digit", 1),
        ("check_digit", "yes"),
        ("markers", [Marker("image", "image", True)]),
        ("markers", ("image",)),
        ("markers", (Marker("image", "image", general=1),)),
    ],
)
def test_a_part_out_of_its_bounds_is_refused(field: str, value: Any) -> None:
    error = refused(**{field: value})
    assert error.field.startswith(f"vocabulary.{field}")
    assert error.value == value


@pytest.mark.parametrize(
    "markers, value",
    [
        ((Marker("photo", "image"),), "photo"),  # no control token
        ((Marker("eos", "image"),), "eos"),
        ((Marker("text", "smell"),), "smell"),
        ((Marker("text", "image"), Marker("text", "speech")), "text"),
        ((Marker("speech", "image"),), "speech"),  # the name of another space
    ],
)
def test_a_marker_that_opens_nothing_or_misleads_is_refused(markers: tuple[Marker, ...], value: str) -> None:
    error = refused(control=("text", "image", "speech", "eos"), markers=markers)
    assert error.field == f"vocabulary.markers.{markers[0].name}"
    assert error.value == value


@pytest.mark.parametrize("marker", [{"name": "text"}, {"name": "text", "space": "image", "size": 3}, "text"])
def test_markers_from_a_file_need_their_parts(marker: Any) -> None:
    with pytest.raises(VocabularyError, match="the parts of Marker are name, space, general"):
        Vocabulary.from_dict({**json.loads(build().to_json()), "markers": [marker]})


def test_a_radix_that_16_bits_do_not_hold_is_refused() -> None:
    assert "65536" in refused(base=2**16 + 1, digits=2**17, spaces=(Space("image", 2**31),)).rule
    assert build(base=2**16, digits=2**17, spaces=(Space("image", 2**31),)).most_digits == 2


def test_a_radix_that_makes_one_token_of_an_item_needs_ids_below_31_bits() -> None:
    assert build(base=2**22, digits=2**22, spaces=(Space("image", 2**31 - 1),)).most_digits == 2
    assert "4194304" in refused(base=2**22 + 1, digits=2**22 + 1).rule


def test_a_base_larger_than_the_digit_tokens_says_what_to_do() -> None:
    error = refused(base=7)
    assert "6 digit tokens" in error.rule
    assert "at least 7" in error.fix


@pytest.mark.parametrize("size", [2.0, "3", None])
def test_a_size_that_is_no_whole_number_is_refused(size: Any) -> None:
    assert refused(spaces=(Space("image", size),)).field.startswith("vocabulary.spaces")


@pytest.mark.parametrize("digit_order", ["big", "little"])
@pytest.mark.parametrize("base", [2, 3, 5])
def test_the_encodings_that_are_said_to_collide_do(base: int, digit_order: str) -> None:
    """With minimal width and no position, the refusal names digits that are two ids, and also one."""
    changes = {"base": base, "digit_order": digit_order, "spaces": (Space("x", 5**6),)}
    error = refused(position="none", width="minimal", **changes)
    assert error.field == "vocabulary.position"
    assert "width='fixed'" in error.fix
    run, rest = error.rule.split(": ")[1].split(" are the ids ")
    ids, one = rest.split(" and also the one id ")
    v = build(position="after", width="minimal", control=(), **changes)

    def digits_of(number: int) -> list[str]:
        tokens = reference.encode(v, [(reference.UNMARKED, [(0, number)])])
        return [v.symbols()[token] for token in tokens if v.digit_start <= token < v.aos]

    assert digits_of(int(one)) == run.split()
    assert sum((digits_of(number) for number in json.loads(ids)), []) == run.split()


def test_a_mixed_radix_with_too_few_places_is_refused() -> None:
    error = refused(base=(4, 5, 5))  # 100 ids, and the number line has 120
    assert error.field == "vocabulary.base"
    assert error.rule == "its digits write 100 ids, and all spaces together need 120"
    assert error.fix == "put a place in front: (2, 4, 5, 5)"
    assert build(base=(2, 4, 5, 5)).most_digits == 4
    roomy = (Space("a", 9, capacity=130), SPACES[1])
    assert "need 130" in refused(base=(5, 5, 5), width="fixed", spaces=roomy).rule


def test_position_places_without_positions_are_refused() -> None:
    assert refused(position="none", width="fixed", position_places=2).field == "vocabulary.position_places"


def test_capacity_is_for_fixed_width_alone() -> None:
    spaces = (*SPACES[:1], Space("speech", 20, capacity=200))
    error = refused(spaces=spaces)
    assert error.field == "vocabulary.spaces.speech.capacity"
    v = build(spaces=spaces, width="fixed")
    assert v.contexts.widths.tolist() == [4, 3, 4]  # the number line has room for 300 ids
    assert v.contexts.bounds.tolist() == [[0, 4, 3, 4], [0, 3, 4, 4], [0, 0, 3, 4]]
    assert "at least the size, 20" in refused(spaces=(Space("speech", 20, capacity=19),), width="fixed").rule


def test_everything_else_can_be_read_back() -> None:
    for layout, position, width in reference.WAYS:
        assert build(layout=layout, position=position, width=width).size == 1 + 256 + 8 + 6 + 1 + 3
        assert build(layout=layout, position=position, width=width, control=("eos",)).size == 1 + 256 + 8 + 6 + 1 + 1


def test_ids_have_no_bound() -> None:
    v = build(spaces=(Space("a", 2**256), Space("b", 3**500)), base=3)
    assert v.secondary_size == 2**256 + 3**500
    assert v.most_digits == 501
    assert v.limbs == 25
    assert v.contexts.offsets == (0, 0, 2**256)
    assert v.contexts.bounds[2].tolist() == [0] + 500 * [2]
    assert Vocabulary.from_dict(json.loads(v.to_json())) == v


@pytest.mark.parametrize("size, limbs", [(1, 1), (2**31, 1), (2**32, 1), (2**32 + 1, 2), (2**96, 3), (2**96 + 1, 4)])
def test_limbs_of_a_secondary_id(size: int, limbs: int) -> None:
    assert build(spaces=(Space("a", size),)).limbs == limbs


def test_mixed_radix_takes_the_last_places() -> None:
    v = build(base=(2, 3, 5, 4), digits=5)
    assert v.contexts.radices == (2, 3, 5, 4)
    assert v.contexts.widths.tolist() == [4, 4, 2]
    assert v.radices(2) == (5, 4)
    assert v.check_base == 5
    assert v.contexts.bounds.tolist() == [to_digits(size - 1, radices_of(v.base, 4)) for size in (120, 100, 20)]


def test_positions_in_several_tokens_reach_further() -> None:
    assert build().last_position == 7
    assert build(position_places=3).last_position == 8**3 - 1
    assert build(position="none", width="fixed").last_position == 0


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
    general = [
        index for index in range(len(v.spaces)) if any(m.general and m.space == v.spaces[index].name for m in v.markers)
    ]
    types = [None, *range(len(v.spaces)), *general]
    assert list(v.contexts.sizes) == [reference.fragment_size(v, typed) for typed in types]
    assert v.contexts.widths.tolist() == [reference.digit_places(v, typed) for typed in types]
    assert list(v.contexts.offsets) == [0 if typed is None else reference.offset(v, typed) for typed in types]
    assert v.contexts.spaces.tolist() == [-1 if typed is None else typed for typed in types]
    for marker, context in enumerate(v.contexts.of_control):
        assert types[context] == reference.space_of_marker(v, marker)
        assert v.contexts.general[context] == reference.holds_general(v, marker)
        assert v.contexts.grouped[context] == reference.is_grouped(v, marker)


@pytest.mark.parametrize("name", reference.VOCABULARIES)
def test_json_round_trip(name: str) -> None:
    vocabulary = reference.VOCABULARIES[name]
    again = Vocabulary.from_dict(json.loads(vocabulary.to_json()))
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
        (lambda parts: parts["spaces"][0].update(assignment={"kind": "magic"}), "assignment"),
        (lambda parts: parts["spaces"][0].update(assignment={}), "assignment"),
        (lambda parts: parts["spaces"][0].update(assignment=5), "assignment"),
    ],
)
def test_a_text_that_is_no_vocabulary(change: Any, field: str) -> None:
    parts = json.loads(build().to_json())
    change(parts)
    with pytest.raises(VocabularyError) as caught:
        Vocabulary.from_dict(parts)
    assert field in caught.value.field


@pytest.mark.parametrize("text", ["[]", "3", '"base"'])
def test_a_text_that_is_no_json_object(text: str) -> None:
    with pytest.raises(VocabularyError):
        Vocabulary.from_dict(json.loads(text))


def test_immutable_and_usable_as_a_key() -> None:
    vocabulary = build()
    with pytest.raises(dataclasses.FrozenInstanceError):
        vocabulary.base = 3  # type: ignore[misc]
    assert {vocabulary: 1}[build()] == 1
    assert vocabulary != build(base=6)
    assert vocabulary.contexts is vocabulary.contexts  # looking at it changes nothing
    assert vocabulary == build()


GOLDEN_FINGERPRINT = "f2cf6b969ba7a1f1"


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
        {"digit_order": "little"},
        {"position_places": 2},
        {"check_digit": True},
        {"base": (5, 5, 5)},
        {"general_names": tuple(map(str, range(256)))},
        {"markers": (Marker("image", "image", general=True),)},
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
    encoded = [encode(v, reference.to_library(documents)).tokens.array for v in (small, large)]
    np.testing.assert_array_equal(*encoded)


@pytest.mark.parametrize(
    "changes",
    [
        {"control": "eos"},
        {"control": ["eos"]},
        {"control": (1, 2)},
        {"control": None},
        {"spaces": [Space("a", 3)]},
        {"spaces": Space("a", 3)},
        {"spaces": ("a",)},
        {"spaces": (Space(1, 9),)},  # type: ignore[arg-type]
        {"general_names": ["x"] * 256},
    ],
    ids=str,
)
def test_what_is_no_tuple_of_its_kind_is_refused(changes: dict[str, Any]) -> None:
    (field,) = changes
    assert refused(**changes).field == f"vocabulary.{field}"
