"""`evaluations.jsonl`: what was measured of a run's checkpoints. One line per evaluation; nothing is measured twice."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from omnijax.config import Config
from omnijax.files import read_lines
from omnijax.run.directory import config_digest, device, versions

ROWS = "evaluations.jsonl"
SAME = ("step", "checkpoint", "config", "vocabulary", "split", "examples", "seed")
"""Rows that agree in these are of the same checkpoint, data and configuration."""


def head_of(config: Config, step: int, checkpoint: str) -> dict[str, Any]:
    """What a row is about; the mesh and the devices don't belong to it. `checkpoint` is `OpenRun.identity`."""
    values = (step, checkpoint, config_digest(config), config.vocabulary.fingerprint)
    return dict(zip(SAME, (*values, config.eval.split, config.eval.examples, config.eval.seed), strict=True))


def read_rows(run: Path) -> list[dict[str, Any]]:
    """All rows of a run, in the order in which they were written; damaged ones are reported and left out."""
    return [row for row in read_lines(run / ROWS) if {*SAME, "tasks"} <= row.keys()]


def row_of(head: Mapping[str, Any], figures: Mapping[str, Mapping[str, Any]], seconds: float) -> dict[str, Any]:
    """A row with the figures of some tasks, by task, and how long they took."""
    row = {**head, "tasks": list(figures), "device": device(), "versions": versions(), "seconds": seconds}
    for found in figures.values():
        row |= found
    return row


def known(rows: list[dict[str, Any]], head: Mapping[str, Any]) -> dict[str, Any]:
    """The rows of one checkpoint merged into one, later ones before earlier ones; its `tasks` are () without any."""
    merged: dict[str, Any] = {"tasks": ()}
    for row in rows:
        if all(row[name] == head[name] for name in SAME):
            merged |= row | {"tasks": list(dict.fromkeys([*merged["tasks"], *row["tasks"]]))}
    return merged


def history(run: Path, config: Config) -> list[dict[str, Any]]:
    """What is known of each checkpoint of a run, by rising step, also of those that are no longer there."""
    rows = read_rows(run)
    heads = {row["step"]: row for row in rows if row["config"] == config_digest(config)}
    return [known(rows, heads[step]) for step in sorted(heads)]


def mean_bits(row: Mapping[str, Any]) -> float:
    """The renormalised bits per item, as the plain mean over the forms; the best checkpoint of a run has the lowest.

    Each form weighs the same, however many items it has; infinite if bits weren't measured.
    """
    if "bits_per_item" not in row:
        return float("inf")
    return float(np.mean([entry["renormalised"] for entry in row["bits_per_item"].values()]))
