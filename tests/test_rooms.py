"""Which module imports which: rooms lie in an order, imports point down that order only, and there are no circles."""

from __future__ import annotations

import ast
import collections
import pathlib
from collections.abc import Iterable, Iterator, Mapping

import pytest

PACKAGE = pathlib.Path(__file__).parents[1] / "omnijax"
ORDER = (
    "errors",
    "paths",
    "files",
    "lock",
    "vocab",
    "modalities",
    "source",
    "config",
    "data",
    "model",
    "step",
    "sample",
    "run",
    "train",
    "experiment",
    "new_experiment",
    "report",
    "evaluate",
    "plan",
    "sweep",
)
"""Rooms from the bottom to the top. A room is a folder, or a module of the package itself."""
TOP = ("testing", "cli", "__init__", "__main__")
"""These modules may import any room. No room may import them."""
MOST_MODULES = 10
"""Modules beside the rooms, `__init__` not counted."""

Imports = Mapping[str, frozenset[str]]


def module_name(file: pathlib.Path, package: pathlib.Path) -> str:
    """The dotted module name of a file, relative to the package; `__init__` for the package itself."""
    parts = file.relative_to(package).with_suffix("").parts
    return ".".join(parts[:-1] if len(parts) > 1 and parts[-1] == "__init__" else parts)


def imported_names(tree: ast.AST, name: str, is_package: bool) -> Iterator[tuple[str, str]]:
    """What a module imports of omnijax, anywhere in its text: dotted names below the package, and a name in each.

    `import omnijax.a.b` gives ("a.b", ""), and `from omnijax.a import b` gives ("a", "b"); b may be a module, too.
    """
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name[8:], "") for alias in node.names if alias.name.startswith("omnijax."))
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            if node.level:
                here = name.split(".") if name != "__init__" else []
                module = ".".join(["omnijax", *here[: len(here) - node.level + is_package], *module.split(".")])
            if module.split(".")[0] == "omnijax":
                yield from ((module.rstrip(".")[8:], alias.name) for alias in node.names)


def read_imports(package: pathlib.Path) -> Imports:
    """The modules of the package that each module imports: in functions and under TYPE_CHECKING, too."""
    files = {module_name(file, package): file for file in sorted(package.rglob("*.py"))}

    def imports(name: str, file: pathlib.Path) -> Iterator[str]:
        for module, part in imported_names(ast.parse(file.read_text()), name, file.name == "__init__.py"):
            inner = f"{module}.{part}".strip(".")
            yield inner if inner in files else module

    return {
        name: frozenset(found for found in imports(name, file) if found in files and found != name)
        for name, file in files.items()
    }


def room_of(module: str) -> str:
    return module.split(".")[0]


def circles(imports: Imports) -> list[str]:
    """Sets of modules that import one another, directly or through others (Tarjan 1972)."""
    number: dict[str, int] = {}
    lowest: dict[str, int] = {}
    stack: list[str] = []
    found = []

    def visit(module: str) -> None:
        number[module] = lowest[module] = len(number)
        stack.append(module)
        for other in sorted(imports[module]):
            if other not in number:
                visit(other)
            if other in stack:
                lowest[module] = min(lowest[module], lowest[other])
        if lowest[module] == number[module]:
            ring = stack[stack.index(module) :]
            del stack[stack.index(module) :]
            if len(ring) > 1:
                found.append(", ".join(sorted(ring)))

    for module in imports:
        if module not in number:
            visit(module)
    return found


def upward(imports: Imports) -> list[str]:
    """Imports of a room from below it: `module imports other`."""
    height = {room: number for number, room in enumerate(ORDER)} | dict.fromkeys(TOP, len(ORDER))
    return [
        f"{module} imports {other}"
        for module, others in imports.items()
        for other in sorted(others)
        if height[room_of(module)] < height[room_of(other)]
    ]


def messages(lines: Iterable[str]) -> str:
    return "\n".join(lines)


@pytest.fixture(scope="module")
def imports() -> Imports:
    return read_imports(PACKAGE)


def test_every_module_belongs_to_a_room(imports: Imports) -> None:
    assert {room_of(module) for module in imports} <= {*ORDER, *TOP}


def test_modules_import_one_another_in_no_circle(imports: Imports) -> None:
    assert not circles(imports), messages(circles(imports))


def test_rooms_import_only_rooms_below_them(imports: Imports) -> None:
    assert not upward(imports), messages(upward(imports))


def test_nothing_in_the_package_imports_what_is_for_tests(imports: Imports) -> None:
    assert not [module for module, others in imports.items() if "testing" in others]


def test_few_modules_stand_beside_the_rooms(imports: Imports) -> None:
    beside = {file.stem for file in PACKAGE.glob("*.py")} - {"__init__"}
    assert len(beside) <= MOST_MODULES, sorted(beside)


def test_imports_are_found_wherever_they_stand(tmp_path: pathlib.Path) -> None:
    room = tmp_path / "data"
    room.mkdir()
    (tmp_path / "errors.py").write_text("")
    (tmp_path / "cli.py").write_text("from omnijax import errors\nimport json\n")
    (room / "__init__.py").write_text("from .a import x\n")
    (room / "a.py").write_text(
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from omnijax.cli import main\n"
    )
    (room / "b.py").write_text("def f():\n    import omnijax.data.c\n    from . import a\n")
    (room / "c.py").write_text("from .. import errors\nfrom omnijax.data.b import f\nfrom omnijax.data import a\n")
    found = read_imports(tmp_path)
    assert found == {
        "errors": frozenset(),
        "cli": frozenset({"errors"}),
        "data": frozenset({"data.a"}),
        "data.a": frozenset({"cli"}),
        "data.b": frozenset({"data.a", "data.c"}),
        "data.c": frozenset({"data.a", "data.b", "errors"}),
    }
    assert upward(found) == ["data.a imports cli"]
    assert circles(found) == ["data.b, data.c"]
    rings: dict[str, set[str]] = collections.defaultdict(set, {"a": {"b"}, "b": {"c"}, "c": {"a", "d"}, "d": set()})
    assert circles({name: frozenset(others) for name, others in rings.items()}) == ["a, b, c"]
