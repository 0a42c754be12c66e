"""Prints a plan as tables and sentences."""

from __future__ import annotations

from collections.abc import Iterator

import rich.box
import rich.console
import rich.table

from omnijax.plan.collectives import totals
from omnijax.plan.make import Plan, Program


def print_plan(plan: Plan, console: rich.console.Console) -> None:
    """Prints the mesh; memory, collectives and time of each program; then whether all fits, and what to change."""
    console.print(_machine(plan), highlight=False, markup=False)
    for program in plan.programs:
        console.print(_memory(program))
        if program.collectives:
            console.print(_collectives(program))
        for line in _time(plan, program):
            console.print(line, highlight=False, markup=False)
    for line in _verdict(plan):
        console.print(line, highlight=False, markup=False)


def _machine(plan: Plan) -> str:
    axes = " × ".join(f"{name} {size}" for name, size in plan.mesh.shape.items())
    slices = f", {plan.topology.slices} slices" if plan.topology.slices > 1 else ""
    devices = len(plan.topology.devices)
    split = f" ({devices} devices)" if devices != plan.topology.chips else ""
    return f"{plan.topology.name}{slices}: {plan.topology.chips} chips{split}, mesh {axes}"


def _memory(program: Program) -> rich.table.Table:
    memory = program.memory
    table = _table(f"{program.name}: bytes a device", "", "share")
    rows = (
        ("parameters", memory.parameters),
        ("optimizer", memory.moments),
        ("cache and rows", memory.cache),
        ("batch", memory.batch),
        ("padding of the arguments", memory.padding),
        ("results of their own", memory.results),
        ("activations kept for the backward pass", memory.activations),
        ("gradients", memory.gradients),
        ("working memory", memory.working),
        ("program", memory.program),
    )
    for name, size in rows:
        if size:
            table.add_row(name, _bytes(size), f"{size / memory.available:.1%}" if memory.available else "")
    table.add_section()
    table.add_row("needed", _bytes(memory.needed), f"{memory.needed / memory.available:.1%}", style="bold")
    if memory.peak is not None:
        table.add_row("peak, by the compiler", _bytes(memory.peak), f"{memory.peak / memory.available:.1%}")
    table.add_row("available", _bytes(memory.available), "")
    return table


def _collectives(program: Program) -> rich.table.Table:
    table = _table(f"{program.name}: collectives of a device", "over", "count", "bytes", "sent", "between slices")
    for row in totals(program.collectives):
        table.add_row(
            row["kind"],
            " ".join(row["axes"]),
            str(row["count"]),
            _bytes(row["bytes"]),
            _bytes(row["wire_bytes"]),
            "yes" if row["between_slices"] else "",
        )
    return table


def _time(plan: Plan, program: Program) -> Iterator[str]:
    made = f"traced in {program.lowered.seconds:.1f} s, compiled in {program.compiled.seconds:.1f} s"
    if program.compiled.refusal:
        yield f"The compiler refused it after {program.compiled.seconds:.1f} s: {program.compiled.refusal}"
        return
    counted = f"matrix products {_flops(program.flops)} a device (bodies of loops once: {_flops(program.flops_once)})"
    yield f"{program.name}: {counted}; {made}."
    if program.open_loops:
        yield "Loops whose end depends on data count with the most rounds that they can take."
    time, chip = program.estimate, plan.topology.chip
    if time is None or chip is None:
        yield f"No estimate of the time: there are no figures for the chips of {plan.topology.name}."
        return
    compiler = f", {_seconds(time.compiler_seconds)} by the compiler's cycles" if time.compiler_seconds else ""
    yield (
        f"At least {_seconds(time.seconds)}: kernels {_seconds(time.kernel_seconds)}{compiler}, network "
        f"{_seconds(time.background_seconds)} in the background and {_seconds(time.foreground_seconds)} in between "
        f"(products alone {_seconds(time.compute_seconds)}, memory traffic alone {_seconds(time.memory_seconds)})."
    )
    if program is not plan.programs[0]:
        yield f"At most {program.tokens / time.seconds:,.0f} tokens/s, and {program.tokens:,} tokens in one run."


def _verdict(plan: Plan) -> Iterator[str]:
    speed, chip = plan.throughput, plan.topology.chip
    if speed is not None and chip is not None:
        items = f", {speed.items_per_second:,.0f} items/s" if speed.items_per_second is not None else ""
        yield (
            f"At most {speed.tokens_per_second:,.0f} tokens/s{items} in training: {speed.utilization:.2f} model FLOPs "
            f"utilization ({_flops(speed.model_flops)} a step, remat not counted) of a peak of "
            f"{chip.flops / 1e12:.0f} TFLOP/s a device."
        )
    memory = plan.programs[0].memory
    if plan.fits:
        yield f"It fits: {_bytes(memory.needed)} of {_bytes(memory.available)} a device."
    else:
        yield "It doesn't fit."
    for line in plan.advice:
        yield f"  {line}"


def _table(title: str, *columns: str) -> rich.table.Table:
    table = rich.table.Table(title=title, title_justify="left", box=rich.box.SIMPLE_HEAD, padding=(0, 2, 0, 0))
    table.add_column("")
    for column in columns:
        table.add_column(column, justify="left" if column == "over" else "right")
    return table


def _bytes(size: float) -> str:
    return _with_unit(size, ("B", "kB", "MB", "GB", "TB", "PB"))


def _flops(count: float) -> str:
    return _with_unit(count, ("FLOP", "kFLOP", "MFLOP", "GFLOP", "TFLOP", "PFLOP"))


def _seconds(seconds: float) -> str:
    return f"{seconds * 1e3:.3g} ms" if seconds < 1 else f"{seconds:.3g} s"


def _with_unit(value: float, units: tuple[str, ...]) -> str:
    """Four digits and a decimal unit."""
    power = 0
    while abs(value) >= 1000 and power < len(units) - 1:
        value, power = value / 1000, power + 1
    return f"{value:.4g} {units[power]}"
