"""Speech as fragments: each a few consecutive log-mel frames, quantised by a codebook.

The mean over time of an utterance's log-mel spectrogram is subtracted before it is quantised: it is the voice and the
channel more than the word (cepstral mean normalisation: B. Atal, J. Acoust. Soc. Am. 55 (1974)). So what a model
learns from some voices holds for others, and the codes are spent on what changes. Decoded speech gets the mean of all
training utterances, and so has one average voice.
"""

from __future__ import annotations

import dataclasses
import functools
import html
import io
import math
from collections.abc import Mapping, Sequence
from typing import Any, BinaryIO, ClassVar, Self

import numpy as np
from jaxtyping import Bool, Float32, Shaped, UInt8

from omnijax.errors import DataError
from omnijax.modalities.base import Items, Modality, Part, Progress, array_of, refuse_digits, sliced
from omnijax.modalities.codebook import fit_codebook, nearest
from omnijax.modalities.inline import data_uri, png
from omnijax.modalities.sound_file import read_sound, write_sound
from omnijax.modalities.spectrogram import Spectrogram
from omnijax.modalities.transform import Transform, check_code, transform_of

_RMS = 0.1
_FIT_SIGNALS = 50_000
_PIXELS_PER_SECOND = 120
_MOST_FRAMES_DRAWN = 400
_COLOUR = (66, 140, 228)  # stands out on white and on black


@dataclasses.dataclass(frozen=True)
class Speech(Modality):
    """A waveform as ids of a codebook over a few log-mel frames at a time, or as coefficients of a transform of them.

    A waveform is float32 (-1 to 1) or int16 of [samples], at `sample_rate_hz`. Its loudness doesn't matter.
    """

    name: str = "speech"
    sample_rate_hz: int = 11025
    window_samples: int = 512
    """Length of the Hann window, and of the Fourier transform."""
    hop_samples: int = 138
    """From one frame to the next; at most half of the window, so that frames leave no gaps."""
    mels: int = 40
    """Mel bands in a frame; at most a quarter of `window_samples`."""
    frames: int = 4
    """Frames in one fragment."""
    codes: int = 289
    """Entries of the codebook of each stage."""
    stages: int = 1
    """Codes of a fragment. The first is the coarsest: each further one is for what the ones before it leave."""
    code: tuple[int, ...] = ()
    """Number of levels of each coefficient, by decreasing variance. If it is given, a fragment is written as quantised
    coefficients of a `Transform` instead of codebook entries, so that similar sounds have similar digits."""
    most: int = 31
    """Most fragments of a waveform."""
    griffin_lim_iterations: int = dataclasses.field(default=60, metadata={"shapes_data": False})
    """Rounds of phase estimation when a waveform is made again."""

    learned: ClassVar[bool] = True
    suffix: ClassVar[str] = ".wav"

    @property
    def parts(self) -> tuple[Part, ...]:
        """Codes, a digit for each stage or coefficient."""
        return (Part(self.name, self.code or (self.codes,) * self.stages),)

    @property
    def halves(self) -> tuple[str, ...]:
        """What a signal can be completed from."""
        return ("first",)

    @property
    def limits(self) -> tuple[tuple[int, int], ...]:
        """From one fragment to `most`."""
        return ((1, self.most),)

    @property
    def seconds(self) -> float:
        """Of the most fragments."""
        return self.most * self.hop_samples * self.frames / self.sample_rate_hz

    def windows(self, stream: BinaryIO, seconds: float) -> list[Any]:
        """The samples of a file, `seconds × sample_rate_hz` in each window."""
        whole = read_sound(self.name, stream, self.sample_rate_hz, self.window_samples / self.sample_rate_hz, 3600.0)
        return sliced(whole, max(1, round(seconds * self.sample_rate_hz)))

    def check(self, field: str) -> None:
        """Raises a `ConfigError` for an analysis that can't be done."""
        least = {"sample_rate_hz": 4000, "frames": 1, "codes": 2, "most": 1, "griffin_lim_iterations": 0}
        self.check_bounds(field, **{name: (low, math.inf) for name, low in least.items()}, stages=(1, 64))
        self.check_bounds(field, hop_samples=(1, self.window_samples // 2), mels=(1, self.window_samples // 4))
        check_code(field, self.code, 0, self.frames * self.mels)

    @functools.cached_property
    def analysis(self) -> Spectrogram:
        """The log-mel analysis of this configuration."""
        return Spectrogram(self.sample_rate_hz, self.window_samples, self.hop_samples, self.mels)

    @property
    def codebook(self) -> Float32[np.ndarray, "stages*codes width"]:
        """The entries that `fit` learned, stage after stage; raises a `DataError` if it learned none, or others."""
        if self.arrays.keys() != {"vectors", "mean"}:
            rule = "speech needs a codebook, which is fitted on the training split"
            raise DataError(f"{self.name} codebook", sorted(self.arrays), rule, "build the data set: omnijax prepare")
        return self.arrays["vectors"]

    def fit(self, signals: Sequence[Any], seed: int, progress: Progress) -> dict[str, np.ndarray]:
        """Fits the codebook or the transform on at most 50,000 utterances.

        Raises a `DataError` for fewer fragments than codes.
        """
        places: Any = range(len(signals))
        if len(signals) > _FIT_SIGNALS:
            places = np.sort(np.random.default_rng((seed, 3)).choice(len(signals), _FIT_SIGNALS, replace=False))
        vectors, means = [], []
        for done, place in enumerate(places):
            blocks, mean = self._analysed(signals[int(place)])
            vectors.append(blocks)
            means.append(mean)
            progress(done / len(places) / 2)
        if not vectors:
            raise DataError(f"{self.name} codebook", 0, "it is fitted on training signals", "add records with speech")
        tiled = np.tile(np.mean(means, axis=0, dtype=np.float64), self.frames).astype(np.float32)
        left, codebooks = np.concatenate(vectors), list[Float32[np.ndarray, "codes width"]]()
        if self.code:
            found = Transform.fit([left], 1, self.code, seed, self.name, lambda share: progress((1 + share) / 2))
            return found._asdict() | {"spectrum": tiled}
        for stage in range(self.stages):
            codebooks.append(fit_codebook(left, self.codes, seed, self.name))
            left = left - codebooks[-1][nearest(codebooks[-1], left)]
            progress(0.5 + (stage + 1) / self.stages / 2)
        return {"vectors": np.concatenate(codebooks), "mean": tiled}

    def encode(self, signals: Sequence[Shaped[np.ndarray, " samples"]]) -> Items:
        """Codes of each waveform, which is filled up with silence to whole fragments."""
        blocks = [self._analysed(signal)[0] for signal in signals]
        counts = np.array([len(block) for block in blocks], np.int64)
        left = np.concatenate([np.zeros((0, self.frames * self.mels), np.float32), *blocks])
        if self.code:
            return Items(np.zeros(len(left), np.int8), transform_of(self).digits(left, self.code), counts)
        digits = np.zeros((len(left), self.stages), np.uint32)
        for stage, codebook in enumerate(np.split(self.codebook, self.stages)):
            digits[:, stage] = nearest(codebook, left)
            left = left - codebook[digits[:, stage]]
        return Items(np.zeros(len(left), np.int8), digits, counts)

    def decode(
        self, items: Items, present: Bool[np.ndarray, " items"] | None = None
    ) -> Float32[np.ndarray, " samples"]:
        """`items × frames × hop_samples` samples that sound like the fragments; what isn't present is silent."""
        refuse_digits(self, items)
        if self.code:
            frames = transform_of(self).vectors(items.digits[:, : len(self.code)]) + self.arrays["spectrum"]
        else:
            chosen = self.codebook[items.digits[:, : self.stages] + self.codes * np.arange(self.stages)]
            frames = chosen.sum(axis=1) + self.arrays["mean"]
        log_mel = frames.reshape(-1, self.mels)
        if present is not None:
            silence = np.float32(np.log(self.analysis.floor))
            log_mel = np.where(np.repeat(present, self.frames)[:, None], log_mel, silence)
        return normalised(self.analysis.waveform(log_mel, self.griffin_lim_iterations))

    def given(self, half: str, items: Items) -> Bool[np.ndarray, " items"]:
        """The fragments of the first half of the time."""
        return 2 * np.arange(len(items.part)) < len(items.part)

    def metrics(self, real: Sequence[Any], made: Sequence[Any]) -> dict[str, float]:
        """`duration_ratio`: mean duration of generated waveforms over that of the real ones."""
        seconds = [float(np.mean([len(one) for one in side])) if side else 0.0 for side in (real, made)]
        return {"duration_ratio": seconds[1] / seconds[0]} if seconds[0] else {}

    def html(self, signal: Shaped[np.ndarray, " samples"], label: str) -> str:
        """A player: a button with the spectrogram, or the browser's own controls without scripts."""
        if len(signal) == 0:
            return '<span class="word nothing">no sound</span>'
        self.write(signal, buffer := io.BytesIO())
        seconds = len(signal) / self.sample_rate_hz
        name = html.escape(f"Play {label}, {seconds:.2f} s", quote=True)
        triangle = '<svg class="go" viewBox="0 0 10 10" aria-hidden="true"><path d="M1 0L10 5L1 10Z"/></svg>'
        uri, picture = data_uri("audio/wav", buffer.getvalue()), data_uri("image/png", png(self._drawn(signal)))
        return (
            f'<span class="player"><audio controls preload="metadata" src="{uri}"></audio><button type="button" hidden '
            f'aria-label="{name}" title="{name}">{triangle}<img class="spectrum" alt="" src="{picture}" '
            f'width="{round(_PIXELS_PER_SECOND * seconds)}" height="34"></button></span>'
        )

    @classmethod
    def suited(cls, headers: Sequence[Mapping[str, int | float]], tokens: int) -> tuple[Self, list[str]]:
        """A codebook of 256 entries at 16 kHz, in windows of 32 ms every 12.5 ms, for the longest sound."""
        rate, hop, frames = 16_000, 200, 4
        longest = max(header["seconds"] for header in headers)
        most = min(math.ceil(longest * rate / (hop * frames)) + 1, max(8, tokens // 2))
        total = sum(header["seconds"] for header in headers) * rate / (hop * frames)
        codes = min(256, 2 ** max(1, int(math.log2(max(2.0, total / 4)))))
        a_second = f"{rate / (hop * frames):g} codes a second"
        lost = [f"sounds become {a_second}, of a codebook of {codes}: timbre and pitch suffer"]
        return cls(sample_rate_hz=rate, hop_samples=hop, frames=frames, codes=codes, most=most), lost

    def read(self, stream: BinaryIO) -> Float32[np.ndarray, " samples"]:
        """The mean of a sound file's channels, resampled to `sample_rate_hz`; raises errors as `read_sound` does."""
        fragment = self.hop_samples * self.frames
        least, most = (count / self.sample_rate_hz for count in (self.window_samples, self.most * fragment))
        return read_sound(self.name, stream, self.sample_rate_hz, least, most)

    def write(self, signal: Shaped[np.ndarray, " samples"], stream: BinaryIO) -> None:
        """Writes 16-bit PCM in one channel; a waveform that is louder than full scale is scaled down, not clipped."""
        write_sound(_as_float(signal), self.sample_rate_hz, stream)

    def sheet(self, signals: Sequence[Shaped[np.ndarray, " samples"]], stream: BinaryIO) -> None:
        """Writes a WAV file with the waveforms one after another, a quarter of a second between them."""
        pause = np.zeros(self.sample_rate_hz // 4, np.float32)
        self.write(np.concatenate([part for signal in signals for part in (_as_float(signal), pause)]), stream)

    def _analysed(
        self, signal: Shaped[np.ndarray, " samples"]
    ) -> tuple[Float32[np.ndarray, "items width"], Float32[np.ndarray, " mels"]]:
        """Centred log-mel frames, those of a fragment one after another; and the mean that was subtracted."""
        samples = array_of(self.name, signal)
        whole = samples.dtype == np.int16
        if samples.ndim != 1 or not (whole or (samples.dtype.kind == "f" and np.isfinite(samples).all())):
            rule = "a waveform is int16 or finite floats of [samples]"
            raise DataError(f"{self.name} waveform", f"{samples.dtype}{list(samples.shape)}", rule, "convert it")
        waveform = normalised(samples)
        items = -(-len(waveform) // (self.hop_samples * self.frames))
        if not items:
            return np.zeros((0, self.frames * self.mels), np.float32), np.zeros(self.mels, np.float32)
        log_mel = self.analysis.log_mel(waveform, items * self.frames)
        mean = log_mel.mean(axis=0)
        return (log_mel - mean).reshape(items, -1), mean

    def _drawn(self, signal: Shaped[np.ndarray, " samples"]) -> UInt8[np.ndarray, "mels frames 4"]:
        """The log-mel spectrogram as a picture, low bands below: one colour, the more opaque the louder."""
        log_mel = self.analysis.log_mel(normalised(signal), -(-len(signal) // self.hop_samples))
        every = -(-len(log_mel) // _MOST_FRAMES_DRAWN)
        seen = np.maximum(log_mel[::every] - np.log(self.analysis.floor), 0).T[::-1]
        opacity = (255 * (seen / max(float(seen.max()), 1e-6)) ** 1.2).astype(np.uint8)
        return np.dstack([*(np.full_like(opacity, value) for value in _COLOUR), opacity])


def normalised(signal: Shaped[np.ndarray, " samples"]) -> Float32[np.ndarray, " samples"]:
    """A waveform scaled to a root mean square of 0.1, so that loudness makes no difference."""
    waveform = _as_float(signal)
    rms = np.sqrt(np.mean(np.square(waveform))) if len(waveform) else 0
    return waveform * np.float32(_RMS / rms) if rms > 0 else waveform


def _as_float(signal: Shaped[np.ndarray, " samples"]) -> Float32[np.ndarray, " samples"]:
    samples = np.asarray(signal)
    return np.asarray(samples, np.float32) / (32768 if np.issubdtype(samples.dtype, np.integer) else 1)
