"""Classifiers that tell which digit a generated image, utterance or word is; fitted on real training signals only."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import scipy.fft
import sklearn.svm
from jaxtyping import Float32, Int64, Shaped, UInt8

from omnijax.config import DataConfig
from omnijax.data.records import WORDS, Records
from omnijax.modalities import speech as audio
from omnijax.modalities.spectrogram import Spectrogram

NOT_A_DIGIT = -1
_UTTERANCES = 4000  # the judge of speech is fitted on at most this many
_WINDOW_SECONDS, _HOP_SECONDS = 0.032, 0.010
_MELS, _CEPSTRA, _POINTS = 26, 13, 24
# Natural-logarithm units below the loudest: frames at both ends that are quieter are cut off, bands blur into a floor.
_QUIET_FRAME, _QUIET_BAND = 5.5, 5.0
_LIFTER = 0.5  # cepstrum k weighs (1 + k) to this power, since higher ones vary less
_FLOOR = 1e-5  # far below both, so that padding with silence changes nothing


@dataclasses.dataclass(frozen=True)
class Judges:
    """Judges of the three modalities.

    Attributes:
        image_model: a support-vector machine on pixels.
        speech_model: a support-vector machine on cepstra.
        sample_rate_hz: of the waveforms that are judged.
    """

    image_model: sklearn.svm.SVC
    speech_model: sklearn.svm.SVC
    sample_rate_hz: int

    def image(self, images: UInt8[np.ndarray, "n 8 8"]) -> Int64[np.ndarray, " n"]:
        """Returns the digit in each picture (grey levels 0 to 16)."""
        if not len(images):
            return np.zeros(0, np.int64)
        return np.asarray(self.image_model.predict(_pixels(images)), np.int64)

    def speech(self, waveforms: Sequence[Shaped[np.ndarray, " samples"]]) -> Int64[np.ndarray, " n"]:
        """Returns the digit that each waveform (float32 or int16) says; -1 where there is only silence."""
        judged = np.full(len(waveforms), NOT_A_DIGIT, np.int64)
        audible = [k for k, waveform in enumerate(waveforms) if np.any(waveform)]
        if audible:
            features = _cepstra([waveforms[k] for k in audible], self.sample_rate_hz)
            judged[audible] = self.speech_model.predict(features)
        return judged

    def word(self, words: Sequence[str]) -> Int64[np.ndarray, " n"]:
        """Returns the digit that each word names; -1 where it isn't exactly the name of a digit."""
        return np.array([WORDS.index(word) if word in WORDS else NOT_A_DIGIT for word in words], np.int64)


def fit_judges(train: Records, config: DataConfig) -> Judges:
    """Fits the judges on real training signals: each image once, and utterances spread evenly over the split."""
    some = np.unique(np.linspace(0, len(train) - 1, min(_UTTERANCES, len(train))).round().astype(np.int64))
    speech = _cepstra([train.speech[k] for k in some], config.sample_rate_hz)
    speech_model = sklearn.svm.SVC(C=10, gamma="scale").fit(speech, train.labels[some])
    return Judges(fit_image(train), speech_model, config.sample_rate_hz)


def fit_image(train: Records) -> sklearn.svm.SVC:
    """Fits the judge of pictures, on each once."""
    first = np.unique(train.image_index, return_index=True)[1]
    return sklearn.svm.SVC(C=10, gamma="scale").fit(_pixels(train.images[first]), train.labels[first])


def _pixels(images: UInt8[np.ndarray, "n 8 8"]) -> Float32[np.ndarray, "n 64"]:
    return np.asarray(images).reshape(len(images), -1).astype(np.float32) / 16


def _cepstra(
    waveforms: Sequence[Shaped[np.ndarray, " samples"]], sample_rate_hz: int
) -> Float32[np.ndarray, "n features"]:
    """Returns cepstra and their slopes at a fixed number of points between the first and last loud frame.

    The mean over time is taken away (it's the voice more than the word), and the duration isn't used.
    """
    window = 2 * round(_WINDOW_SECONDS * sample_rate_hz / 2)
    hop = 2 * round(_HOP_SECONDS * sample_rate_hz / 2)
    analysis = Spectrogram(sample_rate_hz, window, hop, _MELS, _FLOOR)
    lifter = (1 + np.arange(_CEPSTRA)) ** _LIFTER
    rows = []
    for waveform in waveforms:
        # Silence on both sides, so that what the frames at the ends hold doesn't depend on what was there before.
        padded = np.pad(audio.normalised(waveform), window)
        log_mel = analysis.log_mel(padded, -(-len(padded) // hop))
        loudness = np.log(np.exp(2 * log_mel).sum(axis=1)) / 2
        loud = np.flatnonzero(loudness > loudness.max() - _QUIET_FRAME)
        log_mel = log_mel[loud[0] : loud[-1] + 1]
        log_mel = np.logaddexp(log_mel, log_mel.max() - _QUIET_BAND)
        cepstra = scipy.fft.dct(log_mel, norm="ortho", axis=1)[:, :_CEPSTRA] * lifter
        at = np.linspace(0, len(cepstra) - 1, _POINTS)
        low = np.minimum(at.astype(np.int64), len(cepstra) - 1)
        high, share = np.minimum(low + 1, len(cepstra) - 1), (at - low)[:, None]
        points = (1 - share) * cepstra[low] + share * cepstra[high]
        rows.append(np.concatenate([points - points.mean(axis=0), np.gradient(points, axis=0)]).ravel())
    return np.stack(rows).astype(np.float32)
