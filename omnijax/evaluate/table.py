"""Evaluations, for people."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import rich.console
import rich.table

from omnijax.evaluate.history import mean_bits


def print_table(result: dict[str, Any], console: rich.console.Console) -> None:
    """The six directions of one checkpoint.

    Args:
        result: what stands in `eval.json`.
        console: where to.
    """
    table = rich.table.Table(title=f"held-out accuracy, {result['examples']} examples, step {result['step']}")
    for column in ("direction", "accuracy", "by way of", "decodable", "without grammar", "pairing shuffled"):
        table.add_column(column, justify="left" if column in ("direction", "by way of") else "right")
    for name, accuracy in result["directions"].items():
        way = result["routes"][name].split("->")[1:-1]
        decodable = result["decodable_by_direction"][name]
        table.add_row(
            name,
            f"{accuracy:.3f} ± {result['standard_errors'][name]:.3f}",
            ", ".join(way) or "—",
            f"{decodable['grammar']:.3f}",
            f"{decodable['free']:.3f}",
            f"{result['shuffled_control_by_direction'][name]:.3f}",
        )
    console.print(table)
    for half, found in result["completions"].items():
        console.print(
            f"completed from the {half} half: {found['accuracy']:.3f} ± {found['standard_error']:.3f} "
            f"({found['examples']} pictures; other half left blank {found['blank_accuracy']:.3f}, "
            f"a judge fitted on such halves {found['half_accuracy']:.3f})",
            highlight=False,
        )
    judges = ", ".join(f"{name} {accuracy:.3f}" for name, accuracy in result["judges"].items())
    console.print(f"judges on real held-out signals: {judges}; chance {result['chance']:.2f}", highlight=False)


def print_steps(rows: Mapping[Path, Mapping[int, Mapping[str, Any]]], console: rich.console.Console) -> None:
    """A line for each checkpoint; the best of each run is marked.

    Args:
        rows: of each run, by step, of `Outcome`.
        console: where to.
    """
    table = rich.table.Table(title="held-out data; means over the forms of documents, the directions, the halves")
    table.add_column("run", overflow="fold")
    for column in ("step", "bits/item", "leak", "exact", "bits/pixel", "directions", "completions"):
        table.add_column(column, justify="right")
    for run, by_step in rows.items():
        best = min((row for row in by_step.values()), key=mean_bits, default=None)
        for step in sorted(by_step):
            row = by_step[step]
            mark = " *" if row is best and "bits_per_item" in row else ""
            table.add_row(str(run), f"{step}{mark}", *summary(row).values())
    console.print(table)
    console.print("* least bits an item among those shown of its run", highlight=False)


def summary(row: Mapping[str, Any]) -> dict[str, str]:
    """The figures of a row in short, by name; a dash where a task wasn't done."""
    bits = list(row.get("bits_per_item", {}).values())
    return {
        "bits/item": _number(mean_bits(row), 3) if bits else "—",
        "leak": _mean([entry["leak"] for entry in bits]),
        "exact": _mean([entry["exact"] for entry in bits]),
        "bits/pixel": _number(row["bits_per_pixel"], 3) if "bits_per_pixel" in row else "—",
        "directions": _mean(list(row.get("directions", {}).values())),
        "completions": _mean([found["accuracy"] for found in row.get("completions", {}).values()]),
    }


def _mean(values: list[float]) -> str:
    return _number(float(np.mean(values)), 3) if values else "—"


def _number(value: float, decimals: int) -> str:
    return f"{value:.{decimals}f}"
