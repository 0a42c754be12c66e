"""TFDS builder of `spoken_digits`: real pictures of digits, their names, and the names spoken by espeak-ng.

It needs no TensorFlow: plain tensors and text, ArrayRecord files. Nothing is downloaded. The same records come from one
process and from any number of Apache Beam's workers.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import scipy.signal
import sklearn.datasets
import tensorflow_datasets as tfds
from etils import epy
from jaxtyping import Float32, Int16, Int64, UInt8

from omnijax.data.sources.spoken_digits import espeak
from omnijax.data.sources.spoken_digits.settings import WORDS, Settings
from omnijax.data.tfds_builders import Canonical
from omnijax.errors import ConfigError, DataError
from omnijax.source import TEST, TRAIN, VALIDATION

with epy.lazy_imports():  # an extra: pip install 'omnijax[beam]'
    import apache_beam as beam

RATES_WORDS_PER_MINUTE = (140, 220)
PITCHES = (30, 70)  # 50 is a voice's own pitch
_RMS, _PEAK = 0.1, 0.99
_SILENCE = 0.01  # of the peak: 40 dB below
_MARGIN_SECONDS = 0.01


class Builder(Canonical, tfds.core.GeneratorBasedBuilder):
    """Builder of `spoken_digits`; see README.md beside this file."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "First release."}

    def __init__(
        self,
        *,
        source: Settings,
        on_record: Callable[[], object] = lambda: None,
        beam: bool = False,
        **tfds_options: Any,
    ) -> None:
        """Makes the builder.

        Args:
            source: what shapes the records.
            on_record: called after each record (for a progress bar); not under Beam.
            beam: build with Apache Beam, on the workers that `download_and_prepare` is given.
            **tfds_options: those of `tfds.core.DatasetBuilder`.
        """
        self.source, self.on_record, self.beam = source, on_record, beam
        super().__init__(**tfds_options)

    def _info(self) -> tfds.core.DatasetInfo:
        features = tfds.features.FeaturesDict(
            {
                "image": tfds.features.Tensor(shape=(8, 8), dtype=np.uint8),
                "label": tfds.features.Tensor(shape=(), dtype=np.int64),
                "text": tfds.features.Text(),
                "speech": tfds.features.Tensor(shape=(None,), dtype=np.int16, encoding="bytes"),
                "voice": tfds.features.Text(),
                "rate": tfds.features.Tensor(shape=(), dtype=np.int64),
                "pitch": tfds.features.Tensor(shape=(), dtype=np.int64),
                "image_index": tfds.features.Tensor(shape=(), dtype=np.int64),
            }
        )
        return self.dataset_info_from_configs(
            features=features,
            homepage="https://scikit-learn.org/stable/datasets/toy_dataset.html#digits-dataset",
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
        generate = self._beam_transform if self.beam else self._generate_examples
        return {split: generate(split) for split in self.source.splits}

    def _generate_examples(self, split: str) -> Iterator[tuple[int, dict[str, Any]]]:
        for spoken in utterances(split, self.source):
            yield record(spoken, self.source)
            self.on_record()

    def _beam_transform(self, split: str) -> beam.PTransform:
        # Speaking is one sequence a split, so one worker does it (a millisecond a record); the rest is spread.
        return (
            beam.Create([split])
            | "Speak" >> beam.FlatMap(utterances, self.source)
            | "Spread" >> beam.Reshuffle()
            | "Record" >> beam.Map(record, self.source)
        )


class Utterance(NamedTuple):
    """What the synthesiser said for one record.

    Attributes:
        key: of the record in its split, which is also its place.
        image_index: which of scikit-learn's images.
        voice: the variant that spoke.
        rate: words per minute.
        pitch: 0 to 100.
        spoken: waveform as it came.
        spoken_hz: its sample rate.
    """

    key: int
    image_index: int
    voice: str
    rate: int
    pitch: int
    spoken: Int16[np.ndarray, " samples"]
    spoken_hz: int


def utterances(split: str, source: Settings) -> Iterator[Utterance]:
    """Speaks for all records of a split, in order: what the synthesiser says depends on what it has said before."""
    _, labels = load_images()
    number = source.splits.index(split)
    chosen = split_images(labels, (source.validation_images, source.test_images), source.seed)[number]
    synthesizer = espeak.Synthesizer()
    voices = split_voices(synthesizer.variants, (source.validation_voices, source.test_voices), source.seed)[number]
    random = np.random.default_rng((source.seed, 2, number))
    for key, index in enumerate(np.repeat(chosen, source.utterances if split == TRAIN else 1)):
        voice = voices[random.integers(len(voices))]
        rate = int(random.integers(RATES_WORDS_PER_MINUTE[0], RATES_WORDS_PER_MINUTE[1] + 1))
        pitch = int(random.integers(PITCHES[0], PITCHES[1] + 1))
        spoken = synthesizer.speak(WORDS[labels[index]], voice, rate, pitch)
        yield Utterance(key, int(index), voice, rate, pitch, spoken, synthesizer.sample_rate_hz)


def record(utterance: Utterance, source: Settings) -> tuple[int, dict[str, Any]]:
    """The key and the record of an utterance."""
    images, labels = load_images()
    label = int(labels[utterance.image_index])
    return utterance.key, {
        "image": images[utterance.image_index],
        "label": label,
        "text": WORDS[label],
        "speech": clean(utterance.spoken, utterance.spoken_hz, source.speech.sample_rate_hz),
        "voice": utterance.voice,
        "rate": utterance.rate,
        "pitch": utterance.pitch,
        "image_index": utterance.image_index,
    }


def check(source: Settings) -> None:
    """Checks the splits against the pictures and voices that there are.

    Raises:
        ConfigError: a number that no data set can be built with.
        PlatformError: the speech synthesiser is missing.
    """
    images, voices = len(load_images()[1]), len(espeak.Synthesizer().variants)
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

    Raises:
        DataError: there is nothing but silence.
    """
    waveform: Float32[np.ndarray, " n"] = spoken.astype(np.float32)
    loud = np.flatnonzero(np.abs(waveform) > _SILENCE * np.abs(waveform).max(initial=1))
    if not len(loud):
        rule = "an utterance must hold more than silence"
        raise DataError("speech", len(spoken), rule, "report the version of espeakng-loader")
    margin = round(_MARGIN_SECONDS * from_hz)
    waveform = waveform[max(loud[0] - margin, 0) : loud[-1] + margin]
    divisor = math.gcd(from_hz, to_hz)
    waveform = scipy.signal.resample_poly(waveform, to_hz // divisor, from_hz // divisor).astype(np.float32)
    scale = min(_RMS / np.sqrt(np.mean(np.square(waveform))), _PEAK / np.abs(waveform).max())
    return np.round(32767 * scale * waveform).astype(np.int16)
