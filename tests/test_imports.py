"""The vocabulary can be used without the rest of the package, and what it doesn't need isn't imported."""

from __future__ import annotations

import functools
import json
import os
import pathlib
import subprocess
import sys

import pytest

import omnijax
import omnijax.vocab

FOREIGN = (
    "PIL",
    "array_record",
    "espeakng_loader",
    "flax",
    "grain",
    "matplotlib",
    "optax",
    "orbax",
    "rich",
    "scipy",
    "sklearn",
    "tensorboardX",
    "tensorflow",
    "tensorflow_datasets",
    "tyro",
)

EXTRAS = (
    "PIL",
    "apache_beam",
    "brotli",
    "espeakng_loader",
    "matplotlib",
    "skimage",
    "sklearn",
    "soundfile",
)
"""What `pip install .` doesn't install."""


def without(packages: tuple[str, ...]) -> str:
    """These are as good as not installed, so that nothing can be left to chance (an import in a function)."""
    return f"""
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {packages!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Absent())
"""


ALONE = without(FOREIGN)

EVERY_MODULE = """
import importlib, pkgutil
import omnijax.vocab

for module in pkgutil.walk_packages(omnijax.vocab.__path__, "omnijax.vocab."):
    importlib.import_module(module.name)
"""

ROUND_TRIP = """
import jax
import numpy as np
from omnijax.vocab import Documents, Grammar, PrimaryIds, SecondaryIds, Segment, Space, Vocabulary
from omnijax.vocab import assemble, decode, encode, item_bits, token_bits

vocabulary = Vocabulary(positions=4, digits=9, base=9, spaces=(Space("image", 100),), control=("image", "eos"))
document = [Segment.of(vocabulary, "image", SecondaryIds("image", np.array([5, 99])))]
tokens = PrimaryIds(encode(vocabulary, Documents.of([document])).tokens.array[None])
assert assemble(vocabulary, decode(vocabulary, tokens)) == [[document]]
legal = Grammar(vocabulary).masks(tokens)
bits = token_bits(jax.numpy.zeros(legal.shape), tokens, legal)
item_bits(vocabulary, tokens, bits.raw)
"""


@functools.cache
def imported_by(program: str) -> frozenset[str]:
    """Modules that are there after a program ran in a process of its own."""
    tell = "\nimport json, sys\nprint(json.dumps(sorted(sys.modules)))"
    # The compilation cache of the tests reads files by way of packages that JAX alone would do without.
    environment = {name: value for name, value in os.environ.items() if name != "JAX_COMPILATION_CACHE_DIR"}
    environment["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"
    command = [sys.executable, "-c", program + tell]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return frozenset(json.loads(result.stdout.splitlines()[-1]))


@pytest.mark.parametrize("program", [EVERY_MODULE, ROUND_TRIP], ids=["import", "use"])
def test_the_vocabulary_needs_nothing_else(program: str) -> None:
    found = imported_by(ALONE + program)
    assert not {name for name in found if name.split(".")[0] in FOREIGN}
    ours = {name for name in found if name.split(".")[0] == "omnijax" and not name.startswith("omnijax.vocab")}
    assert ours == {"omnijax", "omnijax.errors"}


def test_a_foreign_import_would_be_found() -> None:
    with pytest.raises(AssertionError, match="No module named 'flax'"):
        imported_by(ALONE + "import omnijax.model.layers")


def test_importing_the_package_costs_nothing() -> None:
    found = imported_by("import omnijax, omnijax.cli")
    assert not found & {"jax", "numpy", *FOREIGN}


LOOKUP = pathlib.Path(__file__).parents[1] / "experiments" / "lookup.py"
SMALL = {
    "data.keys": 16,
    "data.copies": 4,
    "batch.size": 8,
    "model.depth": 1,
    "model.unroll": 1,
    "model.width": 32,
    "model.mlp_width": 64,
    "train.steps": 2,
    "eval.examples": 8,
    "eval.batch_size": 8,
}
COMMANDS = {
    "train": ["train", str(LOOKUP), "--workdir", "run", *(f"--{name}={value}" for name, value in SMALL.items())],
    "evaluate": ["evaluate", "run"],
    "bits": ["evaluate", "run", "--tasks", "bits", "--again"],
    "sample": ["sample", "run", "--from", "text=k3", "--to", "item"],
    "rank": ["rank", "run", "--from", "text=k3", "--to", "item", "--among", "1 2 3 4", "5 6 7 8"],
}


def test_a_core_install_trains_evaluates_samples_and_ranks(tmp_path: pathlib.Path) -> None:
    """Runs the commands in a process that can't import any extra.

    SciPy is hidden, too: JAX brings it, but a command that doesn't need it doesn't wait for its import.
    """
    told = "".join(f"print('== {name}')\nassert main({arguments!r}) == 0\n" for name, arguments in COMMANDS.items())
    program = without((*EXTRAS, "scipy")) + "from omnijax.cli import main\n" + told
    environment = os.environ | {"JAX_NUM_CPU_DEVICES": "1"}
    command = [sys.executable, "-c", program]
    result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, f"{result.stdout}\n{result.stderr}"
    said = dict(part.split("\n", 1) for part in result.stdout.split("== ")[1:])
    assert list(said) == list(COMMANDS)
    for name, start in (("evaluate", "report: none"), ("bits", "run: evaluations.jsonl, no plot")):
        assert f"{start}: import = 'matplotlib': the figures of a report need it" in said[name]
        assert "Fix: pip install 'omnijax[demo]'" in said[name]
    assert "bits_per_item" in json.loads((tmp_path / "run" / "eval.json").read_text())


def test_public_names_are_there_and_the_same_everywhere() -> None:
    assert sorted(omnijax.vocab.__all__) == omnijax.vocab.__all__
    for name in omnijax.vocab.__all__:
        assert getattr(omnijax.vocab, name).__module__.startswith("omnijax.vocab."), name
    for name in set(omnijax.__all__) & set(omnijax.vocab.__all__):
        assert getattr(omnijax, name) is getattr(omnijax.vocab, name)
