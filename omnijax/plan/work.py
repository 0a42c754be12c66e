"""The work of a device in a compiled step: floating-point operations, and bytes to and from its memory.

Operations are those of matrix products: `dot`, `convolution`, calls of libraries, and kernels of Pallas, two for each
multiplication. All other operations run on other units at the same time, and are few. Bytes are those of the operands
and results of kernels. A slice counts the part that it touches. What stays on the chip (memory space 1 of TPUs) doesn't
count.
"""

from __future__ import annotations

import dataclasses
import math
import re

import numpy as np

from omnijax.plan.hlo import Computation, Instruction, Module, leaves
from omnijax.plan.trips import Loops

_FREE = re.compile(
    r"parameter|constant|tuple|get-tuple-element|bitcast|after-all|while|conditional|call|partition-id|replica-id|"
    r"opt-barrier|async-start|call-start|async-update|.*-done"
)
NO_ESTIMATE = 2**62
"""TPU's compiler writes the largest number if it has no estimate."""
_SPLASH = re.compile(r"/splash_mha_(fwd|dq|dkv)\w*/")
_THROUGH = ("bitcast", "reshape", "convert", "copy", "transpose")


@dataclasses.dataclass(frozen=True)
class Kernel:
    """One instruction that runs on a device.

    Attributes:
        name: of the instruction.
        times: number of runs in a step.
        flops: of matrix products, in one run.
        bytes: to and from the memory, in one run.
        cycles: the compiler's estimate for one run; None without one.
    """

    name: str
    times: int
    flops: int
    bytes: int
    cycles: int | None


def kernels_of(module: Module, loops: Loops) -> tuple[Kernel, ...]:
    """All kernels of a program."""
    memo: dict[str, tuple[int, int, int | None]] = {}
    found = []
    for call in loops.calls:
        if call.fused:
            continue
        for one in call.computation.instructions.values():
            if _FREE.fullmatch(one.opcode):
                continue
            key = f"{call.computation.name}/{one.name}"
            if key not in memo:
                cycles = re.search(r'"estimated_cycles":"(\d+)"', one.attributes)
                memo[key] = (
                    flops_of(module, call.computation, one),
                    bytes_of(module, call.computation, one),
                    int(cycles[1]) if cycles and int(cycles[1]) < NO_ESTIMATE else None,
                )
            found.append(Kernel(one.name, call.times, *memo[key]))
    return tuple(found)


def flops_of(module: Module, computation: Computation, one: Instruction) -> int:
    """Operations of an instruction's matrix products, also inside a kernel."""
    if one.opcode == "fusion":
        inner = module.computations[one.called["calls"][0]]
        return sum(flops_of(module, inner, part) for part in inner.instructions.values())
    if one.opcode == "dot":
        left = computation.operand_shapes(one)[0]
        contracted = math.prod(left.sizes[axis] for axis in one.numbers("lhs_contracting_dims"))
        return 2 * contracted * sum(shape.count for shape in leaves(one.type))
    if one.opcode == "convolution":
        return _convolution(computation, one)
    if one.opcode == "custom-call":
        return _custom(computation, one)
    return 0


def _convolution(computation: Computation, one: Instruction) -> int:
    """Operations of a convolution, which on TPU may be a matrix product; places outside the operand don't count."""
    left, right = computation.operand_shapes(one)[:2]
    (result,) = leaves(one.type)
    labels = re.search(r"dim_labels=(\w+)_(\w+)->(\w+)", one.attributes)
    assert labels is not None
    sizes = re.search(r"window=\{([^}]*)\}", one.attributes)  # such as `size=2x3 stride=1x1 pad=0_0x1_1`
    window = dict(part.split("=") for part in sizes[1].split()) if sizes else {}
    products = 2 * result.sizes[labels[3].index("b")] * result.sizes[labels[3].index("f")]
    products *= right.sizes[labels[2].index("i")]
    for axis in range(len(labels[1]) - 2):
        read, made = left.sizes[labels[1].index(str(axis))], result.sizes[labels[3].index(str(axis))]
        products *= _overlaps(read, made, {key: values.split("x")[axis] for key, values in window.items()})
    return products


def _overlaps(read: int, made: int, window: dict[str, str]) -> int:
    """Number of pairs, along an axis, of a place of the result and one of the window that read an element."""
    usual = {"stride": "1", "pad": "0", "lhs_dilate": "1", "rhs_dilate": "1"} | window
    names = ("size", "stride", "pad", "lhs_dilate", "rhs_dilate")
    size, stride, before, spread, apart = (int(usual[name].split("_")[0]) for name in names)
    last = (read - 1) * spread
    seen = np.arange(made)[:, None] * stride + np.arange(size) * apart - before
    return int(np.sum((seen >= 0) & (seen <= last) & (seen % spread == 0)))


def _custom(computation: Computation, one: Instruction) -> int:
    """Operations of a library's matrix product, or of a kernel."""
    said = re.search(r'"cost_estimate":\{[^{}]*"flops":"?(\d+)', one.attributes)
    if said:
        return int(said[1])
    if _SPLASH.search(one.attributes):
        return splash_flops(computation, one)
    axes = re.search(r'"lhs_contracting_dimensions":\[([^\]]*)\]', one.attributes)
    if not axes:
        return 0
    left = computation.operand_shapes(one)[0]
    contracted = math.prod(left.sizes[int(axis)] for axis in re.findall(r"\d+", axes[1]))
    return 2 * contracted * next(leaves(one.type)).count


def splash_flops(computation: Computation, one: Instruction) -> int:
    """Operations of JAX's splash attention on TPU: matrix products of the blocks that it visits.

    For each pair of blocks the forward kernel has two products, the kernel for the gradient of queries three, and the
    one for keys and values four, or five if it computes the gradient of queries as well. Under a causal mask, a block
    of queries visits the blocks of keys up to its end.
    """
    found = _SPLASH.search(one.attributes)
    assert found is not None
    kind = {"fwd": "", "dq": "_dq", "dkv": "_dkv"}[found[1]]
    products = {"": 2, "_dq": 3, "_dkv": 4}[kind]
    if kind == "_dkv" and re.search(r"use_fused_bwd_kernel\W+true", one.attributes):
        products = 5
    queries, keys = [shape for shape in computation.operand_shapes(one) if shape.dtype in ("f32", "bf16")][:2]
    t, s = queries.sizes[-2], keys.sizes[-2]  # heads, tokens, size of a head: the kernels' usual layout
    blocks = {name: int(size) for name, size in re.findall(r"(block_k?[qv]\w*?)\W+(\d+)", one.attributes)}
    q, kv = min(blocks[f"block_q{kind}"], t), min(blocks[f"block_kv{kind}"], s)
    visited = sum(-(-(end * q) // kv) for end in range(1, s // q + 1)) / ((s // q) * (s // kv))
    return int(products * 2 * queries.count * s * visited)


def bytes_of(module: Module, computation: Computation, one: Instruction) -> int:
    """Bytes that an instruction reads from and writes to the device's memory."""
    return _written(module, computation, one) + sum(
        _read(module, computation, one, place) for place in range(len(one.operands))
    )


def _read(module: Module, computation: Computation, one: Instruction, place: int) -> int:
    """Bytes read of the operand at a place."""
    whole = sum(shape.moved for shape in leaves(computation.instructions[one.operands[place]].type))
    if not whole:
        return 0
    if one.opcode == "fusion":
        inner = module.computations[one.called["calls"][0]]
        return min(whole, _read_inside(module, inner, inner.parameters[place]))
    if one.opcode in ("dynamic-slice", "gather", "slice") and place == 0:
        return min(whole, _whole(one))
    if one.opcode in ("dynamic-update-slice", "scatter") and place == 0:
        return 0
    return whole


def _read_inside(module: Module, inner: Computation, one: Instruction) -> int:
    """Bytes read of a parameter of a kernel, by the instructions that read it there."""
    read = 0
    for user in inner.users[one.name]:
        if user.opcode in _THROUGH:
            read += _read_inside(module, inner, user)
        elif user.opcode not in ("tuple", "get-tuple-element"):
            places = (place for place, name in enumerate(user.operands) if name == one.name)
            read += sum(_read(module, inner, user, place) for place in places)
    return read


def _written(module: Module, computation: Computation, one: Instruction) -> int:
    """Bytes written of the result."""
    results, makers = list(leaves(one.type)), [one]
    if one.opcode == "fusion":
        inner = module.computations[one.called["calls"][0]]
        root = inner.root
        makers = [inner.instructions[name] for name in root.operands] if root.opcode == "tuple" else [root]
        computation = inner if len(makers) == len(results) else computation
    if len(makers) != len(results):
        makers = [one] * len(results)
    pairs = zip(results, makers, strict=True)
    return sum(min(shape.moved, _update(module, computation, maker)) for shape, maker in pairs)


def _update(module: Module, computation: Computation, one: Instruction) -> int:
    """Bytes that an instruction changes in its result; of an update in place, only the new part."""
    while one.opcode in ("bitcast", "reshape"):
        one = computation.instructions[one.operands[0]]
    if one.opcode == "dynamic-update-slice":
        return _whole(computation.instructions[one.operands[1]])
    if one.opcode == "fusion":
        inner = module.computations[one.called["calls"][0]]
        return _update(module, inner, inner.root) if inner.root.opcode != "tuple" else _whole(one)
    return _whole(one)


def _whole(one: Instruction) -> int:
    return sum(shape.bytes for shape in leaves(one.type))
