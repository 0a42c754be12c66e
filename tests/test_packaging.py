"""The package's metadata, the constraint files and the Makefile agree with each other and with the source."""

from __future__ import annotations

import ast
import fnmatch
import functools
import importlib.metadata
import os
import pathlib
import re
import runpy
import subprocess
import sys
import types

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

import omnijax

ROOT = pathlib.Path(__file__).resolve().parent.parent
WORLDS = ("py311", "colab", "latest")


@functools.cache
def read_setup() -> dict:
    """What setup.py hands to setuptools, without building anything (setuptools needn't be installed)."""
    captured: dict = {}
    stand_in = types.SimpleNamespace(setup=captured.update, find_packages=lambda include: include)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "setuptools", stand_in)
        runpy.run_path(str(ROOT / "setup.py"))
    return captured


def requirements(*extras: str) -> list[Requirement]:
    """The core requirements and those of the extras."""
    lines = read_setup()["install_requires"] + [
        line for name in extras for line in read_setup()["extras_require"][name]
    ]
    return [Requirement(line) for line in lines]


@functools.cache
def read_pins(world: str) -> dict[str, Version]:
    """Pinned version of every package in a constraint file, by canonical name."""
    lines = (ROOT / "launch" / "constraints" / f"{world}.txt").read_text(encoding="utf-8").splitlines()
    pins = [re.fullmatch(r"([\w.-]+)==(\S+)", line) for line in lines if line and not line.startswith("#")]
    assert all(pins), f"{world}.txt: every line is a comment or `name==version`"
    return {canonicalize_name(pin[1]): Version(pin[2]) for pin in pins if pin}


def run_make(*arguments: str) -> subprocess.CompletedProcess[str]:
    """A make of its own, without the settings of the one that may have started these tests."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    return subprocess.run(
        ["make", *arguments], cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=60
    )


@pytest.mark.parametrize("world", WORLDS)
def test_constraints_meet_every_floor(world: str) -> None:
    pins = read_pins(world)
    python = {"python_version": "3.11" if world == "py311" else "3.13"}
    wanted = [one for one in requirements("demo", "test") if one.marker is None or one.marker.evaluate(python)]
    assert not [str(one) for one in wanted if canonicalize_name(one.name) not in pins], f"not pinned in {world}.txt"
    unmet = [str(one) for one in wanted if not one.specifier.contains(pins[canonicalize_name(one.name)])]
    assert not unmet, f"{world}.txt pins less than the floor of setup.py"


@pytest.mark.parametrize("world", WORLDS)
def test_constraints_say_where_they_come_from(world: str) -> None:
    head = (ROOT / "launch" / "constraints" / f"{world}.txt").read_text(encoding="utf-8")
    assert head.startswith(f"# {world}: ")
    assert re.search(r"on Python 3\.\d+\.\d+", head)
    assert "Refresh" in head


def test_latest_avoids_the_pair_that_cannot_import_nnx() -> None:
    for world in WORLDS:
        pins = read_pins(world)
        assert pins["jax"] < Version("0.11.1") or pins["flax"] >= Version("0.12.12"), world


def test_floors_are_what_the_oldest_supported_set_has() -> None:
    for name in ("jax", "flax", "orbax-checkpoint"):
        floor = next(one for one in requirements() if one.name == name)
        assert str(floor.specifier) == f">={read_pins('colab')[name]}"


def test_there_are_no_upper_caps() -> None:
    specifiers = [one.specifier for one in requirements(*read_setup()["extras_require"])]
    assert all(one.operator == ">=" for specifier in specifiers for one in specifier)


def test_metadata() -> None:
    setup = read_setup()
    assert (setup["name"], setup["license"], setup["python_requires"]) == ("omnijax", "Apache-2.0", ">=3.11")
    assert setup["version"] == omnijax.__version__
    assert {"demo", "ablations", "docs", "test", "tpu", "cuda"} <= set(setup["extras_require"])
    assert setup["entry_points"]["console_scripts"] == ["omnijax = omnijax.cli:main"]
    assert "Apache License" in (ROOT / "LICENSE").read_text(encoding="utf-8")


def test_every_import_is_declared() -> None:
    distributions = importlib.metadata.packages_distributions()
    declared = {
        canonicalize_name(one.name)
        for one in requirements("demo", "films", "pieces", "gs", "s3", "ablations", "compress", "beam")
    }
    missing = {}
    for path in sorted((ROOT / "omnijax").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            for module in {name.split(".")[0] for name in names} - set(sys.stdlib_module_names) - {"omnijax"}:
                # What isn't installed here (an extra) goes by the name of its module.
                owners = {canonicalize_name(owner) for owner in distributions.get(module, [module])}
                if not owners & declared:
                    missing[module] = path.relative_to(ROOT).as_posix()
    assert not missing, "add them to setup.py and to the constraint files"


def test_every_room_is_a_package_and_its_files_are_shipped() -> None:
    files = [path for path in (ROOT / "omnijax").rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    rooms = {path.parent for path in files if path.suffix == ".py"}
    assert not [room for room in rooms if not (room / "__init__.py").exists()], "find_packages would leave these out"
    patterns = ["*.py", *read_setup()["package_data"][""]]
    assert not [path for path in files if not any(fnmatch.fnmatch(path.name, pattern) for pattern in patterns)]


def test_make_has_its_targets() -> None:
    listed = run_make("help")
    assert listed.returncode == 0, listed.stderr
    targets = {"demo", "test", "prove", "docs", "lint", "format", "clean", "help"}
    assert targets <= set(re.findall(r"make (\w+)", listed.stdout))


def test_make_says_what_is_wrong_with_an_interpreter() -> None:
    result = run_make("setup", "PYTHON=no-such-python", "VENV=.venv-none")
    assert result.returncode != 0
    assert "Python 3.11 or newer" in result.stderr
    assert "no-such-python: not found" in result.stderr


def test_the_showpiece_needs_no_other_extra() -> None:
    """In a process that can't import what other extras bring, its texts are cut into pieces."""
    other, own = (
        {one.name for one in requirements(*extras)} for extras in (("films", "pieces", "ablations"), ("things",))
    )
    program = f"""
import runpy, sys
sys.modules |= dict.fromkeys({sorted(other - own)})
things = runpy.run_path({str(ROOT / "experiments" / "things" / "experiment.py")!r})
assert things["get_config"]().data.fields["caption_en"] == things["TEXT"]
text = things["TextPieces"](pieces=4, most=9)
text = text.bound(text.fit(["one one one, two two"] * 9, 0, print))
assert text.decode(text.encode(["one two"])) == "one two"
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr
