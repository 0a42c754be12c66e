import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from omnijax import errors
from omnijax.config import SpeechConfig
from omnijax.modalities import Codebook, PatchImage, Speech, Text
from omnijax.modalities import speech as audio
from omnijax.modalities.picture import moved
from omnijax.modalities.spectrogram import Spectrogram, mel_bank

RATE_HZ = 11025
SPEECH = SpeechConfig(codes=32, griffin_lim_iterations=10)


def words(count: int = 24) -> list[np.ndarray]:
    """Made-up utterances: two gliding tones and noise, 0.2 to 0.5 s."""
    random = np.random.default_rng(0)
    signals = []
    for _ in range(count):
        time = np.arange(random.integers(2200, 5500)) / RATE_HZ
        tones = [np.sin(2 * np.pi * (f * time + 400 * g * time**2)) for f, g in random.uniform(0.3, 3, (2, 2)) * 1000]
        signals.append((0.2 * sum(tones) + 0.01 * random.normal(size=len(time))).astype(np.float32))
    return signals


@pytest.fixture(scope="module")
def speech() -> Speech:
    return Speech(audio.fit_codebook(words(), SPEECH, RATE_HZ, seed=0), SPEECH, RATE_HZ)


@given(st.text())
def test_text_comes_back(text: str) -> None:
    ids = Text().fragments(text)
    assert ids.dtype == np.int64
    assert Text().signal(ids) == text


@given(hnp.arrays(np.int64, st.integers(0, 20), elements=st.integers(0, 255)))
def test_any_bytes_are_some_text(ids: np.ndarray) -> None:
    assert Text().signal(ids).encode() == bytes(ids.astype(np.uint8)) or "\ufffd" in Text().signal(ids)


@pytest.mark.parametrize("modality", [Text(), PatchImage(height=2, width=2)])
@pytest.mark.parametrize("wrong", [-1, 17**4 + 256])
def test_ids_outside_the_space_are_refused(modality: Text | PatchImage, wrong: int) -> None:
    with pytest.raises(errors.DataError) as caught:
        modality.signal(np.array([wrong]))
    assert caught.value.value == wrong
    assert modality.name in caught.value.field


@st.composite
def images(draw: st.DrawFn) -> tuple[PatchImage, np.ndarray]:
    patch = draw(st.integers(1, 3))
    rows, columns, levels = draw(st.integers(1, 4)), draw(st.integers(1, 4)), draw(st.integers(2, 10))
    modality = PatchImage(patch * rows, patch * columns, patch, levels)
    batch = draw(st.sampled_from([(), (3,), (2, 1)]))
    pixels = hnp.arrays(np.uint8, (*batch, patch * rows, patch * columns), elements=st.integers(0, levels - 1))
    return modality, draw(pixels)


@given(images())
def test_images_come_back_without_loss(case: tuple[PatchImage, np.ndarray]) -> None:
    modality, pixels = case
    ids = modality.fragments(pixels)
    assert ids.dtype == np.int64
    assert ids.min() >= 0
    assert ids.max() < modality.size
    back = modality.signal(ids)
    assert back.dtype == np.uint8
    np.testing.assert_array_equal(back, pixels)


@given(hnp.arrays(np.int64, 16, elements=st.integers(0, 17**4 - 1)))
def test_every_id_is_a_patch(ids: np.ndarray) -> None:
    np.testing.assert_array_equal(PatchImage().fragments(PatchImage().signal(ids)), ids)


def test_patches_and_pixels_are_in_raster_order_first_pixel_most_significant() -> None:
    image = np.zeros((8, 8), np.uint8)
    image[0, 2], image[0, 3], image[1, 2], image[1, 3] = 1, 2, 3, 16
    ids = PatchImage().fragments(image)
    assert ids[1] == 1 * 17**3 + 2 * 17**2 + 3 * 17 + 16
    assert ids.sum() == ids[1]
    assert PatchImage().size == 83_521


def test_images_that_do_not_fit_are_refused() -> None:
    with pytest.raises(errors.DataError, match="17: grey levels"):
        PatchImage().fragments(np.full((8, 8), 17, np.uint8))
    with pytest.raises(errors.DataError, match="8 x 8 pixels"):
        PatchImage().fragments(np.zeros((8, 7), np.uint8))
    with pytest.raises(errors.DataError, match="16 fragments"):
        PatchImage().signal(np.zeros(15, np.int64))
    with pytest.raises(errors.ConfigError, match="divide"):
        PatchImage(patch=3)
    with pytest.raises(errors.ConfigError, match="levels"):
        PatchImage(patch=4)


def test_moved_pictures_are_the_same_things_elsewhere() -> None:
    """Half stay, the others turn and move little; a seed gives the same pictures; grey levels stay grey levels."""
    images = np.zeros((400, 8, 8), np.uint8)
    images[:, 2:6, 3:5] = 16
    result = moved(images, levels=17, seed=1)
    assert result.dtype == np.uint8
    assert result.max() <= 16
    np.testing.assert_array_equal(result, moved(images, levels=17, seed=1))
    assert (result != moved(images, levels=17, seed=2)).any()
    stayed = (result == images).all(axis=(1, 2))
    assert 0.35 < stayed.mean() < 0.65
    rows, columns = np.arange(8)[None, :, None], np.arange(8)[None, None, :]
    mass = result.astype(np.float64) / result.sum(axis=(1, 2), keepdims=True)
    centres = np.stack([(mass * rows).sum(axis=(1, 2)), (mass * columns).sum(axis=(1, 2))])
    drift = centres - np.array([[3.5], [3.5]])
    assert 0.5 < np.abs(drift).max() < 1.2
    assert np.abs(drift.mean(axis=1)).max() < 0.1


def test_mel_bands_cover_the_spectrum_and_none_is_empty() -> None:
    for mels in (16, 40, 64):
        bank = mel_bank(RATE_HZ, 512, mels)
        np.testing.assert_allclose(bank.sum(axis=1), 1, rtol=1e-5)
        assert (np.diff(bank.argmax(axis=1)) >= 0).all()


def test_a_full_scale_tone_has_its_peak_at_its_band_and_about_zero_there() -> None:
    analysis = Spectrogram(RATE_HZ, 512, 128, 40)
    tone = np.sin(2 * np.pi * 64 * RATE_HZ / 512 * np.arange(4096) / RATE_HZ).astype(np.float32)
    frame = analysis.log_mel(tone, 32)[16]
    assert frame.argmax() == mel_bank(RATE_HZ, 512, 40)[:, 64].argmax()
    assert -1.5 < frame.max() < 0


def test_griffin_lim_gives_back_the_spectrogram() -> None:
    analysis = Spectrogram(RATE_HZ, 512, 128, 40)
    signal = words(1)[0]
    frames = len(signal) // 128
    wanted = analysis.log_mel(signal, frames)
    rebuilt = analysis.waveform(wanted, iterations=60)
    assert rebuilt.shape == (frames * 128,)
    error = np.abs(analysis.log_mel(rebuilt, frames) - wanted)[:, :30]
    assert np.median(error) < 0.25
    np.testing.assert_array_equal(rebuilt, analysis.waveform(wanted, iterations=60))


@pytest.mark.parametrize("change", [{"hop_samples": 300}, {"hop_samples": 0}, {"mels": 200}])
def test_an_analysis_that_cannot_be_done_is_refused(change: dict[str, int]) -> None:
    with pytest.raises(errors.ConfigError, match=next(iter(change))):
        Spectrogram(**{"sample_rate_hz": RATE_HZ, "window_samples": 512, "hop_samples": 128, "mels": 40} | change)


def test_speech_fragments_are_whole_and_the_way_back_is_deterministic(speech: Speech) -> None:
    signal = words(1)[0]
    ids = speech.fragments(signal)
    samples = SPEECH.frames * SPEECH.hop_samples
    assert len(ids) == -(-len(signal) // samples)
    assert speech.size == SPEECH.codes
    waveform = speech.signal(ids)
    assert waveform.dtype == np.float32
    assert waveform.shape == (len(ids) * samples,)
    np.testing.assert_allclose(np.sqrt(np.mean(waveform**2)), 0.1, rtol=1e-3)
    np.testing.assert_array_equal(waveform, speech.signal(ids))


def test_a_batch_of_speech_gives_the_same_ids_as_one_by_one(speech: Speech) -> None:
    signals = words()
    for together, signal in zip(speech.fragments_batch(signals), signals):
        np.testing.assert_array_equal(together, speech.fragments(signal))
    assert speech.fragments_batch([]) == []


def test_loudness_and_sample_type_do_not_matter(speech: Speech) -> None:
    signal = words(1)[0]
    as_integers = np.round(signal * 20_000).astype(np.int16)
    same = np.mean(speech.fragments(signal) == speech.fragments(as_integers))
    assert same >= 0.9
    np.testing.assert_array_equal(speech.fragments(0.5 * signal), speech.fragments(signal))


def test_empty_and_silent_speech(speech: Speech) -> None:
    assert speech.fragments(np.zeros(0, np.float32)).shape == (0,)
    assert speech.signal(np.zeros(0, np.int64)).shape == (0,)
    assert len(speech.fragments(np.zeros(1000, np.float32))) == 2


def test_codebook_finds_the_nearest_and_sorts_along_the_main_direction() -> None:
    random = np.random.default_rng(0)
    vectors = (random.normal(size=(2000, 3)) * [5, 1, 1]).astype(np.float32)
    mean = np.array([1, 2, 3], np.float32)
    book = Codebook.fit(vectors, mean, codes=20, seed=0)
    distances = np.square(vectors[:, None] - book.vectors).sum(axis=-1)
    np.testing.assert_array_equal(book.encode(vectors), distances.argmin(axis=1))
    assert (np.diff(book.vectors[:, 0]) > -1).all()
    assert len(np.unique(book.encode(vectors))) == 20
    assert np.square(book.decode(book.encode(vectors)) - mean - vectors).sum(axis=1).mean() < 4
    again = Codebook.fit(vectors, mean, codes=20, seed=0)
    assert again.fingerprint == book.fingerprint
    assert Codebook.fit(vectors, mean, codes=20, seed=1).fingerprint != book.fingerprint


def test_codebook_file(tmp_path, speech: Speech) -> None:
    path = tmp_path / "codebook.npz"
    speech.codebook.save(path)
    assert Codebook.load(path).fingerprint == speech.codebook.fingerprint
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(errors.DataError, match="written by Codebook"):
        Codebook.load(path)
    with pytest.raises(errors.DataError, match="written by Codebook"):
        Codebook.load(tmp_path / "none.npz")


def test_codebook_refuses_too_few_vectors_and_unknown_ids(speech: Speech) -> None:
    with pytest.raises(errors.DataError, match="only 2 different"):
        Codebook.fit(np.array([[1], [1], [2]], np.float32), np.zeros(1, np.float32), codes=3, seed=0)
    with pytest.raises(errors.DataError, match="between 0 and 31"):
        speech.signal(np.array([0, 32]))
