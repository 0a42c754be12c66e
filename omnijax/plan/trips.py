"""How often each computation of a module runs.

XLA's `cost_analysis` counts the body of a loop once. Here it counts as often as it runs. XLA for CPU and GPU writes the
number of rounds down (`known_trip_count`). XLA for TPU doesn't; there it follows from the start, the step and the bound
of the loop's counter. For a loop whose end depends on data, the caller gives a number.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from typing import NamedTuple

from omnijax.plan.hlo import Computation, Instruction, Module

STARTED = ("call", "call-start", "async-start")
_SAME = ("copy", "bitcast", "convert", "reshape", "copy-start", "copy-done", "opt-barrier")


@dataclasses.dataclass(frozen=True)
class Call:
    """A computation that runs, and its caller.

    Attributes:
        computation: that runs.
        times: number of its runs in one run of the module.
        by: the instruction that calls it; None for the entry.
        outer: the call that this instruction belongs to.
        fused: whether it is a kernel or part of one.
        open: whether it is in a loop whose end depends on data.
    """

    computation: Computation
    times: int
    by: Instruction | None = None
    outer: Call | None = None
    fused: bool = False
    open: bool = False


@dataclasses.dataclass(frozen=True)
class Loops:
    """All calls of a module, and the names of loops whose end depends on data."""

    calls: tuple[Call, ...]
    open_loops: tuple[str, ...]


def count_calls(module: Module, open_rounds: int = 1) -> Loops:
    """All calls, with the number of their runs.

    Args:
        module: the program.
        open_rounds: rounds of a loop whose end depends on data; such a loop inside another one counts one round.
    """
    calls = [Call(module.entry, 1)]
    unknown: list[str] = []
    for call in calls:  # which grows meanwhile
        for one in call.computation.instructions.values():
            calls.extend(_calls_of(module, call, one, open_rounds, unknown))
    return Loops(tuple(calls), tuple(unknown))


def _calls_of(module: Module, call: Call, one: Instruction, open_rounds: int, unknown: list[str]) -> Iterator[Call]:
    called = one.called
    if one.opcode == "while":
        rounds, opened = rounds_of(module, call, one), False
        if rounds is None:
            unknown.append(one.name)
            rounds, opened = 1 if call.open else open_rounds, True
        for key, times in (("condition", rounds + 1), ("body", rounds)):
            inner = module.computations[called[key][0]]
            yield Call(inner, call.times * times, one, call, call.fused, call.open or opened)
    elif one.opcode in ("fusion", "conditional", "custom-call", *STARTED):
        # The instruction that waits for an asynchronous computation names it again. All branches count as taken.
        fused = call.fused or one.opcode == "fusion"
        for key, names in called.items():
            for name in names if key != "to_apply" or one.opcode in STARTED else ():
                yield Call(module.computations[name], call.times, one, call, fused, call.open)


def rounds_of(module: Module, call: Call, loop: Instruction) -> int | None:
    """Number of rounds of a loop; None if it depends on data."""
    known = re.search(r'"known_trip_count":\{"n":"(\d+)"', loop.attributes)
    if known:
        return int(known[1])
    condition = Call(module.computations[loop.called["condition"][0]], 0, loop, call)
    body = Call(module.computations[loop.called["body"][0]], 0, loop, call)
    inside, compare = _unfused(module, condition, condition.computation.root)
    direction = re.search(r"direction=(\w+)", compare.attributes)
    if compare.opcode != "compare" or direction is None or direction[1] not in ("LT", "LE", "GT", "GE", "NE"):
        return None
    left, right = (_linear(module, inside, name) for name in compare.operands)
    if left is None or right is None or left.slot is None:
        return None
    bound = right.add if right.slot is None else _at_start(module, call, loop, right.slot)
    first = _at_start(module, call, loop, left.slot)
    after = _linear(module, body, body.computation.root.operands[left.slot])
    if bound is None or first is None or after is None or after.slot != left.slot or after.add == 0:
        return None
    distance, step = bound - first - left.add, after.add
    distance += {"LE": 1, "GE": -1}.get(direction[1], 0)
    return max(0, -(-distance // step))


class _Linear(NamedTuple):
    """A whole number of the form slot + add; without a slot it is a constant. Slots hold what a loop carries."""

    slot: int | None
    add: int


def _linear(module: Module, call: Call, name: str) -> _Linear | None:
    """The value of an instruction by the slots of the innermost loop around it; None if it has another form."""
    call, one = _unfused(module, call, call.computation.instructions[name])
    if one.opcode == "constant":
        return _Linear(None, int(one.arguments)) if re.fullmatch(r"-?\d+", one.arguments) else None
    if one.opcode in _SAME:
        return _linear(module, call, one.operands[0])
    if one.opcode == "get-tuple-element":
        source, slot = call.computation.instructions[one.operands[0]], one.number("index")
        if source.opcode == "tuple" and slot is not None:
            return _linear(module, call, source.operands[slot])
        return _carried(module, call, slot) if source.opcode == "parameter" and slot is not None else None
    if one.opcode in ("add", "subtract"):
        left, right = (_linear(module, call, operand) for operand in one.operands)
        if left is None or right is None or right.slot is not None:
            return None
        return _Linear(left.slot, left.add + (right.add if one.opcode == "add" else -right.add))
    return None


def _carried(module: Module, call: Call, slot: int) -> _Linear | None:
    """A slot of a loop, as a constant if the loop never changes it and its start is constant."""
    if call.by is None or call.outer is None or call.by.opcode != "while":
        return None
    body = module.computations[call.by.called["body"][0]]
    if body.root.opcode == "tuple":
        source = body.instructions[body.root.operands[slot]]
        if source.opcode == "get-tuple-element" and source.number("index") == slot:
            first = _at_start(module, call.outer, call.by, slot)
            return _Linear(slot, 0) if first is None else _Linear(None, first)
    return _Linear(slot, 0)


def _at_start(module: Module, call: Call, loop: Instruction, slot: int) -> int | None:
    """The constant in a slot when a loop begins; None if it isn't constant."""
    first = call.computation.instructions[loop.operands[0]]
    if first.opcode != "tuple":
        return None
    value = _linear(module, call, first.operands[slot])
    return value.add if value is not None and value.slot is None else None


def _unfused(module: Module, call: Call, one: Instruction) -> tuple[Call, Instruction]:
    """Follows an instruction into kernels, and parameters of kernels to their arguments."""
    while True:
        if one.opcode == "fusion":
            call = Call(module.computations[one.called["calls"][0]], 0, one, call, fused=True)
            one = call.computation.root
        elif one.opcode == "parameter" and call.by is not None and call.by.opcode == "fusion":
            assert call.outer is not None
            outer = call.outer
            one, call = outer.computation.instructions[call.by.operands[int(one.arguments)]], outer
        else:
            return call, one
