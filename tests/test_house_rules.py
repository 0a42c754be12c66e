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
PACKAGE_LINES, MODULES_BESIDE_ROOMS, REPEATED_LINES = 24_500, 10, 10

KNOW_THE_SIGNALS = ("omnijax/modalities/", "omnijax/data/sources/", "omnijax/vocab/", "omnijax/testing.py")
"""Where a modality, a data set or a class may be named. In `vocab` a digit is a digit; `testing.py` is for tests."""
FORBIDDEN_NAMES = {"image", "picture", "speech", "text", "spoken_digits", "lookup", "digit"}
FORBIDDEN_WORDS = {"image", "picture", "speech", "spoken"}
"""Words of an identifier. Others of the names have a second meaning: a text is also what a file holds."""
FORMATS = {"image/png", "image/svg+xml"}
SIGNAL_WORDS = {"signal", "signals"}
SIGNAL_GIVERS = {"decode", "parse", "read_value", "signals_of"}
"""Functions and methods whose results are signals."""

Function = ast.FunctionDef | ast.AsyncFunctionDef
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


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


@functools.cache
def by_kind(source: str) -> dict[type[ast.AST], list[ast.AST]]:
    found: dict[type[ast.AST], list[ast.AST]] = {}
    for node in ast.walk(parse(source)):
        found.setdefault(type(node), []).append(node)
    return found


def nodes(source: str, *kinds: type[ast.AST]) -> Iterator[ast.AST]:
    return (node for kind in kinds for node in by_kind(source).get(kind, ()))


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
                f"{path}:{call.lineno} `{ast.unparse(call)}` hides a default: give the knob one in omnijax/config/"
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


def bases_of(node: ast.ClassDef) -> set[str]:
    """Names of the classes that a class extends, without their modules and parameters."""
    return {ast.unparse(base).split("[")[0].split(".")[-1] for base in node.bases}


@functools.cache
def classes_of(source: str) -> list[tuple[str, set[str], set[str]]]:
    """Each class of a file, what it extends, and the methods that it defines."""
    return [
        (node.name, bases_of(node), {method.name for method in node.body if isinstance(method, Function)})
        for node in nodes(source, ast.ClassDef)
    ]


def filled_hooks(source: str) -> set[tuple[str, str]]:
    """Methods of a class that one below it defines anew, in the tree or in this source.

    An empty method that is filled so is a hook, which most classes do without.
    """
    every = [one for text in (source, *sources(*SOURCE_ROOMS).values()) for one in classes_of(text)]
    above = {name: bases for name, bases, _ in every}
    found = set()
    for _, bases, methods in every:
        reached, left = set(), list(bases)
        while left:
            base = left.pop()
            if base not in reached:
                reached.add(base)
                left.extend(above.get(base, ()))
        found |= {(base, method) for base in reached for method in methods}
    return found


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
    protocols = {method for node in nodes(source, ast.ClassDef) if "Protocol" in bases_of(node) for method in node.body}
    filled = filled_hooks(source)
    hooks = {
        method
        for node in nodes(source, ast.ClassDef)
        for method in node.body
        if isinstance(method, Function) and (node.name, method.name) in filled
    }
    for node in nodes(source, ast.FunctionDef, ast.AsyncFunctionDef):
        declared = node in protocols | hooks or any(
            ast.unparse(one).split(".")[-1] in ("overload", "abstractmethod") for one in node.decorator_list
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


def docstrings(source: str) -> set[ast.AST]:
    """Strings that stand alone: docstrings, and those behind an attribute."""
    bodies = (node.body for node in ast.walk(parse(source)) if isinstance(getattr(node, "body", None), list))
    return {one.value for body in bodies for one in body if isinstance(one, ast.Expr)}


def words_of(identifier: str) -> set[str]:
    """The words of an identifier in snake or camel case, in small letters."""
    return {word.lower() for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])", identifier)}


@functools.cache
def known_signals() -> frozenset[str]:
    """Names of the classes of modalities and sources, but for those that are of no kind of signal."""
    found = set()
    for path, source in sources("omnijax").items():
        if not path.startswith(KNOW_THE_SIGNALS[:2]):
            continue
        for node in nodes(source, ast.ClassDef):
            if bases_of(node) & {"Modality", "Source"}:
                found.add(node.name)
    return frozenset(found - {"Codes", "InMemory"})


def identifiers(source: str) -> Iterator[tuple[int, str]]:
    """Names that a file defines, imports or uses, with their lines."""
    for node in nodes(source, ast.Name, ast.Attribute, ast.arg, ast.keyword, ast.FunctionDef, ast.ClassDef):
        name = next(value for key in ("id", "attr", "arg", "name") if (value := getattr(node, key, "")) != "") or ""
        # What another package calls its classes (`PIL.Image`) is not ours to choose.
        if not (isinstance(node, ast.Attribute) and name[0].isupper() and name not in known_signals()):
            yield node.lineno, name
    for node in nodes(source, ast.Import, ast.ImportFrom):
        module = getattr(node, "module", None) or ""
        for alias in node.names:
            ours = f"{module}.{alias.name}".strip(".").startswith("omnijax")
            names = [alias.asname, *(f"{module}.{alias.name}".split(".") if ours else [])]
            yield from ((node.lineno, name) for name in names if name)


def named_signals(path: str, source: str) -> list[str]:
    """Modalities, data sets and classes by name, outside the files that may know them."""
    if path.startswith(KNOW_THE_SIGNALS):
        return []
    offences = [
        f"{path}:{line} {name}: only a modality or a source knows what it is"
        for line, name in identifiers(source)
        if words_of(name) & FORBIDDEN_WORDS or name in known_signals() | {"spoken_digits", "lookup"}
    ]
    prose = docstrings(source)
    for node in nodes(source, ast.Constant):
        if not isinstance(node.value, str) or node in prose or node.value in FORMATS:
            continue
        pieces = {node.value} if re.search(r"\s", node.value) else set(re.split(r"->|[/|=,.:]", node.value))
        if pieces & FORBIDDEN_NAMES or pieces & known_signals():
            offences.append(f"{path}:{node.lineno} {node.value!r}: a field, a data set or a class by name")
    return offences


def signal_branches(path: str, source: str) -> list[str]:
    """Conditions on the shape, the type or the dtype of a signal, outside the files that may know it."""
    if path.startswith(KNOW_THE_SIGNALS):
        return []
    offences = []
    for function in nodes(source, ast.FunctionDef):
        held = names_of_signals(function)

        def is_signal(node: ast.AST, held: set[str] = held) -> bool:
            return any(isinstance(one, ast.Name) and one.id in held for one in ast.walk(node))

        for condition in conditions(function):
            for node in ast.walk(condition):
                kind = isinstance(node, ast.Call) and called(node) in ("isinstance", "type", "issubclass", "hasattr")
                shape = isinstance(node, ast.Attribute) and node.attr in ("ndim", "dtype", "shape")
                shape = shape or isinstance(node, ast.Call) and called(node).endswith(("issubdtype", "np.ndim"))
                if (kind and is_signal(node.args[0])) or (shape and is_signal(node)):
                    offences.append(f"{path}:{node.lineno} {ast.unparse(condition)}: ask the modality")
    return sorted(set(offences))


def conditions(function: ast.AST) -> Iterator[ast.AST]:
    """What a function decides by."""
    for node in ast.walk(function):
        if isinstance(node, ast.If | ast.IfExp | ast.While | ast.Assert):
            yield node.test
        elif isinstance(node, ast.comprehension):
            yield from node.ifs
        elif isinstance(node, ast.Match):
            yield node.subject


def names_of_signals(function: ast.FunctionDef) -> set[str]:
    """Variables of a function that hold signals: called so, or assigned or looped over what is."""
    every = [node for node in ast.walk(function) if isinstance(node, ast.Name | ast.arg)]
    names = {node.id if isinstance(node, ast.Name) else node.arg for node in every}
    held = {name for name in names if words_of(name) & SIGNAL_WORDS}
    while True:
        more = set(held)
        for node in ast.walk(function):
            if isinstance(node, ast.Assign):
                targets, value = node.targets, node.value
            elif isinstance(node, ast.For | ast.comprehension):
                targets, value = [node.target], node.iter
            else:
                continue
            if gives_signals(value, held):
                more |= {one.id for target in targets for one in ast.walk(target) if isinstance(one, ast.Name)}
        if more == held:
            return held
        held = more


def gives_signals(value: ast.AST, held: set[str]) -> bool:
    """Whether an expression is a signal, some of them, or the result of a function that gives some."""
    while isinstance(value, ast.Subscript):
        value = value.value
    if isinstance(value, ast.Name):
        return value.id in held
    if isinstance(value, ast.Call):
        name = called(value).split(".")[-1]
        arguments = name in ("zip", "enumerate", "list", "tuple", "reversed")
        return (
            name in SIGNAL_GIVERS
            or bool(words_of(name) & SIGNAL_WORDS)
            or (arguments and any(gives_signals(one, held) for one in value.args))
        )
    return isinstance(value, ast.Attribute) and bool(words_of(value.attr) & SIGNAL_WORDS)


def repeated(tree: dict[str, str], lines: int = REPEATED_LINES) -> list[str]:
    """Runs of lines that are the same in two places; imports, blank lines and indentation aside.

    The parameters of a function are aside, too: two classes that offer one interface have the same.
    """
    seen: dict[tuple[str, ...], tuple[str, int]] = {}
    offences = []
    for path, source in tree.items():
        aside = {
            line
            for node in nodes(source, ast.Import, ast.ImportFrom)
            for line in range(node.lineno, node.end_lineno + 1)
        }
        aside |= {line for node in nodes(source, *FUNCTIONS) for line in range(node.lineno + 1, node.body[0].lineno)}
        kept = [
            (number, " ".join(line.split()))
            for number, line in enumerate(source.splitlines(), 1)
            if line.strip() and number not in aside
        ]
        reported = 0
        for start in range(len(kept) - lines + 1):
            first, run = kept[start][0], tuple(line for _, line in kept[start : start + lines])
            there, where = seen.setdefault(run, (path, first))
            if (there, where) != (path, first) and first > reported:
                offences.append(f"{path}:{first} has {lines} lines of {there}:{where}: share them")
                reported = kept[start + lines - 1][0]  # a longer repetition is one offence
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


def unread_knobs(config_sources: list[str], other_sources: list[str]) -> list[str]:
    """Fields of the dataclasses in `config_sources` that no expression reads; being validated is not being read."""
    fields = {
        f"{node.name}.{item.target.id}": item.target.id
        for source in config_sources
        for node in nodes(source, ast.ClassDef)
        if any("dataclass" in ast.unparse(one) for one in node.decorator_list)
        for item in node.body
        if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name)
    }
    checks = [
        node
        for source in config_sources
        for node in nodes(source, ast.FunctionDef)
        if re.match(r"__post_init__|_?(validate|check|require)", node.name)
    ]
    excluded = {id(inner) for node in checks for inner in ast.walk(node)}
    read = {
        node.attr
        for source in (*config_sources, *other_sources)
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
    (
        stubs,
        SOURCE_ROOMS,
        "a.py",
        "class P:\n  def f(self): 'Says.'\nclass Q(P):\n  def g(self): return 1",
        "class P:\n  def f(self): 'Says.'\nclass Q(P): x = 1\nclass R(Q):\n  def f(self): return 1",
    ),
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
    (named_signals, ("omnijax",), "omnijax/a.py", "f('image')", "f(target.field)"),
    (named_signals, ("omnijax",), "omnijax/a.py", "f('image/moved')", "f('image of a run')"),
    (named_signals, ("omnijax",), "omnijax/a.py", "f('text->image')", "f('text ')"),
    (named_signals, ("omnijax",), "omnijax/a.py", "DATA = 'spoken_digits'", "data_uri('image/png', b'')"),
    (named_signals, ("omnijax",), "omnijax/a.py", "label = 'digit'", "def f():\n  'A digit.'\n  return source.label"),
    (named_signals, ("omnijax",), "omnijax/a.py", "show_image(x)", "PIL.Image.open(x)"),
    (named_signals, ("omnijax",), "omnijax/a.py", "class SpeechWriter: x = 1", "text = path.read_text()"),
    (named_signals, ("omnijax",), "omnijax/a.py", "from omnijax.modalities import Picture", "import PIL.Image"),
    (named_signals, ("omnijax",), "omnijax/a.py", "import omnijax.modalities.picture as m", "import omnijax.source"),
    (
        named_signals,
        ("omnijax",),
        "omnijax/a.py",
        "from omnijax.data.sources.lookup import keys",
        "from omnijax.modalities.base import Modality",
    ),
    (
        signal_branches,
        ("omnijax",),
        "omnijax/a.py",
        "def f(signal):\n  if signal.ndim == 2: g()",
        "def f(ids):\n  if ids.ndim == 2: g()",
    ),
    (
        signal_branches,
        ("omnijax",),
        "omnijax/a.py",
        "def f(signals):\n  return [one for one in signals if isinstance(one, str)]",
        "def f(signals):\n  return [one for one in signals if one is not None]",
    ),
    (
        signal_branches,
        ("omnijax",),
        "omnijax/a.py",
        "def f(m, items):\n  made = m.decode(items)\n  return g() if made.dtype == float else h()",
        "def f(m, items):\n  made = m.decode(items)\n  return m.html(made, '')",
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


def test_the_package_keeps_within_its_budget() -> None:
    lines = sum(len(source.splitlines()) for source in sources("omnijax").values())
    assert lines <= PACKAGE_LINES, f"{lines - PACKAGE_LINES} lines have to go before others come"


def test_few_modules_stand_beside_the_rooms() -> None:
    beside = [path for path in sources("omnijax") if path.count("/") == 1 and "__init__" not in path]
    assert len(beside) <= MODULES_BESIDE_ROOMS


def test_a_repetition_is_found() -> None:
    lines = [f"x{number} = {number}\n" for number in range(12)]
    body, indented = "".join(lines), "def f():\n" + "".join(f"    {line}\n" for line in lines)
    assert repeated({"a.py": body, "b.py": indented}) == ["b.py:2 has 10 lines of a.py:1: share them"]
    assert len(repeated({"a.py": body + "y = 0\n" + body})) == 1
    assert not repeated({"a.py": body, "b.py": "".join(lines[:9])})
    imports = "from a import (\n" + "".join(f"    x{number},\n" for number in range(12)) + ")\n"
    assert not repeated({"a.py": imports, "b.py": imports})
    interface = "def f(\n" + "".join(f"    x{number}: int,\n" for number in range(12)) + ") -> None:\n    pass\n"
    assert not repeated({"a.py": interface, "b.py": interface})


def test_nothing_is_written_twice() -> None:
    assert not repeated(sources("omnijax"))


def test_there_is_one_train_loop() -> None:
    assert [path for path in sources(*SOURCE_ROOMS) if re.search(r"/train(er|ing|_.*)?\.py$", path)] == [
        "omnijax/train.py"
    ]


def test_an_unread_knob_is_found() -> None:
    config = (
        "@dataclass\nclass C:\n  used: int\n  unused: int\n  def __post_init__(self):\n    assert self.unused > 0\n"
    )
    assert unread_knobs([config], ["print(config.used)"]) == ["C.unused"]


def test_every_knob_is_read() -> None:
    config = {path: source for path, source in sources("omnijax").items() if path.startswith("omnijax/config/")}
    assert len(config) > 5
    others = [source for path, source in sources("omnijax").items() if path not in config]
    assert not unread_knobs(list(config.values()), others)


def test_the_public_api_is_small_and_there() -> None:
    assert len(omnijax.__all__) <= PUBLIC_NAMES
    assert len(set(omnijax.__all__)) == len(omnijax.__all__)
    assert not [name for name in omnijax.__all__ if getattr(omnijax, name, None) is None]
