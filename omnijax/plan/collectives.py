"""What devices say to each other in a compiled step: kind, count, bytes, over which axes of the mesh.

Bytes are of one device: for an all-gather those of its result, for everything else (reduce-scatter, all-reduce,
all-to-all, permute) those of its operand. `wire_bytes` is what a device sends in a ring: (n - 1) / n of these bytes
for n devices, twice that for an all-reduce, all of them for a permute.

A collective counts as often as its loop runs, and once for each `channel_id`: XLA on TPU writes one that goes on in
the background into every kernel that it passes. An all-reduce of which each device keeps its part, in one kernel, is
a reduce-scatter by another name and counts as that. Between slices of TPUs it is the host that sends, as devices that
stand at the same place of each slice tell it to: what goes on within slices stands there as a collective of its own.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Int

from omnijax.plan.hlo import Instruction, Module
from omnijax.plan.trips import Call, Loops

KINDS = (
    "all-gather",
    "reduce-scatter",
    "all-reduce",
    "all-to-all",
    "ragged-all-to-all",
    "collective-permute",
    "collective-broadcast",
)
_BETWEEN = re.compile(r'_xla_megascale_transfer_type="(\w+)"')
_FUSED = "async_collective_fusion_config"
Groups = Int[np.ndarray, "group member"]


@dataclasses.dataclass(frozen=True)
class Network:
    """Where the devices of a program stand.

    Attributes:
        axes: of the mesh, with their sizes; the program's devices are numbered along them, the last one fastest.
        slices: the slice of each device.
        places: coordinates of each device in the torus of its slice; () where that isn't known.
        directions: in which a device can send along each of these coordinates: two where the ends of an axis are
            joined, else one (half of the devices of a line have all others on one side).
    """

    axes: dict[str, int]
    slices: tuple[int, ...]
    places: tuple[tuple[int, ...], ...] = ()
    directions: tuple[int, ...] = ()


@dataclasses.dataclass(frozen=True)
class Collective:
    """One collective of the program.

    Attributes:
        kind: one of `KINDS`.
        times: how often it runs in a step.
        bytes: of one run, on one device; see the top of the file.
        devices: that take part, in each group.
        axes: of the mesh that differ within a group.
        between_slices: some group has devices of several slices.
        background: the device goes on computing meanwhile.
        links: of a device that lead to others of its group; 0 where that isn't known.
        source: the operation of the experiment that it comes from, as XLA names it.
    """

    kind: str
    times: int
    bytes: int
    devices: int
    axes: tuple[str, ...]
    between_slices: bool
    background: bool
    links: int
    source: str

    @property
    def wire_bytes(self) -> float:
        """What a device sends in one run."""
        if self.kind == "collective-permute":
            return float(self.bytes)
        return self.bytes * (self.devices - 1) / self.devices * (2 if self.kind == "all-reduce" else 1)


def collectives_of(module: Module, loops: Loops, network: Network) -> tuple[Collective, ...]:
    """The collectives of a program; those of one device with itself are left out."""
    found: dict[Any, Collective] = {}
    for call in loops.calls:
        for one in call.computation.instructions.values():
            between = _BETWEEN.search(one.attributes) if one.opcode == "send" else None
            kind = between[1].lower().replace("_", "-") if between else one.opcode.removesuffix("-start")
            if kind not in KINDS:
                continue
            collective = _collective(call, one, kind, network, between is not None)
            if collective is None:
                continue
            # Pieces of one that goes on in the background share a channel; elsewhere channels aren't always unique.
            piece = _FUSED in one.attributes
            key = (kind, one.number("channel_id")) if piece else (call.computation.name, one.name)
            other = found.get(key, dataclasses.replace(collective, times=0))
            times = max(other.times, collective.times) if piece else other.times + collective.times
            found[key] = dataclasses.replace(other, times=times)
    return tuple(found.values())


def _collective(call: Call, one: Instruction, kind: str, network: Network, between: bool) -> Collective | None:
    groups = _across(network) if between else replica_groups(one, len(network.slices))
    if groups.shape[1] < 2:
        return None
    size = sum(shape.bytes for shape in call.computation.operand_shapes(one))
    if kind == "all-gather":
        size *= groups.shape[1]
    if kind == "all-reduce" and call.fused and call.computation.name.startswith("all-reduce-scatter"):
        kind = "reduce-scatter"
    slices = np.array(network.slices)[groups]
    source = re.search(r'op_name="([^"]*)"', one.attributes + (call.by.attributes if call.by is not None else ""))
    return Collective(
        kind,
        call.times,
        size,
        groups.shape[1],
        _axes(groups, network),
        bool((slices != slices[:, :1]).any()),
        _in_background(call, one),
        _links(groups, network),
        source[1] if source else "",
    )


def replica_groups(one: Instruction, devices: int) -> Groups:
    """Which devices of the program talk to each other, one group a row; of a permute its pairs.

    Raises:
        ValueError: groups that are written in no way that this reader knows.
    """
    pairs = re.search(r"source_target_pairs=\{(\{[\d,{}]*\})\}", one.attributes)
    if pairs:
        found = [[int(part) for part in pair.split(",")] for pair in re.findall(r"\{([\d,]+)\}", pairs[1])]
        return np.array([pair for pair in found if pair[0] != pair[1]] or [[0]])
    text = re.search(r"replica_groups=(\{\}|\{\{.*?\}\}|mesh\[.*?\] \{.*?\}|\[[^ ]*)", one.attributes)
    if text is None or text[1] == "{}":
        return np.arange(devices)[None]
    if text[1].startswith("{{"):
        return np.array([[int(part) for part in group.split(",")] for group in re.findall(r"\{([\d,]+)\}", text[1])])
    iota = re.match(r"\[([\d,]+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?", text[1])
    if iota:
        shape, dimensions, turned = (tuple(int(n) for n in (part or "").split(",") if n) for part in iota.groups())
        numbers = np.arange(int(np.prod(dimensions))).reshape(dimensions)
        return numbers.transpose(turned or None).reshape(shape)
    mesh = re.fullmatch(r"mesh\[((?:'[\w.\-]+'=\d+,?)+)\] \{((?:'[\w.\-]+',?)*)\}", text[1])
    if mesh is None:
        raise ValueError(f"replica groups in an unknown form: {text[1][:200]}")
    sizes = {name: int(size) for name, size in re.findall(r"'([\w.\-]+)'=(\d+)", mesh[1])}
    chosen = re.findall(r"'([\w.\-]+)'", mesh[2])
    names = list(sizes)
    order = [names.index(name) for name in (*(n for n in names if n not in chosen), *chosen)]
    numbers = np.arange(int(np.prod(list(sizes.values())))).reshape(list(sizes.values()))
    return numbers.transpose(order).reshape(-1, int(np.prod([sizes[name] for name in chosen])))


def _across(network: Network) -> Groups:
    """Devices that stand at the same place of each slice: TPU's compiler has these talk to each other, by the host."""
    return np.argsort(np.array(network.slices), kind="stable").reshape(max(network.slices) + 1, -1).T


def _axes(groups: Groups, network: Network) -> tuple[str, ...]:
    """Axes of the mesh along which the members of some group differ."""
    places = np.stack(np.unravel_index(groups, tuple(network.axes.values())))
    differ = (places != places[:, :, :1]).any(axis=(1, 2))
    return tuple(name for name, differs in zip(network.axes, differ, strict=True) if differs)


def _links(groups: Groups, network: Network) -> int:
    """Links of a device that lead to others of its group."""
    if not network.places:
        return 0
    places = np.array(network.places)[groups]
    return int((places != places[:, :1]).any(axis=(0, 1)) @ np.array(network.directions))


def _in_background(call: Call, one: Instruction) -> bool:
    # On TPU a plain instruction with an `async_collective_name` is one that was to be asynchronous, and isn't.
    by = call.by
    started = (
        one.opcode.endswith("-start")
        or one.opcode == "send"
        or (by is not None and by.opcode in ("async-start", "call-start"))
    )
    return started or _FUSED in one.attributes


def totals(collectives: Sequence[Collective]) -> list[dict[str, Any]]:
    """Counts and bytes a step of one device, by kind, axes and whether slices are crossed; most bytes first."""
    rows: dict[Any, dict[str, Any]] = {}
    for one in collectives:
        key = (one.kind, one.axes, one.between_slices)
        row = rows.setdefault(
            key,
            {
                "kind": one.kind,
                "axes": list(one.axes),
                "between_slices": one.between_slices,
                "count": 0,
                "bytes": 0,
                "wire_bytes": 0.0,
            },
        )
        row["count"] += one.times
        row["bytes"] += one.times * one.bytes
        row["wire_bytes"] += one.times * one.wire_bytes
    return sorted(rows.values(), key=lambda row: -row["bytes"])
