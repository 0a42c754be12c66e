"""Figures of generated signals, read by the judges of a data set, and pieces of a page that show them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Int

from omnijax.evaluate.split import EvaluatedSplit
from omnijax.source import Judge, signals_of

SHUFFLES = 20
NONE = -1
"""Class of what no judge could read."""


class Finding(NamedTuple):
    """What a task found: figures for JSON, and examples for the report by section and name (`examples.json`)."""

    figures: dict[str, Any]
    shown: dict[str, Any] = {}


class Made(NamedTuple):
    """Generated signals of a field.

    Attributes:
        field: their field.
        places: the record that each belongs to.
        signals: None where nothing could be decoded.
        decodable: where it could.
        given_field: the field that each was generated from.
        given: signals of that field.
        told: what these are, in words.
        between: generated signals of each field between the first and the last of a route; None where one can't be
            decoded.
    """

    field: str
    places: Int[np.ndarray, " n"]
    signals: list[Any]
    decodable: Bool[np.ndarray, " n"]
    given_field: str
    given: list[Any]
    told: str
    between: Mapping[str, list[Any]] = {}


def judge_of(split: EvaluatedSplit, field: str) -> Judge | None:
    """The judge of a field, which gives `NONE` for what is None; None if the field has no judge."""
    if split.labels is None or field not in split.judges:
        return None

    def read(signals: Sequence[Any]) -> Int[np.ndarray, " n"]:
        classes = np.full(len(signals), NONE, np.int64)
        readable = [place for place, signal in enumerate(signals) if signal is not None]
        if readable:
            classes[readable] = split.judges[field]([signals[place] for place in readable])
        return classes

    return read


def accuracy(classes: Int[np.ndarray, " n"], labels: Int[np.ndarray, " n"], prefix: str = "") -> dict[str, float]:
    """Share of the right classes, and its standard error."""
    share = float(np.mean(classes == labels))
    return {f"{prefix}accuracy": share, f"{prefix}standard_error": float(np.sqrt(share * (1 - share) / len(labels)))}


def figures(split: EvaluatedSplit, made: Made) -> dict[str, Any]:
    """How good generated signals are: `accuracy` and what belongs to it where the field has a judge, and metrics."""
    modality, real = split.modalities[made.field], split.signals(made.field, made.places)
    pairs = [(a, b) for a, b in zip(real, made.signals, strict=True) if a is not None and b is not None]
    found: dict[str, Any] = {"examples": len(made.places), "decodable": float(made.decodable.mean())}
    found["metrics"] = modality.metrics([a for a, _ in pairs], [b for _, b in pairs])
    judge = judge_of(split, made.field)
    if judge is None or split.labels is None:
        return found
    labels, classes, count = split.labels[made.places], judge(made.signals), len(split.config.data.classes)
    table = np.zeros((count, count + 1), np.int64)
    np.add.at(table, (labels, classes), 1)  # -1 is the last column
    # Each output against the label of another example: what the pairing is worth.
    random = np.random.default_rng(split.config.eval.seed)
    shuffled = [np.mean(classes == random.permutation(labels)) for _ in range(SHUFFLES)]
    found |= accuracy(classes, labels) | {
        "chance": 1 / count,
        "shuffled": float(np.mean(shuffled)),
        "confusion": table.tolist(),
    }
    if all(one is None for one in real):
        return found
    found["judge"] = accuracy(judge(real), labels)["accuracy"]
    if not modality.lossless:
        found["judge_coded"] = accuracy(judge(_coded(split, made.field, made.places)), labels)["accuracy"]
    return found


def _coded(split: EvaluatedSplit, field: str, places: Int[np.ndarray, " n"]) -> list[Any]:
    """Real signals as their items give them back."""
    return [split.modalities[field].decode(items) for items in split.items(field, places)]


def examples(split: EvaluatedSplit, made: Made) -> list[dict[str, Any]]:
    """A few generated signals as pieces of a page, with what they were generated from and the real ones."""
    judge, chosen = judge_of(split, made.field), shown(split, made.places)
    signals, records = [made.signals[place] for place in chosen], made.places[chosen]
    classes = [None] * len(chosen) if judge is None else judge(signals).tolist()
    given = [split.modalities[made.given_field].html(made.given[place], f"given, {made.told}") for place in chosen]
    kinds = {"made": ("generated", signals), "real": ("real", split.signals(made.field, records))}
    pieces = _pieces(split, made.field, records, kinds)
    for piece, one, read, place in zip(pieces, given, classes, chosen, strict=True):
        between = {field: _html(split, field, some[place], "on the way") for field, some in made.between.items()}
        piece |= {"given": one, "judged": read, "between": between}
    there = [piece for piece, signal in zip(pieces, signals, strict=True) if signal is not None]
    like = split.config.data.nearest(made.field, [signal for signal in signals if signal is not None])
    for piece, record in zip(there, like, strict=bool(like)):
        signal, credit = signals_of(record, made.field)[0], split.config.data.credit(record)
        piece["nearest"] = {"html": _html(split, made.field, signal, "nearest in training"), "credit": credit}
    return pieces


def real_examples(split: EvaluatedSplit, field: str) -> list[dict[str, Any]]:
    """A few real signals of a field as pieces of a page; `coded` through their items, where these lose something."""
    places = split.having([field])
    chosen = places[shown(split, places)]
    coded = [None] * len(chosen) if split.modalities[field].lossless else _coded(split, field, chosen)
    return _pieces(split, field, chosen, {"real": ("real", split.signals(field, chosen)), "coded": ("coded", coded)})


def _pieces(
    split: EvaluatedSplit, field: str, records: Int[np.ndarray, " n"], kinds: dict[str, tuple[str, list[Any]]]
) -> list[dict[str, Any]]:
    """HTML of some signals of each record, with what they are; None where there is none."""
    found, data = [], split.config.data
    for number, record in enumerate(records.tolist()):
        label = None if split.labels is None else int(split.labels[record])
        name = f"record {record}" if label is None else f"{data.label} {data.classes[label]}"
        pieces = {
            kind: _html(split, field, signals[number], f"{told}, {name}") for kind, (told, signals) in kinds.items()
        }
        credit = data.credit(split.records[record])
        found.append({"record": record, "class": label, "credit": credit, **pieces})
    return found


def _html(split: EvaluatedSplit, field: str, signal: Any, label: str) -> str | None:
    """A signal as a piece of a page; None if there is none."""
    return None if signal is None else split.modalities[field].html(signal, label)


def shown(split: EvaluatedSplit, places: Int[np.ndarray, " n"]) -> Int[np.ndarray, " m"]:
    """Which of some records the report shows: the first ones, of each class in turn."""
    if split.labels is None:
        return np.arange(min(split.config.eval.show, len(places)))
    labels = split.labels[places]
    rank = [int((labels[:place] == label).sum()) for place, label in enumerate(labels)]
    return np.lexsort((labels, rank))[: split.config.eval.show]
