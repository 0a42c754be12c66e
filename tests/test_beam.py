"""The data set and its fragments from Apache Beam's workers: the same records, any number of them.

Beam is an extra of its own, since its pins hold other packages back: CONTRIBUTING.md has the command.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib

import numpy as np
import pytest

from omnijax import cli, errors
from omnijax.config import DataConfig
from omnijax.data import corpus, records
from omnijax.data.beam import Beam
from omnijax.data.prepare import prepare
from omnijax.experiment import load_experiment

pytest.importorskip("apache_beam", reason="needs the [beam] extra: pip install 'omnijax[beam]'")
pytestmark = [
    pytest.mark.slow,
    # Under protobuf 6, which Beam asks for, TFDS reads a field that it deprecates.
    pytest.mark.filterwarnings("ignore:label\\(\\) is deprecated"),
]

EXPERIMENT = pathlib.Path(__file__).parents[1] / "experiments" / "digits.py"
CONFIG = load_experiment(EXPERIMENT)
SMALL = dataclasses.replace(CONFIG.data, utterances=1, heldout_images=1700, seed=3)
SEED = 5
PROCESSES = ["direct_running_mode=multi_processing"]


class InShards(Beam):
    """Writes each split into several files, as a large one would be."""

    def download_config(self):
        config = super().download_config()
        config.num_shards = 5
        return config


@pytest.fixture(scope="module")
def plain(tmp_path_factory) -> DataConfig:
    config = dataclasses.replace(SMALL, directory=str(tmp_path_factory.mktemp("plain") / "digits"))
    prepare(config)
    return config


def build(directory: pathlib.Path, beam: Beam) -> DataConfig:
    config = dataclasses.replace(SMALL, directory=str(directory / "digits"))
    prepare(config, beam, SEED)
    return config


@pytest.fixture(scope="module")
def one_worker(tmp_path_factory) -> DataConfig:
    return build(tmp_path_factory.mktemp("one"), Beam())


def files(config: DataConfig) -> dict[str, dict[str, int | str]]:
    return json.loads(pathlib.Path(config.directory, records.MANIFEST).read_text())["files"]


def test_one_worker_writes_the_same_bytes(plain: DataConfig, one_worker: DataConfig) -> None:
    written = files(one_worker)
    assert {name: written[name] for name in files(plain)} == files(plain)
    assert {name.split("/")[0] for name in set(written) - set(files(plain))} == {"fragments"}


def test_three_workers_write_the_same_bytes(one_worker: DataConfig, tmp_path: pathlib.Path) -> None:
    # By the command; the workers are processes of their own.
    directory = tmp_path / "digits"
    overrides = [f"--data.{name} {getattr(SMALL, name)}" for name in ("utterances", "heldout_images", "seed")]
    overrides += [f"--data.directory {directory}", f"--batch.seed {SEED}"]
    command = ["prepare", str(EXPERIMENT), "--beam", "direct_num_workers=3", *PROCESSES]
    assert cli.main(command + " ".join(overrides).split()) == 0
    assert files(dataclasses.replace(SMALL, directory=str(directory))) == files(one_worker)
    # A second call finds it; one for runs of another seed is told.
    assert cli.main(command + " ".join(overrides).split()) == 0
    assert cli.main([*command, *" ".join(overrides[:-1]).split(), "--batch.seed", "6"]) == cli.WRONG_INPUT


def test_files_of_a_large_split_keep_the_order(plain: DataConfig, tmp_path: pathlib.Path) -> None:
    sharded = build(tmp_path, InShards())
    assert len([name for name in files(sharded) if "train.array_record" in name and "index" not in name]) == 10
    for split in ("train", "heldout"):
        one, other = records.load_records(plain, split), records.load_records(sharded, split)
        for field in dataclasses.fields(records.Records):
            for left, right in zip(getattr(one, field.name), getattr(other, field.name), strict=True):
                np.testing.assert_array_equal(left, right)
        made = corpus.read_corpus(CONFIG.vocabulary, plain, split, SEED)
        read = corpus.read_corpus(CONFIG.vocabulary, sharded, split, SEED)
        for name in corpus.VIEWS:
            for left, right in zip(made.fragments[name], read.fragments[name], strict=True):
                np.testing.assert_array_equal(left, right)


def test_a_data_set_without_fragments_is_left_alone(plain: DataConfig) -> None:
    before = files(plain)
    with pytest.raises(errors.DataError, match="without stored fragments"):
        prepare(plain, Beam(), SEED)
    assert files(plain) == before


def test_threads_of_the_local_runner_are_refused() -> None:
    with pytest.raises(errors.ConfigError, match="loses records"):
        Beam(["direct_num_workers=3", "direct_running_mode=multi_threading"])


def test_a_misspelt_option_is_refused() -> None:
    with pytest.raises(errors.ConfigError, match="direct_num_workers"):
        Beam(["direct_number_workers=3"])
    Beam(["runner=DataflowRunner", "project=my-project", "region=us-west4", "temp_location=gs://bucket/tmp"])
