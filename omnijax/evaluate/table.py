"""Evaluations, for people."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import rich.console
import rich.table

from omnijax.evaluate.history import mean_bits
from omnijax.report.text import given


def print_table(result: dict[str, Any], console: rich.console.Console) -> None:
    """Prints the content of `eval.json`: directions, bits of each form, and completions."""
    table = rich.table.Table(title=f"{result['split']}, {result['examples']} records, step {result['step']}")
    for column in ("direction", "accuracy", "by way of", "decodable", "without grammar", "pairing shuffled", "metrics"):
        table.add_column(column, justify="left" if column in ("direction", "by way of") else "right")
    for name, found in result["directions"].items():
        table.add_row(
            name,
            _accuracy(found) or "—",
            ", ".join(found["through"][1:-1]) or "—",
            f"{found['decodable']:.3f}",
            f"{found['decodable_without_grammar']:.3f}",
            f"{found['shuffled']:.3f}" if "shuffled" in found else "—",
            ", ".join(f"{metric} {value:.3g}" for metric, value in found["metrics"].items()) or "—",
        )
    if result["directions"]:
        console.print(table)
    for form, entry in result["bits_per_item"].items():
        units = (f", {bits:.3f} bits per {unit}" for unit, bits in entry["units"].items())
        console.print(f"{given(form)}: {entry['renormalised']:.3f} bits per item{''.join(units)}", highlight=False)
    for name, found in result["completions"].items():
        judged = f"{_accuracy(found)}, " if "accuracy" in found else ""
        blank = f"; other half left blank {found['blank_accuracy']:.3f}" if "blank_accuracy" in found else ""
        shown = f"{judged}decodable {found['decodable']:.3f} ({found['examples']} records{blank})"
        console.print(f"completed from {name}: {shown}", highlight=False)
    judges = [f"{name} {found['judge']:.3f}" for name, found in result["directions"].items() if "judge" in found]
    if judges:
        chance = 1 / len(result["classes"])
        console.print(f"judges on real signals: {', '.join(judges)}; chance {chance:.2f}", highlight=False)


def _accuracy(found: Mapping[str, Any]) -> str:
    return f"{found['accuracy']:.3f} ± {found['standard_error']:.3f}" if "accuracy" in found else ""


def print_steps(rows: Mapping[Path, Mapping[int, Mapping[str, Any]]], console: rich.console.Console) -> None:
    """Prints a line for each checkpoint of `Session.rows`; the best of each run is marked."""
    table = rich.table.Table(title="means over the forms of documents, the directions, the completions")
    table.add_column("run", overflow="fold")
    for column in ("step", "bits/item", "leak", "exact", "directions", "completions"):
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
    columns = {"bits/item": "renormalised", "leak": "leak", "exact": "exact"}
    found = {name: ("bits_per_item", key) for name, key in columns.items()}
    found |= {task: (task, "accuracy") for task in ("directions", "completions")}
    means = {}
    for name, (task, key) in found.items():
        values = [entry[key] for entry in row.get(task, {}).values() if key in entry]
        means[name] = f"{np.mean(values):.3f}" if values else "—"
    return means
