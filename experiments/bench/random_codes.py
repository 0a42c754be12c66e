"""Data for measurements of speed, where only the sizes of the spaces matter."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Int

from omnijax.modalities import Codes, Modality, Text
from omnijax.source import Record, Source
from omnijax.vocab.documents import Documents, Segment
from omnijax.vocab.encode import encode
from omnijax.vocab.ids import GeneralIds, SecondaryIds
from omnijax.vocab.vocabulary import Vocabulary


@dataclasses.dataclass(frozen=True)
class RandomCodes(Source):
    """A text of bytes, and fields of random codes, up to 30 of each."""

    sizes: tuple[tuple[str, int], ...] = (("image", 2**18), ("speech", 4096))
    """Each field of codes, and the number of different codes; at most 2^64."""
    count: int = 500
    """Records of each split."""
    most: int = 30
    """Most items of a field."""

    @property
    def fields(self) -> Mapping[str, Modality]:
        """The text, then the codes."""
        codes = {name: Codes(name, radices=_radices(size), most=self.most) for name, size in self.sizes}
        return {"text": Text(most=self.most), **codes}

    def records(self, split: str) -> Sequence[Record]:
        """Evenly drawn bytes and codes."""
        random = np.random.default_rng((self.seed, self.splits.index(split)))
        radices = {name: np.array(_radices(size), np.uint64) for name, size in self.sizes}

        def codes(name: str) -> Int[np.ndarray, "items places"]:
            shape = int(random.integers(1, self.most + 1)), len(radices[name])
            return random.integers(0, radices[name], shape, np.uint64).astype(np.uint32)

        def record() -> Record:
            text = random.bytes(int(random.integers(1, self.most + 1)))
            return {"text": text, **{name: codes(name) for name in radices}}

        return [record() for _ in range(self.count)]


def _radices(size: int) -> tuple[int, ...]:
    return (size,) if size <= 2**32 else (size // 2**32, 2**32)


def prompt(
    v: Vocabulary, source: str, ids: Sequence[Int[np.ndarray, " items"]], target: str
) -> tuple[Int[np.ndarray, "n t"], Int[np.ndarray, " n"]]:
    """Documents of one segment that go on with another one, all of the same length.

    Args:
        v: that they are written in.
        source: field of the segment that is there.
        ids: its items, for each document.
        target: field of the segment that follows.

    Returns:
        Tokens, and the length of each row.
    """
    typed = source in [space.name for space in v.spaces]
    segments = [Segment.of(v, source, SecondaryIds(source, one) if typed else GeneralIds(one)) for one in ids]
    rows = [tokens.array for tokens in encode(v, Documents.of([[one] for one in segments])).split()]
    tokens = np.stack([np.append(row[: row.size - (v.end is not None)], v.token(target)) for row in rows])
    return tokens.astype(np.int32), np.full(len(rows), tokens.shape[1], np.int32)
