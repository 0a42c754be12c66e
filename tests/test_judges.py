import numpy as np
import pytest

from omnijax.config import DataConfig, SpeechConfig
from omnijax.data.records import WORDS, Records
from omnijax.data.sources.spoken_digits import espeak
from omnijax.data.sources.spoken_digits import spoken_digits_dataset_builder as spoken_digits
from omnijax.data.sources.spoken_digits.judges import Judges, fit_judges
from omnijax.modalities import Speech
from omnijax.modalities import speech as audio

CONFIG = DataConfig(speech=SpeechConfig(codes=200))


def spoken(voices: list[str], first_image: int) -> Records:
    """Every word by every voice, with as many images of that digit."""
    synthesizer = espeak.Synthesizer()
    random = np.random.default_rng(first_image)
    images, labels = spoken_digits.load_images()
    index = [
        first_image + np.flatnonzero(labels[first_image:] == digit)[k]
        for digit in range(10)
        for k in range(len(voices))
    ]
    speech = [
        spoken_digits.clean(
            synthesizer.speak(word, voice, int(random.integers(140, 220)), 50),
            synthesizer.sample_rate_hz,
            CONFIG.sample_rate_hz,
        )
        for word in WORDS
        for voice in voices
    ]
    names = [WORDS[label] for label in labels[index]]
    return Records(images[index], labels[index].astype(np.int32), names, speech, voices * 10, index)


@pytest.fixture(scope="module")
def splits() -> tuple[Records, Records]:
    voices = espeak.Synthesizer().variants
    return spoken(list(voices[::2]), 0), spoken(list(voices[1::10]), 1000)


@pytest.fixture(scope="module")
def judges(splits: tuple[Records, Records]) -> Judges:
    return fit_judges(splits[0], CONFIG)


def test_judges_know_real_signals_of_other_writers_and_voices(judges: Judges, splits: tuple[Records, Records]) -> None:
    heldout = splits[1]
    assert np.mean(judges.image(heldout.images) == heldout.labels) > 0.9
    assert np.mean(judges.speech(heldout.speech) == heldout.labels) > 0.95


def test_speech_through_the_codebook_and_back_is_understood(judges: Judges, splits: tuple[Records, Records]) -> None:
    train, heldout = splits
    codebook = audio.fit_codebook(train.speech, CONFIG.speech, CONFIG.sample_rate_hz, seed=0)
    modality = Speech(codebook, CONFIG.speech, CONFIG.sample_rate_hz)
    rebuilt = [modality.signal(ids) for ids in modality.fragments_batch(heldout.speech)]
    assert np.mean(judges.speech(rebuilt) == heldout.labels) > 0.85


def test_loudness_padding_and_sample_type_do_not_sway_the_judge(
    judges: Judges, splits: tuple[Records, Records]
) -> None:
    real = splits[1].speech[::5]
    changed = [np.pad(0.3 * waveform.astype(np.float32) / 32768, (500, 900)) for waveform in real]
    assert np.mean(judges.speech(real) == judges.speech(changed)) > 0.95


def test_what_is_no_digit(judges: Judges) -> None:
    words = ["seven", "Seven", "seven ", "", "zero", "\ufffd"]
    np.testing.assert_array_equal(judges.word(words), [7, -1, -1, -1, 0, -1])
    silence = [np.zeros(3000, np.float32), np.zeros(0, np.float32)]
    np.testing.assert_array_equal(judges.speech(silence), [-1, -1])


def test_nothing_to_judge(judges: Judges) -> None:
    assert judges.image(np.zeros((0, 8, 8), np.uint8)).shape == (0,)
    assert judges.speech([]).shape == (0,)
    assert judges.word([]).shape == (0,)


def test_fitting_repeats_exactly(judges: Judges, splits: tuple[Records, Records]) -> None:
    train, heldout = splits
    again = fit_judges(train, CONFIG)
    np.testing.assert_array_equal(again.speech(heldout.speech), judges.speech(heldout.speech))


@pytest.mark.parametrize("length", [1, 50, 400])
def test_very_short_speech_is_judged_without_failing(judges: Judges, length: int) -> None:
    judged = judges.speech([np.full(length, 0.1, np.float32)])
    assert 0 <= judged[0] <= 9
