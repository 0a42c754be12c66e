import dataclasses
import itertools
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time
import types
from collections.abc import Callable, Iterator

import jax
import numpy as np
import pytest
import random_data
from goldens import check_golden

import omnijax.train
from omnijax.cli import RESUMABLE, main
from omnijax.config import Config, MeshConfig, to_dict
from omnijax.data.pipeline import Batches
from omnijax.errors import CheckpointError, DataError, NonFiniteLossError, OmnijaxError
from omnijax.experiment import load_experiment
from omnijax.files import read_lines, write_object
from omnijax.model.transformer import Transformer
from omnijax.run.checkpoint import Checkpoints
from omnijax.run.directory import CONFIG, FOLDER, METRICS
from omnijax.step.sharding import make_mesh, put_batch
from omnijax.step.state import State, abstract_state, init_state
from omnijax.train import train
from omnijax.vocab.kinds import kind_names

DIGITS = pathlib.Path(__file__).parents[1] / "experiments" / "digits.py"
GOLDEN = pathlib.Path(__file__).parent / "golden" / "one_step.json"
pytestmark = pytest.mark.usefixtures("optimised", "steps_kept")
CLOCK = ("tokens_per_second", "items_per_second", "seconds")


@pytest.fixture(scope="module")
def config(tmp_path_factory) -> Config:
    return random_data.small_config(load_experiment(DIGITS), tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def experiment(config: Config, tmp_path_factory) -> pathlib.Path:
    """The same configuration as a file, for the command line."""
    file = tmp_path_factory.mktemp("experiment") / "small.py"
    file.write_text(
        "import json\n"
        "from omnijax.config import from_dict\n\n\n"
        "def get_config():\n"
        f"    return from_dict(json.loads({json.dumps(to_dict(config))!r}))\n"
    )
    return file


@pytest.fixture(scope="module")
def undisturbed(config: Config, tmp_path_factory) -> pathlib.Path:
    """A run from the first step to the last."""
    run = tmp_path_factory.mktemp("undisturbed") / "run"
    outcome = train(config, run)
    assert (outcome.step, outcome.stopped) == (config.train.steps, False)
    return run


def restored(run: pathlib.Path, config: Config, mesh: MeshConfig | None = None) -> State:
    """The newest state of a run, on its own mesh or another one."""
    model = Transformer(config.model, config.vocabulary.size)
    with Checkpoints(run) as checkpoints:
        found = checkpoints.restore_newest(
            abstract_state(config, model, make_mesh(mesh or config.mesh)), config.vocabulary
        )
    assert found is not None
    assert found.step == complete(run)[-1]
    return found.state


def assert_same_bits(left: object, right: object) -> None:
    for one, other in zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True):
        assert np.asarray(one).tobytes() == np.asarray(other).tobytes()


def lines(run: pathlib.Path) -> list[dict]:
    return read_lines(run / METRICS)


def without_clock(metrics: list[dict]) -> list[dict]:
    return [{name: value for name, value in line.items() if name not in CLOCK} for line in metrics]


def being_written(run: pathlib.Path) -> list[pathlib.Path]:
    return [path for path in (run / FOLDER).glob("*") if not path.name.isdigit()]


def complete(run: pathlib.Path) -> list[int]:
    return sorted(int(path.name) for path in (run / FOLDER).glob("*") if path.name.isdigit())


def signalled(arguments: list[str], number: signal.Signals, ready: Callable[[], bool]) -> int:
    """Runs `omnijax` with these arguments, signals it as soon as `ready()` holds, and returns its exit status."""
    command = [sys.executable, "-c", "import sys; from omnijax.cli import main; sys.exit(main())", *arguments]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 120
        while not ready() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.001)
        process.send_signal(number)
        return process.wait(timeout=60)


@pytest.mark.slow
def test_a_run_that_was_killed_ends_bit_for_bit_like_an_undisturbed_one(
    config: Config, experiment: pathlib.Path, undisturbed: pathlib.Path, tmp_path
) -> None:
    run = tmp_path / "run"
    command = ["train", str(experiment), "--workdir", str(run)]
    killed = -signal.SIGKILL
    somewhere = int(np.random.default_rng(time.time_ns()).integers(16, config.train.steps - 2))
    print(f"third kill at step {somewhere}")

    assert signalled(command, signal.SIGKILL, lambda: len(lines(run)) >= 3) == killed
    assert complete(run) == []
    assert signalled(command, signal.SIGKILL, lambda: bool(being_written(run))) == killed
    assert complete(run) == []
    assert being_written(run)
    assert signalled(command, signal.SIGKILL, lambda: len(lines(run)) >= somewhere) == killed
    assert len(lines(run)) < config.train.steps
    assert main(command) == 0

    assert_same_bits(restored(run, config), restored(undisturbed, config))
    assert without_clock(lines(run)) == without_clock(lines(undisturbed))
    assert not being_written(run)


@pytest.mark.slow
def test_sigterm_saves_and_the_same_command_goes_on(
    config: Config, experiment: pathlib.Path, undisturbed: pathlib.Path, tmp_path
) -> None:
    run = tmp_path / "run"
    command = ["train", str(experiment), "--workdir", str(run)]
    assert signalled(command, signal.SIGTERM, lambda: len(lines(run)) >= 3) == RESUMABLE == 75
    (step,) = complete(run)
    assert 3 <= step < config.train.checkpoint_every
    assert [line["step"] for line in lines(run)] == list(range(1, step + 1))
    assert main(command) == 0
    assert_same_bits(restored(run, config), restored(undisturbed, config))
    assert without_clock(lines(run)) == without_clock(lines(undisturbed))
    seconds = [line["seconds"] for line in lines(run)]
    assert seconds == sorted(seconds)


@pytest.mark.parametrize("moment", [1, 15, 16, 39])
def test_sigterm_at_any_moment_saves_the_step_that_is_done(
    config: Config, undisturbed: pathlib.Path, tmp_path, monkeypatch, moment: int
) -> None:
    advance = omnijax.train.Writer.advance

    def interrupted(writer: omnijax.train.Writer, step: int) -> None:
        advance(writer, step)
        if step == moment:
            os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(omnijax.train.Writer, "advance", interrupted)
        outcome = train(config, tmp_path / "run")
    assert outcome.step == int(outcome.state.step) == complete(tmp_path / "run")[-1]
    assert outcome.stopped == (outcome.step < config.train.steps)
    assert outcome.step <= moment + 1
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    assert without_clock(lines(tmp_path / "run")) == without_clock(lines(undisturbed))[: outcome.step]


def test_the_loss_falls(undisturbed: pathlib.Path) -> None:
    losses = [line["loss"] for line in lines(undisturbed)]
    assert np.mean(losses[-5:]) < 0.6 * np.mean(losses[:3])


def test_every_logged_step_has_its_figures(config: Config, undisturbed: pathlib.Path) -> None:
    metrics = lines(undisturbed)
    assert [line["step"] for line in metrics] == list(range(1, config.train.steps + 1))
    # Places that only a fragment in an untyped segment would have, of which there are none, have no loss.
    typed = config.vocabulary.contexts.widths[1:].max()
    never = {"pad", *(f"digit_{place}" for place in range(typed, config.vocabulary.most_digits))}
    kinds = {f"loss/{name}" for name in kind_names(config.vocabulary) if name not in never}
    rest = {"step", "loss", "accuracy", "learning_rate", "gradient_norm", "epoch", *CLOCK}
    assert set(metrics[0]) == kinds | rest
    assert metrics[0]["learning_rate"] == 0
    assert all(one["epoch"] < other["epoch"] for one, other in itertools.pairwise(metrics))
    assert metrics[config.optim.warmup_steps]["learning_rate"] == pytest.approx(config.optim.learning_rate)
    assert all(0 <= line["accuracy"] <= 1 and line["tokens_per_second"] > line["items_per_second"] for line in metrics)
    assert list((undisturbed / "tensorboard").glob("events*"))


def test_logging_more_rarely_writes_means_and_changes_nothing_else(
    config: Config, undisturbed: pathlib.Path, tmp_path
) -> None:
    rare = dataclasses.replace(config, train=dataclasses.replace(config.train, log_every=16))
    outcome = train(rare, tmp_path)
    assert_same_bits(outcome.state, restored(undisturbed, config))
    assert [line["step"] for line in lines(tmp_path)] == [16, 32, 40]
    every = [line["gradient_norm"] for line in lines(undisturbed)]
    assert [line["gradient_norm"] for line in lines(tmp_path)] == [every[15], every[31], every[39]]
    losses = [line["loss"] for line in lines(undisturbed)]
    assert lines(tmp_path)[1]["loss"] == pytest.approx(np.mean(losses[16:32]), rel=0.05)


def test_a_finished_run_is_left_alone(config: Config, undisturbed: pathlib.Path) -> None:
    def content() -> dict[str, tuple[int, bytes]]:
        files = [undisturbed / METRICS, *(path for path in (undisturbed / FOLDER).rglob("*") if path.is_file())]
        return {str(path): (path.stat().st_mtime_ns, path.read_bytes()) for path in files}

    before = content()
    outcome = train(config, undisturbed)
    assert (outcome.step, outcome.stopped) == (config.train.steps, False)
    assert content() == before


def test_parameters_that_overflow_stop_before_they_are_saved(
    config: Config, tmp_path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("omnijax.config.config._RULES", ())  # such a learning rate is refused otherwise
    wild = dataclasses.replace(
        config,
        optim=dataclasses.replace(config.optim, learning_rate=3.4e38, warmup_steps=0),
        train=dataclasses.replace(config.train, checkpoint_every=1),
    )
    with pytest.raises(NonFiniteLossError, match="at step 1 a parameter after the update is not a finite number") as at:
        train(wild, tmp_path)
    assert "learning_rate" in at.value.fix
    assert complete(tmp_path) == []
    assert lines(tmp_path) == []


def test_an_infinite_loss_stops_before_it_is_saved_and_training_can_go_on(
    config: Config, undisturbed: pathlib.Path, tmp_path, monkeypatch
) -> None:
    def spoiled(mesh: jax.sharding.Mesh, batches: Batches, start: int, config: Config) -> Iterator[dict]:
        for step, batch in enumerate(ahead_on_device(mesh, batches, start, config), start + 1):
            yield {**batch, "weights": batch["weights"] * np.float32(np.inf)} if step == 30 else batch

    ahead_on_device = omnijax.train.ahead_on_device
    with monkeypatch.context() as patch:
        patch.setattr(omnijax.train, "ahead_on_device", spoiled)
        with pytest.raises(NonFiniteLossError, match="at step 30 the gradient is not") as caught:
            train(config, tmp_path)
    assert isinstance(caught.value, FloatingPointError)
    assert complete(tmp_path) == [15]
    assert_finite(restored(tmp_path, config))
    assert_same_bits(train(config, tmp_path).state, restored(undisturbed, config))


def assert_finite(state: State) -> None:
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(jax.device_get(state)))


def test_a_run_directory_of_another_configuration_is_refused(config: Config, undisturbed: pathlib.Path) -> None:
    before = (undisturbed / CONFIG).read_bytes()
    other = dataclasses.replace(config, train=dataclasses.replace(config.train, seed=7))
    with pytest.raises(CheckpointError, match=r"train\.seed is 0 there and 7 here"):
        train(other, undisturbed)
    assert (undisturbed / CONFIG).read_bytes() == before


def test_what_cannot_be_trained_leaves_no_run_behind(config: Config, tmp_path) -> None:
    short = dataclasses.replace(config, batch=dataclasses.replace(config.batch, sequence_length=40))
    with pytest.raises(DataError, match=r"set batch\.sequence_length to \d+ or more"):
        train(short, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_directory_with_something_else_is_refused(config: Config, tmp_path) -> None:
    file = tmp_path / "letters.doc"
    file.write_text("dear")
    for run in (tmp_path, file):
        with pytest.raises(OmnijaxError, match="no run|must be a directory"):
            train(config, run)
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize(
    "part, change, rule",
    [
        ("writing", {"digit_order": "little"}, "another vocabulary .*digit_order differ"),
        ("model", {"mlp_width": 128}, r"params/layers/mlp/down must be float32\[2, 128, 32\]"),
        ("model", {"depth": 1}, "params/layers/.* must be"),
    ],
)
def test_a_checkpoint_of_something_else_is_refused(
    config: Config, undisturbed: pathlib.Path, tmp_path, part: str, change: dict, rule: str
) -> None:
    run = tmp_path / "run"
    shutil.copytree(undisturbed, run)
    other = dataclasses.replace(config, **{part: dataclasses.replace(getattr(config, part), **change)})
    write_object(run / CONFIG, to_dict(other))
    with pytest.raises(CheckpointError, match=rule) as caught:
        train(other, run)
    assert caught.value.field == "checkpoint"


@pytest.mark.parametrize("mesh", [MeshConfig(1, 8), MeshConfig(2, 2, 1, 2)])
def test_a_state_is_restored_on_another_mesh(config: Config, undisturbed: pathlib.Path, mesh: MeshConfig) -> None:
    there, here = restored(undisturbed, config), restored(undisturbed, config, mesh)
    assert_same_bits(there, here)
    query = here.params["layers"]["attention"]["query"]
    assert not query.sharding.is_fully_replicated
    model = Transformer(config.model, config.vocabulary.size)
    abstract = abstract_state(config, model, make_mesh(mesh)).params
    with Checkpoints(undisturbed) as checkpoints:
        params = checkpoints.restore_params(config.train.steps, abstract, config.vocabulary)
    assert_same_bits(params, there.params)
    assert params["layers"]["attention"]["query"].sharding == query.sharding


def test_one_step_has_the_numbers_of_the_golden(config: Config) -> None:
    """The whole way from documents to updated parameters, on data that need no data set."""
    batches = random_data.batches_of(
        random_data.random_corpus(config.vocabulary, records=20, most_items=7), config.batch
    )
    model, mesh = Transformer(config.model, config.vocabulary.size), make_mesh(config.mesh)
    state, step = init_state(config, model, mesh), omnijax.train.make_step(config, model, mesh)
    found = []
    for number in range(3):
        state, metrics = step(state, put_batch(mesh, batches[number]))
        names = kind_names(config.vocabulary)
        found.append(
            {
                "loss": float(metrics.parts.loss),
                "weight": float(metrics.parts.weight),
                "kinds": dict(zip(names, metrics.parts.kind_loss.tolist(), strict=True)),
                "gradient_norm": float(metrics.gradient_norm),
                "learning_rate": float(metrics.learning_rate),
                "items": int(metrics.items),
                "tokens": int(metrics.tokens),
            }
        )
    when = "the model, the loss, the optimiser, the order of the data or their defaults were meant to change"
    check_golden(GOLDEN, found, when, relative_tolerance=1e-3)


def test_time_apart_counts_for_no_speed(config: Config, monkeypatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(omnijax.train.time, "perf_counter", lambda: clock[0])
    log = omnijax.train.Log(config, types.SimpleNamespace(flush=lambda: None), {}, lambda step: [0.0])
    clock[0] += 5
    with log.apart():
        clock[0] += 100
    clock[0] += 2
    assert log.figures["seconds"] == 7
