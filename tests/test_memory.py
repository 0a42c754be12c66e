"""Data of one's own in memory, and runs on it: from arrays, from a function, from a Hugging Face data set."""

from __future__ import annotations

import dataclasses
import pathlib
from typing import Any

import numpy as np
import PIL.Image
import pytest

from omnijax.config import BatchConfig, Config, EvalConfig, Task, from_dict, to_dict
from omnijax.config.experiment_file import run_file
from omnijax.config.serial import needs_experiment
from omnijax.data.corpus import read_split
from omnijax.data.fitting import fitted
from omnijax.data.prepare import prepare
from omnijax.data.sources.memory import Arrays, Generated, HuggingFace, InMemory
from omnijax.data.splits import MIXED, Shares
from omnijax.errors import ConfigError, DataError
from omnijax.experiment import explain_knobs, load_experiment, override
from omnijax.modalities import Codes, Picture, Speech, Text

PHOTO = Picture("photo", 4, 4, 3)
RANDOM = np.random.default_rng(0)
PHOTOS = RANDOM.integers(0, 256, (60, 4, 4, 3), np.uint8)
COLUMNS = {
    "photo": PHOTOS,
    "text": [f"photo {k}" for k in range(60)],
    "artist": [f"a{k % 13}" for k in range(60)],
    "motif": np.arange(60) % 7,
    "style": [("oil", "ink", "pen")[k % 3] for k in range(60)],
}
ROWS = [{name: column[k] for name, column in COLUMNS.items()} for k in range(60)]
FIELDS = {"photo": PHOTO, "text": Text()}
KNOBS: dict[str, Any] = {"groups": ("artist",), "label": "style"}


class ClassLabel:
    """A feature that names its classes, as `datasets.ClassLabel` does."""

    names = ("oil", "ink", "pen")


class Dataset:
    """What `datasets.Dataset` offers: features, a length, and columns by name."""

    def __init__(self, columns: dict[str, Any], **features: Any):
        self._columns = columns
        self.features = dict.fromkeys(columns) | features

    def __len__(self) -> int:
        return len(next(iter(self._columns.values())))

    def __getitem__(self, name: str) -> Any:
        return self._columns[name]


def dataset() -> Dataset:
    columns = {**COLUMNS, "photo": [PIL.Image.fromarray(one) for one in PHOTOS], "style": [k % 3 for k in range(60)]}
    return Dataset(columns, style=ClassLabel())


SOURCES = {
    "rows": lambda **knobs: Arrays(FIELDS, rows=ROWS, **{**KNOBS, **knobs}),
    "columns": lambda **knobs: Arrays(FIELDS, columns=COLUMNS, **{**KNOBS, **knobs}),
    "generated": lambda **knobs: Generated(FIELDS, lambda: iter(ROWS), **{**KNOBS, **knobs}),
    "datasets": lambda **knobs: HuggingFace(FIELDS, dataset(), **{**KNOBS, **knobs}),
}
each = pytest.mark.parametrize("make", SOURCES.values(), ids=list(SOURCES))


@each
def test_all_ways_give_the_same_records_in_the_same_splits(make) -> None:
    source, expected = make(), SOURCES["rows"]()
    source.check()
    assert source.splits == ("train", "validation", "test")
    assert source.fingerprint == expected.fingerprint
    for split in source.splits:
        records = source.records(split)
        assert len(records) == len(expected.records(split))
        for one, other in zip(records, expected.records(split), strict=True):
            np.testing.assert_array_equal(one["photo"], other["photo"])
            assert one["text"] == other["text"]
        assert source.classes == ("ink", "oil", "pen")
        found = [source.classes[number] for number in source.labels(split)]
        assert found == [ROWS[int(one["text"].split()[1])]["style"] for one in records]
    artists = [{row["artist"] for row in expected.records(split)} for split in source.splits]
    assert not artists[0] & artists[1]


@each
def test_equality_hash_and_fingerprint_follow_content_and_knobs(make) -> None:
    source = make()
    assert source == make()
    assert hash(source) == hash(make())
    assert source != make(seed=1)
    assert source != make(shares=Shares(0.5, 0.1))
    assert source != dataclasses.replace(source, fields={**FIELDS, "photo": dataclasses.replace(PHOTO, patch=4)})
    assert dataclasses.replace(source, seed=4).fingerprint == source.fingerprint
    assert "PIL" not in repr(source)
    assert len(repr(source)) < 1000


def test_the_fingerprint_changes_with_every_value() -> None:
    prints = {SOURCES["rows"]().fingerprint}
    for change in ({"text": "photo"}, {"text": None}, {"photo": PHOTOS[1]}, {"artist": "b"}, {"style": "coal"}):
        prints.add(Arrays(FIELDS, rows=[{**ROWS[0], **change}, *ROWS[1:]], **KNOBS).fingerprint)
    prints.add(Arrays(FIELDS, rows=[{**ROWS[0], "photo": PHOTOS[0].astype(np.uint16)}, *ROWS[1:]], **KNOBS).fingerprint)
    prints.add(Arrays(FIELDS, rows=[{**ROWS[0], "text": ["pho", "to 0"]}, *ROWS[1:]], **KNOBS).fingerprint)
    prints.add(Arrays(FIELDS, rows=[{**ROWS[0], "text": ["photo", " 0"]}, *ROWS[1:]], **KNOBS).fingerprint)
    prints.add(Arrays(FIELDS, rows=ROWS[1:], **KNOBS).fingerprint)
    assert len(prints) == 10


def test_without_groups_records_of_the_same_content_stay_together() -> None:
    rows = [{"text": f"{k % 40}"} for k in range(120)]
    source = Arrays({"text": Text()}, rows=rows, shares=Shares(0.3, 0.3))
    sides = [{row["text"] for row in source.records(split)} for split in source.splits]
    assert sum(map(len, sides)) == 40
    assert all(sides)


def test_records_whose_groups_disagree_are_counted() -> None:
    source = SOURCES["columns"](groups=("artist", "motif"), shares=Shares(0.3, 0.3, kinds=("artist",)))
    source.check()
    counts = [len(source.records(split)) for split in source.splits]
    assert source.splits[-1] == "test/artist"
    assert source.excluded() == {MIXED: 60 - sum(counts)}
    assert 0 < sum(counts) < 60


# ---------------------------------------------------------------------- what a data set may hold


def test_pictures_and_sounds_of_a_data_set_become_what_their_modality_reads() -> None:
    speech, time = Speech(), np.arange(22050) / 22050
    sound = {"array": np.sin(2 * np.pi * 440 * time), "sampling_rate": 22050, "path": None}
    columns = {
        "photo": [PIL.Image.fromarray(PHOTOS[0]).resize((40, 20), PIL.Image.Resampling.NEAREST), None],
        "captions": [["one", "two"], ["three"]],
        "speech": [sound, None],
        "codes": [[[1, 2], [3, 0]], None],
    }
    fields = {"photo": PHOTO, "captions": Text(), "speech": speech, "codes": Codes(radices=(4, 4))}
    first, second = HuggingFace(fields, Dataset(columns)).entries
    assert (first["photo"].shape, first["photo"].dtype) == ((4, 4, 3), np.uint8)
    assert first["captions"] == ["one", "two"]
    assert abs(len(first["speech"]) - speech.sample_rate_hz) <= 1
    assert np.argmax(np.abs(np.fft.rfft(first["speech"]))) == 440
    np.testing.assert_array_equal(first["codes"], [[1, 2], [3, 0]])
    assert second["photo"] is second["speech"] is second["codes"] is None


def test_a_data_set_as_the_package_gives_it() -> None:
    datasets = pytest.importorskip("datasets", reason="needs the package datasets, which is no dependency")
    columns = {"text": COLUMNS["text"], "style": [k % 3 for k in range(60)]}
    features = datasets.Features(text=datasets.Value("string"), style=datasets.ClassLabel(names=["oil", "ink", "pen"]))
    source = HuggingFace({"text": Text()}, datasets.Dataset.from_dict(columns, features), label="style")
    assert [record["text"] for record in source.entries] == COLUMNS["text"]
    assert source.classes == ("ink", "oil", "pen")


def test_a_generator_is_called_once() -> None:
    calls: list[int] = []

    def records():
        calls.append(1)
        yield from ROWS

    source = Generated(FIELDS, records, **KNOBS)
    source.check()
    assert len(source.records("train")) == len(source.records("train")) > 0
    assert source.fingerprint
    assert calls == [1]


def test_what_is_learned_is_learned_from_training_records_in_memory() -> None:
    waves = [np.sin(np.arange(3000) * RANDOM.uniform(0.1, 1)).astype(np.float32) for _ in range(30)]
    source = Arrays({"speech": Speech(codes=8)}, columns={"speech": waves})
    speech = fitted(source)["speech"]
    train = [record["speech"] for record in source.records("train")]
    expected = source.fields["speech"].fit(train, source.seed, lambda share: None)
    np.testing.assert_array_equal(speech.arrays["vectors"], expected["vectors"])


# ---------------------------------------------------------------------- mistakes


@pytest.mark.parametrize(
    "source, field",
    [
        (Arrays(rows=ROWS), "data.fields"),
        (Arrays(FIELDS), "data"),
        (Arrays(FIELDS, rows=ROWS, columns=COLUMNS), "data.columns"),
        (Arrays(FIELDS, columns={**COLUMNS, "text": ["a"]}), "data.columns"),
        (Arrays(FIELDS, rows=ROWS, directory="data"), "data.directory"),
        (Arrays(FIELDS, rows=ROWS, groups=("clip",)), "record 0: clip"),
        (Arrays(FIELDS, rows=[*ROWS, {"text": "x"}], label="style"), "record 60: style"),
        (Arrays(FIELDS, rows=ROWS, shares=Shares(validation=1.0)), "data.shares.validation"),
        (Arrays({"photo": Picture(patch=9)}, rows=ROWS), "data.fields.photo.patch"),
        (HuggingFace({"foto": PHOTO}, Dataset(COLUMNS)), "data.fields"),
    ],
)
def test_mistakes_are_named(source: InMemory, field: str) -> None:
    with pytest.raises((ConfigError, DataError)) as caught:
        Config(source, BatchConfig((Task(("text",), (1.0,)),)))
    assert caught.value.field == field


# ---------------------------------------------------------------------- a run

EXPERIMENT = """
import numpy as np
from omnijax.config import BatchConfig, Config, Task
from omnijax.data.sources.memory import Arrays
from omnijax.modalities import Picture, Text

def get_config():
    photos = np.random.default_rng(0).integers(0, 256, (50, 4, 4, 3), np.uint8)
    fields = {"photo": Picture("photo", 4, 4, 3), "text": Text()}
    data = Arrays(fields, columns={"photo": photos, "text": [str(k) for k in range(50)]})
    return Config(data, BatchConfig((Task(("photo", "text"), (1.0, 1.0)),), size=8, sequence_length=80))
"""


@pytest.fixture
def experiment(tmp_path: pathlib.Path) -> pathlib.Path:
    path = tmp_path / "own.py"
    path.write_text(EXPERIMENT)
    return path


def test_knobs_are_set_stored_and_found_again(experiment: pathlib.Path) -> None:
    config = load_experiment(experiment)
    assert "--data.fields.photo.patch" in explain_knobs(config)
    arguments = ["--data.seed", "3", "--data.shares.test", "0.3", "--data.fields.photo.patch", "4"]
    changed = override(config, arguments)
    assert (changed.data.seed, changed.data.shares.test) == (3, 0.3)
    assert changed.vocabulary.spaces[-1].size == 256**48
    assert changed.data.fingerprint == config.data.fingerprint
    parts = to_dict(changed)
    assert needs_experiment(parts)
    assert len(str(parts)) < 10_000
    assert from_dict(parts, lambda: run_file(experiment)) == changed
    with pytest.raises(ConfigError, match="only the experiment file"):
        from_dict(parts)


def test_a_file_is_executed_once_so_that_its_classes_are_the_same(experiment: pathlib.Path, tmp_path) -> None:
    first = run_file(experiment)
    assert run_file(experiment) is first
    assert run_file(tmp_path / "." / "own.py") is first
    experiment.write_text(EXPERIMENT + "ANOTHER = 1\n")
    assert run_file(experiment) is not first
    assert run_file(experiment).ANOTHER == 1


def test_a_run_on_other_data_is_refused(experiment: pathlib.Path) -> None:
    parts = to_dict(load_experiment(experiment))
    experiment.write_text(EXPERIMENT.replace("default_rng(0)", "default_rng(1)"))
    with pytest.raises(ConfigError, match="gives other data") as caught:
        from_dict(parts, lambda: run_file(experiment))
    assert caught.value.field == "config.data.fingerprint"


def test_there_is_nothing_to_prepare_and_each_split_can_be_read(experiment: pathlib.Path) -> None:
    config = override(load_experiment(experiment), ["--data.shares.validation", "0.3"])
    before = set(experiment.parent.iterdir())
    prepare(config)
    for split in ("train", "validation"):
        corpus = read_split(config, split, ("photo", "text")).corpus()
        assert len(corpus) == len(config.data.records(split)) > 5
    assert set(experiment.parent.iterdir()) == before
    empty = override(config, ["--data.shares.validation", "0", "--eval.split", "train"])
    assert empty.data.splits == ("train", "test")
    with pytest.raises(ConfigError, match="the splits are train, test"):
        dataclasses.replace(empty, eval=EvalConfig(split="validation"))
