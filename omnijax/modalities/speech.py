"""Speech as fragments: each a few consecutive log-mel frames, quantised by a codebook.

From the log-mel spectrogram of an utterance its mean over time is taken away before it's quantised: that mean is the
voice and the channel more than the word (cepstral mean normalisation: B. Atal, J. Acoust. Soc. Am. 55 (1974)). What a
model learns from some voices then holds for others, and the codes are spent on what changes. Decoded speech gets the
mean of all training utterances, and so has one average voice.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float32, Int64, Shaped

from omnijax import errors
from omnijax.modalities.codebook import Codebook
from omnijax.modalities.spectrogram import Spectrogram

if TYPE_CHECKING:
    from omnijax.config import SpeechConfig

_RMS = 0.1


@dataclasses.dataclass(frozen=True)
class Speech:
    """A waveform as ids of a codebook over `config.frames` log-mel frames at a time.

    Attributes:
        codebook: made by `fit_codebook` with the same configuration.
        config: the analysis.
        sample_rate_hz: of the waveforms.
    """

    codebook: Codebook
    config: SpeechConfig
    sample_rate_hz: int
    name: str = "speech"

    @property
    def size(self) -> int:
        """Number of codes."""
        return self.codebook.size

    @functools.cached_property
    def _spectrogram(self) -> Spectrogram:
        return spectrogram(self.config, self.sample_rate_hz)

    def fragments(self, signal: Shaped[np.ndarray, " samples"]) -> Int64[np.ndarray, " items"]:
        """Returns the ids of a waveform's fragments.

        Args:
            signal: float32 (-1 to 1) or int16, at `sample_rate_hz`; padded with silence to whole fragments.
        """
        return self.fragments_batch([signal])[0]

    def fragments_batch(self, signals: Sequence[Shaped[np.ndarray, " samples"]]) -> list[Int64[np.ndarray, " items"]]:
        """Returns the ids of many waveforms; the same as `fragments` of each, and faster."""
        blocks = [analyse(signal, self.config, self._spectrogram)[0] for signal in signals]
        if not blocks:
            return []
        ids = self.codebook.encode(np.concatenate(blocks))
        return np.split(ids, np.cumsum([len(block) for block in blocks])[:-1])

    def signal(self, ids: Int64[np.ndarray, " items"]) -> Float32[np.ndarray, " samples"]:
        """Returns a waveform that sounds like the fragments, at the loudness of `normalised`.

        It has `len(ids) * frames * hop_samples` samples.

        Raises:
            DataError: an id that the codebook hasn't got.
        """
        log_mel = self.codebook.decode(ids).reshape(-1, self.config.mels)
        return normalised(self._spectrogram.waveform(log_mel, self.config.griffin_lim_iterations))


def fit_codebook(
    signals: Iterable[Shaped[np.ndarray, " samples"]], config: SpeechConfig, sample_rate_hz: int, seed: int
) -> Codebook:
    """Fits the codebook for `Speech`.

    Raises:
        ConfigError: an analysis that can't be done.
        DataError: there are fewer fragments than codes.
    """
    analysis = spectrogram(config, sample_rate_hz)
    vectors, means = zip(*(analyse(signal, config, analysis) for signal in signals))
    mean = np.tile(np.mean(means, axis=0, dtype=np.float64), config.frames).astype(np.float32)
    return Codebook.fit(np.concatenate(vectors), mean, config.codes, seed)


def spectrogram(config: SpeechConfig, sample_rate_hz: int) -> Spectrogram:
    """Returns the log-mel analysis of a speech configuration.

    Raises:
        ConfigError: an analysis that can't be done.
    """
    for name, low in (("frames", 1), ("codes", 2), ("griffin_lim_iterations", 0)):
        value = getattr(config, name)
        if value < low:
            raise errors.ConfigError(
                f"data.speech.{name}", value, f"it must be at least {low}", "choose a larger number"
            )
    return Spectrogram(sample_rate_hz, config.window_samples, config.hop_samples, config.mels)


def analyse(
    signal: Shaped[np.ndarray, " samples"], config: SpeechConfig, analysis: Spectrogram
) -> tuple[Float32[np.ndarray, "items width"], Float32[np.ndarray, " mels"]]:
    """Returns what a codebook quantises, and the utterance's mean spectrum that was taken away from it.

    Args:
        signal: float32 (-1 to 1) or int16 waveform; its loudness doesn't matter.
        config: the frames of a fragment.
        analysis: `spectrogram(config, sample_rate_hz)`.

    Returns:
        Centred log-mel frames, those of a fragment one after another; and the log-mel spectrum's mean over time.
    """
    waveform = normalised(signal)
    items = -(-len(waveform) // (config.hop_samples * config.frames))
    if not items:
        return np.zeros((0, config.frames * config.mels), np.float32), np.zeros(config.mels, np.float32)
    log_mel = analysis.log_mel(waveform, items * config.frames)
    mean = log_mel.mean(axis=0)
    return (log_mel - mean).reshape(items, -1), mean


def normalised(signal: Shaped[np.ndarray, " samples"]) -> Float32[np.ndarray, " samples"]:
    """Returns a waveform scaled to a root mean square of 0.1, so that loudness is no nuisance."""
    waveform = np.asarray(signal, np.float32) / (32768 if np.issubdtype(np.asarray(signal).dtype, np.integer) else 1)
    rms = np.sqrt(np.mean(np.square(waveform))) if len(waveform) else 0
    return waveform * np.float32(_RMS / rms) if rms > 0 else waveform
