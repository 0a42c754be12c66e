"""Reads the text of a compiled module: computations, instructions, shapes and calls.

The text comes from `jax.stages.Compiled.as_text()`, after all passes of XLA, and describes the program of one device.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import re
from collections.abc import Iterator

_HEADER = re.compile(r"(ENTRY )?%?([\w.\-]+) \(.*\{$")
_END = re.compile(r"\}(, execution_thread=.*)?$")
_INSTRUCTION = re.compile(r"  (ROOT )?%?([\w.\-]+) = ")
_ARRAY = re.compile(r"([a-z]\w*)\[([\d,<=]*)\](?:\{([^{}]*)\})?")
_CALLED = re.compile(r"\b(calls|to_apply|body|condition|true_computation|false_computation)=%?([\w.\-]+)")
_BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}")


@dataclasses.dataclass(frozen=True)
class Shape:
    """An array: element type, sizes of its axes, and its memory space (0 is the device's memory, 1 is on the chip)."""

    dtype: str
    sizes: tuple[int, ...]
    memory: int = 0

    @property
    def count(self) -> int:
        """Number of elements."""
        return math.prod(self.sizes)

    @property
    def bytes(self) -> int:
        """Bytes of the elements, without padding of the layout."""
        return -(-self.count * _bits(self.dtype) // 8)

    @property
    def moved(self) -> int:
        """Bytes that move between the device's memory and its units when the array is read or written."""
        return self.bytes if self.memory == 0 else 0


Type = Shape | tuple["Type", ...]


@dataclasses.dataclass(frozen=True)
class Instruction:
    """One line of a computation.

    Attributes:
        name: unique in its computation.
        opcode: of XLA, such as `all-gather-start`.
        type: of the result; a (nested) tuple for several results.
        arguments: text between the parentheses.
        attributes: text behind the parentheses.
    """

    name: str
    opcode: str
    type: Type
    arguments: str
    attributes: str

    @functools.cached_property
    def operands(self) -> tuple[str, ...]:
        """Names of the instructions it reads."""
        if self.opcode in ("constant", "parameter"):
            return ()
        return tuple(re.findall(r"%([\w.\-]+)", self.arguments))

    @functools.cached_property
    def called(self) -> dict[str, tuple[str, ...]]:
        """Names of the computations it calls, by attribute."""
        found: dict[str, tuple[str, ...]] = {key: (name,) for key, name in _CALLED.findall(self.attributes)}
        branches = _BRANCHES.search(self.attributes)
        if branches:
            found["branches"] = tuple(name.strip(" %") for name in branches[1].split(","))
        return found

    def number(self, attribute: str) -> int | None:
        """An attribute that is a whole number, such as `channel_id` or `index`."""
        found = re.search(rf"\b{attribute}=(\d+)", self.attributes)
        return int(found[1]) if found else None

    def numbers(self, attribute: str) -> tuple[int, ...]:
        """An attribute that is a list of whole numbers, such as `dimensions={0,1}`."""
        found = re.search(rf"\b{attribute}=\{{([\d,]*)\}}", self.attributes)
        return tuple(int(part) for part in found[1].split(",") if part) if found else ()


@dataclasses.dataclass(frozen=True)
class Computation:
    """Instructions in the order in which they run; `root` is the one whose value is returned."""

    name: str
    instructions: dict[str, Instruction]
    root: Instruction

    @functools.cached_property
    def parameters(self) -> dict[int, Instruction]:
        """Parameters by number."""
        return {int(one.arguments): one for one in self.instructions.values() if one.opcode == "parameter"}

    @functools.cached_property
    def users(self) -> dict[str, list[Instruction]]:
        """For each instruction, those that read it."""
        users: dict[str, list[Instruction]] = {name: [] for name in self.instructions}
        for one in self.instructions.values():
            for operand in dict.fromkeys(one.operands):
                users[operand].append(one)
        return users

    def operand_shapes(self, instruction: Instruction) -> list[Shape]:
        """The arrays that an instruction reads."""
        return [shape for name in instruction.operands for shape in leaves(self.instructions[name].type)]


@dataclasses.dataclass(frozen=True)
class Module:
    """A compiled program."""

    computations: dict[str, Computation]
    entry: Computation


def parse(text: str) -> Module:
    """The module that a text describes.

    Raises:
        ValueError: the text has an unknown form.
    """
    computations: dict[str, Computation] = {}
    entry, name = "", ""
    lines: list[str] = []
    for line in text.splitlines():
        if not name:
            if header := _HEADER.match(line):
                name, lines = header[2], []
                entry = name if header[1] else entry
        elif _END.match(line):
            made = {line: _instruction(line) for line in lines}
            root = next(one for line, one in made.items() if line.startswith("  ROOT "))
            computations[name] = Computation(name, {one.name: one for one in made.values()}, root)
            name = ""
        elif _INSTRUCTION.match(line):
            lines.append(line)
        else:  # attributes of kernels may take several lines
            lines[-1] += line
    if not entry:
        raise ValueError(f"no text of a compiled module: {text[:80]!r}")
    return Module(computations, computations[entry])


def leaves(kind: Type) -> Iterator[Shape]:
    """The arrays of a type, in order."""
    if isinstance(kind, Shape):
        yield kind
    else:
        for part in kind:
            yield from leaves(part)


@functools.cache
def _bits(dtype: str) -> int:
    """Bits of an element: the number in the name of its type."""
    number = re.search(r"\d+", dtype)
    return int(number[0]) if number else {"pred": 8, "token": 0, "opaque": 0}[dtype]


def _instruction(line: str) -> Instruction:
    start = _INSTRUCTION.match(line)
    if start is None:
        raise ValueError(f"not an instruction: {line[:200]!r}")
    kind, at = _type(line, start.end())
    opens = line.index("(", at)
    closes = _closing(line, opens)
    return Instruction(start[2], line[at:opens].strip(), kind, line[opens + 1 : closes], line[closes + 1 :])


def _type(line: str, at: int) -> tuple[Type, int]:
    """The type that begins at a place in the line, and the place behind it."""
    if line[at] != "(":
        array = _ARRAY.match(line, at)
        if array is None:
            raise ValueError(f"not a type: {line[at : at + 80]!r}")
        sizes = tuple(int(size.removeprefix("<=")) for size in array[2].split(",") if size)
        memory = re.search(r"S\((\d+)\)", array[3] or "")
        return Shape(array[1], sizes, int(memory[1]) if memory else 0), array.end()
    parts, at = [], at + 1
    while line[at] != ")":
        comment = re.compile(r"[, ]*(/\*.*?\*/)?").match(line, at)
        assert comment is not None
        part, at = _type(line, comment.end())
        parts.append(part)
    return tuple(parts), at + 1


def _closing(line: str, opens: int) -> int:
    """The place that closes the parenthesis at `opens`; quoted text is skipped."""
    depth = 0
    for found in re.compile(r'"(?:\\.|[^"\\])*"|[()]').finditer(line, opens):
        depth += {"(": 1, ")": -1}.get(found[0], 0)
        if depth == 0:
            return found.start()
    raise ValueError(f"a parenthesis is never closed: {line[:200]!r}")
