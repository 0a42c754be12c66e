"""Signals as they stand in `samples.npz`, and as a piece of the page: a word, a picture, a player."""

from __future__ import annotations

import base64
import dataclasses
import html
import io
import itertools
import wave
from typing import Literal

import numpy as np
import PIL.Image

_BARS = 44


def data_uri(mime: str, content: bytes) -> str:
    """`content` as a URI that needs no other file."""
    return f"data:{mime};base64,{base64.b64encode(content).decode('ascii')}"


def wav(waveform: np.ndarray, sample_rate_hz: int) -> bytes:
    """A mono waveform, float [n] in [-1, 1], as a 16-bit PCM WAV file; a louder one is scaled down, not clipped."""
    peak = max(1.0, float(np.abs(waveform).max(initial=0.0)))
    samples = np.round(waveform / peak * 32767).astype("<i2")
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(sample_rate_hz)
        file.writeframes(samples.tobytes())
    return buffer.getvalue()


def outline(waveform: np.ndarray) -> str:
    """The envelope of a waveform, float [n], as an SVG drawing in the colour of the text around it."""
    edges = np.linspace(0, len(waveform), _BARS + 1).astype(int)
    peaks = np.array([np.abs(waveform[a : max(b, a + 1)]).max(initial=0.0) for a, b in itertools.pairwise(edges)])
    heights = np.maximum(10 * peaks / max(float(peaks.max()), 1e-9), 0.6)
    bars = "".join(f"M{2 * i + 1} {12 - h:.1f}V{12 + h:.1f}" for i, h in enumerate(heights))
    return (
        f'<svg class="wave" viewBox="0 0 {2 * _BARS} 24" preserveAspectRatio="none" aria-hidden="true">'
        f'<path d="{bars}"/></svg>'
    )


def player(waveform: np.ndarray, sample_rate_hz: int, label: str) -> str:
    """A player for a waveform, float [n]: a button with its envelope, or the browser's own controls without scripts."""
    if len(waveform) == 0:
        return '<span class="word nothing">no sound</span>'
    uri = data_uri("audio/wav", wav(waveform, sample_rate_hz))
    name = html.escape(f"Play {label}, {len(waveform) / sample_rate_hz:.2f} s", quote=True)
    triangle = '<svg class="go" viewBox="0 0 10 10" aria-hidden="true"><path d="M1 0L10 5L1 10Z"/></svg>'
    return (
        f'<span class="player"><audio controls preload="metadata" src="{uri}"></audio>'
        f'<button type="button" hidden aria-label="{name}" title="{name}">{triangle}{outline(waveform)}</button></span>'
    )


def picture(image: np.ndarray, peak: int, label: str) -> str:
    """A small image, uint8 [height, width] with values up to `peak`, as ink on paper: one PNG pixel for each pixel."""
    ink = 255 - np.clip(image.astype(np.float64) * (255 / peak), 0, 255).round().astype(np.uint8)
    buffer = io.BytesIO()
    PIL.Image.fromarray(ink).save(buffer, format="PNG")
    uri = data_uri("image/png", buffer.getvalue())
    return f'<img class="tile" alt="{html.escape(label, quote=True)}" width="44" height="44" src="{uri}">'


@dataclasses.dataclass(frozen=True)
class Signals:
    """A batch of raw signals of one modality; the shape of the array tells which."""

    values: np.ndarray
    """str [n], or uint8 [n, height, width], or a zero-padded float [n, samples]."""
    lengths: np.ndarray | None
    """int [n], samples in each waveform; None for the others."""
    sample_rate_hz: int

    @property
    def kind(self) -> Literal["text", "image", "waveform"]:
        """What the array holds, by its number of dimensions."""
        if self.values.ndim == 1:
            return "text"
        return "image" if self.values.ndim == 3 else "waveform"

    def waveform(self, index: int) -> np.ndarray:
        """Waveform `index` without its padding, float64 [samples] in [-1, 1]."""
        if self.lengths is None:
            raise TypeError(f"signals of kind {self.kind} hold no waveform")
        values = self.values[index, : int(self.lengths[index])]
        scale = 32768.0 if np.issubdtype(values.dtype, np.integer) else 1.0
        return values.astype(np.float64) / scale

    def show(self, index: int, peak: int, label: str) -> str:
        """Signal `index` as HTML: text in quotes, an image with values up to `peak`, or a player named `label`."""
        if self.kind == "image":
            return picture(self.values[index], peak, label)
        if self.kind == "waveform":
            return player(self.waveform(index), self.sample_rate_hz, label)
        word = str(self.values[index])
        return f'<span class="word">{html.escape(word)}</span>' if word else '<span class="word nothing">nothing</span>'
