"""The house rules of CONTRIBUTING.md, read off the tree.

A rule is a function (path, source) -> list of offences; each is itself tested on a snippet that offends and on one that
doesn't. When a rule fails, change the code; a rule is changed only together with CONTRIBUTING.md.
"""

from __future__ import annotations

import ast
import functools
import pathlib
import re
import statistics
from collections.abc import Callable, Iterator

import pytest

import omnijax

ROOT = pathlib.Path(__file__).resolve().parent.parent
SOURCE_ROOMS, ALL_ROOMS = ("omnijax", "experiments", "launch"), ("omnijax", "experiments", "launch", "tests")
MEDIAN_LINES, FILE_LINES, TRAIN_LINES, FUNCTION_LINES, PUBLIC_NAMES = 170, 450, 350, 80, 25

Function = ast.FunctionDef | ast.AsyncFunctionDef


@functools.cache
def read_tree() -> dict[str, str]:
    """Source of every Python file of the project, by its path from the root."""
    files = (file for room in ALL_ROOMS for file in sorted((ROOT / room).rglob("*.py")))
    return {file.relative_to(ROOT).as_posix(): file.read_text(encoding="utf-8") for file in files}


def sources(*rooms: str) -> dict[str, str]:
    """Those files that lie in one of the rooms."""
    return {path: source for path, source in read_tree().items() if path.split("/")[0] in rooms}


@functools.cache
def parse(source: str) -> ast.Module:
    return ast.parse(source)


def nodes(source: str, *kinds: type[ast.AST]) -> Iterator[ast.AST]:
    return (node for node in ast.walk(parse(source)) if isinstance(node, kinds))


def called(call: ast.Call) -> str:
    return ast.unparse(call.func)


def keyword_names(call: ast.Call) -> set[str | None]:
    return {keyword.arg for keyword in call.keywords}


def imported_names(source: str) -> dict[str, str]:
    """Full dotted name of everything that a file imports with `from ... import ...`, by the name it has there."""
    return {
        alias.asname or alias.name: f"{node.module}.{alias.name}"
        for node in nodes(source, ast.ImportFrom)
        for alias in node.names
    }


def file_length(path: str, source: str) -> list[str]:
    limit = TRAIN_LINES if path == "omnijax/train.py" else FILE_LINES
    lines = len(source.splitlines())
    return [f"{path} has {lines} lines, at most {limit}"] if lines > limit else []


def function_length(path: str, source: str) -> list[str]:
    return [
        f"{path}:{node.lineno} {node.name} has {node.end_lineno - node.lineno + 1} lines, at most {FUNCTION_LINES}"
        for node in nodes(source, ast.FunctionDef, ast.AsyncFunctionDef)
        if node.end_lineno - node.lineno + 1 > FUNCTION_LINES
    ]


def broad_except(path: str, source: str) -> list[str]:
    def broad(kind: ast.expr | None) -> bool:
        kinds = kind.elts if isinstance(kind, ast.Tuple) else [kind]
        return any(one is None or ast.unparse(one).split(".")[-1] in ("Exception", "BaseException") for one in kinds)

    return [f"{path}:{node.lineno} catches everything" for node in nodes(source, ast.ExceptHandler) if broad(node.type)]


def config_default(path: str, source: str) -> list[str]:
    offences = []
    for call in nodes(source, ast.Call):
        if isinstance(call.func, ast.Attribute) and call.func.attr == "get":
            receiver = ast.unparse(call.func.value)
        elif called(call) == "getattr" and len(call.args) == 3:
            receiver = ast.unparse(call.args[0])
        else:
            continue
        if re.search(r"config|cfg", receiver):
            offences.append(
                f"{path}:{call.lineno} `{ast.unparse(call)}` hides a default: give the knob one in config.py"
            )
    return offences


def flax_subset(path: str, source: str) -> list[str]:
    names = imported_names(source)
    offences = []
    for node in nodes(source, ast.Attribute, ast.Name):
        text = ast.unparse(node)
        text = names.get(text, text)
        if re.search(r"\bnnx\.(jit|Optimizer|grad|value_and_grad|scan|vmap|remat)$", text) or text.endswith(".sow"):
            offences.append(f"{path}:{node.lineno} {text}: split once at init, then plain jax and optax")
    for node in nodes(source, ast.Assign, ast.AnnAssign):
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        stored = any(isinstance(target, ast.Attribute) for target in targets) and node.value is not None
        if stored and re.fullmatch(r"(\w+\.)*(rngs|Rngs\(.*\))", ast.unparse(node.value)):
            offences.append(f"{path}:{node.lineno} stores an nnx.Rngs: use it at init and let it go")
    return offences


def stubs(path: str, source: str) -> list[str]:
    offences = [
        f"{path}:{number} leaves work behind: {line.strip()}"
        for number, line in enumerate(source.splitlines(), 1)
        if re.search(r"#.*\b(TODO|FIXME|XXX)\b", line)
    ]
    offences += [
        f"{path}:{node.lineno} raises NotImplementedError"
        for node in nodes(source, ast.Raise)
        if node.exc is not None and "NotImplementedError" in ast.unparse(node.exc)
    ]
    protocols = {
        method
        for node in nodes(source, ast.ClassDef)
        if any(ast.unparse(base).split("[")[0].split(".")[-1] == "Protocol" for base in node.bases)
        for method in node.body
    }
    for node in nodes(source, ast.FunctionDef, ast.AsyncFunctionDef):
        declared = node in protocols or any(
            ast.unparse(one).split(".")[-1] == "overload" for one in node.decorator_list
        )
        body = node.body[1:] if ast.get_docstring(node) is not None else node.body
        if not declared and all(ast.unparse(statement) in ("pass", "...") for statement in body):
            offences.append(f"{path}:{node.lineno} {node.name} does nothing")
    return offences


def skips(path: str, source: str) -> list[str]:
    """Every skip says why; one that holds everywhere, or an expected failure, also names the issue as #number."""
    offences = []
    for node in nodes(source, ast.Attribute):
        name = ast.unparse(node)
        if not re.fullmatch(r"pytest\.(skip|xfail|importorskip|mark\.(skip|skipif|xfail))", name):
            continue
        call = next((call for call in nodes(source, ast.Call) if call.func is node), None)
        reasons = [keyword.value for keyword in call.keywords if keyword.arg == "reason"] if call else []
        if call and name in ("pytest.skip", "pytest.xfail", "pytest.mark.skip"):
            reasons += call.args[:1]
        text = ast.unparse(reasons[0]) if reasons else ""
        if len(text) < 10:
            offences.append(f"{path}:{node.lineno} {name} without a reason")
        elif name.endswith(("mark.skip", "xfail")) and not re.search(r"#\d+", text):
            offences.append(f"{path}:{node.lineno} {name} without the issue (#number)")
    return offences


def meshes(path: str, source: str) -> list[str]:
    names = imported_names(source)
    offences = []
    for call in nodes(source, ast.Call):
        name = names.get(called(call), called(call))
        if not re.fullmatch(r"jax\.(make_mesh|sharding\.Mesh|sharding\.AbstractMesh|interpreters\.\w+\.Mesh)", name):
            continue
        if "axis_types" not in keyword_names(call):
            offences.append(
                f"{path}:{call.lineno} {name} without axis_types: its default differs between versions of JAX"
            )
        if path != "omnijax/step/sharding.py" and not path.startswith("tests/"):
            offences.append(f"{path}:{call.lineno} {name}: meshes are made in omnijax/step/sharding.py")
    return offences


def randomness(path: str, source: str) -> list[str]:
    offences = [
        f"{path}:{call.lineno} {called(call)}() without a seed"
        for call in nodes(source, ast.Call)
        if re.fullmatch(r"(.*\.)?(default_rng|RandomState|SeedSequence)", called(call))
        and not call.args
        and not call.keywords
    ]
    imports = [(node, alias.name) for node in nodes(source, ast.Import) for alias in node.names]
    imports += [(node, node.module) for node in nodes(source, ast.ImportFrom)]
    offences += [
        f"{path}:{node.lineno} imports {module}: randomness comes from explicit keys and seeds"
        for node, module in imports
        if module in ("random", "secrets")
    ]
    return offences


def public_functions(tree: ast.Module) -> Iterator[tuple[str, Function]]:
    """Functions, and methods of classes, that are public by name, with their dotted names."""
    for node in tree.body:
        if isinstance(node, Function):
            yield node.name, node
        elif isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            yield from ((f"{node.name}.{one.name}", one) for one in node.body if isinstance(one, Function))


def documented(path: str, source: str) -> list[str]:
    offences = []
    for name, node in public_functions(parse(source)):
        if node.name.startswith("_") and node.name not in ("__init__", "__call__"):
            continue
        method = "." in name and not any(ast.unparse(one) == "staticmethod" for one in node.decorator_list)
        every = [*node.args.posonlyargs, *node.args.args][1 if method else 0 :] + node.args.kwonlyargs
        every += [one for one in (node.args.vararg, node.args.kwarg) if one is not None]
        bare = [one.arg for one in every if one.annotation is None]
        if bare or (node.returns is None and node.name != "__init__"):
            offences.append(f"{path}:{node.lineno} {name} lacks types: {', '.join(bare) or 'its result'}")
        if ast.get_docstring(node) is None and not node.name.startswith("_"):
            offences.append(f"{path}:{node.lineno} {name} has no docstring")
    return offences


def unread_knobs(config_source: str, other_sources: list[str]) -> list[str]:
    """Fields of the dataclasses in `config_source` that no expression reads; being validated is not being read."""
    fields = {
        f"{node.name}.{item.target.id}": item.target.id
        for node in nodes(config_source, ast.ClassDef)
        if any("dataclass" in ast.unparse(one) for one in node.decorator_list)
        for item in node.body
        if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name)
    }
    checks = [
        node
        for node in nodes(config_source, ast.FunctionDef)
        if re.match(r"__post_init__|_?(validate|check|require)", node.name)
    ]
    excluded = {id(inner) for node in checks for inner in ast.walk(node)}
    read = {
        node.attr
        for source in (config_source, *other_sources)
        for node in nodes(source, ast.Attribute)
        if isinstance(node.ctx, ast.Load) and id(node) not in excluded
    }
    return [name for name, attribute in fields.items() if attribute not in read]


Rule = Callable[[str, str], list[str]]
LONG = "def f():\n" + "    x = 1\n" * 80
# rule, rooms it holds in, path and source that offend, source that doesn't
RULES: list[tuple[Rule, tuple[str, ...], str, str, str]] = [
    (file_length, SOURCE_ROOMS, "omnijax/a.py", "x = 1\n" * 451, "x = 1\n" * 450),
    (file_length, SOURCE_ROOMS, "omnijax/train.py", "x = 1\n" * 351, "x = 1\n" * 350),
    (function_length, SOURCE_ROOMS, "omnijax/a.py", LONG, LONG[:-10]),
    (broad_except, ALL_ROOMS, "a.py", "try: f()\nexcept (OSError, Exception): pass", "try: f()\nexcept OSError: pass"),
    (broad_except, ALL_ROOMS, "a.py", "try: f()\nexcept: pass", "try: f()\nexcept ValueError: pass"),
    (config_default, SOURCE_ROOMS, "a.py", "config.model.get('depth', 4)", "counts.get('depth', 4)"),
    (config_default, SOURCE_ROOMS, "a.py", "getattr(config.model, name, None)", "getattr(config.model, name)"),
    (flax_subset, SOURCE_ROOMS, "a.py", "@nnx.jit\ndef f(): return 1", "@jax.jit\ndef f(): return 1"),
    (flax_subset, SOURCE_ROOMS, "a.py", "from flax.nnx import Optimizer\nOptimizer(m)", "Optimizer(m)"),
    (flax_subset, SOURCE_ROOMS, "a.py", "self.sow(nnx.Intermediate, 'x', x)", "self.show(x)"),
    (flax_subset, SOURCE_ROOMS, "a.py", "self.rngs = rngs", "self.scale = nnx.Param(rngs.params())"),
    (flax_subset, SOURCE_ROOMS, "a.py", "self.rngs: nnx.Rngs = nnx.Rngs(0)", "rngs = nnx.Rngs(0)"),
    (stubs, SOURCE_ROOMS, "a.py", "def f(): raise NotImplementedError('later')", "def f(): raise ValueError('no')"),
    (stubs, SOURCE_ROOMS, "a.py", "x = 1  # " + "TODO: more", "x = 1  # enough"),
    (stubs, SOURCE_ROOMS, "a.py", "def f():\n  'Says.'", "class P(Protocol):\n  def f(self):\n    'Says.'"),
    (stubs, SOURCE_ROOMS, "a.py", "class P:\n  def f(self): ...", "class P:\n  def f(self): return ..."),
    (skips, ("tests",), "tests/a.py", "@pytest.mark.skip\ndef f(): g()", "@pytest.mark.slow\ndef f(): g()"),
    (
        skips,
        ("tests",),
        "tests/a.py",
        "pytest.mark.skip(reason='flaky today')",
        "pytest.mark.skip(reason='flaky, #12')",
    ),
    (skips, ("tests",), "tests/a.py", "pytest.mark.skipif(a)", "pytest.mark.skipif(a, reason='needs two cores')"),
    (skips, ("tests",), "tests/a.py", "pytest.skip()", "pytest.skip('needs two cores')"),
    (
        meshes,
        ALL_ROOMS,
        "omnijax/step/sharding.py",
        "jax.make_mesh((1,), ('a',))",
        "jax.make_mesh((1,), ('a',), axis_types=t)",
    ),
    (
        meshes,
        ALL_ROOMS,
        "omnijax/train.py",
        "from jax.sharding import Mesh\nMesh(d, ('a',), axis_types=t)",
        "sharding.make_mesh(config.mesh)",
    ),
    (randomness, SOURCE_ROOMS, "a.py", "np.random.default_rng()", "np.random.default_rng(seed)"),
    (randomness, SOURCE_ROOMS, "a.py", "import random", "from jax import random"),
    (documented, ("omnijax",), "a.py", "def f(x: int) -> int:\n  return x", "def _f(x):\n  return x"),
    (
        documented,
        ("omnijax",),
        "a.py",
        "def f(x) -> int:\n  'Says.'\n  return x",
        "def f() -> int:\n  'Says.'\n  return 1",
    ),
    (
        documented,
        ("omnijax",),
        "a.py",
        "class A:\n  def f(self):\n    'Says.'",
        "class A:\n  def f(self) -> None:\n    'Says.'",
    ),
]
NAMES = [f"{rule.__name__}-{number}" for number, (rule, *_) in enumerate(RULES)]


@pytest.mark.parametrize(("rule", "rooms", "path", "bad", "good"), RULES, ids=NAMES)
def test_a_rule_can_fail(rule: Rule, rooms: tuple[str, ...], path: str, bad: str, good: str) -> None:
    assert rule(path, bad)
    assert not rule(path, good)


@pytest.mark.parametrize(("rule", "rooms"), {rule: rooms for rule, rooms, *_ in RULES}.items())
def test_the_tree_keeps_the_rule(rule: Rule, rooms: tuple[str, ...]) -> None:
    offences = [offence for path, source in sources(*rooms).items() for offence in rule(path, source)]
    assert not offences, "\n" + "\n".join(offences)


def test_source_files_are_short() -> None:
    # Package markers would pull the median down without making anything easier to read.
    lengths = [len(source.splitlines()) for path, source in sources(*SOURCE_ROOMS).items() if "__init__" not in path]
    assert statistics.median(lengths) <= MEDIAN_LINES


def test_there_is_one_train_loop() -> None:
    assert [path for path in sources(*SOURCE_ROOMS) if re.search(r"/train\w*\.py$", path)] == ["omnijax/train.py"]


def test_an_unread_knob_is_found() -> None:
    config = (
        "@dataclass\nclass C:\n  used: int\n  unused: int\n  def __post_init__(self):\n    assert self.unused > 0\n"
    )
    assert unread_knobs(config, ["print(config.used)"]) == ["C.unused"]


def test_every_knob_is_read() -> None:
    others = [source for path, source in sources("omnijax").items() if path != "omnijax/config.py"]
    assert not unread_knobs(read_tree()["omnijax/config.py"], others)


def test_the_public_api_is_small_and_there() -> None:
    assert len(omnijax.__all__) <= PUBLIC_NAMES
    assert len(set(omnijax.__all__)) == len(omnijax.__all__)
    assert not [name for name in omnijax.__all__ if getattr(omnijax, name, None) is None]
