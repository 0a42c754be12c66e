"""The depth head as a way to run a model: train, stop, go on, load on other devices, evaluate, sample."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import signal

import jax
import numpy as np
import pytest
from loaded import load_run, measure

import omnijax.train
from omnijax import testing
from omnijax.cli import main
from omnijax.config import Config, MeshConfig
from omnijax.data.prepare import prepare
from omnijax.evaluate import TrainedRun
from omnijax.experiment import load_experiment
from omnijax.model.build import model_of
from omnijax.run.checkpoint import Checkpoints
from omnijax.step.sharding import make_mesh
from omnijax.step.state import State, abstract_state

BASE_SIZE = pathlib.Path(__file__).parents[1] / "experiments" / "ablations" / "base_size.py"
STEPS, STOPPED = 8, 3
pytestmark = pytest.mark.usefixtures("steps_kept")


@pytest.fixture(scope="module")
def config(small_data) -> Config:
    small = testing.shrink(load_experiment(BASE_SIZE), small_data)
    prepare(small)
    return dataclasses.replace(
        small,
        batch=dataclasses.replace(small.batch, tasks=small.batch.tasks[1:]),
        model=dataclasses.replace(small.model, depth=1, head="depth"),
        eval=dataclasses.replace(small.eval, routes=small.eval.routes[1:]),
        mesh=MeshConfig(data=2, fsdp=2, tensor=2),
        train=dataclasses.replace(small.train, steps=STEPS, checkpoint_every=STEPS),
    )


@pytest.fixture(scope="module")
def run(config: Config, steps_kept: None, tmp_path_factory) -> pathlib.Path:
    """A run from the first step to the last, on eight devices."""
    run = tmp_path_factory.mktemp("depth") / "run"
    assert omnijax.train.train(config, run).step == STEPS
    return run


def restored(run: pathlib.Path, config: Config) -> State:
    with Checkpoints(run) as checkpoints:
        found = checkpoints.restore_newest(
            abstract_state(config, model_of(config), make_mesh(config.mesh)), config.vocabulary
        )
    assert found is not None
    assert found.step == STEPS
    return found.state


def test_stopped_and_gone_on_with_it_ends_bit_for_bit_the_same(
    config: Config, run: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    advance = omnijax.train.Writer.advance

    def interrupted(writer: omnijax.train.Writer, step: int) -> None:
        advance(writer, step)
        if step == STOPPED:
            os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(omnijax.train.Writer, "advance", interrupted)
        stopped = omnijax.train.train(config, tmp_path / "run")
    assert stopped.stopped
    assert stopped.step < STEPS
    assert omnijax.train.train(config, tmp_path / "run").step == STEPS
    pairs = zip(*(jax.tree.leaves(restored(one, config)) for one in (tmp_path / "run", run)), strict=True)
    assert all(np.asarray(one).tobytes() == np.asarray(other).tobytes() for one, other in pairs)


def test_eight_devices_measure_and_draw_what_one_does(run: pathlib.Path) -> None:
    alone = load_run(run, mesh=make_mesh(MeshConfig(), jax.devices()[:1]))
    eight = load_run(run, mesh=make_mesh(MeshConfig(data=2, fsdp=2, tensor=2)))
    wanted, found = (measure(one, ["bits"])["bits_per_item"] for one in (alone, eight))
    assert found.keys() == wanted.keys() == {"text", "image|text"}
    for form, entry in wanted.items():
        for part in ("raw", "renormalised", "digits", "position", "by_place", "structure"):
            assert found[form][part] == pytest.approx(entry[part], rel=1e-5, abs=1e-6), (form, part)
    records = [{"text": word} for word in ("one", "seven", "three", "nine")]
    drawn, expected = (TrainedRun(run, one.config, one.generator, STEPS).sample_batch(records, "image")
                       for one in (eight, alone))  # fmt: skip
    np.testing.assert_array_equal(drawn, expected)


def test_the_command_line_evaluates_and_samples_it(run: pathlib.Path, tmp_path: pathlib.Path) -> None:
    out = tmp_path / "seven.png"
    assert main(["evaluate", str(run), "--tasks", "bits"]) == 0
    assert main(["sample", str(run), "--from", "text=seven", "--to", "image", "--out", str(out)]) == 0
    assert out.read_bytes().startswith(b"\x89PNG")
