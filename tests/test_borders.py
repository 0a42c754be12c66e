"""Bad input at the borders of the vocabulary: a typed error, before anything is written or lost."""

from __future__ import annotations

from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
import pytest

from omnijax.errors import VocabularyError
from omnijax.vocab import (
    Documents,
    GeneralIds,
    Grammar,
    PrimaryIds,
    SecondaryIds,
    Segment,
    SegmentRule,
    Space,
    Vocabulary,
    assemble,
    decode,
    encode,
)
from omnijax.vocab.decode import Error

V = Vocabulary(
    positions=9,
    digits=16,
    base=16,
    general=4,
    spaces=(Space("a", 1000),),
    control=("x", "eos"),
    position="before",
    width="fixed",
)
GENERAL = Segment.of(V, "x", GeneralIds(np.array([0, 1, 2])))
ROW = encode(V, Documents.of([[GENERAL]])).tokens.array
EMPTY, ONE = np.zeros(0, np.int64), np.array([1])


def whole(spaces: int, ids: np.ndarray, items: list[int], documents: int = 1) -> Documents:
    markers = np.zeros(len(items), np.int64)
    return Documents(np.zeros(spaces, np.int32), ids, np.array(items), markers, np.array([documents]))


WRONG: dict[str, Callable[[], object]] = {
    "no Documents": lambda: encode(V, [[GENERAL]]),  # type: ignore[arg-type]
    "a document that is a segment": lambda: Documents.of([GENERAL]),  # type: ignore[list-item]
    "more ids than spaces": lambda: encode(V, whole(2, np.array([1, 2, 3]), [3])),
    "more items than ids": lambda: encode(V, whole(3, np.array([1, 2, 3]), [4])),
    "a negative number of items": lambda: encode(V, whole(1, ONE, [2, -1], 2)),
    "fewer segments than in documents": lambda: encode(V, whole(1, ONE, [1], 2)),
    "float ids": lambda: encode(V, whole(1, np.array([5.7]), [1])),
    "ids of another width": lambda: encode(V, whole(2, np.array([1, 2], np.int32), [2])),
    "general tokens out of order": lambda: encode(V, Documents.of([[GENERAL]]), np.array([2, 1, 0], np.uint32)),  # type: ignore[arg-type]
    "an id without a dimension": lambda: Segment.of(V, "x", SecondaryIds("a", np.array(3))),
    "ids without limbs": lambda: Documents.of([[Segment(0, np.zeros(2, np.int32), np.zeros((2, 0), np.uint32))]]),
    "a list of tokens": lambda: decode(V, PrimaryIds([1, 2, 3])),
    "float tokens": lambda: decode(V, PrimaryIds(jnp.array([[1.5]]))),
    "a reading of one stream": lambda: assemble(V, decode(V, PrimaryIds(ROW))),
    "a reading of rows of rows": lambda: assemble(V, decode(V, PrimaryIds(ROW[None, None]))),
    "masks of one stream": lambda: Grammar(V).masks(PrimaryIds(ROW)),
    "accepts of rows of rows": lambda: Grammar(V).accepts(PrimaryIds(ROW[None, None])),
    "rules in a list": lambda: Grammar(V, [SegmentRule("x", 0, 3)]),  # type: ignore[arg-type]
    "a start that is a text": lambda: Grammar(V, start="x"),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("call", WRONG.values(), ids=WRONG)
def test_bad_input_is_a_typed_error(call: Callable[[], object]) -> None:
    with pytest.raises(VocabularyError) as caught:
        call()
    assert caught.value.rule
    assert caught.value.fix


def test_tokens_beyond_32_bits_do_not_wrap_around() -> None:
    far = PrimaryIds(np.array([[2**32 + 1]], np.int64))
    assert decode(V, far).error.tolist() == [[Error.NOT_A_TOKEN]]
