"""Documents to tokens and back: encoder and decoder against the slow reference, on every field and any stream."""

from __future__ import annotations

import functools
import importlib
import itertools
import pathlib
import random
import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import GENERAL, UNMARKED, VOCABULARIES, WAYS

from omnijax.errors import VocabularyError
from omnijax.vocab import documents as library
from omnijax.vocab.assemble import assemble
from omnijax.vocab.decode import Error, Kind, Reading, decode
from omnijax.vocab.encode import Encoded, encode
from omnijax.vocab.ids import GeneralIds, PrimaryIds, SecondaryIds
from omnijax.vocab.vocabulary import Space, Vocabulary

ROWS, TOKENS = 64, 40
"""The one shape of the streams here: each (vocabulary, shape) is compiled anew."""

# Without these, each two of layout, position and width are still together somewhere, and so is every other option.
PROOFS = (
    "plain grouped before fixed",
    "typed grouped after minimal",
    "typed grouped after fixed",
    "typed grouped before minimal",
    "typed grouped before fixed",
    "typed grouped none fixed",
    "typed inline after minimal",
    "marked inline before fixed",
    "large, large base",
    "little, check, none",
    "wide, little, check",
)
every_vocabulary = pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.proof if name in PROOFS else ()) for name in VOCABULARIES]
)
# Each layout, position, width, digit order, check digit, number of position places, kind of base and width of id.
some_vocabularies = pytest.mark.parametrize(
    "name",
    [
        "plain grouped after minimal",
        "typed inline before minimal",
        "typed inline none fixed",
        "narrow",
        "marked grouped after minimal",
        "marked grouped none fixed",
        "mixed radix, little, two position places",
        "mixed radix, check, room to grow",
        "little, check",
        "wide, two position places",
    ],
)


def pad(streams: list[list[int]], rows: int = ROWS) -> np.ndarray:
    array = np.zeros((rows, TOKENS), np.int32)
    for row, stream in zip(array, streams, strict=False):
        row[: len(stream)] = stream
    return array


def rows_of(v: Vocabulary, reading: Reading) -> list[list[tuple[int, ...]]]:
    """Fields of each token of each stream, in plain integers; the limbs of an id as one."""
    fields = [np.asarray(field).astype(object) for field in reading[:6]]
    for place, limb in enumerate(reading.high):
        assert limb.dtype == jnp.uint32
        fields[2] = fields[2] + (np.asarray(limb).astype(object) << 32 * (place + 1))
    if v.secondary_size > 2**31:  # the lowest limb is unsigned, too, where it is one of a fragment
        fields[2] += np.where((fields[0] == Kind.FRAGMENT) & (np.asarray(reading.id) < 0), 2**32, 0)
    return np.stack(fields, axis=-1).tolist()


def check_decoder(v: Vocabulary, streams: np.ndarray, count: int | None = None) -> Reading:
    """Holds the decoder against the reference on every field of every token, or of those of the first streams."""
    reading = decode(v, PrimaryIds(jnp.asarray(streams)))
    assert all(field.dtype == jnp.int32 and field.shape == streams.shape for field in reading[:6])
    assert len(reading.high) == v.limbs - 1
    for stream, found in zip(streams[:count].tolist(), rows_of(v, reading)):
        expected = [[int(field) for field in row] for row in reference.read(v, stream)]
        for place, (row, wanted) in enumerate(zip(found, expected)):
            assert row == wanted, f"{stream} at {place}: read {reference.Row(*row)}, not {reference.Row(*wanted)}"
    return reading


def check_round_trip(v: Vocabulary, documents: list[reference.Document]) -> None:
    """Encoder = reference, decoder = reference, no errors, and the same documents come back."""
    streams = [tokens.array.tolist() for tokens in encode(v, reference.to_library(documents, v)).split()]
    assert streams == [reference.encode(v, document) for document in documents]
    whole = reference.to_library(documents, v).to_list()
    for first in range(0, len(documents), ROWS):
        part = slice(first, first + ROWS)
        reading = check_decoder(v, pad(streams[part]), len(streams[part]))
        assert not np.asarray(reading.error).any()
        for document, stream in zip(documents[part], streams[part]):
            assert reference.document_of(v, reference.read(v, stream)) == document
        assembled = assemble(v, jax.tree.map(lambda field, part=part: field[: len(streams[part])], reading))
        assert assembled == [[document] for document in whole[part]]


@functools.cache
def many_documents(name: str) -> list[reference.Document]:
    source = random.Random(1)
    return [reference.random_document(VOCABULARIES[name], source, TOKENS) for _ in range(2 * ROWS)]


@st.composite
def documents(draw: st.DrawFn, v: Vocabulary) -> reference.Document:
    """A document that fits; hypothesis shrinks it item by item."""
    document: reference.Document = []
    first = [UNMARKED, *reference.markers(v)]
    for number in range(draw(st.integers(1, 3)) if v.control else 1):
        marker = draw(st.sampled_from(first if number == 0 else first[1:]))
        typed = reference.space_of_marker(v, marker)
        spaces = [GENERAL] if reference.holds_general(v, marker) and v.general else []
        spaces += range(len(v.spaces)) if typed is None else [typed]
        longest = 5 if v.position == "none" else min(5, v.last_position)
        items = []
        for _ in range(draw(st.integers(0, longest))):
            space = draw(st.sampled_from(spaces))
            size = v.general if space == GENERAL else v.spaces[space].size
            items.append((space, draw(st.integers(0, size - 1))))
        if reference.is_grouped(v, marker) and v.position == "none":
            items.sort(key=lambda item: item[0] != GENERAL)
        document.append((marker, items))
    while len(reference.encode(v, document)) > TOKENS:
        document[-1][1].pop() if document[-1][1] else document.pop()
    traceless = v.layout == "inline" and document[0] == (UNMARKED, [])
    if traceless:
        document.pop(0)
    return document


@some_vocabularies
@settings(max_examples=12)
@given(data=st.data())
def test_documents_come_back(name: str, data: st.DataObject) -> None:
    v = VOCABULARIES[name]
    drawn = data.draw(st.lists(documents(v), min_size=1, max_size=6))
    drawn = [document for document in drawn if document]
    if drawn:
        check_round_trip(v, drawn)


@every_vocabulary
def test_many_documents_come_back(name: str) -> None:
    check_round_trip(VOCABULARIES[name], many_documents(name))


@pytest.mark.parametrize("layout, position, width", WAYS)
def test_every_base_and_every_id(layout: Any, position: Any, width: Any) -> None:
    """Untyped and typed, over bases and sets of spaces: the encoder is the reference, which reads its own writing."""
    sets = [(Space("a", 1),), (Space("a", 9), Space("b", 10), Space("c", 82))]
    for base, spare, spaces in itertools.product((2, 3, 9, 10, 100), (0, 1), sets):
        v = Vocabulary(
            general=1,
            positions=3,
            digits=base + spare,
            base=base,
            spaces=spaces,
            control=("c", "a", "b"),
            layout=layout,
            position=position,
            width=width,
        )
        ids = [(space, number) for space in range(len(spaces)) for number in range(spaces[space].size)]
        untyped = [[(UNMARKED, [(GENERAL, 0), item])] for item in ids]
        typed = [[(v.control.index(spaces[item[0]].name), [item, item])] for item in ids]
        encoded = encode(v, reference.to_library(untyped + typed))
        assert [row.array.tolist() for row in encoded.split()] == [reference.encode(v, d) for d in untyped + typed]
        assert encoded.tokens.array.dtype == np.int32
        for document, tokens in zip(untyped + typed, encoded.split()):
            assert reference.document_of(v, reference.read(v, tokens.array.tolist())) == document


@pytest.mark.parametrize(
    "base, size, width",
    [pytest.param(2, 65, "minimal", marks=pytest.mark.proof), (9, 82, "minimal"), (10, 100, "fixed")],
)
def test_all_ids_of_a_space(base: int, size: int, width: Any) -> None:
    v = Vocabulary(positions=2, digits=base + 1, base=base, spaces=(Space("a", size),), width=width)
    check_round_trip(v, [[(UNMARKED, [(0, number)])] for number in range(size)])


def test_the_largest_id() -> None:
    v = VOCABULARIES["large, small base"]
    largest = [[(UNMARKED, [(0, 0), (1, v.spaces[1].size - 1)])], [(0, [(1, v.spaces[1].size - 1), (1, 0)])]]
    check_round_trip(v, largest)
    tokens = encode(v, reference.to_library(largest[:1])).split()[0]
    beyond = tokens.array.copy()
    beyond[-2] += 1  # 2^31 - 2 ends with the digit 1 in base 7: the last id of all
    reading = check_decoder(v, pad([beyond.tolist()]))
    assert np.asarray(reading.error)[0, len(beyond) - 1] == Error.ID_OUT_OF_RANGE


def mutate(v: Vocabulary, streams: np.ndarray, source: np.random.Generator) -> np.ndarray:
    """Nearly valid streams: some tokens replaced, dropped or doubled, ends cut off, halves of two streams joined."""
    streams = streams.copy()
    rows, tokens = streams.shape
    columns = np.arange(tokens)
    cut = source.integers(0, tokens, (rows, 1))
    joined = np.where(columns < cut, streams, streams[source.permutation(rows)])
    streams = np.where(source.random((rows, 1)) < 0.3, joined, streams)
    shift = source.integers(-2, 3, (rows, 1))
    moved = np.take_along_axis(streams, np.clip(columns + np.where(columns < cut, 0, shift), 0, tokens - 1), axis=1)
    streams = np.where(source.random((rows, 1)) < 0.3, moved, streams)
    replace = source.random((rows, tokens)) < source.choice([0, 0.03, 0.1], (rows, 1))
    streams = np.where(replace, source.integers(-1, v.size + 2, (rows, tokens)), streams)
    length = source.integers(0, tokens + 1, (rows, 1))
    return np.where((source.random((rows, 1)) < 0.3) & (columns >= length), 0, streams).astype(np.int32)


@every_vocabulary
def test_nearly_valid_streams_are_read_as_by_the_reference(name: str) -> None:
    v, source = VOCABULARIES[name], np.random.default_rng(2)
    valid = pad([reference.encode(v, document) for document in many_documents(name)], 2 * ROWS)
    errors = set()
    for streams in np.split(np.concatenate([mutate(v, valid, source) for _ in range(3)]), 6):
        reading = check_decoder(v, streams)
        assemble(v, reading)
        errors |= set(np.unique(reading.error).tolist())
    possible = set(Error)
    if v.position == "none":
        possible -= {e for e in Error if "POSITION" in e.name}
    if v.width == "fixed":
        possible -= {Error.LEADING_ZERO}
    if v.position_places == 1:
        possible -= {Error.POSITION_INCOMPLETE}
    if not v.check_digit:
        possible -= {Error.WRONG_CHECK_DIGIT}
    if v.base == v.digits:
        possible -= {Error.DIGIT_NOT_BELOW_BASE}
    assert errors <= possible


@every_vocabulary
def test_random_streams_are_read_as_by_the_reference(name: str) -> None:
    """Any tokens, those outside the primary vocabulary and the ends of int32 included."""
    v, source = VOCABULARIES[name], np.random.default_rng(3)
    least, most = np.iinfo(np.int32).min, np.iinfo(np.int32).max
    edges = np.array([0, 1, v.position_start, v.digit_start, v.aos, v.control_start, v.size, least + 1, most])
    few = np.concatenate([edges - 1, edges])
    for streams in (
        source.integers(0, v.size, (ROWS, TOKENS)),
        source.choice(few, (ROWS, TOKENS)),
        source.integers(least, most, (ROWS, TOKENS), endpoint=True),
        source.integers(v.position_start, min(v.size, v.digit_start + v.check_base), (ROWS, TOKENS)),
    ):
        check_decoder(v, np.clip(streams, least, most).astype(np.int32))


@some_vocabularies
@settings(max_examples=25)
@given(data=st.data())
def test_any_stream_is_read_as_by_the_reference(name: str, data: st.DataObject) -> None:
    v = VOCABULARIES[name]
    starts = [0, 1, v.position_start, v.digit_start, v.digit_start + v.check_base, v.aos, v.control_start, v.size]
    token = st.one_of(
        st.sampled_from(starts),
        st.integers(0, v.size - 1),
        st.integers(v.position_start, v.aos),
        st.integers(-2, v.size),
    )
    streams = data.draw(st.lists(st.lists(token, max_size=TOKENS), min_size=1, max_size=8))
    check_decoder(v, pad(streams), len(streams))


@pytest.mark.parametrize(
    "name",
    [
        "typed inline after fixed",
        *(
            pytest.param(name, marks=pytest.mark.proof)
            for name in ("typed grouped before minimal", "wide, little, check")
        ),
    ],
)
def test_a_short_fuzz(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the benchmark does with millions of streams, whose ends of words of marks lie elsewhere."""
    monkeypatch.syspath_prepend(pathlib.Path(__file__).parents[1] / "experiments" / "bench")
    fuzz_decode = importlib.import_module("fuzz_decode")
    v = VOCABULARIES[name]
    counts, failed, compared = fuzz_decode.fuzz(v, streams=2048, check=100, seed=21, rows=2048, valid=128)
    assert counts["streams"] == 2048
    assert compared == 100
    assert failed == 0
    assert counts["WRONG_WIDTH"] > 0


def errors_of(v: Vocabulary, text: str) -> str:
    """Errors that are read in a stream of symbols, by the place of each; the reference agrees."""
    tokens = [v.symbols().index(symbol) if symbol != "?" else v.size + 7 for symbol in text.split()]
    reading = check_decoder(v, pad([tokens]), 1)
    error = np.asarray(reading.error)[0]
    return ", ".join(f"{place} {Error(error[place]).name}" for place in np.flatnonzero(error))


@pytest.mark.parametrize(
    "stream, errors",
    [
        ("<00> aos v_1 p_1 v_2 p_2", ""),
        ("<00> aos p_1 v_2 p_2", "2 POSITION_WITHOUT_DIGITS"),
        ("<00> aos v_1 aos v_2 p_2", "2 DIGITS_WITHOUT_POSITION, 3 WRONG_PLACE"),
        ("<00> aos v_1 pad", "2 CUT_OFF"),
        ("<00> aos v_3 p_1 v_2 p_2", "3 DIGIT_NOT_BELOW_BASE"),
        ("<00> aos v_0 v_1 p_1", "4 LEADING_ZERO"),
        ("<00> aos v_1 v_1 v_0 p_1 v_1 v_1 v_1 p_2", "9 ID_OUT_OF_RANGE"),
        ("aos v_2 v_2 v_2 v_2 v_2 v_2 v_2 v_2 v_2 v_2 v_2 v_2 v_2 v_2 v_2 v_2 v_2 v_2 v_2 v_2 v_2 v_2 v_2 p_1",
         "24 WRONG_WIDTH"),
        ("aos v_1 p_0", "2 POSITION_ZERO"),
        ("aos v_1 p_1 v_1 p_3", "4 POSITION_OUT_OF_RANGE"),
        ("aos v_1 p_1 v_2 p_1 v_2 p_2 v_1 p_1", "4 POSITION_TWICE, 8 POSITION_TWICE"),
        # An item with an error takes no position.
        ("aos v_3 p_1 v_2 p_1", "2 DIGIT_NOT_BELOW_BASE"),
        ("v_1 p_1 <00> aos <01>", "1 WRONG_PLACE, 4 WRONG_PLACE"),
        ("? <00> aos", "0 NOT_A_TOKEN"),
    ],
)  # fmt: skip
def test_errors(stream: str, errors: str) -> None:
    assert errors_of(VOCABULARIES["plain grouped after minimal"], stream) == errors


@pytest.mark.parametrize(
    "name, stream, errors",
    [
        ("typed inline before fixed", "image p_1 v_1 v_0 v_1 v_0 p_2 v_0 v_0 v_0 v_0 eos", ""),
        ("typed inline before fixed", "image p_1 v_1 v_0 v_1 audio p_1 v_1 v_1", "4 WRONG_WIDTH"),
        ("typed inline before fixed", "image p_1 v_1 v_0 v_1", "4 CUT_OFF"),
        ("typed inline before fixed", "image p_1", "1 CUT_OFF"),
        ("typed inline before fixed", "image p_1 v_1 v_0 v_1 v_1", "5 ID_OUT_OF_RANGE"),
        ("typed inline before fixed", "image v_1 v_0 v_1 v_0 aos", "4 DIGITS_WITHOUT_POSITION, 5 WRONG_PLACE"),
        ("typed inline before fixed", "image p_1 v_1 v_0 v_1 v_0 <00>", "6 WRONG_PLACE"),
        ("typed inline before fixed", "mixed p_1 v_1 v_0 <00>", "3 WRONG_WIDTH"),
        ("typed inline none fixed", "audio v_1 v_1 v_0 v_0 v_1 image v_1", "5 WRONG_WIDTH, 7 CUT_OFF"),
        ("plain inline none fixed", "v_1 v_1 v_0 p_1 <00>", "3 WRONG_PLACE"),
        ("mixed radix, little, two position places", "v_1 p_0 p_1 v_1 p_0 <00>", "4 POSITION_INCOMPLETE"),
        ("mixed radix, little, two position places", "v_1 p_0 p_1 p_1 <00>", "3 POSITION_WITHOUT_DIGITS"),
        ("mixed radix, little, two position places", "v_1 p_0 p_1 v_1 p_0", "4 CUT_OFF"),
        ("mixed radix, little, two position places", "v_1 v_2 p_0 p_1 v_1 v_3 p_0 p_2", "7 DIGIT_NOT_BELOW_BASE"),
        ("mixed radix, little, two position places", "v_1 v_0 p_0 p_1", "3 LEADING_ZERO"),
        ("little, check", "aos v_1 v_2 p_1 v_1 v_1 p_2 v_2 p_3", "6 WRONG_CHECK_DIGIT, 8 WRONG_WIDTH"),
        ("little, check", "aos v_1 v_3 p_1", "3 DIGIT_NOT_BELOW_BASE"),
        ("mixed radix, check, before, two position places", "aos p_0 v_0 v_0", "3 POSITION_INCOMPLETE"),
        ("mixed radix, check, before, two position places", "aos p_0 p_1 v_0", "3 CUT_OFF"),
        ("mixed radix, check, before, two position places", "aos p_0 p_0 p_1 v_0 v_0",
         "1 POSITION_WITHOUT_DIGITS"),
    ],
)  # fmt: skip
def test_errors_of_other_ways(name: str, stream: str, errors: str) -> None:
    assert errors_of(VOCABULARIES[name], stream) == errors


def test_what_is_valid_around_an_error_is_kept() -> None:
    v = VOCABULARIES["plain grouped after minimal"]
    stream = "<00> aos v_1 p_1 v_3 p_4 ? v_2 p_3 v_0 v_1"
    tokens = [v.symbols().index(symbol) if symbol != "?" else -5 for symbol in stream.split()]
    (kind, error, ids, position, segment, length) = (
        np.asarray(field)[0] for field in check_decoder(v, pad([tokens]))[:6]
    )
    good = (kind == Kind.FRAGMENT) | (kind == Kind.GENERAL)
    assert ids[good].tolist() == [0, 1, 2]
    assert position[good].tolist() == [0, 1, 3]
    assert length[good].tolist() == [1, 2, 2]
    assert [Error(e).name for e in error[error > 0]] == ["DIGIT_NOT_BELOW_BASE", "NOT_A_TOKEN", "CUT_OFF"]
    assert not segment.any()


def mutated_streams(seed: int) -> tuple[Vocabulary, np.ndarray]:
    """Valid streams in which some tokens were changed. Other tests use the same vocabulary, so it is compiled once."""
    name = "typed inline before fixed"
    valid = pad([reference.encode(VOCABULARIES[name], document) for document in many_documents(name)])
    return VOCABULARIES[name], mutate(VOCABULARIES[name], valid, np.random.default_rng(seed))


def test_shapes() -> None:
    """Any leading dimensions, none of them, nothing in them, streams of one token and of none."""
    v, streams = mutated_streams(seed=4)
    expected = decode(v, PrimaryIds(jnp.asarray(streams)))
    shaped = decode(v, PrimaryIds(jnp.asarray(streams.reshape(4, 2, 8, TOKENS))))
    alone = decode(v, PrimaryIds(jnp.asarray(streams[3])))
    mapped = jax.vmap(functools.partial(decode, v))(PrimaryIds(jnp.asarray(streams)))
    for whole, field, one, each in zip(expected[:6], shaped, alone, mapped):
        np.testing.assert_array_equal(whole, field.reshape(ROWS, TOKENS))
        np.testing.assert_array_equal(whole[3], one)
        np.testing.assert_array_equal(whole, each)
    check_decoder(v, np.arange(-2, v.size + 3, dtype=np.int32)[:, None])
    for shape in ((0, TOKENS), (2, 0)):
        tokens = PrimaryIds(jax.ShapeDtypeStruct(shape, jnp.int32))
        assert all(field.shape == shape for field in jax.eval_shape(functools.partial(decode, v), tokens)[:6])


@pytest.mark.parametrize("dtype", [np.int64, np.uint32, np.int16, np.uint8])
def test_integer_types(dtype: Any) -> None:
    """Tokens too large for int32 are no tokens; they don't wrap around to be some."""
    v = VOCABULARIES["plain grouped after minimal"]
    largest = np.iinfo(dtype).max
    tokens = np.array([1, v.aos, largest, largest - 1, v.digit_start + 1, v.position_start + 2], dtype)
    streams = [tokens]
    if dtype == np.int64:
        streams += [np.array([2**32 + 1, -(2**32) + 2, 2**40, 1, 1, 1])]
    for stream in streams:
        reading = decode(v, PrimaryIds(stream))
        outside = (stream.astype(object) < 0) | (stream.astype(object) >= v.size)
        np.testing.assert_array_equal(np.asarray(reading.error) == Error.NOT_A_TOKEN, outside)


def test_arrays_that_do_not_say_what_they_are_are_refused() -> None:
    for wrong, field in ((jnp.zeros((1, 4), jnp.int32), "ids"), (PrimaryIds(jnp.zeros((1, 4))), "tokens")):
        with pytest.raises(VocabularyError) as caught:
            decode(VOCABULARIES["plain grouped after minimal"], wrong)
        assert caught.value.field == field


def test_positions_beyond_int32_are_out_of_range() -> None:
    """Two position tokens write more than 32 bits hold: what they say must not wrap around to a place."""
    v = Vocabulary(
        general=0, positions=2**17, position_places=2, digits=2, base=2, spaces=(Space("a", 2),), layout="inline"
    )
    one, high = v.position_start + 1, v.position_start + 2**15
    tokens = [v.digit_start, v.position_start, one, v.digit_start, high, one + 1, v.digit_start, high, v.position_start]
    error = np.asarray(check_decoder(v, pad([tokens]), 1).error)[0]
    assert np.flatnonzero(error).tolist() == [5, 8]
    assert set(error[[5, 8]].tolist()) == {Error.POSITION_OUT_OF_RANGE}


@pytest.mark.parametrize(
    "name, tokens",
    [
        ("little, check, none", 32),
        ("typed grouped before fixed", 1100),
        pytest.param("typed grouped before fixed", 32, marks=pytest.mark.proof),
        pytest.param("little, check, none", 1100, marks=pytest.mark.proof),
    ],
)
def test_streams_longer_than_words_of_marks(name: str, tokens: int) -> None:
    """Segments, runs and positions that reach over the ends of words of 32 tokens, and over those of words of words."""
    v, source = VOCABULARIES[name], random.Random(7)
    stream: list[int] = []
    while len(stream) < tokens:
        stream += reference.encode(v, reference.random_document(v, source, TOKENS))
        stream += [v.digit_start] * source.choice([0, 0, 70])
    check_decoder(v, np.array([stream[:tokens], stream[-tokens:]], np.int32))


def test_sharded_streams_are_read_where_they_are() -> None:
    v, streams = mutated_streams(seed=5)
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    sharded = PrimaryIds(jax.device_put(streams, sharding))
    read = jax.jit(functools.partial(decode, v)).lower(sharded).compile()
    assert "all-gather" not in read.as_text()
    for field, whole in zip(read(sharded)[:6], decode(v, PrimaryIds(jnp.asarray(streams)))):
        assert field.sharding.is_equivalent_to(sharding, 2)
        np.testing.assert_array_equal(field, whole)


GROUPED = VOCABULARIES["typed grouped after minimal"]
IMAGE, MIXED, AUDIO, EOS = range(4)


@pytest.mark.parametrize(
    "name, document, field, value",
    [
        ("typed grouped after minimal", [(UNMARKED, [(0, 11)])], "item 1 of segment 0: id in image", 11),
        ("typed grouped after minimal", [(IMAGE, [(0, 3), (0, -1)])], "item 2 of segment 0: id in image", -1),
        ("typed inline none fixed", [(AUDIO, [(1, 4)])], "item 1 of segment 0: id in audio", 4),
        ("typed grouped after minimal", [(MIXED, [(GENERAL, 2)])], "item 1 of segment 0: id in general", 2),
        ("typed grouped after minimal", [(MIXED, [(2, 0)])], "item 1 of segment 0: space", 2),
        ("typed grouped after minimal", [(MIXED, [(-2, 0)])], "item 1 of segment 0: space", -2),
        ("typed grouped after minimal", [(MIXED, []), (IMAGE, [(1, 0)])], "item 1 of segment 1: space", 1),
        ("typed grouped after minimal", [(IMAGE, [(GENERAL, 0)])], "item 1 of segment 0: space", GENERAL),
        ("typed grouped after minimal", [(IMAGE, [(0, 1)] * 5)], "item 5 of segment 0: position", 5),
        ("typed inline before fixed", [(IMAGE, [(0, 1)] * 9)], "item 5 of segment 0: position", 5),
        ("narrow", [(0, [(GENERAL, 0)])], "item 1 of segment 0: id in general", 0),
        ("typed grouped after minimal", [(EOS, [])], "segment_markers", EOS),
        ("typed grouped after minimal", [(4, [])], "segment_markers", 4),
        ("typed grouped after minimal", [(99, [(0, 1)])], "segment_markers", 99),
        ("typed grouped after minimal", [(-2, [(0, 1)])], "segment_markers", -2),
        ("typed grouped after minimal", [(-99, [(0, 1)])], "segment_markers", -99),
        ("plain grouped after minimal", [(0, [])], "segment_markers", 0),
        ("typed grouped after minimal", [(IMAGE, []), (UNMARKED, [])], "segment_markers", UNMARKED),
        ("typed inline after minimal", [(UNMARKED, [])], "segment_items", 0),
        ("plain inline none fixed", [(UNMARKED, [(1, 13)])], "item 1 of segment 0: id in x", 13),
        ("typed grouped after minimal", [], "document_segments", 0),
    ],
)
def test_what_the_encoder_refuses(name: str, document: reference.Document, field: str, value: int) -> None:
    v = VOCABULARIES[name]
    fine: reference.Document = [(0, []) if v.control else (UNMARKED, [(0, 0)])]
    for batch, where in (([document], 0), ([fine, document], 1)):
        with pytest.raises(VocabularyError) as caught:
            encode(v, reference.to_library(batch))
        assert caught.value.value == value
        if where == 0:
            assert caught.value.field == field
        assert caught.value.rule
        assert caught.value.fix


def test_a_general_token_after_a_fragment_needs_positions_to_be_grouped() -> None:
    v = Vocabulary(positions=0, digits=2, base=2, spaces=(Space("a", 4),), position="none", width="fixed")
    with pytest.raises(VocabularyError) as caught:
        encode(v, reference.to_library([[(UNMARKED, [(GENERAL, 9), (0, 1), (GENERAL, 0)])]]))
    assert caught.value.field == "item 3 of segment 0: kind"
    assert encode(v, reference.to_library([[(UNMARKED, [(GENERAL, 9), (0, 1)])]])).tokens.array.tolist() == [
        10,
        259,
        257,
        258,
    ]


@pytest.mark.parametrize("ids", [np.array([1.0, 2.0]), np.array([0.5]), np.array([True]), np.array(["1"])])
def test_ids_that_are_no_whole_numbers_are_refused(ids: np.ndarray) -> None:
    with pytest.raises(VocabularyError) as caught:
        library.Documents.of([[library.Segment.of(GROUPED, "image", SecondaryIds("image", ids))]])
    assert caught.value.field == "ids"
    assert caught.value.value == f"{ids.dtype}{list(ids.shape)}"


def test_ids_that_int64_cannot_hold_are_refused() -> None:
    ids = np.array([3, 2**64 - 2**31], np.uint64)
    with pytest.raises(VocabularyError, match=str(2**64 - 2**31)):
        encode(GROUPED, library.Documents.of([[library.Segment.of(GROUPED, "image", SecondaryIds("image", ids))]]))


def test_masked_ids_are_refused() -> None:
    masked = np.ma.array([3, 4], mask=[False, True])
    for part in (SecondaryIds("image", masked), GeneralIds(masked)):
        with pytest.raises(VocabularyError, match="masked values would be written, too"):
            library.Segment.of(GROUPED, "image", part)
    flat = library.Documents(np.zeros(2, np.int32), masked, *(np.array([n]) for n in (2, 0, 1)))
    with pytest.raises(VocabularyError, match="masked values would be written, too"):
        encode(GROUPED, flat)


def test_general_tokens_can_stand_beyond_the_position_tokens() -> None:
    v = VOCABULARIES["plain grouped after minimal"]
    check_round_trip(v, [[(UNMARKED, [(0, 0), (1, 1), *[(GENERAL, 1)] * 20])]])


def test_no_documents() -> None:
    encoded = encode(GROUPED, library.Documents.of([]))
    assert encoded.tokens.array.shape == (0,)
    assert encoded.split() == []
    assert library.Documents.of([]).to_list() == []


def test_counts_of_segments_and_documents() -> None:
    for name, v in VOCABULARIES.items():
        documents = many_documents(name)
        encoded = encode(v, reference.to_library(documents, v))
        segments = [len(reference.encode_segment(v, segment)) for document in documents for segment in document]
        last = np.cumsum([len(document) for document in documents]) - 1
        wanted = np.array(segments)
        wanted[last] += "eos" in v.control
        np.testing.assert_array_equal(encoded.segment_tokens, wanted)
        np.testing.assert_array_equal(encoded.document_tokens, [len(reference.encode(v, d)) for d in documents])


def test_the_flat_form_comes_back() -> None:
    documents = reference.to_library(many_documents("typed grouped after minimal"))
    again = library.Documents.of(documents.to_list())
    for field, same in zip(vars(documents).values(), vars(again).values()):
        np.testing.assert_array_equal(field, same)


def arrays_of(encoded: Encoded) -> tuple[np.ndarray, ...]:
    return encoded.tokens.array, encoded.segment_tokens, encoded.document_tokens, encoded.kinds


@pytest.mark.parametrize("name", ["typed grouped after minimal", "typed inline none fixed", "large, large base"])
def test_the_encoder_is_pure(name: str) -> None:
    flat = reference.to_library(many_documents(name))
    before = [field.copy() for field in vars(flat).values()]
    for field in vars(flat).values():
        field.flags.writeable = False
    first, second = encode(VOCABULARIES[name], flat), encode(VOCABULARIES[name], flat)
    for one, other in zip(arrays_of(first), arrays_of(second)):
        np.testing.assert_array_equal(one, other)
        assert not np.shares_memory(one, other)
    for field, old in zip(vars(flat).values(), before):
        np.testing.assert_array_equal(field, old)


def lines_run(v: Vocabulary, flat: library.Documents) -> int:
    """Lines of Python that an encoding executes, here and in NumPy."""
    count = 0

    def trace(frame: Any, event: str, argument: Any) -> Any:
        nonlocal count
        count += event in ("line", "call")
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        encode(v, flat)
    finally:
        sys.settrace(before)
    return count


@pytest.mark.parametrize("layout, position, width", WAYS)
def test_the_encoder_has_no_loop_over_items(layout: Any, position: Any, width: Any) -> None:
    v = Vocabulary(
        positions=5000, digits=10, base=10, spaces=(Space("a", 999),), layout=layout, position=position, width=width
    )
    sizes = (3, 2000)
    few, many = (
        reference.to_library([[(UNMARKED, [(GENERAL, 1)] * n + [(0, number % 999) for number in range(n)])]])
        for n in sizes
    )
    encode(v, few), encode(v, many)  # fills what is computed once
    assert lines_run(v, many) == lines_run(v, few)
