"""What every benchmark prints: lines of a table, the same as JSON, and the machine that they are of."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
from collections.abc import Iterable
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
        spread: of what was measured, half the distance between the quartiles, relative.
        ratio: to the reference of its table, median of neighbouring runs.
        demand: what the figure or the ratio has to be.
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
    """What the figures are of."""
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
    """Prints what the figures are of; returns its JSON line."""
    where = machine()
    console.print(", ".join(f"{name} {value}" for name, value in where.items()), highlight=False)
    return json.dumps(where)


def print_table(console: rich.console.Console, title: str, rows: Iterable[Row], **names: str) -> list[str]:
    """Prints rows as a table; returns their JSON lines.

    Args:
        console: where.
        title: of the table, with the unit of its figures and what the ratios are to.
        rows: of the table.
        names: what each JSON line says besides.
    """
    table, lines = rich.table.Table("", "figure", "spread", "ratio", "demand", title=title), []
    for row in rows:
        lines.append(json.dumps({**names, **row._asdict()}, ensure_ascii=False))
        table.add_row(row.name, f"{row.figure:.4g}", f"± {row.spread:.0%}", f"{row.ratio:.3g}", row.demand)
    console.print(table)
    return lines
