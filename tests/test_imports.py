"""The vocabulary can be used without the rest of the package, and what it doesn't need isn't imported."""

from __future__ import annotations

import functools
import json
import os
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

# Foreign packages are as good as not installed, so that nothing can be left to chance (an import in a function).
ALONE = f"""
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {FOREIGN!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Absent())
"""

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


def test_public_names_are_there_and_the_same_everywhere() -> None:
    assert sorted(omnijax.vocab.__all__) == omnijax.vocab.__all__
    for name in omnijax.vocab.__all__:
        assert getattr(omnijax.vocab, name).__module__.startswith("omnijax.vocab."), name
    for name in set(omnijax.__all__) & set(omnijax.vocab.__all__):
        assert getattr(omnijax, name) is getattr(omnijax.vocab, name)
