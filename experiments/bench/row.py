"""What every benchmark prints: tables, the same rows as JSON lines, and the machine they were measured on."""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
import rich.console
import rich.table


class Row(NamedTuple):
    """One measurement.

    Attributes:
        name: what was measured.
        figure: the median, in the unit of its table.
        spread: half the distance between the quartiles, relative to the median.
        ratio: to the reference of its table, the median over neighbouring runs.
        demand: the limit of the figure or of the ratio.
    """

    name: str
    figure: float
    spread: float
    ratio: float
    demand: str


def spread(values: Iterable[float]) -> float:
    """Half the distance between the quartiles over the median."""
    low, middle, high = np.percentile(list(values), [25, 50, 75])
    return float((high - low) / 2 / middle)


def machine() -> dict[str, str | int | float]:
    """The machine and the versions of the figures."""
    model = platform.processor()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [line.split(":")[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
        model = names[0] if names else model
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return {
        "processor": model,
        "cores": cores,
        "load": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else "unknown",
        "device": ", ".join(sorted({device.device_kind for device in jax.devices()})),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "jax": jax.__version__,
        "omnijax": importlib.metadata.version("omnijax"),
    }


def print_machine(console: rich.console.Console) -> str:
    """Prints the machine and the versions; returns them as a JSON line."""
    where = machine()
    console.print(", ".join(f"{name} {value}" for name, value in where.items()), highlight=False)
    return json.dumps(where)


def print_table(console: rich.console.Console, title: str, rows: Iterable[Row], **names: str) -> list[str]:
    """Prints rows as a table; returns their JSON lines.

    Args:
        console: prints the table.
        title: names the unit of the figures and the reference of the ratios.
        rows: rows of the table.
        names: further entries of each JSON line.
    """
    table, lines = rich.table.Table("", "figure", "spread", "ratio", "demand", title=title), []
    for row in rows:
        lines.append(json.dumps({**names, **row._asdict()}, ensure_ascii=False))
        table.add_row(row.name, f"{row.figure:.4g}", f"± {row.spread:.0%}", f"{row.ratio:.3g}", row.demand)
    console.print(table)
    return lines


def report(parser: argparse.ArgumentParser, measure: Callable[[argparse.Namespace], dict[str, list[Row]]]) -> None:
    """Parses the command line, measures, and prints each table, then a JSON line for each row.

    Args:
        parser: knows the options of the benchmark; `--json` is added.
        measure: returns the rows of each table by its title, `UNIT; ratio to REFERENCE`.
    """
    parser.add_argument("--json", action="store_true", help="print no tables, only the JSON lines")
    options = parser.parse_args()
    console = rich.console.Console(quiet=options.json)
    lines = [print_machine(console)]
    for title, rows in measure(options).items():
        lines += print_table(console, title, rows, unit=title.split(";")[0])
    print("\n".join([*lines, json.dumps({"load after": round(os.getloadavg()[0], 2)})]))
