"""Prints plans, and what bases cost, as tables and sentences."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import rich.box
import rich.console
import rich.table

from omnijax.config import Config
from omnijax.plan.collectives import totals
from omnijax.plan.cost import Costs, items_per_token, name_of, step_flops
from omnijax.plan.make import Plan
from omnijax.plan.programs import Program
from omnijax.vocab.cost import space_of
from omnijax.vocab.radix import Base

FLOPS = ("FLOP", "kFLOP", "MFLOP", "GFLOP", "TFLOP", "PFLOP")
MEMORY = {
    "parameters": "parameters",
    "moments": "optimizer",
    "cache": "cache and rows",
    "batch": "batch",
    "padding": "padding of the arguments",
    "results": "results of their own",
    "temporary": "activations, gradients, working memory",
    "program": "program",
}


def print_plan(plan: Plan, console: rich.console.Console) -> None:
    """Prints the mesh; memory, collectives and time of each program; then whether all fits, and what to change."""
    chips, devices, slices = plan.topology.chips, len(plan.topology.devices), plan.topology.slices
    several = f", {slices} slices" if slices > 1 else ""
    split = f" ({devices} devices)" if devices != chips else ""
    axes = " × ".join(f"{name} {size}" for name, size in plan.mesh.shape.items())
    _print_lines(console, [f"{plan.topology.name}{several}: {chips} chips{split}, mesh {axes}"])
    for program in plan.programs:
        console.print(_memory(program))
        if program.collectives:
            console.print(_collectives(program))
        _print_lines(console, _time(plan, program))
    memory = plan.programs[0].memory
    fits = f"It fits: {_bytes(memory.needed)} of {_bytes(memory.available)} a device."
    _print_lines(console, [fits if plan.fits else "It doesn't fit.", *(f"  {line}" for line in plan.advice)])


def _print_lines(console: rich.console.Console, lines: Iterable[str]) -> None:
    for line in lines:
        console.print(line, highlight=False, markup=False)


def _table(title: str, *columns: str, right: int = 2) -> rich.table.Table:
    """A table whose first column holds names, and the others numbers."""
    table = rich.table.Table(title=title, title_justify="left", box=rich.box.SIMPLE_HEAD, padding=(0, right, 0, 0))
    table.pad_edge = right > 0
    for number, column in enumerate(columns):
        table.add_column(column, justify="right" if number and column != "over" else "left")
    return table


def _memory(program: Program) -> rich.table.Table:
    memory = program.memory
    table = _table(f"{program.name}: bytes a device", "", "", "share")

    def add(name: str, size: float, style: str = "") -> None:
        share = f"{size / memory.available:.1%}" if memory.available else ""
        table.add_row(name, _bytes(size), share, style=style)

    for field, name in MEMORY.items():
        if getattr(memory, field):
            add(name, getattr(memory, field))
    table.add_section()
    add("needed", memory.needed, "bold")
    if memory.peak is not None:
        add("peak, by the compiler", memory.peak)
    table.add_row("available", _bytes(memory.available), "")
    return table


def _collectives(program: Program) -> rich.table.Table:
    table = _table(f"{program.name}: collectives of a device", "", "over", "count", "bytes", "sent", "between slices")
    for row in totals(program.collectives):
        sizes = (str(row["count"]), _bytes(row["bytes"]), _bytes(row["wire_bytes"]))
        table.add_row(row["kind"], " ".join(row["axes"]), *sizes, "yes" if row["between_slices"] else "")
    return table


def _time(plan: Plan, program: Program) -> Iterator[str]:
    if program.refusal:
        yield f"The compiler refused it after {program.seconds:.1f} s: {program.refusal}"
        return
    yield f"Compiled in {program.seconds:.1f} s."
    if program.open_loops:
        yield "Loops whose end depends on data count with the most rounds that they can take."
    time, chip = program.estimate, plan.topology.chip
    if time is None or chip is None:
        yield f"No estimate of the time on {plan.topology.name}: there are no figures for the chips, or no cycles."
        return
    compiler = f", {_seconds(time.compiler_seconds)} by the compiler's cycles" if time.compiler_seconds else ""
    yield (
        f"At least {_seconds(time.seconds)}: the model's products {_seconds(time.compute_seconds)}{compiler}, network "
        f"{_seconds(time.background_seconds)} in the background and {_seconds(time.foreground_seconds)} in between."
    )
    speed = program.tokens / time.seconds
    if program is plan.programs[0]:
        flops = _with_unit(step_flops(plan.config), FLOPS)
        yield (
            f"At most {speed:,.0f} tokens/s, {speed * items_per_token(plan.config):,.0f} items/s in training: "
            f"{time.utilization:.2f} model FLOPs utilization ({flops} a step, remat not counted) of a peak of "
            f"{chip.flops / 1e12:.0f} TFLOP/s a device."
        )
    else:
        yield f"At most {speed:,.0f} tokens/s, and {program.tokens:,} tokens in one run."


def _bytes(size: float) -> str:
    return _with_unit(size, ("B", "kB", "MB", "GB", "TB", "PB"))


def _seconds(seconds: float) -> str:
    return f"{seconds * 1e3:.3g} ms" if seconds < 1 else f"{seconds:.3g} s"


def _with_unit(value: float, units: tuple[str, ...], step: int = 1000, form: str = ".4g") -> str:
    """A number below `step` and a unit."""
    power = 0
    while abs(value) >= step and power < len(units) - 1:
        value, power = value / step, power + 1
    return f"{format(value, form).rstrip('.')} {units[power]}".rstrip()


# ---------------------------------------------------------------------- what bases cost


def print_costs(costs: Costs, config: Config, console: rich.console.Console) -> None:
    """Prints a table of tokens, a table of sizes and FLOPs, and sentences about what is cheapest or impossible."""
    spaces = [name for name in costs.items if space_of(config.vocabulary, name) is not None]
    own, length = costs.costs[costs.chosen], config.batch.sequence_length
    items = [f"{name}\nitem" for name in spaces]
    documents = [name.replace("->", "\n") for name in own.documents]
    columns = (*items, *(f"{name}\nsegment" for name in costs.items), *documents)
    title = "Tokens of an item (digits), of a segment, of a document of each task"
    tokens = _table(title, "base", *columns, right=0)
    title = "Softmax and logits; forward FLOPs of an item, training FLOPs of a document"
    model = _table(title, "base", "softmax\nrows", "padded", "logits", *items, "training", "relative", "", right=0)
    for base, cost in costs.costs.items():
        marks = {"chosen": base == costs.chosen, "cheapest": base == costs.cheapest}
        marks["too long"] = cost.sequence_length != length
        marked = [mark for mark, holds in marks.items() if holds]
        style = "bold" if marks["chosen"] or marks["cheapest"] else "dim" if marked else ""
        tokens.add_row(
            name_of(base),
            *(f"{_number(cost.steps[name].mean)} ({_number(cost.digits[name].mean)})" for name in spaces),
            *(_number(count.mean) for count in (*cost.segments.values(), *cost.documents.values())),
            style=style,
        )
        flops = (*cost.item_flops.values(), cost.training_flops)
        model.add_row(
            name_of(base),
            str(cost.softmax_rows),
            str(cost.padded_rows),
            _with_unit(cost.logits_bytes, ("B", "KiB", "MiB", "GiB", "TiB"), 1024, "#.3g"),
            *(_with_unit(one, ("", "k", "M", "G", "T", "P"), 1000, "#.3g") for one in flops),
            f"{cost.training_flops / own.training_flops:.2f}",
            " ".join(marked),
            style=style,
        )
    console.print(tokens)
    console.print(model)
    _print_lines(console, _sentences(costs, length))


def _sentences(costs: Costs, length: int) -> Iterator[str]:
    bounds = (f"{name} {_number(n.mean)} ({n.least} to {n.most})" for name, n in costs.items.items())
    yield f"Items of a segment, midway between the bounds of eval.targets: {', '.join(bounds)}. All ids equally likely."
    if costs.cheapest is None:
        yield "No base is possible."
    else:
        share = costs.costs[costs.cheapest].training_flops / costs.costs[costs.chosen].training_flops
        than = f"{share:.2f} of base {name_of(costs.chosen)}" if costs.cheapest != costs.chosen else "the chosen one"
        yield f"Cheapest in training FLOPs: base {name_of(costs.cheapest)}, {than}."
    fit = {base: cost.longest for base, cost in costs.costs.items() if cost.sequence_length == length}
    if long := {base: longest for base, longest in fit.items() if longest > length}:
        yield (
            "With the most items that eval.targets allows, a document won't fit in a sequence of "
            f"{length}: {_listed(long)}."
        )
    if longer := {base: cost.sequence_length for base, cost in costs.costs.items() if base not in fit}:
        yield f"Not possible: a typical document needs more than batch.sequence_length = {length}: {_listed(longer)}."
    yield from (f"Not possible: base {name_of(base)}. {rule}" for base, rule in costs.refused.items())


def _listed(tokens: dict[Base, int]) -> str:
    return "base " + ", ".join(f"{name_of(base)} ({count})" for base, count in tokens.items())


def _number(value: float) -> str:
    """With at most one decimal, and none if it is whole."""
    return f"{value:.1f}".removesuffix(".0")
