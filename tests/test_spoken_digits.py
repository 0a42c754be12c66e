import ctypes
import dataclasses
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

from omnijax import errors
from omnijax.config import DataConfig, SpeechConfig
from omnijax.data import records
from omnijax.data.prepare import prepare
from omnijax.data.sources.spoken_digits import espeak
from omnijax.data.sources.spoken_digits import spoken_digits_dataset_builder as spoken_digits
from omnijax.modalities import Speech

SMALL = DataConfig(utterances=1, heldout_images=1700, seed=3, speech=SpeechConfig(codes=16, frames=3))


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> DataConfig:
    config = dataclasses.replace(SMALL, directory=str(tmp_path_factory.mktemp("data") / "spoken_digits"))
    prepare(config)
    return config


@pytest.fixture
def copy(built: DataConfig, tmp_path) -> DataConfig:
    config = dataclasses.replace(built, directory=str(tmp_path / "copy"))
    shutil.copytree(built.directory, config.directory)
    return config


def test_splits_share_neither_image_nor_voice(built: DataConfig) -> None:
    train, heldout = records.load_records(built, "train"), records.load_records(built, "heldout")
    assert (len(train), len(heldout)) == (97, 1700)
    assert not set(train.image_index) & set(heldout.image_index)
    assert not set(train.voices) & set(heldout.voices)
    assert len(set(heldout.voices)) == built.heldout_voices
    assert np.ptp(np.bincount(train.labels, minlength=10)) <= 2


def test_records_are_the_real_images_with_their_words(built: DataConfig) -> None:
    train = records.load_records(built, "train")
    images, labels = spoken_digits.load_images()
    np.testing.assert_array_equal(train.images, images[train.image_index])
    np.testing.assert_array_equal(train.labels, labels[train.image_index])
    assert train.words == [records.WORDS[label] for label in train.labels]
    assert train.images.dtype == np.uint8
    assert train.labels.dtype == np.int32


def test_speech_is_trimmed_and_equally_loud(built: DataConfig) -> None:
    for waveform in records.load_records(built, "train").speech:
        assert waveform.dtype == np.int16
        assert 0.1 < len(waveform) / built.sample_rate_hz < 1.5
        rms = np.sqrt(np.mean(np.square(waveform / 32767)))
        assert 0.05 < rms < 0.101
        assert np.abs(waveform[:400]).max() > 0.005 * np.abs(waveform).max()


def test_codebook_belongs_to_the_configuration(built: DataConfig) -> None:
    codebook = records.load_codebook(built)
    assert codebook.vectors.shape == (16, 3 * built.speech.mels)
    modality = Speech(codebook, built.speech, built.sample_rate_hz)
    ids = modality.fragments_batch(records.load_records(built, "train").speech)
    assert len(np.unique(np.concatenate(ids))) > 12


def test_second_call_changes_nothing_and_another_way_to_listen_is_no_other_data(built: DataConfig) -> None:
    manifest = pathlib.Path(built.directory, records.MANIFEST)
    before = manifest.stat().st_mtime_ns
    prepare(dataclasses.replace(built, speech=dataclasses.replace(built.speech, griffin_lim_iterations=1)))
    assert manifest.stat().st_mtime_ns == before


def test_killed_build_leaves_nothing_and_the_next_process_builds_the_same_bytes(built: DataConfig, tmp_path) -> None:
    config = dataclasses.replace(built, directory=str(tmp_path / "spoken_digits"))
    code = f"from omnijax.config import *; from omnijax.data.prepare import prepare; prepare({config!r})"
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 60
        while not (tmp_path / ".spoken_digits.partial").exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
    assert (tmp_path / ".spoken_digits.partial").exists()
    with pytest.raises(errors.DataError, match="omnijax prepare"):
        records.load_records(config, "train")
    subprocess.run(command, check=True, capture_output=True)
    assert not (tmp_path / ".spoken_digits.partial").exists()
    ours, theirs = (pathlib.Path(c.directory, records.MANIFEST).read_text() for c in (built, config))
    assert ours == theirs
    records.verify(config)


def data_file(config: DataConfig) -> pathlib.Path:
    return next(pathlib.Path(config.directory, records.RECORDS).glob("*train*"))


def remove(path: pathlib.Path) -> None:
    path.unlink()


def truncate(path: pathlib.Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def alter(path: pathlib.Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("damage, rule", [(remove, "missing"), (truncate, "damaged"), (alter, "altered")])
def test_damaged_files_are_an_error_and_never_rebuilt(copy: DataConfig, damage, rule: str) -> None:
    damage(data_file(copy))
    for action in (lambda: records.load_records(copy, "heldout"), lambda: prepare(copy)):
        with pytest.raises(errors.DataError, match=rule) as caught:
            action()
        assert str(data_file_name(copy)) in str(caught.value.value)
        assert "omnijax prepare" in caught.value.fix


def data_file_name(config: DataConfig) -> str:
    manifest = json.loads(pathlib.Path(config.directory, records.MANIFEST).read_text())
    return next(name for name in manifest["files"] if "train" in name)


@pytest.mark.parametrize("damage", [remove, truncate, lambda path: path.write_text("[]"), lambda p: p.write_text("{}")])
def test_damaged_manifest_is_an_error(copy: DataConfig, damage) -> None:
    damage(pathlib.Path(copy.directory, records.MANIFEST))
    with pytest.raises(errors.DataError, match="manifest"):
        prepare(copy)


def test_missing_data_say_how_to_build_them(tmp_path) -> None:
    (tmp_path / "empty").mkdir()
    for name in ("none", "empty"):
        with pytest.raises(errors.DataError, match="omnijax prepare"):
            records.load_records(dataclasses.replace(SMALL, directory=str(tmp_path / name)), "train")


@pytest.mark.parametrize(
    "field, change",
    [("data.seed", {"seed": 4}), ("data.speech.codes", {"speech": dataclasses.replace(SMALL.speech, codes=17)})],
)
def test_another_configuration_is_refused_by_the_field(built: DataConfig, field: str, change: dict) -> None:
    other = dataclasses.replace(built, **change)
    for action in (lambda: records.load_codebook(other), lambda: prepare(other)):
        with pytest.raises(errors.DataError, match="was built with") as caught:
            action()
        assert caught.value.field == field


@pytest.mark.parametrize(
    "field, change",
    [
        ("data.utterances", {"utterances": 0}),
        ("data.heldout_images", {"heldout_images": 1797}),
        ("data.heldout_voices", {"heldout_voices": 104}),
        ("data.sample_rate_hz", {"sample_rate_hz": 100}),
        ("data.speech.hop_samples", {"speech": SpeechConfig(hop_samples=0)}),
        ("data.speech.frames", {"speech": SpeechConfig(frames=0)}),
        ("data.speech.codes", {"speech": SpeechConfig(codes=1)}),
    ],
)
def test_impossible_configurations_are_refused_before_anything_is_written(tmp_path, field: str, change: dict) -> None:
    config = dataclasses.replace(SMALL, directory=str(tmp_path / "new" / "data"), **change)
    with pytest.raises(errors.ConfigError) as caught:
        prepare(config)
    assert caught.value.field == field
    assert list(tmp_path.iterdir()) == []


def test_a_file_in_place_of_the_directory_is_an_error(tmp_path) -> None:
    (tmp_path / "data").write_text("something else")
    for name in ("data", "data/below"):
        with pytest.raises(errors.DataError, match=r"data\.directory"):
            prepare(dataclasses.replace(SMALL, directory=str(tmp_path / name)))
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
        prepare(dataclasses.replace(SMALL, directory=str(tmp_path / "data")))
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


def test_each_synthesizer_has_its_own_library() -> None:
    first, second = espeak.Synthesizer(), espeak.Synthesizer()
    addresses = [ctypes.cast(s._library.espeak_Synth, ctypes.c_void_p).value for s in (first, second)]
    assert addresses[0] != addresses[1]
