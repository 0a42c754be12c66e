"""Anchors: codecs are lossless, counted bits are those of a slow count, classifiers know the classes."""

from __future__ import annotations

import dataclasses
import functools
import io
import itertools
import math
import pathlib
import runpy
import subprocess
import sys

import numpy as np
import PIL.Image
import pytest
import soundfile

import experiments.anchors as package
from experiments.anchors import (
    Anchor,
    anchors,
    classifiers,
    codecs,
    histograms,
    pictures,
    read_anchors,
    sounds,
    words,
    write_anchors,
)
from experiments.anchors import measure as parts
from experiments.anchors.histograms import Classes, Histogram
from experiments.anchors.per_unit import of_signals
from experiments.anchors.records import Records, load_records
from omnijax import load_experiment
from omnijax.data.prepare import prepare
from omnijax.data.sources.spoken_digits import SpokenDigits
from omnijax.errors import DataError, PlatformError
from omnijax.source import TRAIN, VALIDATION, Record

LEVELS = 17
FEW = 24
SCRIPT = pathlib.Path(__file__).parents[1] / "experiments" / "ablations" / "anchors.py"


def first(records: Records, count: int) -> Records:
    return Records(**{field.name: getattr(records, field.name)[:count] for field in dataclasses.fields(Records)})


@pytest.fixture(scope="module")
def source(small_data: pathlib.Path) -> SpokenDigits:
    small = SpokenDigits().small(str(small_data))
    prepare(dataclasses.replace(load_experiment(SCRIPT.parents[1] / "digits.py"), data=small))
    return small


@pytest.fixture(scope="module")
def splits(source: SpokenDigits) -> tuple[Records, Records]:
    return load_records(source, TRAIN), load_records(source, VALIDATION)


@pytest.fixture(scope="module")
def measured(source: SpokenDigits, splits: tuple[Records, Records]) -> list[Anchor]:
    train, heldout = splits
    with pytest.MonkeyPatch.context() as patch:
        few = {TRAIN: train, VALIDATION: first(heldout, FEW)}
        patch.setattr(parts, "load_records", lambda source, split: few[split])
        return anchors(source)


def random_pictures(count: int) -> np.ndarray:
    """Pictures of smooth gradients that use every level. Some pictures are blank."""
    rng = np.random.default_rng(count)
    found = np.cumsum(rng.integers(-4, 5, (count, 8, 8)), axis=2) % LEVELS
    found[:: max(1, count // 3)] = 0
    return found.astype(np.uint8)


@pytest.mark.parametrize("count", [1, 3, 40])
def test_codecs_of_pictures_give_them_back(count: int) -> None:
    batch = random_pictures(count)
    for sheet in [*batch[:2], *pictures.sheets(batch).values()]:
        for codec in [*pictures.png(), *pictures.webp()]:
            data = codec.encode(sheet)
            assert PIL.Image.open(io.BytesIO(data)).format in ("PNG", "WEBP")
            np.testing.assert_array_equal(codec.decode(data), sheet)
            assert codecs.encoded_bits(codec, sheet) == 8 * len(data)


def test_a_sheet_holds_every_picture() -> None:
    batch = random_pictures(7)
    found = pictures.sheets(batch)
    np.testing.assert_array_equal(found["below each other"].reshape(7, 8, 8), batch)
    square = found["in rows of a square"]
    assert square.shape == (24, 24)
    for k, (row, column) in enumerate(itertools.islice(itertools.product(range(3), range(3)), 7)):
        np.testing.assert_array_equal(square[8 * row : 8 * row + 8, 8 * column : 8 * column + 8], batch[k])
    assert not square[16:, 8:].any()
    assert set(pictures.sheets(np.zeros((2048, 8, 8), np.uint8))) == {"in rows of a square"}, "too high for WebP"


def waveform(samples: int) -> np.ndarray:
    rng = np.random.default_rng(samples)
    found = 9000 * np.sin(np.arange(samples) / 7) + rng.normal(0, 200, samples)
    found[:: max(1, samples // 5)] = 32767
    found[1 :: max(1, samples // 5)] = -32768
    return found.astype(np.int16)


@pytest.mark.parametrize("samples", [2, 801, 6000])
def test_flac_gives_samples_back(samples: int) -> None:
    for codec in sounds.flacs(11025):
        data = codec.encode(waveform(samples))
        decoded, rate = soundfile.read(io.BytesIO(data), dtype="int16")
        np.testing.assert_array_equal(decoded, waveform(samples))
        assert rate == 11025
        np.testing.assert_array_equal(codec.decode(data), waveform(samples))
        # The first frame starts with a sync code: 14 bits that are the same in every FLAC file.
        head = sounds.head_bytes(data)
        assert data[head] == 0xFF
        assert data[head + 1] & 0xFC == 0xF8


@pytest.mark.parametrize("writing", sounds.WRITINGS, ids=lambda one: one.name)
def test_writings_of_waveforms_can_be_read(writing: codecs.Writing) -> None:
    for samples in (1, 2, 999):
        wave = waveform(samples)
        np.testing.assert_array_equal(writing.read(writing.write(wave), wave), wave)


@pytest.mark.parametrize("writing", pictures.WRITINGS, ids=lambda one: one.name)
def test_writings_of_pictures_can_be_read(writing: codecs.Writing) -> None:
    for count in (1, 5):
        batch = random_pictures(count)
        np.testing.assert_array_equal(writing.read(writing.write(batch), batch), batch)
    assert len(pictures.WRITINGS[1].write(batch)) == 5 * 64 * 5 // 8


@pytest.mark.parametrize("family", codecs.FAMILIES)
@pytest.mark.parametrize("size", [0, 1, 64, 5000, 200_000])
def test_general_codecs_give_bytes_back(family: codecs.Family, size: int) -> None:
    payload = (np.random.default_rng(size).integers(0, 6, size) ** 2).astype(np.uint8).tobytes()
    for codec in codecs.settings(family, text=True):
        data = codec.encode(payload)
        assert codec.decode(data) == payload
        assert len(data) < (0.6 * size if size > 1000 else size + 20)


def test_a_codec_that_loses_something_is_refused() -> None:
    broken = codecs.Codec("broken", "badly", lambda data: data[:-1], lambda data: data)
    with pytest.raises(PlatformError, match="broken, badly"):
        codecs.best_of([broken], [b"abc"])
    # A comparison of bytes as text would ignore zeros at the end.
    blunt = codecs.Codec("blunt", "", lambda data: data.rstrip(b"\0"), lambda data: data)
    with pytest.raises(PlatformError, match="blunt"):
        codecs.best_of([blunt], [b"ab\0"])
    forgetful = codecs.Writing("forgetful", bytes, lambda data, like: data[:-1])
    with pytest.raises(PlatformError, match="give back"):
        codecs.best_of([codecs.zstd()], [b"abc"], [forgetful])


def test_the_best_setting_is_one_for_all_signals() -> None:
    made = [
        codecs.Codec("some", "large", lambda data: data + data, lambda data: data[: len(data) // 2]),
        codecs.Codec("some", "small", lambda data: data, lambda data: data),
    ]
    best = codecs.best_of(made, [b"aa", b"b"])
    assert (best.told, best.bits.tolist()) == ("small", [16, 8])


def test_what_is_known_costs_nothing_more() -> None:
    rng = np.random.default_rng(0)
    before, new = (rng.integers(0, 256, 4000, dtype=np.uint8).tobytes() for _ in range(2))
    for family in codecs.FAMILIES:
        again = codecs.best_after(codecs.settings(family), before, before[1000:3000], words.LINES, most_bytes=2**20)
        other = codecs.best_after(codecs.settings(family), before, new[:2000], words.LINES, most_bytes=2**20)
        assert again.bits.sum() < 0.05 * other.bits.sum(), family
        forgotten = codecs.best_after(codecs.settings(family), before, before[1000:3000], words.LINES, most_bytes=500)
        assert forgotten.bits.sum() > 0.9 * other.bits.sum(), family


def test_a_trained_dictionary_helps_short_signals_and_is_none_without_enough() -> None:
    # Strings of a few words; no string repeats a word.
    names = [bytes(np.random.default_rng(k).integers(0, 256, 12, dtype=np.uint8)) for k in range(40)]
    rng = np.random.default_rng(1)
    signals = [b"".join(names[k] for k in rng.permutation(40)[:6]) for _ in range(600)]
    plain = codecs.best_of(codecs.settings("zstd"), signals[500:])
    trained = codecs.best_with_dictionary(signals[:500], signals[500:])
    assert trained is not None
    assert trained.bits.sum() < 0.7 * plain.bits.sum()
    assert codecs.best_with_dictionary([b"a"], [b"a"]) is None


def test_counted_bits_are_those_of_a_slow_count() -> None:
    train, new = random_pictures(40), random_pictures(6)
    found = Histogram.fit(train, LEVELS, added=0.5).bits(new)
    slow = np.zeros(6)
    for n, y, x in itertools.product(range(6), range(8), range(8)):
        same = sum(int(picture[y, x] == new[n, y, x]) for picture in train)
        slow[n] -= math.log2((same + 0.5) / (40 + 0.5 * LEVELS))
    np.testing.assert_allclose(found, slow, rtol=1e-12)


def test_bits_with_neighbours_are_those_of_a_slow_count() -> None:
    train, new, added, weights = random_pictures(30), random_pictures(3), 0.3, (20.0, 10.0)
    found = Histogram.fit(train, LEVELS, added, weights).bits(new)

    def grey(picture: np.ndarray, y: int, x: int) -> int:
        return math.ceil(picture[y, x] / 4) if y >= 0 and 0 <= x < 8 else 5

    def near(picture: np.ndarray, y: int, x: int) -> tuple:
        return tuple(grey(picture, *at) for at in ((y, x - 1), (y - 1, x), (y - 1, x + 1), (y - 1, x - 1)))

    pixels = [(near(one, y, x), (y, x), int(one[y, x])) for one in train for y in range(8) for x in range(8)]
    slow = np.zeros(3)
    for n, y, x in itertools.product(range(3), range(8), range(8)):
        level, around = int(new[n, y, x]), near(new[n], y, x)
        here = [value for _, b, value in pixels if b == (y, x)]
        chance = (here.count(level) + added) / (len(here) + added * LEVELS)
        alike = [value for a, _, value in pixels if a == around]
        chance = (alike.count(level) + weights[0] * chance) / (len(alike) + weights[0])
        both = [value for a, b, value in pixels if b == (y, x) and a[:2] == around[:2]]
        chance = (both.count(level) + weights[1] * chance) / (len(both) + weights[1])
        slow[n] -= math.log2(chance)
    np.testing.assert_allclose(found, slow, rtol=1e-12)


@pytest.mark.parametrize("weights", [(0.0, 0.0), (2.0, 3.0)])
def test_the_chances_of_all_pictures_sum_to_one(weights: tuple[float, float]) -> None:
    every = np.array(list(itertools.product(range(3), repeat=4)), np.uint8).reshape(-1, 2, 2)
    rng = np.random.default_rng(0)
    train, labels = rng.integers(0, 3, (20, 2, 2)).astype(np.uint8), rng.integers(0, 3, 20)
    alone = Histogram.fit(train, 3, 0.5, weights)
    assert np.exp2(-alone.bits(every)).sum() == pytest.approx(1, abs=1e-12)
    np.testing.assert_allclose(alone.place.sum(axis=-1), 1, rtol=1e-12)
    # A class that is not in the training data is counted too.
    model = Classes.fit(train, labels, 3, 0.5, weights, classes=4)
    assert np.exp2(-model.marginal(every)).sum() == pytest.approx(1, abs=1e-12)
    assert model.prior.sum() == pytest.approx(1, abs=1e-12)
    for label in range(4):
        given = model.given(every, np.full(len(every), label))
        assert np.exp2(-given).sum() == pytest.approx(1, abs=1e-12)
    mixed = sum(
        prior * np.exp2(-model.given(every, np.full(len(every), label))) for label, prior in enumerate(model.prior)
    )
    np.testing.assert_allclose(np.exp2(-model.marginal(every)), mixed, rtol=1e-12)


def test_what_chooses_within_the_training_split_is_apart_from_what_is_counted() -> None:
    known, new = histograms.split(97)
    assert sorted([*known, *new]) == list(range(97))
    assert len(new) == 19
    np.testing.assert_array_equal(histograms.split(97)[1], new)


def test_the_heldout_pictures_choose_nothing(splits: tuple[Records, Records]) -> None:
    train, heldout = splits
    fit = functools.partial(histograms.anchors, train.images, train.labels, levels=LEVELS)
    one = list(fit(heldout=heldout.images[:20], heldout_labels=heldout.labels[:20]))
    other = list(fit(heldout=16 - heldout.images[:30], heldout_labels=heldout.labels[:30]))
    assert [a.note for a in one] == [b.note for b in other]
    assert all(a.value < b.value for a, b in zip(one, other)), "inverted pictures are unlike any"


@pytest.mark.slow
def test_every_anchor_is_there_with_its_unit(measured: list[Anchor]) -> None:
    by_measure = {
        measure: [one for one in measured if one.measure == measure] for measure in {one.measure for one in measured}
    }
    assert set(by_measure) == {"bits per pixel", "bits per sample", "bits per byte", "accuracy"}
    assert len({(one.name, one.modality) for one in measured}) == len(measured)
    for wanted in ("PNG", "WebP", "xz", "zstd", "brotli"):
        named = [one.name for one in by_measure["bits per pixel"] if one.name.startswith(wanted)]
        assert any("each alone" in name for name in named), wanted
        assert any("one s" in name for name in named), wanted
    assert {one.modality for one in by_measure["accuracy"]} == {"image->text", "speech->text"}
    assert {one.modality for one in by_measure["bits per pixel"]} == {"image", "image|text"}
    assert all(math.isfinite(one.value) and one.value > 0 and one.note for one in measured)
    for one in measured:
        single = "one s" in one.name
        assert (one.standard_error is None) == single, one.name
        assert single or one.standard_error > 0, one.name


@pytest.mark.slow
def test_the_figures_are_what_they_say(measured: list[Anchor], splits: tuple[Records, Records]) -> None:
    train, heldout = splits[0], first(splits[1], FEW)
    found = {(one.name, one.modality): one for one in measured}
    pixels = [
        min(8 * len(data) for data in [codec.encode(picture) for codec in pictures.webp()]) / 64
        for picture in heldout.images
    ]
    assert found["WebP, each alone", "image"].value == pytest.approx(np.mean(pixels), rel=0.02)
    plain = min(8 * len(codecs.zstd().encode(writing.write(heldout.images))) for writing in pictures.WRITINGS)
    assert found["zstd, one stream", "image"].value == plain / heldout.images.size
    whole = [8 * len(list(sounds.flacs(11025))[2].encode(one)) for one in heldout.speech]
    samples = sum(map(len, heldout.speech))
    assert found["FLAC, each alone", "speech"].value == pytest.approx(sum(whole) / samples, rel=1e-3)
    assert found["FLAC, each alone, frames only", "speech"].value < found["FLAC, each alone", "speech"].value
    counts = [(train.words.count(word) + 0.5) / (97 + 5) for word in heldout.words]
    size = sum(len(word) + 1 for word in heldout.words)
    assert found["word histogram", "text"].value == pytest.approx(-np.log2(counts).sum() / size, rel=1e-9)
    independent = found["histogram of independent pixels", "image"]
    known = found["class histogram of independent pixels", "image|text"]
    mixed = found["class histogram of independent pixels", "image"]
    assert 2 < known.value < mixed.value
    assert 2 < independent.value < math.log2(LEVELS)
    for name in codecs.FAMILIES:
        after = found[f"{name}, one stream, after the training split", "text"]
        assert after.value < found[f"{name}, one stream", "text"].value


@pytest.mark.slow
def test_classifiers_know_classes(measured: list[Anchor]) -> None:
    for one in measured:
        if one.measure == "accuracy":
            least = 0.8 if one.modality == "image->text" else 0.6  # from 97 records, one utterance of each
            assert one.value > least, one
            assert 0 < one.standard_error < 0.08


class Shuffled(SpokenDigits):
    """The data set with the labels of its training split in another order."""

    def records(self, split: str) -> list[Record]:
        rows = list(super().records(split))
        order = np.random.default_rng(0).permutation(len(rows))
        return [{**row, "label": rows[other]["label"]} for row, other in zip(rows, order, strict=True)]


@pytest.mark.slow
def test_classifiers_are_at_chance_when_labels_mean_nothing(
    source: SpokenDigits, splits: tuple[Records, Records]
) -> None:
    knobs = {field.name: getattr(source, field.name) for field in dataclasses.fields(source)}
    shuffled, heldout = Shuffled(**knobs), first(splits[1], 300)
    train = load_records(shuffled, TRAIN)
    for one in classifiers.anchors(train, np.arange(len(train)), heldout, shuffled):
        assert one.value < 0.3, one


def test_features_of_speech_are_of_one_size_and_loudness() -> None:
    waves = [waveform(samples) // 4 for samples in (300, 5000, 9001)]
    found = classifiers.features([*waves, waves[1] // 2], 11025)
    assert found.shape == (4, 40 * 2 * classifiers.CHUNKS)
    assert np.isfinite(found).all()
    assert np.abs(found[3] - found[1]).mean() < 0.1 * np.abs(found[2] - found[1]).mean() + 0.1


def test_errors_are_those_of_a_mean_and_of_a_ratio() -> None:
    each = np.array([100.0, 120.0, 140.0, 90.0])
    one = of_signals("a", "image", "bits per pixel", each, np.full(4, 64), "")
    assert one.value == pytest.approx(each.mean() / 64)
    assert one.standard_error == pytest.approx(each.std(ddof=1) / 2 / 64)
    units = np.array([10, 12, 14, 9])
    exact = of_signals("a", "speech", "bits per sample", 10.0 * units, units, "")
    assert (exact.value, exact.standard_error) == (10.0, pytest.approx(0))


@pytest.mark.slow
def test_a_table_of_anchors_can_be_read_again(tmp_path: pathlib.Path, measured: list[Anchor]) -> None:
    path = tmp_path / "anchors.csv"
    write_anchors(measured, path)
    found = read_anchors(path)
    assert [(one.name, one.modality, one.measure, one.note) for one in found] == [
        (one.name, one.modality, one.measure, one.note) for one in measured
    ]
    np.testing.assert_allclose([one.value for one in found], [one.value for one in measured], atol=1e-6)
    assert [one.standard_error is None for one in found] == [one.standard_error is None for one in measured]
    path.write_text(path.read_text().replace("bits per sample", "metres"))
    with pytest.raises(DataError, match="metres"):
        read_anchors(path)


def test_the_script_prints_and_writes_the_table(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = [
        Anchor("PNG, one sheet", "image", "bits per pixel", 3.0771, None, "a note"),
        Anchor("logistic regression", "image->text", "accuracy", 0.9611, 0.0103, "another"),
    ]
    out = tmp_path / "new" / "anchors.csv"
    asked = []
    monkeypatch.setattr(package, "anchors", lambda source, on_part: asked.append(source.directory) or found)
    monkeypatch.setattr("sys.argv", ["anchors.py", "--data.directory", "somewhere", "--out", str(out)])
    runpy.run_path(str(SCRIPT), run_name="__main__")
    assert asked == ["somewhere"]
    assert read_anchors(out) == found
    printed = capsys.readouterr().out
    assert all(said in printed for said in ("PNG, one sheet", "3.0771", "0.0103", "accuracy"))
    monkeypatch.undo()
    monkeypatch.setattr("sys.argv", ["anchors.py", "--data.directory", str(tmp_path / "none"), "--out", str(out)])
    with pytest.raises(SystemExit, match="omnijax prepare"):
        runpy.run_path(str(SCRIPT), run_name="__main__")


def test_the_committed_table_is_one() -> None:
    found = read_anchors(SCRIPT.parents[1] / "reproduce" / "results" / "anchors.csv")
    assert {one.measure for one in found} == {"bits per pixel", "bits per sample", "bits per byte", "accuracy"}


WITHOUT = """
import sys
sys.modules["brotli"] = None
import omnijax.sweep.page
assert not {"soundfile", "sklearn"} & sys.modules.keys()
from experiments.anchors import anchors
from omnijax.data.sources.spoken_digits import SpokenDigits
from omnijax.errors import PlatformError
try:
    anchors(SpokenDigits())
except PlatformError as error:
    print(error)
"""


def test_a_missing_library_is_named_and_tables_are_read_without_it() -> None:
    found = subprocess.run(
        [sys.executable, "-c", WITHOUT], cwd=SCRIPT.parents[2], capture_output=True, text=True, check=True, timeout=120
    )
    assert "import = 'brotli'" in found.stdout
    assert "omnijax[demo,ablations]" in found.stdout


def test_a_missing_data_set_is_named(tmp_path: pathlib.Path) -> None:
    with pytest.raises(DataError, match="omnijax prepare"):
        anchors(SpokenDigits(directory=str(tmp_path / "none")))
