"""The collectives of a compiled step: kind, count, bytes, and the axes of the mesh.

Bytes are those of one device: of the result of an all-gather, and of the operand of all other kinds. `wire_bytes` is
what a device sends in a ring of n devices: (n - 1) / n of these bytes, twice that for an all-reduce, all for a permute.

A collective counts as often as its loop runs. A collective in the background counts once for each `channel_id`, because
XLA on TPU repeats it in every kernel that runs meanwhile. A kernel in which an all-reduce is followed by taking each
device's part counts as a reduce-scatter. Between slices of TPUs, hosts send for the devices at the same place of each
slice; what happens within the slices is a collective of its own.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Int

from omnijax.plan.hlo import Call, Instruction, Module

KINDS = re.compile(r"all-gather|reduce-scatter|all-reduce|(ragged-)?all-to-all|collective-(permute|broadcast)")
_BETWEEN = re.compile(r'_xla_megascale_transfer_type="(\w+)"')
_FUSED = "async_collective_fusion_config"
Groups = Int[np.ndarray, "group member"]


@dataclasses.dataclass(frozen=True)
class Network:
    """The places of a program's devices.

    Attributes:
        axes: sizes of the mesh; devices are numbered along its axes, the last one fastest.
        slices: the slice of each device.
        places: coordinates of each device in the torus of its slice; () if they aren't known.
        directions: number of directions in which a device can send along each coordinate: 2 if the ends of the axis
            are joined, else 1 (half of the devices of a line have all others on one side).
    """

    axes: dict[str, int]
    slices: tuple[int, ...]
    places: tuple[tuple[int, ...], ...] = ()
    directions: tuple[int, ...] = ()


@dataclasses.dataclass(frozen=True)
class Collective:
    """One collective of the program.

    Attributes:
        kind: of XLA, such as `all-gather`.
        times: number of runs in a step.
        bytes: of one run, on one device; see the top of the file.
        devices: number of devices in each group.
        axes: of the mesh, along which the devices of a group differ.
        between_slices: whether some group has devices of several slices.
        background: whether the device computes meanwhile.
        links: number of links from a device to others of its group; 0 if it isn't known.
    """

    kind: str
    times: int
    bytes: int
    devices: int
    axes: tuple[str, ...]
    between_slices: bool
    background: bool
    links: int

    @property
    def wire_bytes(self) -> float:
        """Bytes that a device sends in one run."""
        if self.kind == "collective-permute":
            return float(self.bytes)
        return self.bytes * (self.devices - 1) / self.devices * (2 if self.kind == "all-reduce" else 1)


def collectives_of(module: Module, network: Network) -> tuple[Collective, ...]:
    """The collectives of a program, without those of one device with itself."""
    found: dict[Any, Collective] = {}
    for call in module.calls:
        for one in call.computation.instructions.values():
            collective = _collective(call, one, network)
            if collective is None:
                continue
            # Pieces of a collective in the background share a channel; other channels aren't always unique.
            piece = _FUSED in one.attributes
            key = (one.opcode, one.number("channel_id")) if piece else (call.computation.name, one.name)
            before = found[key].times if key in found else 0
            times = max(before, call.times) if piece else before + call.times
            found[key] = dataclasses.replace(found.get(key, collective), times=times)
    return tuple(found.values())


def _collective(call: Call, one: Instruction, network: Network) -> Collective | None:
    """What an instruction sends; None if it sends nothing to other devices."""
    between = _BETWEEN.search(one.attributes) if one.opcode == "send" else None
    kind = between[1].lower().replace("_", "-") if between else one.opcode.removesuffix("-start")
    if not KINDS.fullmatch(kind):
        return None
    same_place = np.argsort(np.array(network.slices), kind="stable").reshape(max(network.slices) + 1, -1).T
    groups = same_place if between else replica_groups(one, len(network.slices))  # between slices hosts send
    if groups.shape[1] < 2:
        return None
    read = sum(call.computation.instructions[name].bytes for name in one.operands)
    size = read * (groups.shape[1] if kind == "all-gather" else 1)
    if kind == "all-reduce" and call.fused and call.computation.name.startswith("all-reduce-scatter"):
        kind = "reduce-scatter"
    # On TPU, a plain instruction with an `async_collective_name` isn't asynchronous in spite of its name.
    started = call.by in ("async-start", "call-start") or one.opcode.endswith("-start")
    mesh = np.stack(np.unravel_index(np.arange(len(network.slices)), tuple(network.axes.values())), axis=1)
    return Collective(
        kind,
        call.times,
        size,
        groups.shape[1],
        tuple(np.array(list(network.axes))[_differ(mesh, groups)].tolist()),
        bool(_differ(np.array(network.slices)[:, None], groups)[0]),
        started or one.opcode == "send" or _FUSED in one.attributes,
        int(_differ(np.array(network.places), groups) @ np.array(network.directions)) if network.places else 0,
    )


def _differ(places: Int[np.ndarray, "device coordinate"], groups: Groups) -> Bool[np.ndarray, " coordinate"]:
    """Coordinates in which the members of some group differ."""
    of_members = places[groups]
    return (of_members != of_members[:, :1]).any(axis=(0, 1))


def replica_groups(one: Instruction, devices: int) -> Groups:
    """Groups of devices that take part, a row each; a permute's pairs. Raises a `ValueError` for an unknown text."""

    def numbers(text: str) -> tuple[int, ...]:
        return tuple(int(number) for number in text.split(",") if number)

    pairs = re.search(r"source_target_pairs=\{(\{[\d,{}]*\})\}", one.attributes)
    if pairs:
        found = [numbers(pair) for pair in re.findall(r"\{([\d,]+)\}", pairs[1])]
        return np.array([pair for pair in found if pair[0] != pair[1]] or [(0,)])
    text = re.search(r"replica_groups=(\{\}|\{\{.*?\}\}|mesh\[.*?\] \{.*?\}|\[[^ ]*)", one.attributes)
    if text is None or text[1] == "{}":
        return np.arange(devices)[None]
    if text[1].startswith("{{"):
        return np.array([numbers(group) for group in re.findall(r"\{([\d,]+)\}", text[1])])
    iota = re.match(r"\[([\d,]+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?", text[1])
    if iota:
        shape, dimensions, turned = (numbers(part or "") for part in iota.groups())
        return np.arange(math.prod(dimensions)).reshape(dimensions).transpose(turned or None).reshape(shape)
    mesh = re.fullmatch(r"mesh\[((?:'[\w.\-]+'=\d+,?)+)\] \{((?:'[\w.\-]+',?)*)\}", text[1])
    if mesh is None:
        raise ValueError(f"replica groups in an unknown form: {text[1][:200]}")
    sizes = {name: int(size) for name, size in re.findall(r"'([\w.\-]+)'=(\d+)", mesh[1])}
    chosen = re.findall(r"'([\w.\-]+)'", mesh[2])
    names, shape = list(sizes), tuple(sizes.values())
    order = [names.index(name) for name in (*(n for n in names if n not in chosen), *chosen)]
    members = math.prod(sizes[name] for name in chosen)
    return np.arange(math.prod(shape)).reshape(shape).transpose(order).reshape(-1, members)


def totals(collectives: Sequence[Collective]) -> list[dict[str, Any]]:
    """Counts and bytes of one device in a step, by kind, axes and whether they cross slices; most bytes first."""
    rows: dict[str, dict[str, Any]] = {}
    for one in collectives:
        named = {"kind": one.kind, "axes": list(one.axes), "between_slices": one.between_slices}
        row = rows.setdefault(repr(named), named | {"count": 0, "bytes": 0, "wire_bytes": 0.0})
        for name, amount in (("count", 1), ("bytes", one.bytes), ("wire_bytes", one.wire_bytes)):
            row[name] += one.times * amount
    return sorted(rows.values(), key=lambda row: -row["bytes"])
