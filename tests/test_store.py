"""Items that are stored with a data set: the same as those made when it is loaded. Under Beam: test_beam.py."""

from __future__ import annotations

import dataclasses
import functools
import importlib.util
import itertools
import json
import pathlib
import shutil
from collections.abc import Callable

import numpy as np
import pytest

from omnijax import errors
from omnijax.config import BatchConfig, Config, Task
from omnijax.data import manifest, store
from omnijax.data.beam import Beam
from omnijax.data.columns import Column
from omnijax.data.corpus import read_corpus
from omnijax.data.fitting import fitted
from omnijax.data.pipeline import Batches
from omnijax.data.prepare import prepare
from omnijax.data.sources.spoken_digits import spoken_digits_dataset_builder as spoken_digits
from omnijax.experiment import load_experiment
from omnijax.files import write_object
from omnijax.modalities import Modality, Picture, Text
from omnijax.source import Source
from omnijax.vocab.documents import Documents

DIGITS = load_experiment(pathlib.Path(__file__).parents[1] / "experiments" / "digits.py")
TASKS = (Task(("image/moved", "text"), (0.0, 1.0)), Task(("speech", "image"), (1.0, 1.0), repeats=2))
NAMES = ("image/moved", "text", "speech", "image")
SEED = 5


class Here(Beam):
    """Builds in this process: `store.write` asks for nothing else than its download configuration."""

    def __init__(self) -> None:
        self._options = []

    def download_config(self):
        return None


def config_of(directory: pathlib.Path, seed: int = SEED) -> Config:
    source = dataclasses.replace(DIGITS.data, utterances=1, validation_images=1700, test_images=0, test_voices=0)
    source = dataclasses.replace(source, seed=3, directory=str(directory))
    return dataclasses.replace(DIGITS, data=source, batch=BatchConfig(TASKS, size=4, sequence_length=256, seed=seed))


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Config:
    config = config_of(tmp_path_factory.mktemp("data") / "spoken_digits")
    prepare(config)
    return config


@pytest.fixture(scope="module")
def stored(built: Config, tmp_path_factory) -> Config:
    """The same data set with its items; in chunks that don't divide the splits."""
    config = config_of(tmp_path_factory.mktemp("stored") / "spoken_digits")
    directory = pathlib.Path(config.data.directory)
    shutil.copytree(built.data.directory, directory)
    found = json.loads((directory / manifest.MANIFEST).read_text())
    with pytest.MonkeyPatch.context() as patch:
        store_items(patch, config, directory, found)
    return config


def store_items(patch: pytest.MonkeyPatch, config: Config, directory: pathlib.Path, found: dict) -> None:
    """Stores items without Apache Beam, by the builder that it has."""
    from omnijax.data import tfds_builders

    plain = tfds_builders.StoredItems.__init__
    patch.setattr(store, "RECORDS_AT_ONCE", 40)
    patch.setattr(tfds_builders.StoredItems, "__init__", lambda self, *, beam, **more: plain(self, beam=False, **more))
    found["stored"] = store.write(config, config.data, directory, Here())
    found["files"] = manifest.describe(directory)
    write_object(directory / manifest.MANIFEST, found)


def same_documents(one: Documents, other: Documents) -> bool:
    return all(
        np.array_equal(getattr(one, field.name), getattr(other, field.name)) for field in dataclasses.fields(Documents)
    )


@pytest.mark.parametrize("split", ["train", "validation"])
def test_stored_items_are_those_made_at_loading(built: Config, stored: Config, split: str) -> None:
    made, read = (read_corpus(config, split, NAMES) for config in (built, stored))
    assert len(read) == len(made) > 90
    assert set(read.columns) == set(made.columns) == set(NAMES)
    for name in NAMES:
        one, other = made.columns[name], read.columns[name]
        assert not isinstance(other, Column)  # nothing is read before it's asked for
        np.testing.assert_array_equal(one.segments, other.segments)
        np.testing.assert_array_equal(one.items, other.items)
        for places in (range(len(made)), [7, 3, 3, 90], []):
            assert same_documents(one.take(places), other.take(places))


def test_batches_are_the_same(built: Config, stored: Config) -> None:
    made, read = (Batches(read_corpus(config, "train", NAMES), config.batch) for config in (built, stored))
    for step in (0, 3, 60):
        one, other = made[step], read[step]
        assert set(one) == set(other)
        for name in one:
            np.testing.assert_array_equal(one[name], other[name])


def test_a_chunk_gets_what_it_gets_among_all(built: Config) -> None:
    count = len(built.data.records("train"))
    encoded = functools.partial(store.encoded_records, source=built.data, names=NAMES, seed=SEED)
    everything = dict(encoded(("train", 0)))
    some = dict(encoded(("train", 60)))
    assert list(some) == list(range(60, count))
    for place, arrays in some.items():
        for name, array in arrays.items():
            np.testing.assert_array_equal(array, everything[place][name])


def test_a_place_outside_is_refused(built: Config, stored: Config) -> None:
    for config in (built, stored):
        column = read_corpus(config, "train", NAMES).columns["text"]
        for place in (-1, len(column)):
            with pytest.raises(IndexError):
                column.take([place])


def test_items_of_another_seed_or_without_a_view_are_refused(stored: Config) -> None:
    other = dataclasses.replace(stored, batch=dataclasses.replace(stored.batch, seed=SEED + 1))
    with pytest.raises(errors.DataError) as caught:
        read_corpus(other, "train", NAMES)
    assert (caught.value.field, caught.value.value) == ("batch.seed", SEED + 1)
    with pytest.raises(errors.DataError, match="the views stored") as caught:
        read_corpus(stored, "train", ("speech/louder",))
    assert caught.value.value == "speech/louder"


def test_damaged_items_are_found(stored: Config, tmp_path: pathlib.Path) -> None:
    shutil.copytree(stored.data.directory, tmp_path / "damaged")
    next((tmp_path / "damaged" / store.FOLDER).glob("*.array_record*")).unlink()
    with pytest.raises(errors.DataError, match="missing"):
        read_corpus(config_of(tmp_path / "damaged"), "train", NAMES)


@dataclasses.dataclass(frozen=True)
class Interleaved(Source):
    """Several signals in a field, fields that are missing, pictures with a header, and whole sequences."""

    @property
    def fields(self) -> dict[str, Modality]:
        return {"text": Text(), "photo": Picture("photo", 5, 5, 3, variable=True)}

    @property
    def splits(self) -> tuple[str, ...]:
        return ("train", "validation")

    def records(self, split: str) -> list[dict[str, object]]:
        random, rows = np.random.default_rng(0), []
        for number in range(50):
            photos = [random.integers(0, 256, (*random.integers(1, 6, 2), 3), np.uint8) for _ in range(number % 4)]
            words = [("text", f"{number} {k}") for k in range(number % 3)]
            pairs = itertools.zip_longest(words, [("photo", one) for one in photos])
            sequence = [one for pair in pairs for one in pair if one is not None]
            rows.append({"photo": photos, "text": f"{number}" if number % 5 else None, "sequence": sequence})
        return rows


def test_headers_lists_and_sequences_come_back_from_the_store(tmp_path: pathlib.Path) -> None:
    tasks = (Task(("photo", "text"), (1.0, 1.0)), Task(("sequence",), (1.0,)))
    config = Config(Interleaved(directory=str(tmp_path)), BatchConfig(tasks))
    names = ("photo", "text", "sequence")
    made = read_corpus(dataclasses.replace(config, data=dataclasses.replace(config.data, directory="")), "train", names)
    with pytest.MonkeyPatch.context() as patch:
        store_items(patch, config, tmp_path, {"config": manifest.shaping(config.data)})
    read = read_corpus(config, "train", names)
    for name in names:
        everything = range(len(made))
        assert same_documents(made.columns[name].take(everything), read.columns[name].take(everything))
    assert set(np.unique(made.columns["sequence"].segments)) > {0, 1, 3}


def test_lost_records_are_noticed(tmp_path: pathlib.Path, monkeypatch) -> None:
    everything: Callable = spoken_digits.utterances
    monkeypatch.setattr(
        spoken_digits, "utterances", lambda split, source: itertools.islice(everything(split, source), 96)
    )
    config = config_of(tmp_path / "digits")
    source = dataclasses.replace(config.data, validation_images=96)
    with pytest.raises(errors.DataError, match="a worker has lost some") as caught:
        prepare(dataclasses.replace(config, data=source))
    assert caught.value.value == {"train": 96, "validation": 96}
    assert not (tmp_path / "digits").exists()


def test_what_modalities_learn_is_read_from_the_data_set(built: Config) -> None:
    speech = fitted(built.data)["speech"]
    assert speech.arrays["vectors"].shape[0] == built.data.speech.codes


def test_without_beam_it_is_said_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(errors.PlatformError, match=r"pip install 'omnijax\[beam\]'"):
        Beam()
