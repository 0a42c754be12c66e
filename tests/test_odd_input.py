"""Odd knobs, odd command lines, damaged files: small versions of `make prove P=knobs` and `P=mutations`."""

from __future__ import annotations

import json
import pathlib
import shutil
import sys
from types import ModuleType

import pytest
from damage import broken_off, reads_are_broken_off  # noqa: F401 (a fixture)

from omnijax.cli import main
from omnijax.config import to_dict
from omnijax.data.prepare import prepare

BENCH = pathlib.Path(__file__).parents[1] / "experiments" / "bench"


@pytest.fixture(scope="module", autouse=True)
def bench_programs():
    """Makes the programs in experiments/bench importable."""
    sys.path.insert(0, str(BENCH))
    yield
    sys.path.remove(str(BENCH))


@pytest.fixture(scope="module")
def odd_arguments(bench_programs: None) -> ModuleType:
    import odd_arguments

    return odd_arguments


@pytest.fixture(scope="module")
def mutations(bench_programs: None) -> ModuleType:
    import mutations

    return mutations


def test_damaged_files_of_users_come_to_an_outcome(bench_programs: None) -> None:
    import files

    assert files.failures(list(range(100)), seed=7) == []


def test_odd_knobs_are_accepted_or_refused_in_one_line(odd_arguments: ModuleType, tmp_path: pathlib.Path) -> None:
    trials = [odd_arguments.knobs(number, 7, tmp_path) for number in range(40)]
    assert [trial for trial in trials if trial["failure"]] == []
    assert not list(tmp_path.iterdir())


def test_odd_command_lines_end_in_success_or_in_one_line(
    odd_arguments: ModuleType, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    lookup = ["train", str(BENCH.parent / "lookup.py"), "--workdir", odd_arguments.RUN, *odd_arguments.TINY.split()]
    assert main([*lookup, "--train.steps", "2", "--batch.size", "8"]) == 0
    trials = [odd_arguments.lines(number, 7, tmp_path) for number in range(50)]
    assert [trial for trial in trials if trial["failure"]] == []
    assert {trial["status"] for trial in trials} >= {2}


@reads_are_broken_off
@pytest.mark.usefixtures("broken_off")
def test_damaged_files_are_named_and_nothing_else_is_read(
    mutations: ModuleType, small_data: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    run, experiment = tmp_path / "run", tmp_path / "small.py"
    prepare(mutations.small(small_data))
    config = mutations.small(shutil.copytree(small_data, tmp_path / "data"))
    experiment.write_text(mutations.EXPERIMENT.format(text=json.dumps(to_dict(config))))
    assert main(["train", str(experiment), "--workdir", str(run)]) == 0
    assert main(["evaluate", str(run)]) == 0
    assert mutations.in_process(config, run, range(40), seed=7) == []
