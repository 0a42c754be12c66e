"""The data set and its items from Apache Beam's workers: the same records, any number of them.

Beam is an extra of its own, since its pins hold other packages back: CONTRIBUTING.md has the command.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib

import numpy as np
import pytest

from omnijax import cli, errors
from omnijax.config import Config
from omnijax.data import store
from omnijax.data.beam import Beam
from omnijax.data.corpus import read_corpus, views_of
from omnijax.data.manifest import MANIFEST
from omnijax.data.prepare import prepare
from omnijax.experiment import load_experiment
from omnijax.source import read
from omnijax.vocab.documents import Documents

pytest.importorskip("apache_beam", reason="needs the [beam] extra: pip install 'omnijax[beam]'")
pytestmark = [
    pytest.mark.slow,
    # Under protobuf 6, which Beam asks for, TFDS reads a field that it deprecates.
    pytest.mark.filterwarnings("ignore:label\\(\\) is deprecated"),
]

EXPERIMENT = pathlib.Path(__file__).parents[1] / "experiments" / "digits.py"
CONFIG = load_experiment(EXPERIMENT)
KNOBS = {"utterances": 1, "validation_images": 1700, "test_images": 0, "test_voices": 0, "seed": 3}
SEED = 5
PROCESSES = ["direct_running_mode=multi_processing"]


class InShards(Beam):
    """Writes each split into several files, as a large one would be."""

    def download_config(self):
        config = super().download_config()
        config.num_shards = 5
        return config


def config_of(directory: pathlib.Path) -> Config:
    source = dataclasses.replace(CONFIG.data, directory=str(directory), **KNOBS)
    return dataclasses.replace(CONFIG, data=source, batch=dataclasses.replace(CONFIG.batch, seed=SEED))


@pytest.fixture(scope="module")
def plain(tmp_path_factory) -> Config:
    return build(tmp_path_factory.mktemp("plain"), None)


def build(directory: pathlib.Path, beam: Beam | None) -> Config:
    config = config_of(directory / "digits")
    prepare(config, beam)
    return config


@pytest.fixture(scope="module")
def one_worker(tmp_path_factory) -> Config:
    return build(tmp_path_factory.mktemp("one"), Beam())


def files(config: Config) -> dict[str, dict[str, int | str]]:
    return json.loads(pathlib.Path(config.data.directory, MANIFEST).read_text())["files"]


def test_one_worker_writes_the_same_bytes(plain: Config, one_worker: Config) -> None:
    written = files(one_worker)
    assert {name: written[name] for name in files(plain)} == files(plain)
    assert {name.split("/")[0] for name in set(written) - set(files(plain))} == {store.FOLDER}


def test_three_workers_write_the_same_bytes(one_worker: Config, tmp_path: pathlib.Path) -> None:
    # By the command; the workers are processes of their own.
    directory = tmp_path / "digits"
    overrides = [f"--data.{name} {value}" for name, value in KNOBS.items()]
    overrides += [f"--data.directory {directory}", f"--batch.seed {SEED}"]
    command = ["prepare", str(EXPERIMENT), "--beam", "direct_num_workers=3", *PROCESSES]
    assert cli.main(command + " ".join(overrides).split()) == 0
    assert files(config_of(directory)) == files(one_worker)
    # A second call finds it; one for runs of another seed is told.
    assert cli.main(command + " ".join(overrides).split()) == 0
    assert cli.main([*command, *" ".join(overrides[:-1]).split(), "--batch.seed", "6"]) == cli.WRONG_INPUT


def test_files_of_a_large_split_keep_the_order(plain: Config, tmp_path: pathlib.Path) -> None:
    sharded = build(tmp_path, InShards())
    assert len([name for name in files(sharded) if "train.array_record" in name and "index" not in name]) == 10
    names = views_of(CONFIG.batch.tasks)
    for split in plain.data.splits:
        records, others = (config.data.records(split) for config in (plain, sharded))
        places = range(len(records))
        for one, other in zip(read(records, places), read(others, places), strict=True):
            assert all(np.array_equal(one[name], other[name]) for name in one)
        made, stored = (read_corpus(config, split, names) for config in (plain, sharded))
        for name in names:
            left, right = (corpus.columns[name].take(places) for corpus in (made, stored))
            for field in dataclasses.fields(Documents):
                np.testing.assert_array_equal(getattr(left, field.name), getattr(right, field.name))


def test_a_data_set_without_items_is_left_alone(plain: Config) -> None:
    before = files(plain)
    with pytest.raises(errors.DataError, match="without stored items"):
        prepare(plain, Beam())
    assert files(plain) == before


def test_threads_of_the_local_runner_are_refused() -> None:
    with pytest.raises(errors.ConfigError, match="loses records"):
        Beam(["direct_num_workers=3", "direct_running_mode=multi_threading"])


def test_a_misspelt_option_is_refused() -> None:
    with pytest.raises(errors.ConfigError, match="direct_num_workers"):
        Beam(["direct_number_workers=3"])
    Beam(["runner=DataflowRunner", "project=my-project", "region=us-west4", "temp_location=gs://bucket/tmp"])
