"""Reads the text of a compiled module: its computations, and how often each of them runs.

The text comes from `jax.stages.Compiled.as_text()`, after all passes of XLA, and describes the program of one device.
XLA's `cost_analysis` counts the body of a loop once. Here it counts as often as it runs. XLA for CPU and GPU writes the
number of rounds down (`known_trip_count`). XLA for TPU doesn't; there it follows from the constants of the loop's
counter. For a loop whose end depends on data, the caller gives a number.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import re

_HEADER = re.compile(r"(ENTRY )?%?([\w.\-]+) \(.*\{$")
_END = re.compile(r"\}(, execution_thread=.*)?$")
_STARTS = re.compile(r"  (ROOT )?%?[\w.\-]+ = ")
_INSTRUCTION = re.compile(r"  (?:ROOT )?%?([\w.\-]+) = (.*?) ([a-z][\w\-]*)\((.*?)\)((?:, [\w\-]+=.*)?)$")
_ARRAY = re.compile(r"([a-z]\w*)\[([\d,<=]*)\]")
_CALLED = re.compile(r"\b(calls|to_apply|body|condition|true_computation|false_computation)=%?([\w.\-]+)")
_BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}")
_STARTED = ("call", "call-start", "async-start")


@dataclasses.dataclass(frozen=True)
class Instruction:
    """One line of a computation.

    Attributes:
        name: unique in its computation.
        type: text of the result's type; a tuple for several results.
        opcode: of XLA, such as `all-gather-start`.
        arguments: text between the parentheses.
        attributes: text behind the parentheses.
    """

    name: str
    type: str
    opcode: str
    arguments: str
    attributes: str

    @property
    def operands(self) -> list[str]:
        """Names of the instructions it reads."""
        return re.findall(r"%([\w.\-]+)", self.arguments)

    @property
    def bytes(self) -> int:
        """Bytes of the arrays of the result, without padding of the layout."""
        arrays = ((_bits(name), re.findall(r"\d+", sizes)) for name, sizes in _ARRAY.findall(self.type))
        return sum(-(-bits * math.prod(map(int, sizes)) // 8) for bits, sizes in arrays)

    @property
    def called(self) -> list[tuple[str, str]]:
        """Attribute and name of each computation that it calls."""
        branches = _BRANCHES.search(self.attributes)
        names = branches[1].split(",") if branches else []
        return [*_CALLED.findall(self.attributes), *(("branches", name.strip(" %")) for name in names)]

    def number(self, attribute: str) -> int | None:
        """An attribute that is a whole number, such as `channel_id` or `index`."""
        found = re.search(rf"\b{attribute}=(\d+)", self.attributes)
        return int(found[1]) if found else None


@dataclasses.dataclass(frozen=True)
class Computation:
    """Instructions in the order in which they run; `root` is the one whose value is returned."""

    name: str
    instructions: dict[str, Instruction]
    root: Instruction

    def constant(self, name: str) -> int | None:
        """The value of an instruction that is a constant whole number, or a copy of one; None otherwise."""
        one = self.instructions[name]
        while one.opcode in ("copy", "bitcast"):
            one = self.instructions[one.operands[0]]
        return int(one.arguments) if one.opcode == "constant" and re.fullmatch(r"-?\d+", one.arguments) else None


@dataclasses.dataclass(frozen=True)
class Call:
    """A computation that runs.

    Attributes:
        computation: that runs.
        times: number of its runs in one run of the module.
        by: opcode of the instruction that calls it; empty for the entry.
        fused: whether it is a kernel or part of one.
        open: whether it is in a loop whose end depends on data.
    """

    computation: Computation
    times: int
    by: str = ""
    fused: bool = False
    open: bool = False


@dataclasses.dataclass(frozen=True)
class Module:
    """A compiled program: all calls of computations, and the number of loops whose end depends on data."""

    calls: tuple[Call, ...]
    open_loops: int


def read_module(text: str, open_rounds: int = 1) -> Module:
    """The calls that a text describes.

    Args:
        text: of a compiled module.
        open_rounds: rounds of a loop whose end depends on data; such a loop inside another one counts one round.

    Raises:
        ValueError: the text has an unknown form.
    """
    computations, entry = _parse(text)
    calls = [Call(computations[entry], 1)]
    open_loops = 0
    for call in calls:  # which grows meanwhile
        for one in call.computation.instructions.values():
            if one.opcode == "while":
                called = {key: computations[name] for key, name in one.called}
                rounds = _rounds(call.computation, one, called["condition"], called["body"])
                is_open = call.open or rounds is None
                if rounds is None:
                    open_loops += 1
                    rounds = 1 if call.open else open_rounds
                times = {"condition": call.times * (rounds + 1), "body": call.times * rounds}
                calls += (Call(called[key], times[key], one.opcode, call.fused, is_open) for key in times)
            elif one.opcode in ("fusion", "conditional", "custom-call", *_STARTED):
                # An instruction that waits for an asynchronous computation names it again. All branches count as taken.
                fused = call.fused or one.opcode == "fusion"
                names = (name for key, name in one.called if key != "to_apply" or one.opcode in _STARTED)
                calls += (Call(computations[name], call.times, one.opcode, fused, call.open) for name in names)
    return Module(tuple(calls), open_loops)


def _rounds(outside: Computation, loop: Instruction, condition: Computation, body: Computation) -> int | None:
    """Rounds of a loop that counts from one constant to another; None if its end depends on data."""
    known = re.search(r'"known_trip_count":\{"n":"(\d+)"', loop.attributes)
    if known:
        return int(known[1])
    compare, begin = condition.root, outside.instructions[loop.operands[0]]
    opcodes = (compare.opcode, begin.opcode, body.root.opcode)
    if opcodes != ("compare", "tuple", "tuple") or "direction=LT" not in compare.attributes:
        return None
    counter, bound = compare.operands
    slot = condition.instructions[counter].number("index")
    if slot is None or (step := body.instructions[body.root.operands[slot]]).opcode != "add":
        return None
    first, last = outside.constant(begin.operands[slot]), condition.constant(bound)
    by = body.constant(step.operands[1])
    return max(0, -((first - last) // by)) if first is not None and last is not None and by else None


def _parse(text: str) -> tuple[dict[str, Computation], str]:
    """The computations of a module by name, and the name of the entry."""
    computations: dict[str, Computation] = {}
    entry, name = "", ""
    lines: list[str] = []
    for line in text.splitlines():
        if not name:
            if header := _HEADER.match(line):
                name, lines = header[2], []
                entry = name if header[1] else entry
        elif _END.match(line):
            found = [_INSTRUCTION.match(one) for one in lines]
            if None in found:
                raise ValueError(f"not an instruction: {lines[found.index(None)][:200]!r}")
            made = [Instruction(*one.groups()) for one in found if one]
            root = next(one for one, line in zip(made, lines, strict=True) if line.startswith("  ROOT "))
            computations[name] = Computation(name, {one.name: one for one in made}, root)
            name = ""
        elif _STARTS.match(line):
            lines.append(line)
        else:  # attributes of kernels may take several lines
            lines[-1] += line
    if not entry:
        raise ValueError(f"no text of a compiled module: {text[:80]!r}")
    return computations, entry


@functools.cache
def _bits(dtype: str) -> int:
    """Bits of an element: the number in the name of its type."""
    number = re.search(r"\d+", dtype)
    return int(number[0]) if number else {"pred": 8, "token": 0, "opaque": 0}[dtype]
