import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from omnijax.data.sources.spoken_digits import SpokenDigits, espeak
from omnijax.data.sources.spoken_digits import making as spoken_digits
from omnijax.data.sources.spoken_digits.settings import WORDS
from omnijax.modalities import Speech
from omnijax.source import Judge, Record


@functools.cache
def spoken(first_image: int, first_voice: int, step: int) -> list[dict[str, Any]]:
    """Every word by every voice, with as many images of that digit."""
    synthesizer = espeak.Synthesizer()
    voices = synthesizer.variants[first_voice::step]
    random = np.random.default_rng(first_image)
    images, labels = spoken_digits.load_images()
    records = []
    for digit, word in enumerate(WORDS):
        places = first_image + np.flatnonzero(labels[first_image:] == digit)
        for place, voice in zip(places, voices, strict=False):
            waveform = synthesizer.speak(word, voice, int(random.integers(140, 220)), 50)
            speech = spoken_digits.clean(waveform, synthesizer.sample_rate_hz, SOURCE.speech.sample_rate_hz)
            entry = {"image": images[place], "label": digit, "text": word, "speech": speech, "image_index": place}
            records.append(entry)
    return records


@dataclasses.dataclass(frozen=True)
class Spoken(SpokenDigits):
    """Records that were made here, and not read from files."""

    def records(self, split: str) -> Sequence[Record]:
        return spoken(0, 0, 2) if split == "train" else spoken(1000, 1, 10)


SOURCE = Spoken(speech=Speech(codes=200))


def column(split: str, field: str) -> list[Any]:
    return [record[field] for record in SOURCE.records(split)]


def right(judge: Judge, signals: Sequence[Any]) -> float:
    """The share of the validation signals that are judged right."""
    return float(np.mean(judge(signals) == SOURCE.labels("validation")))


@pytest.fixture(scope="module")
def judges() -> Mapping[str, Judge]:
    return SOURCE.judges()


def test_there_is_a_judge_for_each_field(judges: Mapping[str, Judge]) -> None:
    assert set(judges) == set(SOURCE.fields)
    assert SOURCE.classes == tuple("0123456789")


def test_judges_know_real_signals_of_other_writers_and_voices(judges: Mapping[str, Judge]) -> None:
    assert right(judges["image"], column("validation", "image")) > 0.9
    assert right(judges["speech"], column("validation", "speech")) > 0.95
    assert right(judges["text"], column("validation", "text")) == 1


def test_speech_through_the_codebook_and_back_is_understood(judges: Mapping[str, Judge]) -> None:
    speech = SOURCE.speech.bound(SOURCE.speech.fit(column("train", "speech"), 0, lambda share: None))
    rebuilt = [speech.decode(items) for items in speech.encode(column("validation", "speech")).split()]
    assert right(judges["speech"], rebuilt) > 0.85


def test_loudness_padding_and_sample_type_do_not_sway_the_judge(judges: Mapping[str, Judge]) -> None:
    real = column("validation", "speech")[::5]
    changed = [np.pad(0.3 * waveform.astype(np.float32) / 32768, (500, 900)) for waveform in real]
    assert np.mean(judges["speech"](real) == judges["speech"](changed)) > 0.95


def test_what_is_no_digit(judges: Mapping[str, Judge]) -> None:
    words = ["seven", "Seven", "seven ", "", "zero", "\ufffd"]
    np.testing.assert_array_equal(judges["text"](words), [7, -1, -1, -1, 0, -1])
    silence = [np.zeros(3000, np.float32), np.zeros(0, np.float32)]
    np.testing.assert_array_equal(judges["speech"](silence), [-1, -1])


@pytest.mark.parametrize("field", ["text", "image", "speech"])
def test_nothing_to_judge(judges: Mapping[str, Judge], field: str) -> None:
    assert judges[field]([]).shape == (0,)


def test_fitting_repeats_exactly(judges: Mapping[str, Judge]) -> None:
    speech = column("validation", "speech")
    np.testing.assert_array_equal(SOURCE.judges()["speech"](speech), judges["speech"](speech))


@pytest.mark.parametrize("length", [1, 50, 400])
def test_very_short_speech_is_judged_without_failing(judges: Mapping[str, Judge], length: int) -> None:
    judged = judges["speech"]([np.full(length, 0.1, np.float32)])
    assert 0 <= judged[0] <= 9
