"""Classifiers that tell which digit a picture, an utterance or a word is; fitted on real training signals only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import scipy.fft
import sklearn.svm
from jaxtyping import Float32, Int64, Shaped, UInt8

from omnijax.data.sources.spoken_digits.settings import WORDS, Settings
from omnijax.modalities.spectrogram import Spectrogram
from omnijax.modalities.speech import normalised
from omnijax.source import TRAIN, Judge, read

NOT_A_DIGIT = -1
_UTTERANCES = 4000
"""Utterances that the judge of speech is fitted on, at most."""
_WINDOW_SECONDS, _HOP_SECONDS = 0.032, 0.010
_MELS, _CEPSTRA, _POINTS = 26, 13, 24
# Natural-logarithm units below the loudest: frames at both ends that are quieter are cut off, bands blur into a floor.
_QUIET_FRAME, _QUIET_BAND = 5.5, 5.0
_LIFTER = 0.5  # cepstrum k weighs (1 + k) to this power, since higher ones vary less
_FLOOR = 1e-5  # far below both, so that padding with silence changes nothing


def fit_judges(source: Settings) -> Mapping[str, Judge]:
    """Fits the judges on the training split: each picture once, and utterances spread evenly over the split."""
    records = source.records(TRAIN)
    rows = read(records, range(len(records)))
    labels = np.array([row["label"] for row in rows], np.int64)
    first = np.unique([row["image_index"] for row in rows], return_index=True)[1]
    some = np.unique(np.linspace(0, len(rows) - 1, min(_UTTERANCES, len(rows))).round().astype(np.int64))
    rate, levels = source.speech.sample_rate_hz, source.image.levels
    images = _machine(_pixels([rows[k]["image"] for k in first], levels), labels[first])
    sounds = _machine(_cepstra([rows[k]["speech"] for k in some], rate), labels[some])

    def judge_images(signals: Sequence[UInt8[np.ndarray, "8 8"]]) -> Int64[np.ndarray, " n"]:
        return images.predict(_pixels(signals, levels)) if len(signals) else np.zeros(0, np.int64)

    def judge_sounds(signals: Sequence[Shaped[np.ndarray, " samples"]]) -> Int64[np.ndarray, " n"]:
        judged = np.full(len(signals), NOT_A_DIGIT, np.int64)
        audible = [k for k, waveform in enumerate(signals) if np.any(waveform)]
        if audible:
            judged[audible] = sounds.predict(_cepstra([signals[k] for k in audible], rate))
        return judged

    def judge_words(signals: Sequence[str]) -> Int64[np.ndarray, " n"]:
        return np.array([WORDS.index(word) if word in WORDS else NOT_A_DIGIT for word in signals], np.int64)

    return {"text": judge_words, "image": judge_images, "speech": judge_sounds}


def _machine(features: Float32[np.ndarray, "n features"], labels: Int64[np.ndarray, " n"]) -> Any:
    return sklearn.svm.SVC(C=10, gamma="scale").fit(features, labels)


def _pixels(images: Sequence[UInt8[np.ndarray, "8 8"]], levels: int) -> Float32[np.ndarray, "n 64"]:
    return np.stack(images).reshape(len(images), -1).astype(np.float32) / (levels - 1)


def _cepstra(waveforms: Sequence[Shaped[np.ndarray, " samples"]], rate_hz: int) -> Float32[np.ndarray, "n features"]:
    """Returns cepstra and their slopes at a fixed number of points between the first and last loud frame.

    The mean over time is taken away (it's the voice more than the word), and the duration isn't used.
    """
    window = 2 * round(_WINDOW_SECONDS * rate_hz / 2)
    hop = 2 * round(_HOP_SECONDS * rate_hz / 2)
    analysis = Spectrogram(rate_hz, window, hop, _MELS, _FLOOR)
    lifter = (1 + np.arange(_CEPSTRA)) ** _LIFTER
    rows = []
    for waveform in waveforms:
        # Silence on both sides, so that what the frames at the ends hold doesn't depend on what was there before.
        padded = np.pad(normalised(waveform), window)
        log_mel = analysis.log_mel(padded, -(-len(padded) // hop))
        loudness = np.log(np.exp(2 * log_mel).sum(axis=1)) / 2
        loud = np.flatnonzero(loudness > loudness.max() - _QUIET_FRAME)
        log_mel = log_mel[loud[0] : loud[-1] + 1]
        log_mel = np.logaddexp(log_mel, log_mel.max() - _QUIET_BAND)
        cepstra = scipy.fft.dct(log_mel, norm="ortho", axis=1)[:, :_CEPSTRA] * lifter
        at, frames = np.linspace(0, len(cepstra) - 1, _POINTS), np.arange(len(cepstra))
        points = np.stack([np.interp(at, frames, column) for column in cepstra.T], axis=1)
        rows.append(np.concatenate([points - points.mean(axis=0), np.gradient(points, axis=0)]).ravel())
    return np.stack(rows).astype(np.float32)
