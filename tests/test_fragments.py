"""Fragments that are stored with a data set: the same as those made when it is loaded. Under Beam: test_beam.py."""

from __future__ import annotations

import dataclasses
import functools
import importlib.util
import itertools
import json
import pathlib
import shutil
from collections.abc import Sequence

import numpy as np
import pytest

import omnijax.data.fragments
import omnijax.data.prepare
from omnijax import errors
from omnijax.config import BatchConfig, DataConfig, Task
from omnijax.data import corpus, records
from omnijax.data.beam import Beam
from omnijax.data.fragments import FRAGMENTS, Fragments, fragments_from
from omnijax.data.pipeline import Batches
from omnijax.data.prepare import prepare
from omnijax.data.sources.spoken_digits import spoken_digits_dataset_builder as spoken_digits
from omnijax.experiment import load_experiment
from omnijax.modalities.picture import moved

CONFIG = load_experiment(pathlib.Path(__file__).parents[1] / "experiments" / "digits.py")
SMALL = dataclasses.replace(CONFIG.data, utterances=1, heldout_images=1700, seed=3)
SEED = 5


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> DataConfig:
    config = dataclasses.replace(SMALL, directory=str(tmp_path_factory.mktemp("data") / "spoken_digits"))
    prepare(config)
    return config


@pytest.fixture(scope="module")
def stored(built: DataConfig, tmp_path_factory) -> DataConfig:
    """The same data set with its fragments; in chunks that don't divide the splits."""
    directory = tmp_path_factory.mktemp("stored") / "spoken_digits"
    shutil.copytree(built.directory, directory)
    make = functools.partial(corpus.views, modalities=corpus.digit_modalities(built), seed=SEED)
    builder = Fragments(
        source=directory, names=corpus.VIEWS, make=make, data_dir=directory / "tfds", file_format="array_record"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(omnijax.data.fragments, "RECORDS_AT_ONCE", 40)
        builder.download_and_prepare()
    pathlib.Path(builder.data_path).rename(directory / FRAGMENTS)
    shutil.rmtree(directory / "tfds")
    manifest = json.loads((directory / records.MANIFEST).read_text())
    manifest |= {"files": records.describe(directory), "fragments": {"seed": SEED}}
    (directory / records.MANIFEST).write_text(json.dumps(manifest))
    return dataclasses.replace(built, directory=str(directory))


@pytest.mark.parametrize("split", ["train", "heldout"])
def test_stored_fragments_are_those_made_at_loading(built: DataConfig, stored: DataConfig, split: str) -> None:
    vocabulary = CONFIG.vocabulary
    made = corpus.read_corpus(vocabulary, built, split, SEED)
    read = corpus.read_corpus(vocabulary, stored, split, SEED)
    assert len(read) == len(made) > 90
    assert set(read.fragments) == set(made.fragments) == set(corpus.VIEWS)
    for name in corpus.VIEWS:
        assert not isinstance(read.fragments[name], list)  # nothing is read before it's asked for
        for one, other in zip(made.fragments[name], read.fragments[name], strict=True):
            np.testing.assert_array_equal(one, other)
            assert other.dtype == np.int64


def test_batches_are_the_same(built: DataConfig, stored: DataConfig) -> None:
    tasks = (Task(("image/moved", "text"), (0.0, 1.0)), Task(("speech", "image"), (1.0, 1.0), repeats=2))
    config = BatchConfig(size=4, sequence_length=256, tasks=tasks, seed=SEED)
    made, read = (
        Batches(corpus.read_corpus(CONFIG.vocabulary, data, "train", SEED), config) for data in (built, stored)
    )
    for step in (0, 3, 60):
        one, other = made[step], read[step]
        assert set(one) == set(other)
        for name in one:
            np.testing.assert_array_equal(one[name], other[name])


def test_a_chunk_gets_what_it_gets_among_all(built: DataConfig) -> None:
    images = records.load_records(built, "train").images
    whole = moved(images, 17, SEED)
    assert (whole != images).any()
    np.testing.assert_array_equal(moved(images[30:70], 17, SEED, 30, len(images)), whole[30:70])
    make = functools.partial(corpus.views, modalities=corpus.digit_modalities(built), seed=SEED)
    everything = make(records.load_records(built, "train"), 0, len(images))
    for place, example in fragments_from(60, "train", len(images), pathlib.Path(built.directory), make):
        for name in corpus.VIEWS:
            np.testing.assert_array_equal(example[name.replace("/", ".")], everything[name][place])
    assert place == len(images) - 1


def test_a_place_outside_is_refused(stored: DataConfig) -> None:
    view = corpus.read_corpus(CONFIG.vocabulary, stored, "train", SEED).fragments["text"]
    for place in (-1, len(view)):
        with pytest.raises(IndexError):
            view[place]


def test_fragments_of_another_seed_are_refused(stored: DataConfig) -> None:
    with pytest.raises(errors.DataError) as caught:
        corpus.read_corpus(CONFIG.vocabulary, stored, "train", SEED + 1)
    assert (caught.value.field, caught.value.value) == ("batch.seed", SEED + 1)


def test_damaged_fragments_are_found(stored: DataConfig, tmp_path: pathlib.Path) -> None:
    shutil.copytree(stored.directory, tmp_path / "damaged")
    next((tmp_path / "damaged" / FRAGMENTS).glob("*.array_record*")).unlink()
    with pytest.raises(errors.DataError, match="missing"):
        corpus.read_corpus(
            CONFIG.vocabulary, dataclasses.replace(stored, directory=str(tmp_path / "damaged")), "train", SEED
        )


def test_the_codebook_is_fitted_on_as_many_utterances_as_fit(built: DataConfig, monkeypatch) -> None:
    def places(most: int) -> Sequence[int] | None:
        monkeypatch.setattr(omnijax.data.prepare, "CODEBOOK_RECORDS", most)
        return omnijax.data.prepare._codebook_places(pathlib.Path(built.directory), seed=3)

    assert places(97) is None  # all of them
    assert places(96) == sorted(set(places(96)))
    assert len(places(96)) == 96
    assert set(places(96)) < set(range(97))
    some = records.read(pathlib.Path(built.directory), "train", places(10))
    every = records.load_records(built, "train")
    assert [list(speech) for speech in some.speech] == [list(every.speech[place]) for place in places(10)]


def test_lost_records_are_noticed(tmp_path: pathlib.Path, monkeypatch) -> None:
    everything = spoken_digits.utterances
    monkeypatch.setattr(
        spoken_digits, "utterances", lambda split, settings: itertools.islice(everything(split, settings), 96)
    )
    config = dataclasses.replace(SMALL, heldout_images=96, utterances=1, directory=str(tmp_path / "digits"))
    with pytest.raises(errors.DataError, match="a worker has lost some") as caught:
        prepare(config)
    assert caught.value.value == {"train": 96, "heldout": 96}
    assert not (tmp_path / "digits").exists()


def test_without_beam_it_is_said_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(errors.PlatformError, match=r"pip install 'omnijax\[beam\]'"):
        Beam()
