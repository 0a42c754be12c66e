"""Text as UTF-8 bytes: no files, no training, every string."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import BinaryIO, ClassVar, Self

import numpy as np
from jaxtyping import Bool

from omnijax.errors import DataError
from omnijax.modalities.base import GENERAL, Items, Modality, refuse_digits


@dataclasses.dataclass(frozen=True)
class Text(Modality):
    """A string as its UTF-8 bytes, or bytes as they are. It owns the general tokens: each byte is one."""

    name: str = "text"
    least: int = 0
    """Fewest bytes of a text."""
    most: int = 255
    """Most bytes of a text."""

    suffixes: ClassVar[tuple[str, ...]] = (".txt",)
    field: ClassVar[str] = "caption"
    general: ClassVar[int] = 256
    lossless: ClassVar[bool] = True

    @property
    def limits(self) -> tuple[tuple[int, int], ...]:
        """Fewest and most bytes."""
        return ((self.least, self.most),)

    def check(self, field: str) -> None:
        """Raises a `ConfigError` unless 0 ≤ least ≤ most and 1 ≤ most ≤ 2²⁸."""
        self.check_bounds(field, most=(1, 2**28), least=(0, self.most))

    def encode(self, signals: Sequence[str | bytes]) -> Items:
        """Bytes of each text; raises a `DataError` for a signal that is no text."""
        raw = [self.raw(signal) for signal in signals]
        flat = np.frombuffer(b"".join(raw), np.uint8).astype(np.uint32)
        counts = np.array([len(one) for one in raw], np.int64)
        return Items(np.full(len(flat), GENERAL, np.int8), flat[:, None], counts)

    def decode(self, items: Items, present: Bool[np.ndarray, " items"] | None = None) -> str:
        """The string of some items; bytes that aren't UTF-8 become U+FFFD, since a model may sample any."""
        return self.joined(items, present).decode(errors="replace")

    def joined(self, items: Items, present: Bool[np.ndarray, " items"] | None = None) -> bytes:
        """The bytes of some items: exactly those that were encoded."""
        refuse_digits(self, items)
        kept = items.digits[:, 0] if present is None else items.digits[present, 0]
        return kept.astype(np.uint8).tobytes()

    def exactly(self, items: Items) -> bytes:
        """The bytes of a text."""
        return self.joined(items)

    def cut(self, stream: BinaryIO) -> tuple[list[bytes], dict[str, int]]:
        """The bytes of a file in texts of at most `most` items, which end with a line or before a space if they can."""
        raw, texts, start = stream.read(), list[bytes](), 0
        while start < len(raw):
            ends = self._ends(raw[start : start + 16 * self.most])
            whole = raw[start : start + ends[-1]]
            near = () if start + len(whole) == len(raw) else (whole.rfind(b"\n") + 1, whole.rfind(b" "))
            texts.append(whole[: next((one for one in near if one > 0 and one in ends), ends[-1])])
            start += len(texts[-1])
        return texts, {}

    def _ends(self, raw: bytes) -> Sequence[int]:
        """Where each of the first `most` items of a text ends, in bytes."""
        return range(1, min(len(raw), self.most) + 1)

    def paste(self, signals: Sequence[bytes], told: Mapping[str, int], stream: BinaryIO) -> None:
        """Writes the texts as one file, with nothing between them."""
        stream.write(b"".join(signals))

    def units(self, signal: str | bytes) -> tuple[int, str]:
        """Number of bytes."""
        return len(self.raw(signal)), "byte"

    def metrics(self, real: Sequence[str], made: Sequence[str]) -> dict[str, float]:
        """Share of the texts that are exactly right."""
        return {"exact": float(np.mean([a == b for a, b in zip(real, made, strict=True)]))} if real else {}

    def raw(self, signal: str | bytes) -> bytes:
        """The UTF-8 of a text; raises a `DataError` if it is no text."""
        if isinstance(signal, bytes):
            return signal
        try:
            return signal.encode()
        except (AttributeError, UnicodeEncodeError) as error:
            rule = f"a text is a string of Unicode characters, or bytes ({error})"
            raise DataError(self.name, signal, rule, "give str or bytes") from error

    @classmethod
    def probe(cls, stream: BinaryIO) -> dict[str, int | float]:
        """Number of bytes, without a byte order mark and the last line end; raises errors as `read` does."""
        return {"bytes": len(cls().raw(cls().read(stream)))}

    @classmethod
    def suited(cls, headers: Sequence[Mapping[str, int | float]], tokens: int) -> tuple[Self, list[str]]:
        """Texts are kept as they are; the longest one is the limit."""
        most = max(1, *(int(header["bytes"]) for header in headers))
        return cls(most=most), [f"the longest text takes {most:,} tokens"] if most > tokens else []

    def parse(self, text: str) -> str:
        """The text itself."""
        return text
