"""Text pieces: every byte string comes back, in the fewest tokens, and the same pieces are learned in every process."""

from __future__ import annotations

import subprocess
import sys

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies

from omnijax.errors import DataError
from omnijax.modalities import TextPieces, text_pieces

TEXTS = ["the seven houses of the seventh house and the others", "then the seventh house, the other one", "ü ü ü zwölf"]
LEARN = """
import hashlib, sys
from omnijax.modalities import TextPieces, text_pieces
arrays = TextPieces(pieces=30).fit({texts!r} * 3, 0, lambda share: None)
print(hashlib.sha256(arrays["bytes"].tobytes() + arrays["lengths"].tobytes()).hexdigest())
"""


@pytest.fixture(scope="module")
def pieces() -> TextPieces:
    modality = TextPieces(most=10**6, pieces=30, tokens=2)
    return modality.bound(modality.fit(TEXTS * 3, 0, lambda share: None))


@hypothesis.given(
    strategies.lists(strategies.one_of(strategies.binary(max_size=40), strategies.sampled_from(TEXTS).map(str.encode)))
)
@hypothesis.example([b"\0\0\0", bytes(range(256)) * 2, b""])
def test_every_byte_string_comes_back(pieces: TextPieces, texts: list[bytes]) -> None:
    items = pieces.encode(texts)
    assert [pieces.joined(one) for one in items.split()] == texts


def fewest(text: bytes, table: set[bytes], tokens: int) -> int:
    """The slow, obvious way: the fewest tokens of each beginning of the text."""
    costs = [0, *[len(text) + 1] * len(text)]
    for start in range(len(text)):
        costs[start + 1] = min(costs[start + 1], costs[start] + 1)
        for end in range(start + 2, len(text) + 1):
            if text[start:end] in table:
                costs[end] = min(costs[end], costs[start] + tokens)
    return costs[-1]


@hypothesis.given(strategies.lists(strategies.sampled_from(["the ", "seven", "th", "house", "x", " ü", "zw"])))
def test_a_text_is_cut_into_the_fewest_tokens(pieces: TextPieces, words: list[str]) -> None:
    text = "".join(words).encode()
    ends = np.cumsum(pieces.arrays["lengths"])
    sizes = pieces.arrays["lengths"]
    flat = pieces.arrays["bytes"]
    table = {flat[end - size : end].tobytes() for end, size in zip(ends, sizes, strict=True)}
    part = pieces.encode([text]).part
    assert (part < 0).sum() + pieces.tokens * (part == 0).sum() == fewest(text, table, pieces.tokens)


def test_every_process_learns_the_same_pieces() -> None:
    command = [sys.executable, "-c", LEARN.format(texts=TEXTS)]
    found = {subprocess.run(command, capture_output=True, text=True, check=True).stdout for _ in range(2)}
    assert len(found) == 1


def test_too_few_pieces_are_an_error() -> None:
    with pytest.raises(DataError, match="the texts have only"):
        TextPieces(pieces=1000).fit(["ab"], 0, lambda share: None)


def test_texts_are_read_in_their_order_and_only_a_sample_of_many_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stored records are read in chunks, so that any other order takes minutes for thousands of texts."""
    texts = [f"{number:05} of all" for number in range(2000)]
    asked: list[int] = []

    class Signals(list):
        def __getitem__(self, place):
            asked.append(place)
            return super().__getitem__(place)

    learned: list[bytes] = []
    monkeypatch.setattr(text_pieces, "_FIT_BYTES", 12 * 100)
    learn = text_pieces._learn
    monkeypatch.setattr(text_pieces, "_learn", lambda chosen, number: learned.extend(chosen) or learn(chosen, number))
    TextPieces(pieces=5).fit(Signals(texts), 0, lambda share: None)
    assert asked == sorted(asked)
    assert len(set(learned)) == 100
    assert 800 < np.mean([int(text[:5]) for text in learned]) < 1200
