"""`evaluations.jsonl`: what was measured of a run's checkpoints, a line for each time, never the same twice."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from omnijax.config import Config
from omnijax.evaluate.heldout import SPLIT
from omnijax.run.directory import config_digest, device, versions

ROWS = "evaluations.jsonl"
SAME = ("step", "checkpoint", "config", "vocabulary", "split", "examples", "seed")
"""Rows that agree in these are of the same checkpoint, data and configuration."""


def head_of(config: Config, step: int, checkpoint: str) -> dict[str, Any]:
    """What says which figures those of a row are; the mesh and the devices don't belong to it.

    Args:
        config: of the run.
        step: of the checkpoint.
        checkpoint: what tells its parameters from others (`OpenRun.identity`).
    """
    return {
        "step": step,
        "checkpoint": checkpoint,
        "config": config_digest(config),
        "vocabulary": config.vocabulary.fingerprint,
        "split": SPLIT,
        "examples": config.eval.examples,
        "seed": config.eval.seed,
    }


def read_rows(run: Path) -> list[dict[str, Any]]:
    """All rows of a run, in the order in which they were written; a line that a kill cut off is none."""
    path = run / ROWS
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            continue
        if isinstance(row, dict) and {*SAME, "tasks"} <= row.keys():
            rows.append(row)
    return rows


def append_row(
    run: Path, head: Mapping[str, Any], figures: Mapping[str, Mapping[str, Any]], seconds: float
) -> dict[str, Any]:
    """Adds a row; what stands in the file is never changed.

    Args:
        run: its directory.
        head: of `head_of`.
        figures: by task.
        seconds: that the tasks took.

    Returns:
        The row.
    """
    row = {**head, "tasks": list(figures), "device": device(), "versions": versions(), "seconds": seconds}
    for found in figures.values():
        row |= found
    path = run / ROWS
    with path.open("ab+") as file:
        file.seek(max(0, file.seek(0, 2) - 1))
        cut = file.read() not in (b"", b"\n")  # by a kill in the middle of a line
        file.write(b"\n" * cut + json.dumps(row).encode() + b"\n")
    return row


def known(rows: list[dict[str, Any]], head: Mapping[str, Any]) -> dict[str, Any] | None:
    """Everything that is known of one checkpoint: its rows in one, later ones before earlier ones; None for nothing."""
    same = [row for row in rows if all(row[name] == head[name] for name in SAME)]
    if not same:
        return None
    merged: dict[str, Any] = {}
    for row in same:
        merged |= row
    return merged | {"tasks": list(dict.fromkeys(name for row in same for name in row["tasks"]))}


def history(run: Path, config: Config) -> list[dict[str, Any]]:
    """What is known of each checkpoint of a run, by rising step, also of those that are no longer there."""
    rows, heads = read_rows(run), {}
    for row in rows:
        if row["config"] == config_digest(config):
            heads[row["step"]] = row
    found = [known(rows, heads[step]) for step in sorted(heads)]
    return [row for row in found if row is not None]


def mean_bits(row: Mapping[str, Any]) -> float:
    """The figure by which checkpoints of a run are compared: less is better.

    It is the plain mean, over the forms of `bits_per_item`, of the renormalised bits of an item. Each form weighs the
    same, however many items it has; infinite where bits weren't measured.
    """
    if "bits_per_item" not in row:
        return float("inf")
    return float(np.mean([entry["renormalised"] for entry in row["bits_per_item"].values()]))
