"""Items that are stored with a data set: the same as those made when it is loaded. Under Beam: test_beam.py."""

from __future__ import annotations

import collections
import dataclasses
import importlib.util
import itertools
import pathlib
import shutil

import numpy as np
import pytest

from omnijax import errors
from omnijax.config import BatchConfig, Config, Task
from omnijax.data import manifest, store
from omnijax.data.beam import Beam
from omnijax.data.blocks import Blocks
from omnijax.data.corpus import Rows, Split, read_split
from omnijax.data.fitting import fitted
from omnijax.data.pipeline import Batches
from omnijax.data.prepare import prepare
from omnijax.data.store import StoredRows
from omnijax.experiment import load_experiment
from omnijax.modalities import Modality, Picture, Text
from omnijax.source import Source
from omnijax.vocab.documents import Documents

DIGITS = load_experiment(pathlib.Path(__file__).parents[1] / "experiments" / "digits.py")
TASKS = (Task(("image/moved", "text"), (0.0, 1.0)), Task(("speech", "image"), (1.0, 1.0), repeats=2))
NAMES = ("image/moved", "text", "speech", "image")
SEED = 5


def config_of(directory: pathlib.Path, seed: int = SEED) -> Config:
    source = dataclasses.replace(DIGITS.data, utterances=1, validation_images=1700, test_images=0, test_voices=0)
    source = dataclasses.replace(source, seed=3, directory=str(directory))
    return dataclasses.replace(DIGITS, data=source, batch=BatchConfig(TASKS, size=4, sequence_length=256, seed=seed))


@pytest.fixture(scope="module")
def stored(tmp_path_factory) -> Config:
    """In small files, and in chunks of different sizes."""
    config = config_of(tmp_path_factory.mktemp("data") / "spoken_digits")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store, "FILE_RECORDS", 60)
        patch.setattr(store, "CHUNK_RECORDS", 40)
        patch.setattr(store, "CHUNK_BYTES", 6000)
        prepare(config)
    return config


def made(config: Config, split: str, names: tuple[str, ...]) -> Split:
    """A split whose items are made from its records."""
    source, modalities = config.data, fitted(config.data)
    rows = Rows(source.records(split), names, modalities, config.batch.seed, source.present(split))
    return Split(config.vocabulary, modalities, names, rows)


def same_documents(one: Documents, other: Documents) -> bool:
    return all(
        np.array_equal(getattr(one, field.name), getattr(other, field.name)) for field in dataclasses.fields(Documents)
    )


@pytest.mark.parametrize("split", ["train", "validation"])
def test_stored_items_are_those_made_at_loading(stored: Config, split: str) -> None:
    opened, plain = read_split(stored, split, NAMES), made(stored, split, NAMES)
    assert isinstance(opened.rows, StoredRows)
    assert len(opened) == len(plain) > 90
    assert len(set(opened.rows.records.tolist())) > 2  # chunks end by records and by bytes
    assert opened.rows.bytes.max() < 9000
    for names in (NAMES, NAMES[:1]):
        assert opened.count(names) == plain.count(names) == len(plain)
    one, other = plain.corpus(), opened.corpus()
    assert set(one.columns) == set(other.columns) == set(NAMES)
    for name in NAMES:
        np.testing.assert_array_equal(one.columns[name].items, other.columns[name].items)
        for places in (range(len(plain)), [7, 3, 3, 90], []):
            assert same_documents(one.columns[name].take(places), other.columns[name].take(places))


def test_chunks_are_read_alone_and_in_any_order(stored: Config) -> None:
    opened, whole = read_split(stored, "train", NAMES), read_split(stored, "train", NAMES).corpus()
    last = len(opened.rows.records) - 1
    for chunks in ([1], [last, 0], [2, last, 1]):
        some, places = opened.corpus(chunks), opened.places(chunks)
        assert len(some) == len(places)
        for name in NAMES:
            assert same_documents(some.columns[name].take(range(len(some))), whole.columns[name].take(places))


def test_batches_are_the_same(stored: Config) -> None:
    splits = made(stored, "train", NAMES), read_split(stored, "train", NAMES)
    plain, opened = (Batches([split], stored.batch) for split in splits)
    for step in (0, 3, 60):
        for name, array in plain[step].items():
            np.testing.assert_array_equal(array, opened[step][name])


def test_repeats_and_epochs_take_the_draws_of_a_view_in_turn(stored: Config) -> None:
    tasks = tuple(dataclasses.replace(task, draws=2 + (place == 0)) for place, task in enumerate(stored.batch.tasks))
    batch = dataclasses.replace(stored.batch, tasks=tasks)
    assert set(batch.views) == {*NAMES, "image/moved/1", "image/moved/2"}

    def pictures(config: BatchConfig, epoch: int) -> np.ndarray:
        """The fragments of all pictures that are moved, by record; those of repeats side by side."""
        blocks, found = Blocks(made(stored, "train", config.views), config), collections.defaultdict(list)
        for number in range(blocks.count(epoch)):
            block = blocks.documents(epoch, number)
            chosen = np.flatnonzero(block.task_of == 0)
            places = block.places[block.record_of[chosen]].tolist()
            for place, document in zip(places, blocks.gather(block, chosen)[0].to_list(), strict=True):
                found[place].extend(document[0].ids)
        return np.stack([found[place] for place in sorted(found)])

    first, second, third, again = (pictures(batch, epoch) for epoch in range(4))
    np.testing.assert_array_equal(first, again)
    np.testing.assert_array_equal(first, pictures(stored.batch, 0))
    for one, other in ((first, second), (second, third), (first, third)):
        assert 0.4 < (one != other).any(axis=1).mean() < 1  # a quarter is as it was in both
    tasks = (dataclasses.replace(batch.tasks[0], repeats=2), *batch.tasks[1:])
    repeated = dataclasses.replace(batch, tasks=tasks)
    for epoch, pair in enumerate([(first, second), (third, first), (second, third)]):
        np.testing.assert_array_equal(pictures(repeated, epoch), np.concatenate(pair, axis=1))


@pytest.mark.parametrize("calls", [0, 1, 3])
def test_a_build_that_was_killed_ends_with_the_same_bytes(
    stored: Config, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, calls: int
) -> None:
    for name, value in (("FILE_RECORDS", 60), ("CHUNK_RECORDS", 40), ("CHUNK_BYTES", 6000)):
        monkeypatch.setattr(store, name, value)
    here, there = pathlib.Path(stored.data.directory), tmp_path / "data"
    shutil.copytree(here, there, ignore=lambda folder, names: {store.FOLDER} & set(names))
    source, write_file, left = dataclasses.replace(stored.data, directory=str(there)), store.write_file, [calls]

    def killed(*arguments: object) -> None:
        if not left[0]:
            raise KeyboardInterrupt
        left[0] -= 1
        write_file(*arguments)

    monkeypatch.setattr(store, "write_file", killed)
    with pytest.raises(KeyboardInterrupt):
        store.write(stored, source, lambda share: None)
    monkeypatch.setattr(store, "write_file", write_file)
    said = store.write(stored, source, lambda share: None)
    assert said == manifest.read_manifest(here)["items"]
    assert manifest.describe(here / store.FOLDER) == manifest.describe(there / store.FOLDER)


def test_a_manifest_has_no_file_that_a_kill_left_half_written(tmp_path: pathlib.Path) -> None:
    (tmp_path / "items").mkdir()
    for name in ("items/0.array_record", "items/.0.json.tmp", f".{manifest.MANIFEST}.tmp", "a.tmp"):
        (tmp_path / name).write_bytes(b"x")
    assert list(manifest.describe(tmp_path)) == ["a.tmp", "items/0.array_record"]


def test_a_place_outside_is_refused(stored: Config) -> None:
    column = read_split(stored, "train", NAMES).corpus().columns["text"]
    for place in (-1, len(column)):
        with pytest.raises(IndexError):
            column.take([place])


def test_items_that_are_not_stored_are_made(stored: Config) -> None:
    """Those of a view with another seed, of a view that no task named, and of another patch size."""
    seed = dataclasses.replace(stored, batch=dataclasses.replace(stored.batch, seed=SEED + 1))
    patch = dataclasses.replace(stored.data, image=dataclasses.replace(stored.data.image, patch=4))
    for config, names in (
        (seed, NAMES),
        (dataclasses.replace(stored, data=patch), ("image",)),
        (stored, ("text", "image/moved", "speech")),
        (seed, ("image", "text")),
    ):
        opened = read_split(config, "validation", names)
        assert isinstance(opened.rows, StoredRows) == (config == stored or (config == seed and names != NAMES))
        one, other = opened.corpus(), made(config, "validation", names).corpus()
        for name in names:
            assert same_documents(one.columns[name].take(range(40)), other.columns[name].take(range(40)))


def test_damaged_items_are_found(stored: Config, tmp_path: pathlib.Path) -> None:
    shutil.copytree(stored.data.directory, tmp_path / "damaged")
    next((tmp_path / "damaged" / store.FOLDER / "train").glob("*.array_record*")).unlink()
    with pytest.raises(errors.DataError, match="missing"):
        read_split(config_of(tmp_path / "damaged"), "train", NAMES)


def test_items_that_a_worker_lost_are_noticed(stored: Config, tmp_path: pathlib.Path) -> None:
    shutil.copytree(stored.data.directory, tmp_path / "lost")
    source = dataclasses.replace(stored.data, directory=str(tmp_path / "lost"))
    for path in (tmp_path / "lost" / store.FOLDER / "validation").glob("*0.*"):
        path.unlink()

    class Lazy(Beam):
        def __init__(self) -> None: ...
        def each(self, function, arguments) -> None: ...

    with pytest.raises(errors.DataError, match="lost some"):
        store.write(stored, source, lambda share: None, Lazy())


@dataclasses.dataclass(frozen=True)
class Interleaved(Source):
    """Several signals in a field, fields that are missing, pictures with a header, and whole sequences."""

    stores = True

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
    config = Config(Interleaved(directory=str(tmp_path / "data")), BatchConfig(tasks))
    names = ("photo", "text", "sequence")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store, "CHUNK_RECORDS", 7)
        prepare(config)
    opened, plain = read_split(config, "train", names), made(config, "train", names)
    assert isinstance(opened.rows, StoredRows)
    assert opened.rows.present == plain.rows.present
    one, other = opened.corpus(), plain.corpus()
    for name in names:
        assert same_documents(one.columns[name].take(range(50)), other.columns[name].take(range(50)))
    assert set(np.unique(one.columns["sequence"].segments)) > {0, 1, 3}


def test_what_modalities_learn_is_read_from_the_data_set(stored: Config) -> None:
    speech = fitted(stored.data)["speech"]
    assert speech.arrays["vectors"].shape[0] == stored.data.speech.codes


def test_without_beam_it_is_said_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(errors.PlatformError, match=r"pip install 'omnijax\[beam\]'"):
        Beam()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Numbers(Source):
    """More records than a number of 16 bits counts, each its own number as text."""

    fields = {"text": Text(most=5)}

    def build(self, directory, progress, beam=None):
        """Nothing is stored but the items."""

    def records(self, split):
        """More than 2^15 for training."""
        return [{"text": f"{number}"} for number in range(2**15 + 300 if split == "train" else 3)]


def test_many_chunks_are_read_at_once(tmp_path: pathlib.Path) -> None:
    config = Config(Numbers(directory=str(tmp_path / "numbers")), BatchConfig((Task(("text",), (1.0,)),), size=8))
    prepare(config)
    opened = read_split(config, "train", ("text",))
    assert len(opened.rows.records) > 2
    column, plain = opened.corpus().columns["text"], made(config, "train", ("text",)).corpus().columns["text"]
    np.testing.assert_array_equal(column.items, plain.items)
    places = [0, 2**15 - 1, 2**15, 2**15 + 299]
    assert same_documents(column.take(places), plain.take(places))
