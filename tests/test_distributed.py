"""Several processes as one job: how they find each other, that they compute what one computes, and end together."""

import collections
import dataclasses
import errno
import hashlib
import json
import os
import pathlib
import signal
import types
from collections.abc import Callable

import jax
import numpy as np
import pytest
import random_data
from jax.sharding import NamedSharding
from jobs import MAIN, job

from omnijax.cli import main
from omnijax.config import Config, MeshConfig, to_dict
from omnijax.data.pipeline import Batches
from omnijax.errors import RESUMABLE, ConfigError, PeerLostError
from omnijax.experiment import load_experiment
from omnijax.files import read_lines
from omnijax.run import distributed
from omnijax.run.directory import FOLDER, METRICS, load_config
from omnijax.run.distributed import Place, find_place
from omnijax.run.peers import LOST_AFTER_SECONDS
from omnijax.step.sharding import make_mesh, put_batch, rows_here
from omnijax.train import load_splits, train

DIGITS = pathlib.Path(__file__).parents[1] / "experiments" / "digits.py"
TOLERANCE = 5e-6
"""Of a loss, relative: sums over devices in another order, over all steps."""

# What each process trained on: for each part of a row that its devices hold, step, row, place in it, and a digest.
RECORDING = """
import hashlib, json, os, pathlib, sys
import numpy as np
import omnijax.train
from omnijax.cli import main

ahead = omnijax.train.ahead_on_device
file = pathlib.Path(os.environ["RECORD"] + os.environ["OMNIJAX_PROCESS"]).open("a", buffering=1)

def recorded(mesh, batches, start, config):
    for step, batch in enumerate(ahead(mesh, batches, start, config), start + 1):
        for shard in batch["tokens"].addressable_shards:
            first = shard.index[1].start or 0
            for row, tokens in enumerate(np.asarray(shard.data), shard.index[0].start or 0):
                digest = hashlib.sha256(tokens.tobytes()).hexdigest()
                file.write(json.dumps([step, row, first, first + len(tokens), digest]) + "\\n")
        yield batch

omnijax.train.ahead_on_device = recorded
sys.exit(main())
"""


# ------------------------------------------------------------------ where a process stands

EXPLICIT = {"OMNIJAX_COORDINATOR": "node1:9876", "OMNIJAX_PROCESSES": "4", "OMNIJAX_PROCESS": "3"}
SLURM = {
    "SLURM_JOB_ID": "7",
    "SLURM_STEP_NODELIST": "node[1-2]",
    "SLURM_NTASKS": "8",
    "SLURM_PROCID": "5",
    "SLURM_LOCALID": "1",
}


@pytest.mark.parametrize(
    "environment, place",
    [
        ({}, None),
        (EXPLICIT, Place(4, "node1:9876", 3)),
        (EXPLICIT | {"OMNIJAX_DISTRIBUTED": "off"}, None),
        (SLURM, Place(8)),
        (SLURM | EXPLICIT, Place(4, "node1:9876", 3)),
        (SLURM | {"SLURM_STEP_TASKS_PER_NODE": "1(x8)", "SLURM_GPUS_ON_NODE": "4"}, Place(8, None, None, [0, 1, 2, 3])),
        (SLURM | {"SLURM_STEP_TASKS_PER_NODE": "4(x2)", "SLURM_GPUS_ON_NODE": "4"}, Place(8)),
        (SLURM | {"SLURM_NTASKS": "1"}, None),
        ({"SLURM_JOB_ID": "7"}, None),  # a shell on a node of somebody's job
        ({"SLURM_JOB_ID": "7", "SLURM_NTASKS": "8", "OMNIJAX_DISTRIBUTED": "off"}, None),
    ],
)
def test_a_process_finds_its_place(environment: dict[str, str], place: Place | None) -> None:
    assert find_place(environment) == place


@pytest.mark.parametrize(
    "environment, said",
    [
        ({"OMNIJAX_PROCESSES": "4"}, "OMNIJAX_PROCESSES = '4'.*OMNIJAX_COORDINATOR, OMNIJAX_PROCESS isn't"),
        (EXPLICIT | {"OMNIJAX_PROCESS": ""}, "set OMNIJAX_PROCESS, or unset all"),
        (EXPLICIT | {"OMNIJAX_PROCESS": "4"}, "OMNIJAX_PROCESS = 4: must be less than OMNIJAX_PROCESSES = 4"),
        (EXPLICIT | {"OMNIJAX_PROCESS": "-1"}, "must be a whole number, 0 or more"),
        (EXPLICIT | {"OMNIJAX_PROCESSES": "two"}, "OMNIJAX_PROCESSES = 'two': must be a whole number, 1 or more"),
        (EXPLICIT | {"OMNIJAX_COORDINATOR": "node1"}, "host:port of process 0"),
        ({"OMNIJAX_DISTRIBUTED": "on"}, "must be auto or off"),
        ({"SLURM_JOB_ID": "7", "SLURM_NTASKS": "8"}, "SLURM_STEP_NODELIST, SLURM_PROCID, SLURM_LOCALID.*with srun"),
        ({n: v for n, v in SLURM.items() if n != "SLURM_STEP_NODELIST"}, "is no task .SLURM_STEP_NODELIST"),
    ],
)
def test_half_an_environment_is_refused(environment: dict[str, str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        find_place(environment)


@pytest.mark.parametrize(
    "environment, workers, processes",
    [
        ({"TPU_WORKER_HOSTNAMES": "a,b,c,d"}, None, 4),
        ({"TPU_WORKER_HOSTNAMES": "a,b", "MEGASCALE_NUM_SLICES": "3"}, None, 6),
        ({"TPU_WORKER_HOSTNAMES": "localhost"}, None, None),
        ({}, "10.0.0.1:2:3,10.0.0.2:2:3", 2),
        ({}, None, None),
        ({"JAX_PLATFORMS": "cpu", "TPU_WORKER_HOSTNAMES": "a,b"}, None, None),
    ],
)
def test_a_tpu_pod_is_recognised(
    monkeypatch, tmp_path, environment: dict[str, str], workers: str | None, processes: int | None
) -> None:
    vendor = tmp_path / "vendor"
    vendor.write_text("0x1ae0\n")
    monkeypatch.setattr(distributed.glob, "glob", lambda pattern: [str(vendor)])
    monkeypatch.setattr(distributed, "_tpu_workers", lambda: workers)
    assert find_place(environment) == (None if processes is None else Place(processes))
    vendor.write_text("0x8086\n")
    assert find_place(environment) is None


def test_one_process_starts_nothing(monkeypatch) -> None:
    monkeypatch.setattr(jax.distributed, "initialize", lambda **_: pytest.fail("it was called"))
    for environment in ({}, EXPLICIT | {"OMNIJAX_PROCESSES": "1", "OMNIJAX_PROCESS": "0"}):
        with distributed.job(environment=environment) as process:
            assert process == 0
            assert distributed.peers() is None
            assert distributed.gather("alone") == ["alone"]


def test_half_an_environment_ends_the_command_with_one_line(monkeypatch, capsys, tmp_path) -> None:
    monkeypatch.setenv("OMNIJAX_PROCESSES", "2")
    assert main(["train", str(DIGITS), "--workdir", str(tmp_path / "run")]) == 2
    said = capsys.readouterr().err
    assert said.startswith("omnijax: ConfigError: OMNIJAX_PROCESSES")
    assert said.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_an_abort_by_jax_is_no_other_end_than_that_by_the_watch(monkeypatch) -> None:
    """JAX beats every half of its time and may miss a process after half of it: after the watch, which then counts."""
    assert distributed.HEARTBEAT_SECONDS / 2 > 2 * LOST_AFTER_SECONDS
    lost = PeerLostError("process", "process 1", "it has sent no sign of life", "again")
    monkeypatch.setattr(distributed, "_peers", types.SimpleNamespace(lost=lost))
    assert distributed._why_aborted(Place(2), 1) is lost


@pytest.mark.parametrize("command", [["evaluate", "run"], ["sample", "run", "--from", "text=one", "--to", "image"]])
def test_what_one_process_does_is_refused_to_several(monkeypatch, capsys, command: list[str]) -> None:
    for name, value in EXPLICIT.items():
        monkeypatch.setenv(name, value)
    assert main(command) == 2
    assert f"processes = 4: `omnijax {command[0]}` works in one process" in capsys.readouterr().err


def test_a_full_disk_is_one_line(monkeypatch, capsys) -> None:
    def full(config: Config, *rest: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "metrics.jsonl")

    monkeypatch.setattr("omnijax.train.train", full)
    assert main(["train", str(DIGITS)]) == 2
    assert "No space left on device: 'metrics.jsonl'. Fix: make room" in capsys.readouterr().err


# ------------------------------------------------------------------ which rows a process makes


@pytest.mark.parametrize("sizes", [(8, 1, 1, 1), (2, 2, 1, 2), (2, 1, 4, 1), (1, 4, 2, 1), (1, 1, 8, 1)])
@pytest.mark.parametrize("processes", [1, 2, 4])
def test_a_process_makes_the_rows_that_its_devices_hold(monkeypatch, sizes: tuple[int, ...], processes: int) -> None:
    mesh = make_mesh(MeshConfig(*sizes))
    # Not in the order of processes: as on a torus, where neighbours in the mesh aren't neighbours in the numbering.
    owner = {device: (3 * number % 8) * processes // 8 for number, device in enumerate(jax.devices())}
    batch = put_batch(mesh, {"tokens": np.arange(8 * 16).reshape(8, 16)})
    of_process: list[set[int]] = [set() for _ in range(processes)]
    for shard in batch["tokens"].addressable_shards:
        of_process[owner[shard.device]] |= set((np.asarray(shard.data) // 16).ravel().tolist())
    assert set.union(*of_process) == set(range(8))
    for process, rows in enumerate(of_process):
        with monkeypatch.context() as patch:
            patch.setattr(NamedSharding, "addressable_devices_indices_map", owned(owner, process))
            assert rows_here(mesh, 8) == sorted(rows)


def owned(owner: dict[jax.Device, int], process: int) -> Callable[..., dict]:
    def indices(sharding: NamedSharding, shape: tuple[int, ...]) -> dict:
        return {device: i for device, i in sharding.devices_indices_map(shape).items() if owner[device] == process}

    return indices


# ------------------------------------------------------------------ the same losses, and the end of all


@pytest.fixture(scope="module")
def config(tmp_path_factory) -> Config:
    config = random_data.small_config(load_experiment(DIGITS), tmp_path_factory.mktemp("data"))
    return dataclasses.replace(config, train=dataclasses.replace(config.train, steps=24, checkpoint_every=3))


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


def lines(run: pathlib.Path) -> list[dict]:
    return read_lines(run / METRICS)


def assert_same_losses(found: pathlib.Path, reference: pathlib.Path) -> None:
    assert [line["step"] for line in lines(found)] == [line["step"] for line in lines(reference)]
    for name in ("loss", "gradient_norm"):
        here, there = ([line[name] for line in lines(run)] for run in (found, reference))
        np.testing.assert_allclose(here, there, rtol=TOLERANCE)


def recorded(files: list[pathlib.Path]) -> dict[int, dict[tuple[int, int, int], str]]:
    """Of each step: the digest of each part of a row. What several devices hold is the same in all of them."""
    steps: dict[int, dict[tuple[int, int, int], str]] = collections.defaultdict(dict)
    for file in files:
        for line in file.read_text().splitlines(keepends=True):
            if line.endswith("\n"):
                step, row, first, last, digest = json.loads(line)
                assert steps[step].setdefault((row, first, last), digest) == digest
    return steps


def assert_trained_on(parts: dict[tuple[int, int, int], str], tokens: np.ndarray) -> None:
    """The parts are those of these rows, each token of them once."""
    times = np.zeros(tokens.shape, int)
    for (row, first, last), digest in parts.items():
        times[row, first:last] += 1
        assert digest == hashlib.sha256(tokens[row, first:last].tobytes()).hexdigest()
    assert (times == 1).all()


@pytest.fixture(scope="module")
def reference(config: Config, tmp_path_factory) -> pathlib.Path:
    """The run of one process with eight devices."""
    run = tmp_path_factory.mktemp("reference") / "run"
    train(config, run)
    return run


@pytest.mark.proof
def test_processes_are_killed_and_others_go_on_where_they_were(
    config: Config, experiment: pathlib.Path, reference: pathlib.Path, tmp_path, monkeypatch
) -> None:
    """Two processes train, and the second is killed. Then three train, and the first is killed. One device finishes."""
    run = tmp_path / "run"
    command = ["train", str(experiment), "--workdir", str(run)]

    def saved() -> int:
        return max(int(path.name) for path in (run / FOLDER).glob("*") if path.name.isdigit())

    with job(tmp_path / "two", 2, 4, command, RECORDING, RECORD=str(tmp_path / "two" / "rows")) as two:
        two.wait_until(lambda: len(lines(run)) >= 7)
        os.kill(two.processes[1].pid, signal.SIGKILL)
        assert two.wait(60) == [RESUMABLE, -signal.SIGKILL], two.said()
        assert "process 0 ends: PeerLostError: process = 'process 1'" in two.said(0)
    by_two, written = saved(), len(lines(run))
    assert 3 <= by_two <= written < config.train.steps

    # Three processes of two devices, each row over three devices: the second process shares rows with both others.
    split = ["--mesh.data", "2", "--mesh.context", "3"]
    with job(tmp_path / "three", 3, 2, [*command, *split], RECORDING, RECORD=str(tmp_path / "three" / "rows")) as three:
        three.wait_until(lambda: len(lines(run)) >= written + 6)
        os.kill(three.processes[0].pid, signal.SIGKILL)
        # Where the coordinator dies, jaxlib 0.7 ends the others itself, at once and with its own status.
        status = 1 if jax.__version_info__ < (0, 8) else RESUMABLE
        assert three.wait(60) == [-signal.SIGKILL, status, status], three.said()
        for other in (1, 2) if status == RESUMABLE else ():
            assert f"process {other} ends: PeerLostError: process = 'process 0 at localhost" in three.said(other)
    assert load_config(run).mesh == MeshConfig(data=2, context=3)
    by_three = saved()
    assert by_two < by_three < config.train.steps

    monkeypatch.setattr("omnijax.train.make_mesh", lambda sizes: make_mesh(sizes, jax.devices()[:1]))
    outcome = train(config, run)
    assert {leaf.sharding.num_devices for leaf in jax.tree.leaves(outcome.state)} == {1}
    assert_same_losses(run, reference)

    # No example is repeated or skipped: step by step and row by row they are those of the undisturbed run.
    before = recorded([tmp_path / "two" / f"rows{process}" for process in range(2)])
    after = recorded([tmp_path / "three" / f"rows{process}" for process in range(3)])
    assert min(after) == by_two + 1
    batches = Batches(load_splits(config), config.batch)
    for step in range(1, by_three + 1):
        assert_trained_on((before if step <= by_two else after)[step], batches[step - 1]["tokens"])


@pytest.mark.slow
def test_an_error_in_one_process_ends_all_with_its_reason(experiment: pathlib.Path, tmp_path) -> None:
    """Only process 1 finds something else in its run directory."""
    (tmp_path / "else").mkdir()
    (tmp_path / "else" / "letters.doc").write_text("dear")
    main = MAIN.replace(
        "import sys;",
        f"import os, sys; sys.argv[3:] = ['--workdir', {str(tmp_path)!r} + "
        "('/run' if os.environ['OMNIJAX_PROCESS'] == '0' else '/else')];",
    )
    with job(tmp_path, 2, 1, ["train", str(experiment)], main) as two:
        assert two.wait(120) == [2, 2], two.said()
        assert "process 0 ends: process 1 has left: CheckpointError: workdir" in two.said(0)
        assert "it holds something that is no run" in two.said(1)


@pytest.mark.slow
def test_a_process_that_never_comes_is_not_waited_for_forever(experiment: pathlib.Path, tmp_path) -> None:
    with job(
        tmp_path,
        1,
        1,
        ["train", str(experiment), "--workdir", str(tmp_path / "run")],
        OMNIJAX_PROCESSES="2",
        OMNIJAX_START_SECONDS="5",
    ) as one:
        assert one.wait(60) == [RESUMABLE], one.said()
        assert "the 2 processes of the job didn't find each other within 5 s" in one.said()
