"""How fast is the vocabulary? Encoder, decoder and grammar, each against the best that this machine does for the case.

    pip install -e '.[bench]' && python experiments/bench/vocab.py
    python experiments/bench/vocab.py encode --json

Prints a table and one JSON line for each row: what the parts `vocab_encode.py`, `vocab_decode.py` and `vocab_sample.py`
measure, all in one process. A ratio compares neighbouring runs of the same process; figures in tokens a second are of
this machine in this minute. Takes about two minutes on two CPU cores.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import json
import os
import platform
from pathlib import Path

import jax
import numpy as np
import rich.console
import rich.table

PARTS = {name: f"vocab_{name}" for name in ("encode", "decode", "sample")}


def machine() -> dict[str, str | int]:
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


def main() -> None:
    """Runs the parts and prints what they give."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", metavar="part", help=f"{', '.join(PARTS)}; all by default")
    parser.add_argument("--json", action="store_true", help="no table, only the lines")
    arguments = parser.parse_args()
    unknown = set(arguments.parts) - set(PARTS)
    if unknown:
        parser.error(f"{', '.join(sorted(unknown))}: the parts are {', '.join(PARTS)}")
    console, where = rich.console.Console(), machine()
    lines = [json.dumps(where)]
    console.print(", ".join(f"{name} {value}" for name, value in where.items()), highlight=False)
    for part in arguments.parts or PARTS:
        module = importlib.import_module(PARTS[part])
        table = rich.table.Table(
            "",
            "figure",
            "spread",
            "ratio",
            "demand",
            title=f"{part}: {vars(module).get('UNIT', 'figures as its rows say')}",
        )
        for row in module.rows():
            lines.append(json.dumps({"part": part, **row._asdict()}, ensure_ascii=False))
            table.add_row(row.name, f"{row.figure:.4g}", f"± {row.spread:.0%}", f"{row.ratio:.3g}", row.demand)
        if not arguments.json:
            console.print(table)
    print("\n".join(lines))


if __name__ == "__main__":
    main()
