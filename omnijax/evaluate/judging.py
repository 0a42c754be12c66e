"""Figures of generated signals, read by the judges of a data set, and pieces of a page that show them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Int

from omnijax.evaluate.split import EvaluatedSplit

SHUFFLES = 20
NONE = -1
"""Class of what no judge could read."""


class Finding(NamedTuple):
    """What a task found: figures for JSON, and examples for the report by section and name (`examples.json`)."""

    figures: dict[str, Any]
    shown: dict[str, Any] = {}


class Made(NamedTuple):
    """Generated signals of a field, None where nothing could be decoded, and the record that each belongs to."""

    field: str
    places: Int[np.ndarray, " n"]
    signals: list[Any]
    decodable: Bool[np.ndarray, " n"]


def judged(split: EvaluatedSplit, field: str, signals: Sequence[Any]) -> Int[np.ndarray, " n"] | None:
    """The class that a judge reads in each signal, -1 for none; None if the field has no judge."""
    return None if split.labels is None or field not in split.judges else _read(split, field, signals)


def _read(split: EvaluatedSplit, field: str, signals: Sequence[Any]) -> Int[np.ndarray, " n"]:
    classes = np.full(len(signals), NONE, np.int64)
    readable = [place for place, signal in enumerate(signals) if signal is not None]
    if readable:
        classes[readable] = split.judges[field]([signals[place] for place in readable])
    return classes


def accuracy(classes: Int[np.ndarray, " n"], labels: Int[np.ndarray, " n"], prefix: str = "") -> dict[str, float]:
    """Share of the right classes, and its standard error."""
    share = float(np.mean(classes == labels))
    return {f"{prefix}accuracy": share, f"{prefix}standard_error": float(np.sqrt(share * (1 - share) / len(labels)))}


def figures(split: EvaluatedSplit, made: Made) -> dict[str, Any]:
    """How good generated signals are: `accuracy` and what belongs to it where the field has a judge, and metrics."""
    modality, real = split.modalities[made.field], split.signals(made.field, made.places)
    pairs = [(a, b) for a, b in zip(real, made.signals, strict=True) if b is not None]
    found: dict[str, Any] = {
        "examples": len(made.places),
        "decodable": float(made.decodable.mean()),
        "metrics": modality.metrics([a for a, _ in pairs], [b for _, b in pairs]),
    }
    if split.labels is None or made.field not in split.judges:
        return found
    labels, count = split.labels[made.places], len(split.config.data.classes)
    classes = _read(split, made.field, made.signals)
    table = np.zeros((count, count + 1), np.int64)
    np.add.at(table, (labels, classes), 1)  # -1 is the last column
    found |= accuracy(classes, labels) | {
        "chance": 1 / count,
        "shuffled": _shuffled(classes, labels, split.config.eval.seed),
        "confusion": table.tolist(),
        "judge": accuracy(_read(split, made.field, real), labels)["accuracy"],
    }
    if not modality.lossless:
        coded = _read(split, made.field, through_items(split, made.field, made.places))
        found["judge_coded"] = accuracy(coded, labels)["accuracy"]
    return found


def through_items(split: EvaluatedSplit, field: str, places: Int[np.ndarray, " n"]) -> list[Any]:
    """Real signals as their items give them back."""
    return [split.modalities[field].decode(items) for items in split.items(field, places)]


def _shuffled(classes: Int[np.ndarray, " n"], labels: Int[np.ndarray, " n"], seed: int) -> float:
    """Accuracy when each output is scored against the label of another example: what the pairing is worth."""
    random = np.random.default_rng(seed)
    return float(np.mean([np.mean(classes == random.permutation(labels)) for _ in range(SHUFFLES)]))


def examples(split: EvaluatedSplit, made: Made, given: Callable[[int], str]) -> list[dict[str, Any]]:
    """A few examples as pieces of a page; `given` makes the HTML of what a signal was generated from."""
    modality, real = split.modalities[made.field], split.signals(made.field, made.places)
    classes, labels = judged(split, made.field, made.signals), split.labels
    found = []
    for place in shown(split, made.places).tolist():
        record, signal = int(made.places[place]), made.signals[place]
        name = _class(split, record)
        found.append(
            {
                "record": record,
                "class": None if labels is None else int(labels[record]),
                "given": given(place),
                "made": None if signal is None else modality.html(signal, f"generated, {name}"),
                "real": modality.html(real[place], f"real, {name}"),
                "judged": None if classes is None else int(classes[place]),
            }
        )
    return found


def real_examples(split: EvaluatedSplit, field: str) -> list[dict[str, Any]]:
    """A few real signals of a field as pieces of a page; `coded` through their items, where these lose something."""
    modality, places = split.modalities[field], split.having([field])
    chosen = places[shown(split, places)]
    coded = [None] * len(chosen) if modality.lossless else through_items(split, field, chosen)
    return [
        {
            "record": int(place),
            "class": None if split.labels is None else int(split.labels[place]),
            "real": modality.html(signal, f"real, {_class(split, int(place))}"),
            "coded": None if back is None else modality.html(back, f"coded, {_class(split, int(place))}"),
        }
        for place, signal, back in zip(chosen, split.signals(field, chosen), coded, strict=True)
    ]


def shown(split: EvaluatedSplit, places: Int[np.ndarray, " n"]) -> Int[np.ndarray, " m"]:
    """Which of some records the report shows: the first ones, of each class in turn."""
    if split.labels is None:
        return np.arange(min(split.config.eval.show, len(places)))
    labels = split.labels[places]
    rank = np.zeros(len(labels), np.int64)
    for label in np.unique(labels):
        of_label = np.flatnonzero(labels == label)
        rank[of_label] = np.arange(of_label.size)
    return np.lexsort((labels, rank))[: split.config.eval.show]


def _class(split: EvaluatedSplit, record: int) -> str:
    if split.labels is None:
        return f"record {record}"
    return f"{split.config.data.label} {split.config.data.classes[split.labels[record]]}"
