"""The notebooks of experiments/colab/: both files of a pair agree, no outputs are stored, and each notebook runs."""

from __future__ import annotations

import json
import os
import pathlib
import re
import subprocess
import sys
import types
from typing import Any

import jax
import jupytext
import nbformat
import pytest
from nbclient import NotebookClient

ROOM = pathlib.Path(__file__).parents[1] / "experiments" / "colab"
NAMES = ("quickstart", "your_files", "things", "vocabulary", "radix", "evaluate")
KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}
CELL_SECONDS = 1200
"""A cell that takes longer hangs. No cell takes a tenth of it."""

each = pytest.mark.parametrize("name", NAMES)


def stored(name: str) -> Any:
    return nbformat.read(ROOM / f"{name}.ipynb", as_version=4)


def cells(notebook: Any) -> list[tuple[str, str]]:
    return [(cell.cell_type, cell.source) for cell in notebook.cells]


def code(name: str) -> list[str]:
    return [source for kind, source in cells(stored(name)) if kind == "code"]


def test_all_notebooks_are_known_and_paired() -> None:
    assert {path.stem for path in ROOM.glob("*.ipynb")} == set(NAMES)
    assert {path.stem for path in ROOM.glob("*.py")} == set(NAMES)


@each
def test_the_pair_says_the_same(name: str) -> None:
    text = jupytext.read(ROOM / f"{name}.py", fmt="py:percent")
    assert cells(text) == cells(stored(name)), "run `jupytext --update --to ipynb experiments/colab/*.py`"


@each
def test_nothing_of_a_run_is_stored(name: str) -> None:
    notebook = stored(name)
    nbformat.validate(notebook)
    assert set(notebook.metadata) <= {"kernelspec", "jupytext"}
    assert notebook.metadata["kernelspec"]["name"] == KERNEL["name"]
    for cell in notebook.cells:
        assert not cell.metadata
        assert cell.cell_type == "markdown" or (cell.outputs, cell.execution_count) == ([], None)


@each
def test_it_opens_with_a_badge_and_the_same_set_up(name: str) -> None:
    kind, first = cells(stored(name))[0]
    assert kind == "markdown"
    assert re.search(rf"colab-badge\.svg\)\]\(https://colab\S+/experiments/colab/{name}\.ipynb\)", first)
    assert code(name)[:2] == code(NAMES[0])[:2]
    assert "OMNIJAX_SMOKE" in code(name)[1]


@each
def test_nothing_but_the_set_up_installs(name: str) -> None:
    install, *others = code(name)
    assert "--constraint" in install
    assert not re.search(r"--upgrade|-U\b|--pre\b|--force", install)
    assert not [source for source in others if re.search(r"\bpip\b|^[!%]", source, re.MULTILINE)]


def test_both_notebooks_that_share_a_run_configure_it_alike() -> None:
    first, second = (
        re.findall(r"^KNOBS = \[.+?^if SMOKE:.+?^    jax", "\n".join(code(name)), re.M | re.S)
        for name in ("quickstart", "evaluate")
    )
    assert "shrink" in first[0]
    assert first[0].replace("EXPERIMENT", "") == second[0].replace('ROOT / "experiments" / "digits.py"', "")


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> list[list[str]]:
    """The commands that the set-up runs if it finds no omnijax."""
    made: list[list[str]] = []

    def run(command: list[str], **_: Any) -> types.SimpleNamespace:
        made.append(command)
        return types.SimpleNamespace(stdout=f"jax=={jax.__version__}\n")

    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setenv("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    monkeypatch.chdir(tmp_path)
    return made


def test_the_set_up_keeps_what_is_preinstalled(calls: list[list[str]], tmp_path: pathlib.Path) -> None:
    exec(code("quickstart")[0].replace("/OWNER/", "/somebody/", 1), {})
    clone, listing, install = calls
    assert clone[:2] == ["git", "clone"]
    assert "https://github.com/somebody/omnijax" in clone
    assert listing[-2:] == ["list", "--format=freeze"]
    kept = tmp_path / install[install.index("--constraint") + 1]
    assert kept.read_text() == f"jax=={jax.__version__}\n"
    assert install[-1] == f"{tmp_path / 'omnijax-checkout'}[things]"
    assert sys.path[0] == str(tmp_path / "omnijax-checkout")


def test_the_set_up_installs_the_checkout_that_it_lies_in(calls: list[list[str]], tmp_path: pathlib.Path) -> None:
    (tmp_path / "omnijax").mkdir()
    (tmp_path / "omnijax" / "__init__.py").touch()
    (tmp_path / "experiments" / "colab").mkdir(parents=True)
    os.chdir(tmp_path / "experiments" / "colab")
    exec(code("quickstart")[0], {})
    _, install = calls
    assert install[-2:] == ["--editable", f"{tmp_path}[things]"]


def test_the_set_up_asks_for_a_repository(calls: list[list[str]]) -> None:
    with pytest.raises(ValueError, match="OWNER"):
        exec(code("quickstart")[0], {})
    assert not calls


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """The directory of the notebooks. The data set, and the run that two notebooks share, are made there once."""
    return tmp_path_factory.mktemp("notebooks")


PROOFS = ("quickstart", "things", "radix", "evaluate")
"""`make prove P=notebooks` runs them, and all others."""


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.proof if name in PROOFS else ()) for name in NAMES]
)
def test_it_runs(name: str, place: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = place / "jupyter" / "kernels" / "python3"
    kernel.mkdir(parents=True, exist_ok=True)
    started = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    (kernel / "kernel.json").write_text(json.dumps({**KERNEL, "argv": started}))
    monkeypatch.setenv("JUPYTER_PATH", str(place / "jupyter"))
    monkeypatch.setenv("OMNIJAX_SMOKE", "1")
    monkeypatch.setenv("PYTHONPATH", str(ROOM.parents[1]))
    notebook = stored(name)
    NotebookClient(notebook, timeout=CELL_SECONDS, resources={"metadata": {"path": str(place)}}).execute()
    ran = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in ran] == list(range(1, len(ran) + 1))
