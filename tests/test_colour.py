"""experiments/colour.py: a source and a modality in a file of their own, with fragments up to 2^96."""

import dataclasses
import io
import itertools
import json
import pathlib
import sys

import numpy as np
import PIL.Image
import pytest

from omnijax.cli import main
from omnijax.config import Config
from omnijax.data.corpus import read_split
from omnijax.errors import DataError
from omnijax.experiment import load_experiment
from omnijax.modalities import Picture
from omnijax.vocab.numbers import to_digits

pytest.importorskip("skimage", reason="needs the [photographs] extra: pip install 'omnijax[photographs]'")

COLOUR = pathlib.Path(__file__).parents[1] / "experiments" / "colour.py"


@pytest.fixture(scope="module")
def config() -> Config:
    config = load_experiment(COLOUR)
    return dataclasses.replace(config, data=dataclasses.replace(config.data, crops=6))


def test_the_file_is_short() -> None:
    assert len(COLOUR.read_text().splitlines()) <= 100


def test_no_photograph_is_in_two_splits(config: Config) -> None:
    names = sys.modules[type(config.data).__module__].PHOTOGRAPHS
    assert [len(names[split]) for split in config.data.splits] == [4, 2, 2]
    assert len(set(itertools.chain(*names.values()))) == 8
    for split in config.data.splits:
        records = config.data.records(split)
        assert len(records) == 6 * len(names[split])
        assert len({record["photo"].tobytes() for record in records}) == len(records)


def test_patches_are_lossless_and_their_digits_are_the_bytes(config: Config) -> None:
    photo = config.data.fields["photo"]
    assert photo.parts[0].fragments == 2**96
    assert config.writing.base == 256
    records = config.data.records("validation")
    crops = [record["photo"] for record in records]
    corpus = read_split(config, "validation", ("photo",)).corpus()
    ids = corpus.documents(range(len(records)), ("photo",)).ids
    same = Picture("photo", 16, 16, 3).encode(crops)
    np.testing.assert_array_equal(to_digits(ids, (256,) * 12), same.digits)
    for crop, items in zip(crops, photo.encode(crops).split(), strict=True):
        np.testing.assert_array_equal(photo.decode(items), crop)
        file = io.BytesIO()
        photo.write(crop, file)
        np.testing.assert_array_equal(photo.read(io.BytesIO(file.getvalue())), crop)
        assert photo.units(crop) == (768, "sub-pixel")
        half = photo.decode(items, np.arange(64) < 32)
        assert (half[:8] == crop[:8]).all()
        assert not half[8:].any()
    with pytest.raises(DataError, match="uint8"):
        photo.encode([crops[0].astype(float)])


@pytest.mark.proof
@pytest.mark.usefixtures("one_memory_size")
def test_it_trains_evaluates_samples_and_reports(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    knobs = {"data.crops": 2, "train.steps": 4, "train.log_every": 1, "optim.warmup_steps": 2, "model.depth": 1}
    knobs |= {"eval.examples": 2, "eval.batch_size": 2, "eval.show": 2, "model.unroll": 1, "model.width": 64}
    overrides = [f"--{name}={value}" for name, value in knobs.items()]
    assert main(["train", str(COLOUR), "--workdir", "run", *overrides]) == 0
    losses = [json.loads(line)["loss"] for line in pathlib.Path("run/metrics.jsonl").read_text().splitlines()]
    assert losses[-1] < losses[0]
    assert main(["evaluate", "run"]) == 0
    found = json.loads(pathlib.Path("run/eval.json").read_text())
    assert found["directions"]["text->photo"]["decodable"] == 1
    assert "sub-pixel" in json.dumps(found["bits_per_item"])
    report = pathlib.Path("run/report.html").read_text()
    assert report.count("data:image/png") >= 2
    assert "sub-pixel" in report
    assert main(["sample", "run", "--from", "text=dark", "--to", "photo", "--out", "dark.png"]) == 0
    with PIL.Image.open("dark.png") as picture:
        assert picture.size == (128, 128)
