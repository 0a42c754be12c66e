"""Runs that are stopped, whose checkpoints are damaged, whose disk is full, or that go on on another mesh."""

import dataclasses
import json
import os
import pathlib
import resource
import shutil
import signal
from collections.abc import Callable

import jax
import numpy as np
import pytest
import random_data
from damage import broken_off, reads_are_broken_off  # noqa: F401 (a fixture)
from hypothesis import given
from hypothesis import strategies as st
from jax.sharding import NamedSharding, PartitionSpec
from jobs import MAIN, job
from loaded import load_run

import omnijax.train
from omnijax.config import Config, MeshConfig, to_dict
from omnijax.errors import RESUMABLE, CheckpointError
from omnijax.experiment import load_experiment
from omnijax.files import read_lines, read_object, write_object
from omnijax.model.transformer import Transformer
from omnijax.run.checkpoint import DAMAGED, Checkpoints
from omnijax.run.checksums import checksums
from omnijax.run.directory import FOLDER, METRICS, load_config
from omnijax.run.stopping import SIGNALS
from omnijax.step.sharding import make_mesh
from omnijax.step.state import State, abstract_state
from omnijax.train import train

DIGITS = pathlib.Path(__file__).parents[1] / "experiments" / "digits.py"
CLOCK = ("tokens_per_second", "items_per_second", "seconds")
STEPS, SAVED = 12, 5
pytestmark = pytest.mark.usefixtures("steps_kept", "interruptible")


@pytest.fixture(scope="module")
def config(tmp_path_factory) -> Config:
    small = random_data.small_config(load_experiment(DIGITS), tmp_path_factory.mktemp("data"))
    figures = dataclasses.replace(small.train, steps=STEPS, checkpoint_every=SAVED, log_every=4)
    return dataclasses.replace(small, train=figures)


@pytest.fixture(scope="module")
def undisturbed(config: Config, tmp_path_factory) -> pathlib.Path:
    """A run from the first step to the last; its checkpoints are of steps 10 and 12."""
    run = tmp_path_factory.mktemp("undisturbed") / "run"
    assert train(config, run).step == STEPS
    return run


@pytest.fixture
def run(undisturbed: pathlib.Path, tmp_path) -> pathlib.Path:
    """A copy of it."""
    return pathlib.Path(shutil.copytree(undisturbed, tmp_path / "run"))


def complete(run: pathlib.Path) -> list[int]:
    return sorted(int(path.name) for path in (run / FOLDER).glob("*") if path.name.isdigit())


def lines(run: pathlib.Path) -> list[dict]:
    whole = read_lines(run / METRICS)
    return [{name: value for name, value in line.items() if name not in CLOCK} for line in whole]


def restored(run: pathlib.Path, config: Config, step: int) -> State:
    abstract = abstract_state(config, Transformer(config.model, config.vocabulary.size), make_mesh(config.mesh))
    with Checkpoints(run) as checkpoints:
        return checkpoints.restore(step, abstract, config.vocabulary).state


def same_bits(left: object, right: object) -> bool:
    pairs = zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True)
    return all(np.asarray(one).tobytes() == np.asarray(other).tobytes() for one, other in pairs)


# ------------------------------------------------------------------ damage


def flip(path: pathlib.Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 3] ^= 16
    path.write_bytes(content)


def cut(path: pathlib.Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty(path: pathlib.Path) -> None:
    shutil.rmtree(path)
    path.mkdir()


def largest(checkpoint: pathlib.Path) -> pathlib.Path:
    """Most of the parameters and moments."""
    return max((path for path in checkpoint.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)


@reads_are_broken_off
@pytest.mark.usefixtures("broken_off")
@pytest.mark.parametrize(
    "damage",
    [
        lambda newest: flip(largest(newest)),
        lambda newest: cut(largest(newest)),
        lambda newest: (newest / "_CHECKPOINT_METADATA").unlink(),
        lambda newest: cut(newest / "state" / "_METADATA"),
        empty,
    ],
    ids=["bit", "cut", "no description", "tree cut", "nothing"],
)
def test_a_damaged_checkpoint_is_named_and_the_one_before_it_used(
    config: Config, undisturbed: pathlib.Path, run: pathlib.Path, capsys, damage: Callable[[pathlib.Path], None]
) -> None:
    newest = run / FOLDER / str(STEPS)
    damage(newest)
    assert load_run(run).step in (10, STEPS)  # the newest, where only moments are damaged
    assert complete(run) == [10, STEPS]  # who only reads moves nothing
    capsys.readouterr()
    outcome = train(config, run)
    said = capsys.readouterr().err
    assert f"not used: checkpoint = '{newest}': it is damaged" in said
    assert f"checkpoint {STEPS} now stands in {run / DAMAGED / str(STEPS)}" in said
    assert (run / DAMAGED / str(STEPS)).is_dir()
    assert outcome.step == STEPS
    assert same_bits(restored(run, config, STEPS), restored(undisturbed, config, STEPS))
    assert lines(run) == lines(undisturbed)


@pytest.mark.parametrize("change", ["renamed", "copied", "linked"])
def test_a_checkpoint_with_a_wrong_directory_name_is_refused(
    config: Config, run: pathlib.Path, change: str, undisturbed, capsys
) -> None:
    """It is reported, and the run continues from a checkpoint whose directory is named after its step."""
    first, last = sorted((run / FOLDER).iterdir(), key=lambda path: int(path.name))
    wrong = last.with_name(str(STEPS - 1))
    if change == "renamed":
        last.rename(wrong)
    elif change == "copied":
        shutil.rmtree(last)
        shutil.copytree(first, wrong)
    else:
        shutil.rmtree(last)
        wrong.symlink_to(first)
    capsys.readouterr()
    assert train(config, run).step == STEPS
    said = capsys.readouterr().err
    own = last.name if change == "renamed" else first.name
    assert f"saved after step {own}, and its directory is called {wrong.name}" in said
    assert same_bits(restored(run, config, STEPS), restored(undisturbed, config, STEPS))


def test_a_checkpoint_of_another_configuration_is_refused(config: Config, run: pathlib.Path, tmp_path) -> None:
    """One that was copied from another run, or whose run has had its configuration edited."""
    parts = read_object(run / "config.json", (), "")
    parts["batch"]["seed"] = 7
    write_object(run / "config.json", parts)
    other = dataclasses.replace(config, batch=dataclasses.replace(config.batch, seed=7))
    with pytest.raises(CheckpointError, match="batch.seed is 7 there and 0 here"):
        train(other, run)


@reads_are_broken_off
@pytest.mark.usefixtures("broken_off")
def test_where_all_are_damaged_the_newest_is_named_and_nothing_deleted(config: Config, run: pathlib.Path) -> None:
    for step in complete(run):
        flip(largest(run / FOLDER / str(step)))
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    with pytest.raises(CheckpointError, match=f"{FOLDER}/{STEPS}': it is damaged"):
        train(config, run)
    after = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    assert after.keys() == before.keys()
    assert {path.name for path in before if after[path] != before[path]} <= {"config.json", "run.json", ".lock"}


@given(st.integers(0, 2**32 - 1), st.sampled_from(["float32", "int32", "bfloat16", "uint8"]), st.data())
def test_a_checksum_is_a_sum_of_bits_by_place_and_finds_any_change(seed: int, dtype: str, data: st.DataObject) -> None:
    shape = data.draw(st.sampled_from([(), (1,), (7,), (3, 5), (2, 3, 4)]))
    random = np.random.default_rng(seed)
    array = np.asarray(jax.numpy.asarray(random.integers(-100, 100, shape)).astype(dtype))
    bits = np.frombuffer(array.tobytes(), f"uint{8 * array.dtype.itemsize}")
    slow = sum(int(number) * (2 * place + 1) for place, number in enumerate(bits)) % 2**32
    assert checksums({"a": {"b": array}}) == {"a/b": slow}
    changed = bytearray(array.tobytes())
    changed[data.draw(st.integers(0, len(changed) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    other = np.frombuffer(bytes(changed), array.dtype).reshape(shape)
    assert checksums({"a": {"b": other}}) != {"a/b": slow}


def test_a_checksum_is_the_same_on_any_mesh() -> None:
    array = np.random.default_rng(0).normal(size=(16, 24)).astype(np.float32)
    (expected,) = checksums({"a": array}).values()
    for mesh, spec in ((MeshConfig(2, 4), ("data", "fsdp")), (MeshConfig(1, 4, 1, 2), (("fsdp", "tensor"), None))):
        placed = jax.device_put(array, NamedSharding(make_mesh(mesh), PartitionSpec(*spec)))
        assert checksums({"a": placed}) == {"a": expected}


# ------------------------------------------------------------------ a full disk


def test_a_full_disk_stops_the_run_and_leaves_the_last_checkpoint(
    config: Config, undisturbed: pathlib.Path, tmp_path, monkeypatch
) -> None:
    """From step 10 on no file may be longer than 40 kB, which is less than a checkpoint's data."""
    save, limits = Checkpoints.save, resource.getrlimit(resource.RLIMIT_FSIZE)

    def without_room(checkpoints: Checkpoints, step: int, *rest: object) -> None:
        if step == 10:
            checkpoints._checkpointer._manager.wait_until_finished()
            resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, limits[1]))
        save(checkpoints, step, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "save", without_room)
        try:
            with pytest.raises(CheckpointError, match=r"can't be written .*the last whole one, of step 5, is untouch"):
                train(config, tmp_path)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert complete(tmp_path) == [5]
    assert train(config, tmp_path).step == STEPS
    assert same_bits(restored(tmp_path, config, STEPS), restored(undisturbed, config, STEPS))
    assert lines(tmp_path) == lines(undisturbed)


# ------------------------------------------------------------------ signals


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_saves_the_step_that_is_done_and_the_sums_of_the_log(
    config: Config, undisturbed: pathlib.Path, tmp_path, monkeypatch, number: signal.Signals
) -> None:
    """Between two lines of the log: the line that follows is the one of the undisturbed run."""
    advance, before = omnijax.train.Writer.advance, signal.getsignal(number)

    def interrupted(writer: omnijax.train.Writer, step: int) -> None:
        advance(writer, step)
        if step in (6, 7):
            os.kill(os.getpid(), number)  # the second one comes at once: that is no second request

    with monkeypatch.context() as patch:
        patch.setattr(omnijax.train.Writer, "advance", interrupted)
        stopped = train(config, tmp_path)
    assert stopped.stopped
    assert complete(tmp_path)[-1] == stopped.step == 7
    assert signal.getsignal(number) is before
    assert train(config, tmp_path).step == STEPS
    assert lines(tmp_path) == lines(undisturbed)
    assert same_bits(restored(tmp_path, config, STEPS), restored(undisturbed, config, STEPS))


EARLY = """
import os, signal, sys
import omnijax.train
from omnijax.cli import main
{patch}
sys.exit(main())
"""
IN_DATA = "omnijax.train.load_splits = lambda config: os.kill(os.getpid(), signal.SIGUSR1)"
TWICE = """
import time
import omnijax.run.stopping
omnijax.run.stopping.SAME_SECONDS = 0.1
advance = omnijax.train.Writer.advance

def twice(writer, step):
    advance(writer, step)
    if step == 3:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.5)
        os.kill(os.getpid(), signal.SIGTERM)

omnijax.train.Writer.advance = twice
"""


@pytest.fixture(scope="module")
def experiment(config: Config, tmp_path_factory) -> pathlib.Path:
    file = tmp_path_factory.mktemp("experiment") / "small.py"
    file.write_text(
        "import json\nfrom omnijax.config import from_dict\n\n\ndef get_config():\n"
        f"    return from_dict(json.loads({json.dumps(to_dict(config))!r}))\n"
    )
    return file


@pytest.mark.parametrize(
    "patch, said, left",
    [
        (IN_DATA, "SIGUSR1 before the first step: nothing is lost", []),
        (TWICE, "a second SIGTERM: the run goes on from its last whole checkpoint", ["checkpoints"]),
    ],
    ids=["before the first step", "twice"],
)
def test_a_signal_that_there_is_nothing_to_save_for_ends_at_once(
    experiment: pathlib.Path, tmp_path, patch: str, said: str, left: list[str]
) -> None:
    run = tmp_path / "run"
    with job(tmp_path, 1, 1, ["train", str(experiment), "--workdir", str(run)], EARLY.format(patch=patch)) as one:
        assert one.wait(120) == [RESUMABLE], one.said()
        assert f"omnijax: {said}" in one.said()
    assert [path.name for path in run.glob(FOLDER)] == left
    assert complete(run) == []


@pytest.mark.slow
def test_a_signal_to_one_of_two_processes_stops_both_after_the_same_step(experiment: pathlib.Path, tmp_path) -> None:
    run = tmp_path / "run"
    command = ["train", str(experiment), "--workdir", str(run), "--train.steps", "5000", "--train.log-every", "1"]
    with job(tmp_path, 2, 1, command, MAIN) as two:
        two.wait_until(lambda: (run / METRICS).exists() and len((run / METRICS).read_text().splitlines()) > 3)
        two.processes[1].send_signal(signal.SIGUSR1)
        assert two.wait(60) == [RESUMABLE, RESUMABLE], two.said()
    step = complete(run)[-1]
    assert f"stopped at step {step}; the same command goes on from there" in two.said(0)
    assert [line["step"] for line in lines(run)] == list(range(1, step + 1))


# ------------------------------------------------------------------ another machine


def test_a_run_goes_on_on_another_mesh_and_says_so(
    config: Config, undisturbed: pathlib.Path, tmp_path, monkeypatch
) -> None:
    half = dataclasses.replace(config, mesh=MeshConfig(fsdp=4))
    with monkeypatch.context() as patch:
        patch.setattr(omnijax.train.Stop, "after", lambda self, step: step == SAVED)
        assert train(half, tmp_path).step == SAVED
    assert load_config(tmp_path).mesh == MeshConfig(fsdp=4)
    assert train(config, tmp_path).step == STEPS
    assert load_config(tmp_path).mesh == config.mesh
    for here, there in zip(lines(tmp_path), lines(undisturbed), strict=True):
        assert here["step"] == there["step"]
        assert here["loss"] == pytest.approx(there["loss"], rel=5e-6)


def test_a_run_is_loaded_where_its_mesh_does_not_fit(config: Config, undisturbed: pathlib.Path, run) -> None:
    elsewhere = dataclasses.replace(config, mesh=MeshConfig(data=16, fsdp=4))
    write_object(run / "config.json", to_dict(elsewhere))
    trained = load_run(run)
    assert trained.step == STEPS
    assert same_bits(trained.generator.params, restored(undisturbed, config, STEPS).params)
