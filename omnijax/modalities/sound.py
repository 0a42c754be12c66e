"""Sound without loss: samples of 8 or 16 bits, a few at a time in one fragment, whose natural digits are bytes."""

from __future__ import annotations

import collections
import dataclasses
import html
import io
import math
from collections.abc import Mapping, Sequence
from typing import Any, BinaryIO, ClassVar, Self

import numpy as np
from jaxtyping import Bool, Int, Shaped

from omnijax.errors import DataError
from omnijax.modalities.base import Items, Modality, Part, array_of, refuse_digits, sliced
from omnijax.modalities.clip import Clip
from omnijax.modalities.inline import data_uri
from omnijax.modalities.sound_file import probe_sound, read_samples, write_samples

_LONGEST = 3600.0
"""Seconds of a file that is cut into windows."""


@dataclasses.dataclass(frozen=True)
class Sound(Modality):
    """A sound as fragments of `block` frames, after a header that says how many frames it has.

    A sound is int16 of [frames, channels], or uint8 with 8 bits, at `rate_hz`. A frame is a sample of each channel.
    """

    name: str = "sound"
    rate_hz: int = 16_000
    channels: int = 1
    bits: int = 16
    """8 or 16."""
    block: int = 4
    """Frames in a fragment. The last fragment repeats the last frame until it is full."""
    most: int = 4096
    """Most fragments."""
    residuals: bool = False
    """Each sample is written as its difference from the one before, modulo 2^bits. Sounds can't be completed then."""
    convert: bool = dataclasses.field(default=False)
    """Files of another rate, number of channels or depth are converted; otherwise they are refused."""

    lossless: ClassVar[bool] = True
    suffix: ClassVar[str] = ".wav"
    suffixes: ClassVar[tuple[str, ...]] = (".wav", ".flac", ".ogg", ".opus", ".mp3", ".aiff", ".aif", *Clip.suffixes)
    field: ClassVar[str] = "sound"

    @property
    def parts(self) -> tuple[Part, ...]:
        """The number of frames - 1; fragments, high bytes first."""
        radices = (256,) * (self.block * self.channels * self.bits // 8)
        return (Part(f"{self.name}.frames", (self.most * self.block,)), Part(f"{self.name}.samples", radices))

    @property
    def halves(self) -> tuple[str, ...]:
        """What a signal can be completed from."""
        return () if self.residuals else ("first",)

    @property
    def limits(self) -> tuple[tuple[int, int], ...]:
        """One header, and from one fragment to `most`."""
        return ((1, 1), (1, self.most))

    @property
    def seconds(self) -> float:
        """Of the most fragments."""
        return self.most * self.block / self.rate_hz

    def windows(self, stream: BinaryIO, seconds: float) -> list[Any]:
        """The frames of a file, `seconds × rate_hz` in each window."""
        frames = read_samples(self.name, stream, self.rate_hz, self.channels, self.bits, _LONGEST, self.convert)
        return sliced(frames, max(1, round(seconds * self.rate_hz)))

    def check(self, field: str) -> None:
        """Raises a `ConfigError` for a rate, channels, bits or lengths out of their bounds."""
        self.check_bounds(field, rate_hz=(1_000, 1_000_000), channels=(1, 64), block=(1, 2**10), most=(1, 2**28))
        self.check_bounds(field, bits=(8, 16))
        if self.bits % 8:
            self.check_bounds(field, bits=(16, 16))

    def bounds(self, before: Items) -> tuple[int, int]:
        """The header, then exactly the fragments of as many frames."""
        return (1, 1) if not len(before.part) else (self._blocks(self._frames(before)),) * 2

    def encode(self, signals: Sequence[Shaped[np.ndarray, "frames channels"]]) -> Items:
        """Header and fragments of each sound. Raises a `DataError` for a wrong dtype or shape, or too many frames."""
        return Items.joined([self._items(self._checked(signal)) for signal in signals])

    def _items(self, frames: Shaped[np.ndarray, "frames channels"]) -> Items:
        count = self._blocks(len(frames))
        filled = np.pad(frames, ((0, count * self.block - len(frames)), (0, 0)), mode="edge")
        # The bytes of a sample, high first, from a value without sign, so that neighbouring values have near digits.
        raw = filled if self.bits == 8 else (filled.astype(np.int32) + 2**15).astype(">u2")
        raw = np.diff(raw, axis=0, prepend=raw.dtype.type(0)).astype(raw.dtype) if self.residuals else raw
        digits = np.ascontiguousarray(raw).view(np.uint8).reshape(count, -1)
        return Items.chained(Items.one(0, np.array([[len(frames) - 1]])), Items.one(1, digits))

    def decode(
        self, items: Items, present: Bool[np.ndarray, " items"] | None = None
    ) -> Shaped[np.ndarray, "frames channels"]:
        """The sound that has these items; the inverse of `encode`. Missing fragments are silent."""
        refuse_digits(self, items)
        frames, digits = self._frames(items), items.of(1, len(self.parts[1].radices)).astype(np.uint8)
        if len(digits) != self._blocks(frames):
            rule = f"a sound of {frames} frames has {self._blocks(frames)} fragments"
            raise DataError(f"{self.name} fragments", len(digits), rule, "pass all items of one sound, in order")
        raw = np.ascontiguousarray(digits).view(np.uint8 if self.bits == 8 else ">u2").reshape(-1, self.channels)
        if present is not None:
            there = np.repeat(np.asarray(present)[items.part == 1], self.block)
            raw = np.where(there[:, None], raw, 0 if self.residuals else 2 ** (self.bits - 1))
        raw = np.cumsum(raw, axis=0, dtype=raw.dtype) if self.residuals else raw
        return (raw if self.bits == 8 else (raw.astype(np.int32) - 2**15).astype(np.int16))[:frames].astype(self._dtype)

    def given(self, half: str, items: Items) -> Bool[np.ndarray, " items"]:
        """The header, and the fragments of the first half of the time."""
        place = np.arange(len(items.part)) - 1
        return np.asarray(2 * place < len(items.part) - 1)

    def units(self, signal: Shaped[np.ndarray, "frames channels"]) -> tuple[int, str]:
        """Number of samples."""
        return int(np.size(signal)), "sample"

    def metrics(self, real: Sequence[Any], made: Sequence[Any]) -> dict[str, float]:
        """`duration_ratio`: mean duration of generated sounds over that of the real ones."""
        seconds = [float(np.mean([len(one) for one in side])) if side else 0.0 for side in (real, made)]
        return {"duration_ratio": seconds[1] / seconds[0]} if seconds[0] else {}

    def raw(self, signal: Shaped[np.ndarray, "frames channels"]) -> bytes:
        """The samples, interleaved, in little-endian byte order."""
        return np.ascontiguousarray(signal, self._dtype.newbyteorder("<")).tobytes()

    def html(self, signal: Shaped[np.ndarray, "frames channels"], label: str) -> str:
        """A player, as the browser has it."""
        self.write(signal, buffer := io.BytesIO())
        alt = html.escape(label, quote=True)
        uri = data_uri("audio/wav", buffer.getvalue())
        return f'<span class="player"><audio controls preload="metadata" aria-label="{alt}" src="{uri}"></audio></span>'

    @classmethod
    def probe(cls, stream: BinaryIO) -> dict[str, int | float]:
        """Sample rate in Hz, channels and seconds."""
        return probe_sound(cls().name, stream)

    @classmethod
    def suited(cls, headers: Sequence[Mapping[str, int | float]], tokens: int) -> tuple[Self, list[str]]:
        """The rate and the channels of most files, blocks of four frames, and the length of the longest one."""
        rate, channels = (
            int(collections.Counter(header[name] for header in headers).most_common(1)[0][0])
            for name in ("rate_hz", "channels")
        )
        others = sum(header["rate_hz"] != rate or header["channels"] != channels for header in headers)
        lost = [f"{others} sounds are converted to {rate:,} Hz and {channels} channels"] if others else []
        block = 4
        most = max(math.ceil(header["seconds"] * rate / block) + 1 for header in headers)
        width = block * channels * 2 + 2
        if most * width > tokens:
            lost.append(f"the longest sound takes {most * width:,} tokens, more than the {tokens:,} of its share")
        return cls(rate_hz=rate, channels=channels, block=block, most=most, convert=bool(others)), lost

    def read(self, stream: BinaryIO) -> Shaped[np.ndarray, "frames channels"]:
        """Samples of a sound file. Raises a `DataError` if they have to be changed and `convert` forbids it."""
        most_seconds = self.most * self.block / self.rate_hz
        return read_samples(self.name, stream, self.rate_hz, self.channels, self.bits, most_seconds, self.convert)

    def cut(self, stream: BinaryIO) -> tuple[list[Any], dict[str, int]]:
        """The samples of a file in parts of `most` fragments; the last part may be shorter."""
        frames = read_samples(self.name, stream, self.rate_hz, self.channels, self.bits, _LONGEST, convert=False)
        length = self.most * self.block
        return [frames[start : start + length] for start in range(0, len(frames), length)], {}

    def paste(self, signals: Sequence[Any], told: Mapping[str, int], stream: BinaryIO) -> None:
        """Writes a WAV file of the sounds one after another."""
        self.write(np.concatenate(signals), stream)

    def write(self, signal: Shaped[np.ndarray, "frames channels"], stream: BinaryIO) -> None:
        """Writes a WAV file of the same samples."""
        write_samples(np.asarray(signal, self._dtype), self.rate_hz, stream)

    def sheet(self, signals: Sequence[Shaped[np.ndarray, "frames channels"]], stream: BinaryIO) -> None:
        """Writes a WAV file with the sounds one after another, a quarter of a second between them."""
        silent = np.full((self.rate_hz // 4, self.channels), 0 if self.bits == 16 else 128, self._dtype)
        self.write(np.concatenate([part for signal in signals for part in (signal, silent)]), stream)

    @property
    def _dtype(self) -> np.dtype[Any]:
        return np.dtype(np.int16 if self.bits == 16 else np.uint8)

    def _blocks(self, frames: int) -> int:
        return -(-frames // self.block)

    def _frames(self, items: Items) -> int:
        headers = items.of(0, 1)
        if len(headers) != 1:
            raise DataError(f"{self.name} headers", len(headers), "a sound begins with one header", "pass all items")
        return int(headers[0, 0]) + 1

    def _checked(self, signal: Any) -> Int[np.ndarray, "frames channels"]:
        frames = array_of(self.name, signal)
        fits = frames.ndim == 2 and frames.shape[1] == self.channels and frames.dtype == self._dtype
        if not fits or not 1 <= len(frames) <= self.most * self.block:
            rule = f"a sound is {self._dtype} of [1 … {self.most * self.block} frames, {self.channels} channels]"
            raise DataError(f"{self.name} samples", f"{frames.dtype}{list(frames.shape)}", rule, "convert or cut it")
        return frames
