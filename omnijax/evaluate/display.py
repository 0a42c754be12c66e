"""Evaluations for people: tables, and a plot over the steps of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import rich.box
import rich.console
import rich.table

from omnijax.evaluate.history import history, mean_bits
from omnijax.evaluate.loading import OpenRun
from omnijax.report.curves import Line, draw_lines, name_ends
from omnijax.report.inputs import file_of
from omnijax.report.measures import told_figures, told_tests
from omnijax.report.text import arrow, given, nonempty
from omnijax.report.theme import DOTS_PER_INCH, LIGHT, check_drawing, dress, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PLOT = "evaluations.png"
Series = dict[str, list[tuple[int, float]]]


def print_table(result: dict[str, Any], console: rich.console.Console) -> None:
    """Prints tables of directions, completions and held-out records, and the bits of each form, from `eval.json`."""
    rows = {name: told_figures(entry) for name, entry in {**result["directions"], **result["completions"]}.items()}
    print_rows(f"{result['split']}, {result['examples']} records, step {result['step']}", rows, console)
    print_rows("records kept from training", told_tests(result.get("tests", {})), console)
    for form, entry in result["bits_per_item"].items():
        units = (f", {bits:.3f} bits per {unit}" for unit, bits in entry["units"].items())
        console.print(f"{given(form)}: {entry['renormalised']:.3f} bits per item{''.join(units)}", highlight=False)
        for source, own in entry["sources"].items():
            console.print(f"  of {source}: {own['renormalised']:.3f} ({own['records']} records)", highlight=False)


def print_rows(title: str, rows: Mapping[str, Mapping[str, str]], console: rich.console.Console) -> None:
    """Prints a table of rows, cells by column, without empty columns; prints nothing if there is no row."""
    columns = nonempty(rows.values())
    table = rich.table.Table(title=title, box=rich.box.SIMPLE, padding=0, collapse_padding=True, pad_edge=False)
    table.add_column(no_wrap=True)
    for column in columns:
        table.add_column(column, justify="right", no_wrap=column == "accuracy")
    for name, row in rows.items():
        table.add_row(name, *(row.get(column, "") for column in columns))
    if rows:
        console.print(table)


def print_steps(rows: Mapping[Path, Mapping[int, Mapping[str, Any]]], console: rich.console.Console) -> None:
    """Prints a line for each checkpoint of `Session.rows`; the best of each run is marked."""
    table = rich.table.Table(title="means over the forms of documents, the directions, the completions")
    table.add_column("run", overflow="fold")
    for column in ("step", *summary({})):
        table.add_column(column, justify="right")
    for run, by_step in rows.items():
        best = min(by_step.values(), key=mean_bits, default=None)
        for step, row in sorted(by_step.items()):
            mark = " *" if row is best and "bits_per_item" in row else ""
            table.add_row(str(run), f"{step}{mark}", *summary(row).values())
    console.print(table)
    console.print("* fewest bits per item among those shown of its run", highlight=False)


def summary(row: Mapping[str, Any]) -> dict[str, str]:
    """Means of a row, by name; a dash if a task wasn't done."""
    keys = {"bits/item": ("bits_per_item", "renormalised"), "leak": ("bits_per_item", "leak")}
    keys |= {"exact": ("bits_per_item", "exact")} | {task: (task, "accuracy") for task in ("directions", "completions")}
    found = {name: [one[key] for one in row.get(task, {}).values() if key in one] for name, (task, key) in keys.items()}
    return {name: f"{np.mean(values):.3f}" if values else "—" for name, values in found.items()}


def write_plot(opened: OpenRun) -> str:
    """Draws what is known of a run's checkpoints on a split into a PNG; returns its name.

    Raises a `PlatformError` if a library that draws isn't installed.
    """
    check_drawing()
    path = file_of(opened.out, PLOT, opened.other_split)
    with path.open("wb") as file:
        steps_figure(history(opened.out, opened.config)).savefig(file, format="png", dpi=DOTS_PER_INCH)
    return path.name


def steps_figure(rows: Sequence[dict[str, Any]]) -> Figure:
    """Bits per item by form and their mean, and accuracies, of the rows of one run by rising step."""
    bits: Series = {}
    shares: Series = {}
    for row in rows:
        forms = {form: entry["renormalised"] for form, entry in row.get("bits_per_item", {}).items()}
        for name, value in ({"mean": mean_bits(row)} | forms if forms else {}).items():
            bits.setdefault(name, []).append((row["step"], value))
        for name, found in {**row.get("directions", {}), **row.get("completions", {})}.items():
            if "accuracy" in found:
                shares.setdefault(arrow(name), []).append((row["step"], found["accuracy"]))
    both: list[tuple[Series, str, float | None]] = [(bits, "bits per item", None), (shares, "accuracy", 1.0)]
    panels = [panel for panel in both if panel[0]]
    figure = new_figure(5.6 * max(1, len(panels)), 3.6, LIGHT)
    for axes, (series, label, top) in zip(figure.subplots(1, max(1, len(panels)), squeeze=False)[0], panels):
        lines = [Line(name, *zip(*points, strict=True)) for name, points in series.items()]
        colours = draw_lines(dress(axes, LIGHT), lines, "mean", LIGHT)
        axes.set(xlim=(0, max([1, *(line.x[-1] for line in lines)])), ylim=(0, top))
        axes.set(xlabel="step", ylabel=f"{label}, {rows[0]['split']}")
        name_ends(axes, {line.name: line.y[-1] for line in lines}, colours, values=True)
    return figure
