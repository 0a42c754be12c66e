"""What each modality does with its signals. What all of them have to do stands in test_contracts.py."""

import dataclasses
import io
from typing import Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from omnijax import errors
from omnijax.modalities import GENERAL, Codes, Items, PatchCodes, Picture, Sound, Speech, Text, colours
from omnijax.modalities.codebook import fit_codebook, nearest
from omnijax.modalities.spectrogram import Spectrogram, mel_bank
from omnijax.modalities.transform import transform_of

RATE_HZ = 11025
SPEECH = Speech(codes=32, griffin_lim_iterations=10)
DIGITS = Picture("image", height=8, width=8, levels=17)


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
    return SPEECH.bound(SPEECH.fit(words(), 0, lambda share: None))


def ids_of(modality: Picture | Speech, signal: np.ndarray) -> np.ndarray:
    """The ids of the fragments of a signal, within the last part."""
    part = modality.parts[-1]
    items = modality.encode([signal])
    return part.numbers(items.of(len(modality.parts) - 1, len(part.radices)))


# ---------------------------------------------------------------------- text


@given(st.text())
def test_text_comes_back(text: str) -> None:
    items = Text().encode([text])
    assert items.digits.dtype == np.uint32
    assert Text().decode(items) == text
    assert Text().encode([text.encode()]).digits.tolist() == items.digits.tolist()


@given(hnp.arrays(np.uint32, (7, 1), elements=st.integers(0, 255)))
def test_any_bytes_are_some_text(digits: np.ndarray) -> None:
    text = Text().decode(Items.one(GENERAL, digits))
    assert text.encode() == bytes(digits.astype(np.uint8)) or "\ufffd" in text


def test_a_text_that_is_not_unicode_is_refused() -> None:
    with pytest.raises(errors.DataError, match="Unicode"):
        Text().encode(["\ud800"])
    with pytest.raises(errors.DataError, match="UTF-8"):
        Text().read(io.BytesIO(b"\xff"))


def test_a_text_has_room_for_a_byte() -> None:
    with pytest.raises(errors.ConfigError, match="data.fields.name.most = 0: must be in 1"):
        Text(most=0).check("data.fields.name")


# ---------------------------------------------------------------------- pictures


@given(hnp.arrays(np.uint32, (16, 4), elements=st.integers(0, 16)))
def test_every_fragment_is_a_patch(digits: np.ndarray) -> None:
    picture = DIGITS.decode(Items.one(0, digits))
    np.testing.assert_array_equal(DIGITS.encode([picture]).digits, digits)


def test_patches_and_pixels_are_in_raster_order_first_pixel_most_significant() -> None:
    image = np.zeros((8, 8), np.uint8)
    image[0, 2], image[0, 3], image[1, 2], image[1, 3] = 1, 2, 3, 16
    ids = ids_of(DIGITS, image)
    assert ids[1] == 1 * 17**3 + 2 * 17**2 + 3 * 17 + 16
    assert ids.sum() == ids[1]
    assert DIGITS.parts[0].fragments == 83_521
    colour = Picture(height=2, width=2, channels=3)
    assert colour.parts[0].fragments == 2**96
    assert colour.encode([np.arange(12).reshape(2, 2, 3)]).digits.tolist() == [list(range(12))]


@pytest.mark.parametrize("kind", ["green", "ycocg"])
def test_colours_are_one_to_one(kind: Literal["green", "ycocg"]) -> None:
    """On all colours of few levels, and on many of all bytes."""
    for levels in (2, 3, 8, 17):
        every = np.stack(np.meshgrid(*[np.arange(levels, dtype=np.uint8)] * 3), axis=-1).reshape(-1, 3)
        other = colours.written(every, kind, levels)
        assert len(np.unique(other, axis=0)) == levels**3
        assert other.max() < levels
        np.testing.assert_array_equal(colours.original(other, kind, levels), every)
    for dtype in (np.uint8, np.uint16):
        levels = int(np.iinfo(dtype).max) + 1
        many = np.random.default_rng(0).integers(0, levels, (50_000, 4), dtype)
        other = colours.written(many, kind, levels)
        assert other.dtype == dtype
        np.testing.assert_array_equal(other[:, 3], many[:, 3])
        np.testing.assert_array_equal(colours.original(other, kind, levels), many)


def reference_residual(values: np.ndarray, levels: int, row: int, column: int) -> int:
    """What a value has more than the median of its neighbours and the plane through them, one value at a time."""
    west = int(values[row, column - 1]) if column else 0
    north = int(values[row - 1, column]) if row else 0
    corner = int(values[row - 1, column - 1]) if row and column else 0
    return (int(values[row, column]) - sorted([west, north, west + north - corner])[1]) % levels


@given(hnp.arrays(np.uint8, st.tuples(st.integers(1, 6), st.integers(1, 6)), elements=st.integers(0, 16)))
def test_residuals_are_what_the_neighbours_do_not_predict(picture: np.ndarray) -> None:
    modality = Picture(height=6, width=6, levels=17, patch=1, variable=True, residuals=True)
    items = modality.encode([picture])
    wanted = [[reference_residual(picture, 17, *place)] for place in np.ndindex(picture.shape)]
    assert items.of(1, 1).tolist() == wanted
    np.testing.assert_array_equal(modality.decode(items), picture)


def test_residuals_of_smooth_colours_are_small() -> None:
    ramp = np.add.outer(np.arange(8), np.arange(8)).astype(np.uint8)
    picture = np.stack([ramp + 100, ramp + 103, ramp + 98], axis=2)  # differences of both signs
    modality = Picture(height=8, width=8, channels=3, patch=1, colours="green", residuals=True)
    digits = modality.encode([picture]).digits.reshape(8, 8, 3)
    assert digits[1:, 1:].tolist() == np.where(np.arange(3) == 0, 1, 0)[None, None].repeat(7, 0).repeat(7, 1).tolist()


def test_signals_as_residuals_cannot_be_completed() -> None:
    assert Picture().halves
    assert Sound().halves
    assert not Picture(residuals=True).halves
    assert not Sound(residuals=True).halves


def test_differences_of_samples_wrap() -> None:
    frames = np.array([[1], [255], [0], [3]], np.uint8)
    sound = Sound(bits=8, block=1, residuals=True)
    assert sound.encode([frames]).of(1, 1).ravel().tolist() == [1, 254, 1, 3]


def test_grey_in_other_colours_has_no_differences() -> None:
    grey = np.arange(256, dtype=np.uint8)[:, None].repeat(3, axis=1)
    for kind in ("green", "ycocg"):
        other = colours.written(grey, kind, 256)  # type: ignore[arg-type]
        np.testing.assert_array_equal(other, np.stack([grey[:, 0], 0 * grey[:, 0], 0 * grey[:, 0]], axis=1))
    assert colours.written(np.array([9, 5, 2], np.uint8), "green", 256).tolist() == [5, 4, 253]
    assert colours.written(np.array([9, 5, 2], np.uint8), "ycocg", 256).tolist() == [5, 7, 0]


def test_other_colours_need_three_channels() -> None:
    with pytest.raises(errors.ConfigError, match="3 or 4 channels"):
        Picture(channels=1, colours="green").check("data.fields.picture")
    with pytest.raises(errors.ConfigError, match="without loss"):
        PatchCodes(colours="green").check("data.fields.picture")


def test_pictures_of_many_sizes_keep_their_order() -> None:
    modality = Picture(height=9, width=9, variable=True)
    random = np.random.default_rng(0)
    pictures = [random.integers(0, 256, random.integers(1, 10, 2), np.uint8) for _ in range(60)]
    for items, picture in zip(modality.encode(pictures).split(), pictures, strict=True):
        np.testing.assert_array_equal(modality.decode(items), picture)
        assert items.digits[0, :2].tolist() == [picture.shape[0] - 1, picture.shape[1] - 1]


def test_pictures_that_do_not_fit_are_refused() -> None:
    with pytest.raises(errors.DataError, match="17: values must be between 0 and 16"):
        DIGITS.encode([np.full((8, 8), 17, np.uint8)])
    with pytest.raises(errors.DataError, match="8 × 8 pixels"):
        DIGITS.encode([np.zeros((8, 8), np.uint8), np.zeros((8, 7), np.uint8)])
    with pytest.raises(errors.DataError, match="16 patches"):
        DIGITS.decode(Items.one(0, np.zeros((15, 4))))
    with pytest.raises(errors.DataError, match="begins with one header"):
        dataclasses.replace(DIGITS, variable=True).decode(Items.one(1, np.zeros((16, 4))))


def test_moved_pictures_are_the_same_things_elsewhere() -> None:
    """Half stay, the others turn and move little; a seed gives the same pictures; grey levels stay grey levels."""
    images = np.zeros((400, 8, 8), np.uint8)
    images[:, 2:6, 3:5] = 16

    def moved(seed: int) -> np.ndarray:
        return np.stack(DIGITS.view("moved", images, seed, np.arange(400), 400))

    result = moved(1)
    assert result.dtype == np.uint8
    assert result.max() <= 16
    np.testing.assert_array_equal(result, moved(1))
    assert (result != moved(2)).any()
    stayed = (result == images).all(axis=(1, 2))
    assert 0.35 < stayed.mean() < 0.65
    rows, columns = np.arange(8)[None, :, None], np.arange(8)[None, None, :]
    mass = result.astype(np.float64) / result.sum(axis=(1, 2), keepdims=True)
    centres = np.stack([(mass * rows).sum(axis=(1, 2)), (mass * columns).sum(axis=(1, 2))])
    drift = centres - np.array([[3.5], [3.5]])
    assert 0.5 < np.abs(drift).max() < 1.2
    assert np.abs(drift.mean(axis=1)).max() < 0.1


def test_moved_pictures_in_colour_move_as_a_whole() -> None:
    grey = np.random.default_rng(0).integers(0, 17, (20, 8, 6), np.uint8)
    colour = [np.stack([picture, picture[::-1]], axis=-1) for picture in grey]
    place = np.arange(20)
    moved = Picture(height=8, width=6, channels=2, levels=17).view("moved", colour, 0, place, 20)
    alone = Picture(height=8, width=6, levels=17).view("moved", list(grey), 0, place, 20)
    for one, other in zip(moved, alone, strict=True):
        np.testing.assert_array_equal(one[..., 0], other)


styles = hnp.arrays(np.float64, 6, elements=st.floats(0, 1, exclude_max=True))


@given(styles, st.sampled_from([(3, 0, 255), (3, 16, 16), (1, 255, 255)]), st.integers(1, 9))
def test_another_style_leaves_what_has_none(style: np.ndarray, kind: tuple[int, int, int], edge: int) -> None:
    """The background stays, greys stay grey, levels stay levels, and the style that lost its colours is grey."""
    channels, background, most = kind
    modality = Picture(height=edge, width=edge, channels=channels, levels=most + 1, background=background)
    empty = np.full((edge, edge, channels), background, np.uint8)
    np.testing.assert_array_equal(modality._restyled(empty, style), empty)
    grey = np.repeat(np.random.default_rng(edge).integers(0, most + 1, (edge, edge, 1), np.uint8), channels, axis=-1)
    found = modality._restyled(grey, style)
    assert found.max() <= most
    assert (found == found[..., :1]).all()
    colour = np.random.default_rng(edge).integers(0, most + 1, (edge, edge, channels), np.uint8)
    found = modality._restyled(colour, style)
    if style[0] >= 0.7:
        np.testing.assert_array_equal(found, colour)
    elif style[2] < 0.25:
        assert (found == found[..., :1]).all()


def test_varied_pictures_are_the_same_things_in_other_colours_elsewhere() -> None:
    modality = Picture(height=16, width=16, channels=3, background=255)
    picture = np.full((16, 16, 3), 255, np.uint8)
    picture[5:11, 4:12] = 200, 40, 40
    found = np.stack(modality.view("varied", [picture] * 400, 0, np.arange(400), 400)).astype(np.float64)
    np.testing.assert_array_equal(found, modality.view("varied", [picture] * 400, 0, np.arange(400), 400))
    inside, outside = found[:, 7:9, 7:9].mean((1, 2)), found[:, 0].mean((1, 2))
    assert outside.min() > 250
    loss = 255 - inside
    assert (loss.sum(1) > 30).all()
    assert 0.4 < (loss.argmin(1) == 0).mean() < 0.95  # most are still red


# ---------------------------------------------------------------------- speech


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


def test_speech_fragments_are_whole_and_the_way_back_is_deterministic(speech: Speech) -> None:
    signal = words(1)[0]
    items = speech.encode([signal])
    samples = SPEECH.frames * SPEECH.hop_samples
    assert items.counts.tolist() == [-(-len(signal) // samples)]
    assert speech.parts[0].fragments == SPEECH.codes
    waveform = speech.decode(items)
    assert waveform.dtype == np.float32
    assert waveform.shape == (len(items.part) * samples,)
    np.testing.assert_allclose(np.sqrt(np.mean(waveform**2)), 0.1, rtol=1e-3)
    np.testing.assert_array_equal(waveform, speech.decode(items))


def test_what_is_not_present_is_silent(speech: Speech) -> None:
    items = speech.encode(words(1))
    half = 4 * SPEECH.hop_samples * (len(items.part) // 2)
    waveform = speech.decode(items, np.arange(len(items.part)) < len(items.part) // 2)
    assert np.abs(waveform[half + 512 :]).max() < 0.05 * np.abs(waveform[:half]).max()


def test_loudness_and_sample_type_do_not_matter(speech: Speech) -> None:
    signal = words(1)[0]
    as_integers = np.round(signal * 20_000).astype(np.int16)
    same = np.mean(ids_of(speech, signal) == ids_of(speech, as_integers))
    assert same >= 0.9
    np.testing.assert_array_equal(ids_of(speech, 0.5 * signal), ids_of(speech, signal))


def test_empty_and_silent_speech(speech: Speech) -> None:
    assert ids_of(speech, np.zeros(0, np.float32)).shape == (0,)
    assert speech.decode(Items.one(0, np.zeros((0, 1)))).shape == (0,)
    assert len(ids_of(speech, np.zeros(1000, np.float32))) == 2


def test_speech_needs_its_codebook() -> None:
    with pytest.raises(errors.DataError, match="omnijax prepare"):
        SPEECH.encode(words(1))
    with pytest.raises(errors.DataError, match="0"):
        SPEECH.fit([], 0, lambda share: None)


def test_the_codebook_is_fitted_on_as_many_utterances_as_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    everything = words()
    whole = SPEECH.fit(everything, 3, lambda share: None)
    asked: list[int] = []

    class Asked(list):  # type: ignore[type-arg]
        def __getitem__(self, place):
            asked.append(place)
            return super().__getitem__(place)

    monkeypatch.setattr("omnijax.modalities.speech._FIT_SIGNALS", 20)
    some = SPEECH.fit(Asked(everything), 3, lambda share: None)
    assert asked == sorted(set(asked))
    assert len(asked) == 20
    again = SPEECH.fit([everything[place] for place in asked], 3, lambda share: None)
    assert all(np.array_equal(some[name], again[name]) for name in again)
    assert not np.array_equal(some["vectors"], whole["vectors"])


def test_codebook_finds_the_nearest_and_sorts_along_the_main_direction() -> None:
    random = np.random.default_rng(0)
    vectors = (random.normal(size=(2000, 3)) * [5, 1, 1]).astype(np.float32)
    book = fit_codebook(vectors, codes=20, seed=0)
    ids = nearest(book, vectors)
    distances = np.square(vectors[:, None] - book).sum(axis=-1)
    np.testing.assert_array_equal(ids, distances.argmin(axis=1))
    assert (np.diff(book[:, 0]) > -1).all()
    assert len(np.unique(ids)) == 20
    assert np.square(book[ids] - vectors).sum(axis=1).mean() < 4
    np.testing.assert_array_equal(fit_codebook(vectors, codes=20, seed=0), book)
    assert not np.array_equal(fit_codebook(vectors, codes=20, seed=1), book)


def test_a_transform_of_speech_is_that_of_principal_components() -> None:
    """Codes are the nearest levels of the projections on the principal axes; more of them leave less."""
    left = []
    for count in (1, 4, 12):
        speech = dataclasses.replace(SPEECH, code=(16,) * count)
        speech = speech.bound(speech.fit(words(), 0, lambda share: None))
        blocks = np.concatenate([speech._analysed(wave)[0] for wave in words()]).astype(np.float64)
        axes = np.linalg.svd(blocks - blocks.mean(0), full_matrices=False)[2][:count]
        known = transform_of(speech)
        np.testing.assert_allclose(np.abs((axes * known.basis).sum(1)), 1, atol=1e-3)
        items = speech.encode(words())
        exact = (blocks - blocks.mean(0)) @ known.basis.T
        apart = np.abs(exact[:, :, None] - known.levels)
        chosen = np.take_along_axis(apart, items.digits[:, :, None].astype(int), axis=2)[..., 0]
        np.testing.assert_allclose(chosen, apart.min(axis=2), atol=1e-4)
        left.append(float(((known.vectors(items.digits) - blocks) ** 2).mean() / blocks.var()))
    assert left[0] > 1.2 * left[1] > 1.44 * left[2]


def test_further_stages_say_what_the_ones_before_leave() -> None:
    waves = words()
    errors_of, first = [], []
    for stages in (1, 2, 3):
        speech = dataclasses.replace(SPEECH, codes=8, stages=stages)
        speech = speech.bound(speech.fit(waves, 0, lambda share: None))
        items = speech.encode(waves)
        assert items.digits.shape[1] == stages
        blocks = np.concatenate([speech._analysed(wave)[0] for wave in waves])
        found = sum(book[items.digits[:, k]] for k, book in enumerate(np.split(speech.codebook, stages)))
        errors_of.append(float(np.square(blocks - found).mean()))
        first.append(items.digits[:, 0].tolist())
    assert errors_of[0] > 1.2 * errors_of[1] > 1.2 * errors_of[2]
    assert first[0] == first[1] == first[2]


def test_codebook_refuses_too_few_vectors() -> None:
    with pytest.raises(errors.DataError, match="only 2 different"):
        fit_codebook(np.array([[1], [1], [2]], np.float32), codes=3, seed=0)


# ---------------------------------------------------------------------- codes


def test_codes_of_any_radix_have_ids_and_come_back() -> None:
    codes = Codes(radices=(2**32, 2**32, 7), most=9)
    signal = np.array([[2**32 - 1, 2**32 - 1, 6], [0, 1, 0]])
    items = codes.encode([signal])
    numbers = codes.parts[0].numbers(items.digits)
    assert numbers.dtype == np.uint32
    np.testing.assert_array_equal(codes.parts[0].digits(numbers), signal)
    assert codes.parse(codes.show(signal)).tolist() == signal.tolist()


def test_codes_that_a_person_mistypes_are_refused() -> None:
    for text in ("1.2 x", "1", "1.2.3", "1.2 3"):
        with pytest.raises(errors.DataError, match="written as"):
            Codes(radices=(4, 4)).parse(text)
