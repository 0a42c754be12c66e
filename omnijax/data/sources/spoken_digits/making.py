"""Makes the spoken digits: real pictures of digits, their names, and the names spoken by espeak-ng.

Nothing is downloaded. README.md, beside this file, describes the records.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import scipy.signal
import sklearn.datasets
from jaxtyping import Float32, Int16, Int64, UInt8

from omnijax.data.sources.spoken_digits import espeak
from omnijax.data.sources.spoken_digits.settings import WORDS, Settings
from omnijax.errors import ConfigError, DataError
from omnijax.source import TEST, TRAIN, VALIDATION

RATES_WORDS_PER_MINUTE = (140, 220)
PITCHES = (30, 70)  # 50 is a voice's own pitch
_RMS, _PEAK = 0.1, 0.99
_SILENCE = 0.01  # of the peak: 40 dB below
_MARGIN_SECONDS = 0.01


def make_records(split: str, source: Settings) -> Iterator[dict[str, Any]]:
    """The records of a split, in order: what the synthesiser says depends on what it has said before."""
    images, labels = load_images()
    number = source.splits.index(split)
    chosen = split_images(labels, (source.validation_images, source.test_images), source.seed)[number]
    synthesizer = espeak.Synthesizer()
    voices = split_voices(synthesizer.variants, (source.validation_voices, source.test_voices), source.seed)[number]
    random = np.random.default_rng((source.seed, 2, number))
    for index in np.repeat(chosen, source.utterances if split == TRAIN else 1).tolist():
        voice = voices[random.integers(len(voices))]
        rate = int(random.integers(RATES_WORDS_PER_MINUTE[0], RATES_WORDS_PER_MINUTE[1] + 1))
        pitch = int(random.integers(PITCHES[0], PITCHES[1] + 1))
        word = WORDS[labels[index]]
        spoken = synthesizer.speak(word, voice, rate, pitch)
        speech = clean(spoken, synthesizer.sample_rate_hz, source.speech.sample_rate_hz)
        signals = {"image": images[index], "text": word, "speech": speech}
        said = {"voice": voice, "rate": rate, "pitch": pitch}
        yield {**signals, "image_index": index, "label": int(labels[index]), **said}


def check(source: Settings) -> None:
    """Checks the splits against the pictures and voices that there are.

    Raises:
        ConfigError: a number that no data set can be built with.
        PlatformError: the speech synthesiser is missing.
    """
    images, voices = len(load_images()[1]), len(espeak.Synthesizer().variants)
    if (source.test_images > 0) != (source.test_voices > 0) or min(source.test_images, source.test_voices) < 0:
        rule = "test_images and test_voices must both be above 0, or both 0"
        raise ConfigError("data.test_images", source.test_images, rule, "change one of them")
    for name, high in (
        ("validation_images", images - 1 - source.test_images),
        ("validation_voices", voices - 1 - source.test_voices),
        ("utterances", 1000),
    ):
        value = getattr(source, name)
        if not 1 <= value <= high:
            raise ConfigError(f"data.{name}", value, f"must be in 1 … {high}", "choose a number in it")


def count_records(source: Settings) -> dict[str, int]:
    """The number of records in each split."""
    train = len(load_images()[1]) - source.validation_images - source.test_images
    counts = {TRAIN: train * source.utterances, VALIDATION: source.validation_images, TEST: source.test_images}
    return {split: counts[split] for split in source.splits}


@functools.cache
def load_images() -> tuple[UInt8[np.ndarray, "n 8 8"], Int64[np.ndarray, " n"]]:
    """Returns scikit-learn's 1,797 digits, grey levels 0 to 16, and what digit each is."""
    digits = sklearn.datasets.load_digits()
    return digits.images.astype(np.uint8), digits.target.astype(np.int64)


def split_images(labels: Int64[np.ndarray, " n"], sizes: Sequence[int], seed: int) -> list[Int64[np.ndarray, " split"]]:
    """Divides image indices into training ones and further splits of some sizes, each digit in the same proportion."""
    random = np.random.default_rng((seed, 0))
    # Each image's rank among those of its digit, as a share: the lowest shares are a stratified sample.
    share = np.empty(len(labels))
    for label in np.unique(labels):
        where = np.flatnonzero(labels == label)
        share[random.permutation(where)] = (np.arange(len(where)) + random.random()) / len(where)
    *others, train = np.split(np.argsort(share, kind="stable"), np.cumsum(sizes))
    return [np.sort(part) for part in (train, *others)]


def split_voices(variants: tuple[str, ...], sizes: Sequence[int], seed: int) -> list[list[str]]:
    """Divides voice variants at random into training ones and further splits of some sizes."""
    *others, train = np.split(np.random.default_rng((seed, 1)).permutation(len(variants)), np.cumsum(sizes))
    return [[variants[k] for k in sorted(part)] for part in (train, *others)]


def clean(spoken: Int16[np.ndarray, " n"], from_hz: int, to_hz: int) -> Int16[np.ndarray, " m"]:
    """Cuts silence off both ends, resamples, and scales to one loudness (root mean square 0.1 of full scale).

    Raises a `DataError` if there is nothing but silence.
    """
    waveform: Float32[np.ndarray, " n"] = spoken.astype(np.float32)
    loud = np.flatnonzero(np.abs(waveform) > _SILENCE * np.abs(waveform).max(initial=1))
    if not len(loud):
        rule, fix = "an utterance must hold more than silence", "report the version of espeakng-loader"
        raise DataError("speech", len(spoken), rule, fix)
    margin = round(_MARGIN_SECONDS * from_hz)
    waveform = waveform[max(loud[0] - margin, 0) : loud[-1] + margin]
    waveform = scipy.signal.resample_poly(waveform, to_hz, from_hz).astype(np.float32)
    scale = min(_RMS / np.sqrt(np.mean(np.square(waveform))), _PEAK / np.abs(waveform).max())
    return np.round(32767 * scale * waveform).astype(np.int16)
