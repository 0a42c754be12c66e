"""Text as pieces: frequent byte strings are fragments, and the bytes between them general tokens.

Pieces are learned by byte-pair encoding, and a text is cut so that it takes the fewest primary tokens, both by the
library `tokenizers`. No text is changed: joined pieces and bytes are the text, whether it is UTF-8 or not.
"""

from __future__ import annotations

import dataclasses
import functools
import heapq
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

import numpy as np
from etils import epy
from jaxtyping import Bool, UInt8

from omnijax.errors import DataError
from omnijax.modalities.base import GENERAL, Items, Part, Progress, refuse_digits
from omnijax.modalities.text import Text

with epy.lazy_imports():  # an extra
    import tokenizers

_FIT_BYTES = 2**26
_LATIN = "latin-1"
"""Maps each byte to one character, so that the library, which knows text only, keeps every byte."""


@dataclasses.dataclass(frozen=True)
class TextPieces(Text):
    """A string as pieces of several bytes and single bytes. It owns the general tokens: each byte is one."""

    least: int = 0
    """Fewest items of a text."""
    most: int = 255
    """Most items of a text: pieces, and bytes between them."""
    pieces: int = 4096
    """Number of pieces. A piece that is shorter than what it is written with is never used."""
    tokens: int = 3
    """Primary tokens that a piece is written with: its digits and its position."""

    learned: ClassVar[bool] = True

    @property
    def parts(self) -> tuple[Part, ...]:
        """Pieces, in the order of their bytes: a leading digit stands for their first bytes."""
        return (Part(f"{self.name}.piece", (self.pieces,)),)

    def check(self, field: str) -> None:
        """Checks the number of pieces and of their tokens, too."""
        super().check(field)
        self.check_bounds(field, pieces=(1, 2**24), tokens=(1, 64))

    @classmethod
    def suited(cls, headers: Sequence[Mapping[str, int | float]], tokens: int) -> tuple[Self, list[str]]:
        """As many pieces as the texts can teach, up to 2^16: one for each 100 bytes."""
        sizes = [int(header["bytes"]) for header in headers]
        pieces = min(2**16, max(16, sum(sizes) // 100))
        return cls(most=max(1, *sizes), pieces=pieces, tokens=2 + (pieces > 256)), []

    def fit(self, signals: Sequence[Any], seed: int, progress: Progress) -> dict[str, np.ndarray]:
        """Learns pieces from at most 64 MiB of text: the merges that byte-pair encoding makes first.

        Returns `bytes`, uint8[all], the pieces one after another, sorted; and `lengths`, int64[pieces]. Raises a
        `DataError` if the texts have too few different pieces.
        """
        ranks, size = np.random.default_rng((seed, 7)).permutation(len(signals)), 0
        chosen = list[tuple[int, bytes]]()  # a heap; signals are read in their order, since any other order is slow
        for place, rank in enumerate(ranks.tolist()):
            raw = self.raw(signals[place])
            heapq.heappush(chosen, (-rank, raw))
            size += len(raw)
            while size > _FIT_BYTES:
                size -= len(heapq.heappop(chosen)[1])
            progress(0.3 * place / len(ranks))
        found = _learn([raw for _, raw in chosen], 2 * self.pieces + 512)
        useful = [piece for piece in found if len(piece) > self.tokens][: self.pieces]
        useful += [piece for piece in found if 1 < len(piece) <= self.tokens][: self.pieces - len(useful)]
        if len(useful) < self.pieces:
            rule = f"the texts have only {len(useful)} different pieces"
            raise DataError(f"{self.name} pieces", self.pieces, rule, "use fewer, or add texts")
        progress(1.0)
        useful.sort()
        flat = np.frombuffer(b"".join(useful), np.uint8)
        return {"bytes": flat, "lengths": np.array([len(piece) for piece in useful], np.int64)}

    def encode(self, signals: Sequence[str | bytes]) -> Items:
        """Pieces and bytes of each text, so that it takes the fewest primary tokens.

        Raises a `DataError` if a signal is no text, or if nothing was learned.
        """
        cut = self._cutter
        found = [cut.encode(self.raw(signal).decode(_LATIN)).ids for signal in signals]
        ids = np.array([number for one in found for number in one], np.int64)
        part = np.where(ids < self.general, GENERAL, 0).astype(np.int8)
        digits = np.where(ids < self.general, ids, ids - self.general).astype(np.uint32)
        return Items(part, digits[:, None], np.array([len(one) for one in found], np.int64))

    def joined(self, items: Items, present: Bool[np.ndarray, " items"] | None = None) -> bytes:
        """The bytes of some pieces and bytes; exactly those that were encoded."""
        refuse_digits(self, items)
        table, kept = self._table, np.ones(len(items.part), bool) if present is None else np.asarray(present)
        pairs = zip(items.part[kept].tolist(), items.digits[kept, 0].tolist(), strict=True)
        return b"".join(bytes([number]) if part == GENERAL else table[number] for part, number in pairs)

    def _ends(self, raw: bytes) -> list[int]:
        """Where each of the first `most` items ends, in bytes. The best cut of a text begins with that of its start."""
        items = self.encode([raw])
        lengths = np.where(items.part == GENERAL, 1, self.arrays["lengths"][items.digits[:, 0] % self.pieces])
        return np.cumsum(lengths)[: self.most].tolist()

    @functools.cached_property
    def _table(self) -> list[bytes]:
        if self.arrays.keys() != {"bytes", "lengths"}:
            rule = "the pieces are learned from the training split"
            raise DataError(f"{self.name} pieces", sorted(self.arrays), rule, "build the data set: omnijax prepare")
        flat: UInt8[np.ndarray, " all"] = self.arrays["bytes"]
        ends = np.cumsum(self.arrays["lengths"])
        return [flat[end - size : end].tobytes() for end, size in zip(ends, self.arrays["lengths"], strict=True)]

    @functools.cached_property
    def _cutter(self) -> Any:
        """A unigram model whose log probabilities are numbers of tokens, so that its likeliest cut has the fewest.

        Of cuts with as many tokens it takes one with the fewest items.
        """
        scores = [(bytes([byte]).decode(_LATIN), -1.0 - 2**-20) for byte in range(self.general)]
        scores += [(piece.decode(_LATIN), -self.tokens - 2**-20) for piece in self._table]
        scores += [(chr(256), -100.0)]  # the library needs one for what it doesn't know, which can't come
        return tokenizers.Tokenizer(tokenizers.models.Unigram(scores, len(scores) - 1))

    def bound(self, arrays: Mapping[str, np.ndarray]) -> TextPieces:
        """This modality with what `fit` learned."""
        fitted = super().bound(arrays)
        for name in ("_table", "_cutter"):
            fitted.__dict__.pop(name, None)
        return fitted


def _learn(texts: Sequence[bytes], number: int) -> list[bytes]:
    """Pieces in the merge order of byte-pair encoding. No piece spans two words."""
    model = tokenizers.Tokenizer(tokenizers.models.BPE())
    words = tokenizers.Regex(r"[ \x00-\x1f]?[^ \x00-\x1f]+|[ \x00-\x1f]+")
    model.pre_tokenizer = tokenizers.pre_tokenizers.Split(words, "isolated")
    alphabet = [bytes([byte]).decode(_LATIN) for byte in range(256)]
    options: dict[str, Any] = {"show_progress": False, "special_tokens": [], "min_frequency": 2}
    trainer = tokenizers.trainers.BpeTrainer(vocab_size=256 + number, initial_alphabet=alphabet, **options)
    model.train_from_iterator((text.decode(_LATIN) for text in texts), trainer)
    in_order = sorted(model.get_vocab().items(), key=lambda pair: pair[1])
    return [piece.encode(_LATIN) for piece, _ in in_order if len(piece) > 1]
