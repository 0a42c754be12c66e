"""Prints what bases cost, as tables and sentences."""

from __future__ import annotations

from collections.abc import Iterator

import rich.box
import rich.console
import rich.table

from omnijax.config import Config
from omnijax.plan.cost import Candidate, Cost, Costs
from omnijax.vocab.cost import space_of
from omnijax.vocab.radix import Base


def print_costs(costs: Costs, config: Config, console: rich.console.Console) -> None:
    """Prints a table of tokens, a table of sizes and FLOPs, and sentences about what is cheapest or impossible."""
    spaces = [name for name in costs.items if space_of(config.vocabulary, name) is not None]
    console.print(_tokens(costs, spaces))
    console.print(_model(costs, spaces))
    for line in _sentences(costs, config.batch.sequence_length):
        console.print(line, highlight=False, markup=False)


def name_of(base: Base) -> str:
    """A base as `--bases` takes it."""
    return ",".join(map(str, base)) if isinstance(base, tuple) else str(base)


def _tokens(costs: Costs, spaces: list[str]) -> rich.table.Table:
    own = costs.of(costs.chosen).cost
    assert own is not None
    documents = [name.replace("->", "\n") for name in own.documents]
    table = _table("Tokens of an item (digits), of a segment, of a document of each task")
    for column in (*(f"{name}\nitem" for name in spaces), *(f"{name}\nsegment" for name in costs.items), *documents):
        table.add_column(column, justify="right")
    for candidate, cost in _possible(costs):
        table.add_row(
            name_of(candidate.base),
            *(f"{_number(cost.steps[name].mean)} ({_number(cost.digits[name].mean)})" for name in spaces),
            *(_number(cost.segments[name].mean) for name in costs.items),
            *(_number(document.mean) for document in cost.documents.values()),
            style=_style(candidate, costs),
        )
    return table


def _model(costs: Costs, spaces: list[str]) -> rich.table.Table:
    table = _table("Softmax and logits; forward FLOPs of an item, training FLOPs of a document")
    for column in ("softmax\nrows", "padded", "logits", *(f"{name}\nitem" for name in spaces), "training", "relative"):
        table.add_column(column, justify="right")
    table.add_column("")
    own = costs.of(costs.chosen).cost
    assert own is not None
    for candidate, cost in _possible(costs):
        table.add_row(
            name_of(candidate.base),
            str(cost.softmax_rows),
            str(cost.padded_rows),
            _with_unit(cost.logits_bytes, 1024, ("B", "KiB", "MiB", "GiB", "TiB")),
            *(_with_unit(cost.item_flops[name], 1000, ("", "k", "M", "G", "T", "P")) for name in spaces),
            _with_unit(cost.training_flops, 1000, ("", "k", "M", "G", "T", "P")),
            f"{cost.training_flops / own.training_flops:.2f}",
            _mark(candidate, costs),
            style=_style(candidate, costs),
        )
    return table


def _table(title: str) -> rich.table.Table:
    table = rich.table.Table(title=title, title_justify="left", box=rich.box.SIMPLE_HEAD, padding=0, pad_edge=False)
    table.add_column("base", no_wrap=True)
    return table


def _sentences(costs: Costs, length: int) -> Iterator[str]:
    bounds = (f"{name} {_number(n.mean)} ({n.least} to {n.most})" for name, n in costs.items.items())
    yield f"Items of a segment, midway between the bounds of eval.targets: {', '.join(bounds)}. All ids equally likely."
    if costs.cheapest is None:
        yield "No base is possible."
    else:
        cheapest, own = costs.of(costs.cheapest).cost, costs.of(costs.chosen).cost
        assert cheapest is not None
        assert own is not None
        share = cheapest.training_flops / own.training_flops
        than = f"{share:.2f} of base {name_of(costs.chosen)}" if costs.cheapest != costs.chosen else "the chosen one"
        yield f"Cheapest in training FLOPs: base {name_of(costs.cheapest)}, {than}."
    possible = list(_possible(costs))
    long = [(c.base, cost.longest) for c, cost in possible if cost.sequence_length == length and cost.longest > length]
    if long:
        yield (
            "With the most items that eval.targets allows, a document won't fit in a sequence of "
            f"{length}: {_listed(long)}."
        )
    longer = [(c.base, cost.sequence_length) for c, cost in possible if cost.sequence_length != length]
    if longer:
        yield f"Not possible: a typical document needs more than batch.sequence_length = {length}: {_listed(longer)}."
    for candidate in costs.candidates:
        if candidate.cost is None:
            yield f"Not possible: base {name_of(candidate.base)}. {candidate.refused}"


def _listed(bases: list[tuple[Base, int]]) -> str:
    return "base " + ", ".join(f"{name_of(base)} ({tokens})" for base, tokens in bases)


def _possible(costs: Costs) -> Iterator[tuple[Candidate, Cost]]:
    """The candidates that have a vocabulary."""
    for candidate in costs.candidates:
        if candidate.cost is not None:
            yield candidate, candidate.cost


def _mark(candidate: Candidate, costs: Costs) -> str:
    marks = [
        ("chosen", candidate.base == costs.chosen),
        ("cheapest", candidate.base == costs.cheapest),
        ("too long", bool(candidate.refused)),
    ]
    return " ".join(mark for mark, holds in marks if holds)


def _style(candidate: Candidate, costs: Costs) -> str:
    if candidate.base in (costs.chosen, costs.cheapest):
        return "bold"
    return "dim" if candidate.refused else ""


def _number(value: float) -> str:
    """With at most one decimal, and none if it is whole."""
    return f"{value:.1f}".removesuffix(".0")


def _with_unit(value: float, step: int, units: tuple[str, ...]) -> str:
    """Three digits and a unit."""
    power = 0
    while value >= step and power < len(units) - 1:
        value, power = value / step, power + 1
    return f"{f'{value:#.3g}'.rstrip('.')} {units[power]}".rstrip()
