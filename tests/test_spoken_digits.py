import ctypes
import dataclasses
import hashlib
import json
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import espeakng_loader
import numpy as np
import pytest
from goldens import check_golden
from random_data import batches_of

from omnijax import errors
from omnijax.config import Config
from omnijax.data.corpus import read_split
from omnijax.data.fitting import fitted
from omnijax.data.manifest import BEGUN, MANIFEST, verify
from omnijax.data.prepare import prepare
from omnijax.data.sources.spoken_digits import SpokenDigits, espeak
from omnijax.data.sources.spoken_digits import making as spoken_digits
from omnijax.data.sources.spoken_digits.settings import WORDS
from omnijax.data.sources.spoken_digits.source import RECORDS
from omnijax.experiment import load_experiment
from omnijax.modalities import Speech
from omnijax.source import Record, read

GOLDEN = pathlib.Path(__file__).parent / "golden" / "spoken_digits.json"
EXPERIMENT = pathlib.Path(__file__).parents[1] / "experiments" / "digits.py"
DIGITS = load_experiment(EXPERIMENT)
SMALL = SpokenDigits(
    utterances=1, validation_images=1700, test_images=0, test_voices=0, seed=3, speech=Speech(codes=16, frames=3)
)


def config_of(source: SpokenDigits) -> Config:
    return dataclasses.replace(DIGITS, data=source)


def load(source: SpokenDigits) -> None:
    """Reads as a run does, which checks the data set first."""
    read_split(config_of(source), "validation", ("text",)).corpus()


def rows_of(source: SpokenDigits, split: str) -> list[Record]:
    records = source.records(split)
    return read(records, range(len(records)))


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> SpokenDigits:
    config = dataclasses.replace(SMALL, directory=str(tmp_path_factory.mktemp("data") / "spoken_digits"))
    prepare(config_of(config))
    return config


@pytest.fixture
def copy(built: SpokenDigits, tmp_path) -> SpokenDigits:
    config = dataclasses.replace(built, directory=str(tmp_path / "copy"))
    shutil.copytree(built.directory, config.directory)
    return config


def test_splits_share_neither_image_nor_voice(built: SpokenDigits) -> None:
    train, validation = rows_of(built, "train"), rows_of(built, "validation")
    assert built.splits == ("train", "validation")
    assert (len(train), len(validation)) == (97, 1700)
    for key in ("image_index", "voice"):
        assert not {int(row[key]) if key == "image_index" else row[key] for row in train} & {
            int(row[key]) if key == "image_index" else row[key] for row in validation
        }
    assert len({row["voice"] for row in validation}) == built.validation_voices
    assert np.ptp(np.bincount(built.labels("train"), minlength=10)) <= 2


def test_a_test_split_is_cut_from_training_and_leaves_validation_as_it_is() -> None:
    """What was held out before there was a test split is validation, to the record."""
    labels = spoken_digits.load_images()[1]
    variants = espeak.Synthesizer().variants
    old_train, old_validation = spoken_digits.split_images(labels, (360, 0), 0)[:2]
    train, validation, test = spoken_digits.split_images(labels, (360, 200), 0)
    np.testing.assert_array_equal(validation, old_validation)
    np.testing.assert_array_equal(np.sort(np.concatenate([train, test])), old_train)
    assert np.ptp(np.bincount(labels[test], minlength=10)) <= 4
    voices, held, tested = spoken_digits.split_voices(variants, (20, 10), 0)
    assert held == spoken_digits.split_voices(variants, (20, 0), 0)[1]
    assert len({*voices, *held, *tested}) == len(variants) == len(voices) + 30


def test_records_are_the_real_images_with_their_words(built: SpokenDigits) -> None:
    images, labels = spoken_digits.load_images()
    for row, label in zip(rows_of(built, "train"), built.labels("train"), strict=True):
        np.testing.assert_array_equal(row["image"], images[row["image_index"]])
        assert label == labels[row["image_index"]]
        assert row["text"] == WORDS[label]
        assert row["image"].dtype == np.uint8


def test_speech_is_trimmed_and_equally_loud(built: SpokenDigits) -> None:
    for row in rows_of(built, "train"):
        waveform = row["speech"]
        assert waveform.dtype == np.int16
        assert 0.1 < len(waveform) / built.speech.sample_rate_hz < 1.5
        rms = np.sqrt(np.mean(np.square(waveform / 32767)))
        assert 0.05 < rms < 0.101
        assert np.abs(waveform[:400]).max() > 0.005 * np.abs(waveform).max()


def test_codebook_belongs_to_the_configuration(built: SpokenDigits) -> None:
    speech = fitted(built)["speech"]
    assert speech.codebook.shape == (16, 3 * built.speech.mels)
    items = speech.encode([row["speech"] for row in rows_of(built, "train")])
    assert len(np.unique(items.digits)) > 12


def test_the_data_of_the_demo_are_those_that_they_always_were(tmp_path) -> None:
    """All pictures, augmented ones, words and codes of the training split, and batches of it, as their hashes."""
    first = SpokenDigits(utterances=1, validation_images=1200, test_images=0, test_voices=0)
    source = dataclasses.replace(first, directory=str(tmp_path / "data"))
    config = config_of(source)
    prepare(config)
    corpus = read_split(config, "train", ("text", "image", "image/moved", "speech")).corpus()
    found = {}
    for name, column in corpus.columns.items():
        documents = column.take(np.arange(len(column)))
        found[name] = digest(documents.ids), digest(documents.segment_items)
    batches = batches_of(corpus, config.batch)
    for step in (0, 400):
        found[f"step {step}"] = [digest(array) for array in batches[step].values()]
    check_golden(GOLDEN, found, "the records of the demo, or how they are written, were meant to change")


def digest(array: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(array)).hexdigest()[:16]


def test_second_call_changes_nothing_and_another_way_to_listen_is_no_other_data(built: SpokenDigits) -> None:
    manifest = pathlib.Path(built.directory, MANIFEST)
    before = manifest.stat().st_mtime_ns
    prepare(config_of(dataclasses.replace(built, speech=dataclasses.replace(built.speech, griffin_lim_iterations=1))))
    assert manifest.stat().st_mtime_ns == before


def test_killed_build_leaves_nothing_and_the_next_process_builds_the_same_bytes(built: SpokenDigits, tmp_path) -> None:
    config = dataclasses.replace(built, directory=str(tmp_path / "spoken_digits"))
    code = (
        "import dataclasses, pathlib; from omnijax.data.prepare import prepare; from omnijax.modalities import *; "
        "from omnijax.data.sources.spoken_digits import SpokenDigits; from omnijax.experiment import load_experiment; "
        f"prepare(dataclasses.replace(load_experiment(pathlib.Path({str(EXPERIMENT)!r})), data={config!r}))"
    )
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 60
        begun = tmp_path / "spoken_digits" / BEGUN
        while not begun.exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
    assert begun.exists()
    with pytest.raises(errors.DataError, match="omnijax prepare"):
        load(config)
    subprocess.run(command, check=True, capture_output=True)
    assert not begun.exists()
    ours, theirs = (pathlib.Path(c.directory, MANIFEST).read_text() for c in (built, config))
    assert ours == theirs
    verify(config)


def data_file(config: SpokenDigits) -> pathlib.Path:
    return next(pathlib.Path(config.directory, RECORDS).glob("*train*"))


def remove(path: pathlib.Path) -> None:
    path.unlink()


def truncate(path: pathlib.Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def alter(path: pathlib.Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("damage, rule", [(remove, "missing"), (truncate, "damaged"), (alter, "altered")])
def test_damaged_files_are_an_error_and_never_rebuilt(copy: SpokenDigits, damage, rule: str) -> None:
    damage(data_file(copy))
    for action in (lambda: load(copy), lambda: prepare(config_of(copy))):
        with pytest.raises(errors.DataError, match=rule) as caught:
            action()
        assert str(data_file_name(copy)) in str(caught.value.value)
        assert "omnijax prepare" in caught.value.fix


def data_file_name(config: SpokenDigits) -> str:
    manifest = json.loads(pathlib.Path(config.directory, MANIFEST).read_text())
    return next(name for name in manifest["files"] if name.startswith(RECORDS) and "train" in name)


@pytest.mark.parametrize("damage", [remove, truncate, lambda path: path.write_text("[]"), lambda p: p.write_text("{}")])
def test_damaged_manifest_is_an_error(copy: SpokenDigits, damage) -> None:
    damage(pathlib.Path(copy.directory, MANIFEST))
    with pytest.raises(errors.DataError, match="manifest"):
        prepare(config_of(copy))


def test_missing_data_say_how_to_build_them(tmp_path) -> None:
    (tmp_path / "empty").mkdir()
    for name in ("none", "empty"):
        with pytest.raises(errors.DataError, match="omnijax prepare"):
            load(dataclasses.replace(SMALL, directory=str(tmp_path / name)))


@pytest.mark.parametrize(
    "field, change",
    [("data.seed", {"seed": 4}), ("data.speech.codes", {"speech": dataclasses.replace(SMALL.speech, codes=17)})],
)
def test_another_configuration_is_refused_by_the_field(built: SpokenDigits, field: str, change: dict) -> None:
    other = dataclasses.replace(built, **change)
    for action in (lambda: load(other), lambda: prepare(config_of(other))):
        with pytest.raises(errors.DataError, match="was built with") as caught:
            action()
        assert caught.value.field == field


@pytest.mark.parametrize(
    "field, change",
    [
        ("data.utterances", {"utterances": 0}),
        ("data.validation_images", {"validation_images": 1797}),
        ("data.validation_voices", {"validation_voices": 104}),
        ("data.test_images", {"test_images": 0, "test_voices": 7}),
        ("data.speech.sample_rate_hz", {"speech": Speech(sample_rate_hz=100)}),
        ("data.speech.hop_samples", {"speech": Speech(hop_samples=0)}),
        ("data.speech.frames", {"speech": Speech(frames=0)}),
        ("data.speech.codes", {"speech": Speech(codes=1)}),
    ],
)
def test_impossible_configurations_are_refused_before_anything_is_written(tmp_path, field: str, change: dict) -> None:
    config = dataclasses.replace(SMALL, directory=str(tmp_path / "new" / "data"), **change)
    with pytest.raises(errors.ConfigError) as caught:
        prepare(config_of(config))
    assert caught.value.field == field
    assert list(tmp_path.iterdir()) == []


def test_a_file_in_place_of_the_directory_is_an_error(tmp_path) -> None:
    (tmp_path / "data").write_text("something else")
    for name, error in (("data", errors.DataError), ("data/below", errors.ConfigError)):
        with pytest.raises(error, match=r"data\.directory"):
            prepare(config_of(dataclasses.replace(SMALL, directory=str(tmp_path / name))))
    assert (tmp_path / "data").read_text() == "something else"


def test_the_same_calls_say_the_same_in_a_new_synthesizer() -> None:
    first, second = espeak.Synthesizer(), espeak.Synthesizer()
    first.speak("one", first.variants[0], 160, 50)
    second.speak("one", first.variants[0], 160, 50)
    for voice in ("whisper", "f2", "caleb", "klatt"):  # voices with breath noise
        np.testing.assert_array_equal(first.speak("two", voice, 160, 50), second.speak("two", voice, 160, 50))


def test_unknown_voice_is_refused() -> None:
    with pytest.raises(errors.DataError, match="nobody"):
        espeak.Synthesizer().speak("one", "nobody", 160, 50)


def test_a_long_path_to_the_voices_works(tmp_path, monkeypatch) -> None:
    library = pathlib.Path(espeakng_loader.get_library_path())
    folder = tmp_path / ("long" * 40)
    folder.mkdir()
    (folder / "espeak-ng-data").symlink_to(library.parent / "espeak-ng-data")
    shutil.copy(library, folder)
    monkeypatch.setattr(espeakng_loader, "get_library_path", lambda: str(folder / library.name))
    assert len(espeak.Synthesizer().speak("one", "m1", 160, 50)) > 4000


def test_missing_wheel_is_a_platform_error_and_nothing_is_left(tmp_path, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "espeakng_loader", None)
    with pytest.raises(errors.PlatformError, match="pip install"):
        prepare(config_of(dataclasses.replace(SMALL, directory=str(tmp_path / "data"))))
    assert not (tmp_path / "data").exists()
    assert not (tmp_path / ".data.partial").exists()


@pytest.mark.parametrize("content", [None, b"no library"])
def test_missing_or_broken_library_is_a_platform_error(tmp_path, monkeypatch, content: bytes | None) -> None:
    path = tmp_path / "libespeak-ng.so"
    if content is not None:
        path.write_bytes(content)
    monkeypatch.setattr(espeakng_loader, "get_library_path", lambda: str(path))
    with pytest.raises(errors.PlatformError, match="libespeak-ng"):
        espeak.Synthesizer()


def test_missing_voices_are_a_platform_error(tmp_path, monkeypatch) -> None:
    library = shutil.copy(espeakng_loader.get_library_path(), tmp_path)
    monkeypatch.setattr(espeakng_loader, "get_library_path", lambda: library)
    with pytest.raises(errors.PlatformError, match="voice"):
        espeak.Synthesizer()


def test_it_speaks_other_languages() -> None:
    said = [espeak.Synthesizer().speak("un chat", "m1", 170, 50, *language) for language in ((), ("en",), ("fr",))]
    np.testing.assert_array_equal(said[0], said[1])
    assert said[1].shape != said[2].shape
    with pytest.raises(errors.DataError, match=r"nowhere\+m1.*espeak-ng must speak with it"):
        espeak.Synthesizer().speak("un chat", "m1", 170, 50, "nowhere")


def test_each_synthesizer_has_its_own_library() -> None:
    first, second = espeak.Synthesizer(), espeak.Synthesizer()
    addresses = [ctypes.cast(s._library.espeak_Synth, ctypes.c_void_p).value for s in (first, second)]
    assert addresses[0] != addresses[1]
