"""The worked example of the source document, to the letter: the goldens are data of the method, never refreshed."""

from __future__ import annotations

import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference

from omnijax import cli
from omnijax.errors import VocabularyError
from omnijax.vocab.assemble import assemble
from omnijax.vocab.decode import Kind, decode
from omnijax.vocab.documents import Documents, Segment
from omnijax.vocab.encode import encode
from omnijax.vocab.example import FRAGMENTS, INFORMATION, example_document, example_vocabulary, worked_example
from omnijax.vocab.ids import GeneralIds, PrimaryIds, SecondaryIds

GOLDEN = json.loads((pathlib.Path(__file__).parent / "golden" / "worked_example.json").read_text(encoding="utf-8"))
TABLES = pytest.mark.parametrize("table", ["listed", "printed"])


@TABLES
def test_primary_vocabulary(table: str) -> None:
    vocabulary = example_vocabulary(printed=table == "printed")
    assert vocabulary.symbols() == GOLDEN[table]["primary"]
    assert vocabulary.size == len(GOLDEN[table]["primary"])
    assert vocabulary.base == GOLDEN["radix"]


def test_information() -> None:
    assert [name for names in FRAGMENTS.values() for name in names] == GOLDEN["secondary"]
    assert list(INFORMATION) == GOLDEN["document"]


@TABLES
def test_encoded(table: str) -> None:
    example = worked_example(printed=table == "printed")
    assert example["ids"] == GOLDEN[table]["encoded_ids"]
    assert example["symbols"] == GOLDEN["encoded_symbols"]


@TABLES
def test_written_with_segments_of_several_kinds(table: str) -> None:
    """The example as a user writes it, part by part."""
    vocabulary = example_vocabulary(printed=table == "printed")
    parts = [
        GeneralIds(np.arange(4)),  # A B C D
        SecondaryIds("text", np.array([3])),  # BCD
        SecondaryIds("image", np.array([0, 1])),
        SecondaryIds("voice", np.array([0, 1])),
    ]
    segment = Segment.of(vocabulary, None, *parts)
    assert [segment] == example_document()
    assert encode(vocabulary, Documents.of([[segment]])).tokens.array.tolist() == GOLDEN[table]["encoded_ids"]


def test_parts_of_either_form_of_ids_and_none_at_all() -> None:
    vocabulary = example_vocabulary()
    limbs = SecondaryIds("text", np.array([[3, 0]], np.uint32))
    mixed = Segment.of(vocabulary, None, GeneralIds(np.array([1])), limbs)
    assert mixed == Segment.of(vocabulary, None, GeneralIds(np.array([1])), SecondaryIds("text", np.array([3])))
    assert Segment.of(vocabulary, None) == Segment.of(vocabulary, None, GeneralIds(np.zeros(0, np.int64)))
    with pytest.raises(VocabularyError):
        Segment.of(vocabulary, None, GeneralIds(np.array([1])), np.array([1]))  # type: ignore[arg-type]
    with pytest.raises(VocabularyError):
        Segment.of(vocabulary, None, SecondaryIds("smell", np.array([1])))


@TABLES
def test_reference_encodes_it_too(table: str) -> None:
    vocabulary = example_vocabulary(printed=table == "printed")
    (segment,) = example_document()
    document = [(segment.marker, list(zip(segment.spaces.tolist(), segment.ids.tolist())))]
    assert reference.encode(vocabulary, document) == GOLDEN[table]["encoded_ids"]


@TABLES
def test_decoded(table: str) -> None:
    vocabulary = example_vocabulary(printed=table == "printed")
    tokens = jnp.asarray(GOLDEN[table]["encoded_ids"], jnp.int32)[None]
    reading = decode(vocabulary, PrimaryIds(tokens))
    first = jax.tree.map(lambda field: np.asarray(field[0]), reading)
    fragment = first.kind == Kind.FRAGMENT
    assert not first.error.any()
    assert first.id[fragment].tolist() == GOLDEN["secondary_ids"]
    assert first.position[fragment].tolist() == GOLDEN["positions_1_based"]
    assert first.id[first.kind == Kind.GENERAL].tolist() == [0, 1, 2, 3]
    assert assemble(vocabulary, reading) == [[example_document()]]


@TABLES
def test_command(table: str, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["vocab", "example"] + ["--printed"] * (table == "printed")
    golden = {"symbols": GOLDEN["encoded_symbols"], "ids": GOLDEN[table]["encoded_ids"]}
    assert cli.main([*arguments, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == golden
    assert cli.main(arguments) == 0
    symbols, ids = capsys.readouterr().out.splitlines()
    assert symbols.split() == golden["symbols"]
    assert [int(word) for word in ids.split()] == golden["ids"]
