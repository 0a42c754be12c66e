"""The data set and its items from Apache Beam's workers: the same records, any number of them.

Beam is an extra of its own, since its pins hold other packages back: CONTRIBUTING.md has the command.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
from collections.abc import Iterator

import numpy as np
import PIL.Image
import pytest

from omnijax import cli, errors
from omnijax.config import BatchConfig, Config, Task
from omnijax.data import store
from omnijax.data.beam import Beam
from omnijax.data.manifest import MANIFEST
from omnijax.data.prepare import prepare
from omnijax.data.sources.folder import Folder
from omnijax.data.sources.folder import source as folder_source
from omnijax.experiment import load_experiment
from omnijax.modalities import Picture, Text

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


@pytest.fixture(scope="module", autouse=True)
def small_files() -> Iterator[None]:
    """So that there are several pieces of work."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store, "FILE_RECORDS", 20)
        patch.setattr(folder_source, "SHARD", 5)
        yield


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
    assert files(one_worker) == files(plain)
    assert len([name for name in files(plain) if name.startswith("items/train") and name.endswith("_record")]) > 4


def test_three_workers_write_the_same_bytes(plain: Config, tmp_path: pathlib.Path) -> None:
    # By the command; the workers are processes of their own.
    directory = tmp_path / "digits"
    overrides = [f"--data.{name} {value}" for name, value in KNOBS.items()]
    overrides += [f"--data.directory {directory}", f"--batch.seed {SEED}"]
    command = ["prepare", str(EXPERIMENT), "--beam", "direct_num_workers=3", *PROCESSES]
    assert cli.main(command + " ".join(overrides).split()) == 0
    assert files(config_of(directory)) == files(plain)
    assert cli.main(command + " ".join(overrides).split()) == 0  # it finds it


def test_workers_read_a_folder_of_files(tmp_path: pathlib.Path) -> None:
    raw = tmp_path / "raw"
    raw.mkdir()
    for number in range(24):
        values = np.full((8, 8, 3), 10 * number, np.uint8)
        PIL.Image.fromarray(values).save(raw / f"{number}.png")
        (raw / f"{number}.txt").write_text(f"number {number}")
    fields = {"picture": Picture("picture", height=8, width=8, channels=3), "caption": Text(most=20)}
    tasks = (Task(("picture", "caption"), (1.0, 1.0)),)

    def built(name: str, beam: Beam | None) -> Config:
        source = Folder(folder=str(raw), directory=str(tmp_path / name), fields=fields)
        config = Config(source, BatchConfig(tasks, size=8, sequence_length=512))
        prepare(config, beam)
        return config

    assert files(built("by_workers", Beam(["direct_num_workers=2", *PROCESSES]))) == files(built("plain", None))


def test_threads_of_the_local_runner_are_refused() -> None:
    with pytest.raises(errors.ConfigError, match="loses records"):
        Beam(["direct_num_workers=3", "direct_running_mode=multi_threading"])


def test_a_misspelt_option_is_refused() -> None:
    with pytest.raises(errors.ConfigError, match="direct_num_workers"):
        Beam(["direct_number_workers=3"])
    Beam(["runner=DataflowRunner", "project=my-project", "region=us-west4", "temp_location=gs://bucket/tmp"])
