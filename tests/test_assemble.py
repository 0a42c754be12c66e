"""`assemble(decode(encode(x)))` is x, and whatever the grammar lets through is something that the encoder writes."""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from omnijax.errors import VocabularyError
from omnijax.vocab.assemble import assemble
from omnijax.vocab.decode import decode
from omnijax.vocab.documents import GENERAL, UNMARKED, Documents, Segment
from omnijax.vocab.encode import encode
from omnijax.vocab.grammar import Grammar
from omnijax.vocab.ids import GeneralIds, PrimaryIds, SecondaryIds
from omnijax.vocab.vocabulary import Space, Vocabulary

SPACES = (Space("t_pad", 1), Space("image", 50), Space("speech", 7))
WALKS, WALK_TOKENS, DOCUMENTS = 200, 60, 150


def vocabularies() -> list[Vocabulary]:
    """Every way of writing that can be read back, with typed segments and without."""
    found = []
    for layout, position, width, typed in itertools.product(
        ("grouped", "inline"), ("after", "before", "none"), ("minimal", "fixed"), (True, False)
    ):
        control = ("image", "speech", "text", "eos") if typed else ("text", "eos")
        try:
            found.append(Vocabulary(12, 5, 4, SPACES, 3, control, layout, position, width))
        except VocabularyError:
            continue
    return found


def random_document(vocabulary: Vocabulary, random: np.random.Generator) -> list[Segment]:
    segments = []
    for number in range(random.integers(1, 4)):
        marker = int(random.integers(UNMARKED if number == 0 else 0, len(vocabulary.control) - 1))
        context = 0 if marker == UNMARKED else vocabulary.contexts.of_control[marker]
        items = int(random.integers(1 if marker == UNMARKED else 0, 10))
        if context:
            spaces = np.full(items, context - 1)
        else:
            spaces = random.integers(GENERAL, len(SPACES), items)
        if (vocabulary.position, vocabulary.layout) == ("none", "grouped"):
            spaces = np.sort(spaces)  # general tokens first: nothing says that they stood elsewhere
        limits = np.append([space.size for space in SPACES], vocabulary.general)[spaces]
        ids = (random.random(items) * limits).astype(np.int64)
        segments.append(Segment(marker, spaces.astype(np.int32), ids))
    return segments


def name_of(v: Vocabulary) -> str:
    return f"{v.layout} {v.position} {v.width} {'typed' if len(v.control) > 2 else 'untyped'}"


# All layouts, positions, widths and types are among them.
FEW = ("grouped after minimal typed", "grouped none fixed untyped", "inline before minimal untyped",
       "inline after fixed typed")  # fmt: skip


@pytest.mark.parametrize(
    "vocabulary",
    [pytest.param(v, marks=() if name_of(v) in FEW else pytest.mark.proof, id=name_of(v)) for v in vocabularies()],
)
def test_documents_come_back_and_walks_are_documents(vocabulary: Vocabulary) -> None:
    random = np.random.default_rng(0)
    documents = [random_document(vocabulary, random) for _ in range(DOCUMENTS)]
    streams = encode(vocabulary, Documents.of(documents)).split()
    grammar = Grammar(vocabulary)

    def step(state, key):
        mask = grammar.mask(state)
        token = jax.random.categorical(key, jnp.where(mask, 0.0, -jnp.inf))
        return grammar.advance(state, token), token

    keys = jax.random.split(jax.random.key(0), WALK_TOKENS)
    walks = np.asarray(jax.lax.scan(step, grammar.start_state(WALKS), keys)[1]).T
    walks = walks[(walks == vocabulary.end).any(axis=1)]
    assert len(walks) > WALKS / 2

    rows = [*(stream.array for stream in streams), *walks]
    tokens = np.zeros((len(rows), max(map(len, rows))), np.int32)
    for row, written in zip(tokens, rows, strict=True):
        row[: written.size] = written
    read = [found for (found,) in assemble(vocabulary, decode(vocabulary, PrimaryIds(jnp.asarray(tokens))))]
    assert read[:DOCUMENTS] == documents
    again = encode(vocabulary, Documents.of(read[DOCUMENTS:])).split()
    for walk, stream in zip(walks, again, strict=True):
        np.testing.assert_array_equal(np.pad(stream.array, (0, WALK_TOKENS - stream.array.size)), walk)


def test_many_documents_in_a_stream_and_what_cannot_be_read() -> None:
    vocabulary = vocabularies()[0]
    first = [Segment.of(vocabulary, "text", GeneralIds(np.array([1, 2])))]
    second = [Segment.of(vocabulary, "image", SecondaryIds("image", np.array([40, 3])))]
    stream = encode(vocabulary, Documents.of([first, second])).tokens.array
    assert assemble(vocabulary, decode(vocabulary, PrimaryIds(jnp.asarray(stream[None])))) == [[first, second]]
    # Without its digits the position of the first fragment places nothing; the second fragment still stands at 2.
    first_digits = np.flatnonzero(stream == vocabulary.position_start + 1) - np.arange(1, 4)
    broken = decode(vocabulary, PrimaryIds(jnp.asarray(np.delete(stream, first_digits)[None])))
    left = Segment.of(vocabulary, "image", SecondaryIds("image", np.array([3])))
    assert assemble(vocabulary, broken) == [[first, [left]]]


def test_float_tokens_are_refused() -> None:
    with pytest.raises(VocabularyError, match="whole numbers"):
        decode(vocabularies()[0], PrimaryIds(jnp.zeros((1, 3))))
