"""Kinds of numbers can't be mixed: not at run time at the borders of the vocabulary, and not under the type checker."""

from __future__ import annotations

import pathlib
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from omnijax.errors import VocabularyError
from omnijax.vocab.decode import decode
from omnijax.vocab.documents import GENERAL, UNMARKED, Documents, Segment
from omnijax.vocab.encode import encode
from omnijax.vocab.grammar import Grammar
from omnijax.vocab.ids import GeneralIds, PrimaryIds, SecondaryIds, expect
from omnijax.vocab.likelihood import item_bits, token_bits
from omnijax.vocab.vocabulary import Space, Vocabulary

VOCABULARY = Vocabulary(
    positions=9, digits=8, base=8, spaces=(Space("image", 50), Space("speech", 7)), control=("text", "image", "eos")
)
IDS = np.array([[1, 2, 3]])
KINDS: dict[str, Any] = {
    "array": IDS,
    "primary": PrimaryIds(jnp.asarray(IDS)),
    "secondary": SecondaryIds("image", IDS[0]),
    "general": GeneralIds(IDS[0]),
}
LOGITS = jnp.zeros((1, 3, VOCABULARY.size))
BORDERS: list[tuple[str, tuple[str, ...], Callable[[Any], object]]] = [
    ("decode", ("primary",), lambda ids: decode(VOCABULARY, ids)),
    ("Grammar.masks", ("primary",), lambda ids: Grammar(VOCABULARY).masks(ids)),
    ("Grammar.accepts", ("primary",), lambda ids: Grammar(VOCABULARY).accepts(ids)),
    ("item_bits", ("primary",), lambda ids: item_bits(VOCABULARY, ids, jnp.ones((1, 3)))),
    ("token_bits", ("primary",), lambda ids: token_bits(LOGITS, ids, LOGITS == 0)),
    ("Segment.of", ("secondary", "general"), lambda ids: Segment.of(VOCABULARY, "text", ids)),
]


@pytest.mark.parametrize("given", KINDS)
@pytest.mark.parametrize("border, taken, call", BORDERS, ids=[name for name, *_ in BORDERS])
def test_only_its_own_kind_passes_a_border(
    border: str, taken: tuple[str, ...], call: Callable[[Any], object], given: str
) -> None:
    if given in taken:
        jax.eval_shape(call, KINDS[given]) if given == "primary" else call(KINDS[given])  # tracing shows it
        return
    with pytest.raises(VocabularyError) as caught:
        call(KINDS[given])
    assert caught.value.value == type(KINDS[given]).__name__
    assert "must be" in caught.value.rule
    assert caught.value.fix.startswith("wrap what really is one")


def test_a_segment_says_what_its_ids_are() -> None:
    segment = Segment.of(VOCABULARY, "image", SecondaryIds("image", np.array([3, 4])))
    assert (segment.marker, segment.spaces.tolist(), segment.ids.tolist()) == (1, [0, 0], [3, 4])
    segment = Segment.of(VOCABULARY, None, GeneralIds(np.array([65])))
    assert (segment.marker, segment.spaces.tolist(), segment.ids.tolist()) == (UNMARKED, [GENERAL], [65])
    with pytest.raises(VocabularyError, match="the spaces are image, speech"):
        Segment.of(VOCABULARY, "image", SecondaryIds("video", np.array([3])))
    with pytest.raises(VocabularyError, match="the control tokens are text, image, eos"):
        Segment.of(VOCABULARY, "video", SecondaryIds("image", np.array([3])))
    # Fragments of one space under the marker of another are found where it is known what stands there.
    with pytest.raises(VocabularyError, match="holds fragments of one space"):
        encode(VOCABULARY, Documents.of([[Segment.of(VOCABULARY, "image", SecondaryIds("speech", np.array([3])))]]))


def test_tokens_are_a_pytree() -> None:
    """They go through `jit`, and keep what they are."""
    tokens = jax.jit(lambda ids: PrimaryIds(ids.array + 1))(KINDS["primary"])
    assert isinstance(tokens, PrimaryIds)
    assert tokens.array.shape == (1, 3)
    assert tokens.array.tolist() == [[2, 3, 4]]


def test_expect_names_the_field() -> None:
    with pytest.raises(VocabularyError) as caught:
        expect(PrimaryIds, IDS, "tokens of the prompt")
    assert (caught.value.field, caught.value.value) == ("tokens of the prompt", "ndarray")


MIXED_UP = """
import numpy as np

from omnijax.vocab.documents import Documents, Segment
from omnijax.vocab.encode import encode
from omnijax.vocab.decode import decode
from omnijax.vocab.grammar import Grammar
from omnijax.vocab.ids import GeneralIds, PrimaryIds, SecondaryIds
from omnijax.vocab.vocabulary import Vocabulary


def fine(v: Vocabulary, tokens: PrimaryIds, ids: SecondaryIds, text: GeneralIds) -> None:
    decode(v, tokens)
    decode(v, encode(v, Documents.of([[Segment.of(v, "image", ids), Segment.of(v, None, text)]])).tokens)


def mixed_up(v: Vocabulary, tokens: PrimaryIds, ids: SecondaryIds, text: GeneralIds) -> None:
    decode(v, ids)  # wrong
    decode(v, text)  # wrong
    decode(v, np.zeros((1, 3), np.int32))  # wrong
    Segment.of(v, "image", tokens)  # wrong
    Segment.of(v, "image", np.zeros(3, np.int64))  # wrong
    encode(v, tokens)  # wrong
    found: SecondaryIds = encode(v, Documents.of([])).tokens  # wrong
"""


def test_the_type_checker_refuses_to_mix_them(tmp_path: pathlib.Path) -> None:
    file = tmp_path / "mixed_up.py"
    file.write_text(MIXED_UP)
    root = pathlib.Path(__file__).resolve().parent.parent
    # With the options of `make lint`, whose cache is of use here.
    command = [sys.executable, "-m", "mypy", "--no-error-summary", "--hide-error-context"]
    result = subprocess.run(
        [*command, "--config-file", str(root / "pyproject.toml"), str(file)],
        capture_output=True,
        text=True,
        check=False,
        cwd=root,
    )
    wrong = [number for number, line in enumerate(MIXED_UP.splitlines(), 1) if "# wrong" in line]
    said = [line.split(":") for line in result.stdout.splitlines() if f"{file.name}:" in line and ": error:" in line]
    assert [int(parts[1]) for parts in said] == wrong, result.stdout + result.stderr
    assert all("[arg-type]" in parts[-1] or "[assignment]" in parts[-1] for parts in said)
