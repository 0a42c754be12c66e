"""Clips: frames on a fixed grid of times, each written as a picture, in time order."""

from __future__ import annotations

import dataclasses
import html
import io
import math
from collections.abc import Mapping, Sequence
from typing import Any, BinaryIO, ClassVar, Self

import numpy as np
from etils import epy
from jaxtyping import Bool, UInt8

from omnijax.errors import ConfigError, DataError
from omnijax.modalities.base import Items, Modality, Part, PartsOf, Progress, array_of, refuse_digits, sliced
from omnijax.modalities.clip_file import probe_film, read_frames, write_film
from omnijax.modalities.inline import data_uri
from omnijax.modalities.patch_codes import PatchCodes
from omnijax.modalities.picture import Picture

with epy.lazy_imports():  # an extra
    import PIL.Image


_MOST_FRAMES = 10**6


@dataclasses.dataclass(frozen=True)
class Clip(Modality):
    """A clip as its frames, one after another, after a header that says how many there are.

    A clip is uint8 of [frames, height, width, 3], of the height and width of `frame`.
    """

    name: str = "clip"
    frame: Picture = dataclasses.field(default_factory=lambda: PatchCodes(height=32, width=32))
    """How a frame is written: any picture of 3 channels and a fixed size."""
    rate_hz: float = 4.0
    """Frames per second."""
    most: int = 16
    """Most frames."""

    suffix: ClassVar[str] = ".mp4"
    suffixes: ClassVar[tuple[str, ...]] = (".mp4", ".webm", ".mov", ".mkv", ".avi", ".m4v")
    field: ClassVar[str] = "clip"

    @property
    def learned(self) -> bool:  # type: ignore[override]
        """Whether frames need something learned."""
        return self.frame.learned

    @property
    def lossless(self) -> bool:  # type: ignore[override]
        """Whether frames are written without loss."""
        return self.frame.lossless

    @property
    def parts(self) -> tuple[Part, ...]:
        """A header with the number of frames minus 1, then the parts of a frame."""
        return (
            Part(f"{self.name}.frames", (self.most,)),
            *(dataclasses.replace(part, name=f"{self.name}.frame") for part in self.frame.parts),
        )

    @property
    def halves(self) -> tuple[str, ...]:
        """What a signal can be completed from."""
        return ("first",)

    @property
    def limits(self) -> tuple[tuple[int, int], ...]:
        """One header, and from the items of one frame to those of `most`."""
        each = self.frame.limits[0][1]
        return ((1, 1), (each, each * self.most))

    @property
    def seconds(self) -> float:
        """Of the most frames."""
        return self.most / self.rate_hz

    def windows(self, stream: BinaryIO, seconds: float) -> list[Any]:
        """The frames of a film, `seconds × rate_hz` in each window."""
        frames = read_frames(self.name, stream, self.rate_hz, (self.frame.width, self.frame.height), 0.0, _MOST_FRAMES)
        return sliced(frames, max(1, round(seconds * self.rate_hz)))

    def check(self, field: str) -> None:
        """Raises a `ConfigError` for a frame that isn't in colour or has no fixed size, or for impossible numbers."""
        self.frame.check(f"{field}.frame")
        if self.frame.variable or self.frame.channels != 3 or self.frame.levels != 256:
            rule = "a frame has a fixed size and 3 channels of 256 levels"
            raise ConfigError(f"{field}.frame", self.frame, rule, "use such a picture")
        self.check_bounds(field, rate_hz=(0, 240), most=(1, 2**16))

    def bounds(self, before: Items) -> tuple[int, int]:
        """The header, then exactly the items of as many frames."""
        return (1, 1) if not len(before.part) else ((int(before.of(0, 1)[0, 0]) + 1) * self.frame.limits[0][1],) * 2

    def fit(self, signals: Sequence[Any], seed: int, progress: Progress) -> dict[str, np.ndarray]:
        """What the frames need."""
        return self.frame.fit(PartsOf(signals.__getitem__, len(signals)), seed, progress)

    @property
    def _fitted(self) -> Picture:
        return self.frame.bound(self.arrays) if self.learned else self.frame

    def encode(self, signals: Sequence[UInt8[np.ndarray, "frames height width 3"]]) -> Items:
        """Header and frames of each clip; raises a `DataError` for another shape or dtype, no frame or too many."""
        found, frame = [], self._fitted
        for signal in signals:
            clip = array_of(self.name, signal)
            if clip.ndim != 4 or not 1 <= len(clip) <= self.most:
                rule = f"a clip has 1 … {self.most} frames, as uint8 [frames, height, width, 3]"
                raise DataError(f"{self.name} frames", f"{clip.dtype}{list(clip.shape)}", rule, "cut it")
            items = frame.encode(list(clip))
            body = Items(items.part + np.int8(1), items.digits, np.array([len(items.part)], np.int64))
            found.append(Items.chained(Items.one(0, np.array([[len(clip) - 1]])), body))
        return Items.joined(found)

    def decode(
        self, items: Items, present: Bool[np.ndarray, " items"] | None = None
    ) -> UInt8[np.ndarray, "frames height width 3"]:
        """The clip that has these items. Missing parts are black."""
        refuse_digits(self, items)
        headers, body = items.of(0, 1), items.part == 1
        each = self.frame.limits[0][1]
        if len(headers) != 1 or (int(headers[0, 0]) + 1) * each != body.sum():
            rule = f"a clip has a header and {each} fragments for each frame that it says"
            raise DataError(f"{self.name} fragments", int(body.sum()), rule, "pass all items of one clip, in order")
        there = np.ones(len(items.part), bool) if present is None else np.asarray(present)
        frames, digits = int(headers[0, 0]) + 1, items.digits[body]
        frame, seen = self._fitted, there[body]
        places = (slice(start, start + each) for start in range(0, frames * each, each))
        return np.stack([frame.decode(Items.one(0, digits[place]), seen[place]) for place in places])

    def given(self, half: str, items: Items) -> Bool[np.ndarray, " items"]:
        """The header and the first half of the frames."""
        each = self.frame.limits[0][1]
        frame = (np.arange(len(items.part)) - 1) // each
        return np.asarray(2 * frame < (len(items.part) - 1) // each)

    def units(self, signal: UInt8[np.ndarray, "frames height width 3"]) -> tuple[int, str] | None:
        """Number of sub-pixels, where frames are lossless."""
        return (int(np.size(signal)), "sub-pixel") if self.lossless else None

    def raw(self, signal: UInt8[np.ndarray, "frames height width 3"]) -> bytes:
        """The sub-pixels of all frames."""
        return np.ascontiguousarray(signal, np.uint8).tobytes()

    def html(self, signal: UInt8[np.ndarray, "frames height width 3"], label: str) -> str:
        """The clip as an animated picture inside the page."""
        frames = [PIL.Image.fromarray(np.asarray(values, np.uint8)) for values in signal]
        zoom = max(1, 96 // max(frames[0].size))
        times = {"duration": 1000 / self.rate_hz, "loop": 0}
        frames[0].save(buffer := io.BytesIO(), "PNG", save_all=True, append_images=frames[1:], **times)
        width, height = (zoom * edge for edge in frames[0].size)
        return (
            f'<img class="tile{" pixels" if zoom > 1 else ""}" alt="{html.escape(label, quote=True)}" width="{width}" '
            f'height="{height}" src="{data_uri("image/png", buffer.getvalue())}">'
        )

    @classmethod
    def probe(cls, stream: BinaryIO) -> dict[str, int | float]:
        """Width, height, frames per second, seconds, and whether there is sound."""
        return probe_film(cls().name, stream)

    @classmethod
    def suited(cls, headers: Sequence[Mapping[str, int | float]], tokens: int) -> tuple[Self, list[str]]:
        """Four frames a second, at most 16, in codes of 32 bits for each 8 × 8 pixels, as large as the tokens allow."""
        rate = 4.0
        seconds = max(header["seconds"] for header in headers)
        most = max(1, min(16, math.ceil(seconds * rate)))
        shape = max(headers, key=lambda header: header["width"] * header["height"])
        frame, _ = PatchCodes.suited([{**shape, "channels": 3, "transparent": 0}], tokens // most)
        frame = dataclasses.replace(frame, variable=False)
        lost = [f"clips become {rate:g} frames a second of {frame.width} × {frame.height} pixels, in codes of 32 bits"]
        return cls(frame=frame, rate_hz=rate, most=most), lost

    def read(self, stream: BinaryIO) -> UInt8[np.ndarray, "frames height width 3"]:
        """The first frames of a film, on the grid of `rate_hz`; raises errors as `read_frames` does."""
        return read_frames(self.name, stream, self.rate_hz, (self.frame.width, self.frame.height), 0.0, self.most)

    def write(self, signal: UInt8[np.ndarray, "frames height width 3"], stream: BinaryIO) -> None:
        """Writes an MP4 film."""
        write_film(np.asarray(signal, np.uint8), self.rate_hz, stream)

    def sheet(self, signals: Sequence[UInt8[np.ndarray, "frames height width 3"]], stream: BinaryIO) -> None:
        """Writes a film with the clips one after another."""
        write_film(np.concatenate([np.asarray(signal, np.uint8) for signal in signals]), self.rate_hz, stream)
