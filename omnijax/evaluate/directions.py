"""What a run generates: one field from another, and signals from one half of them."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import numpy as np

from omnijax.config import Completion, Route
from omnijax.evaluate.judging import Finding, Made, accuracy, examples, figures, judged, real_examples
from omnijax.evaluate.loading import Trained
from omnijax.evaluate.split import EvaluatedSplit
from omnijax.modalities.base import Modality
from omnijax.sample.generate import Generated


def measure_directions(trained: Trained, split: EvaluatedSplit) -> Finding:
    """What is generated along each of `eval.routes`: how much decodes, the modality's metrics, what judges read."""
    config = trained.config
    found: dict[str, Any] = {}
    pages: dict[str, Any] = {}
    for number, route in enumerate(config.eval.routes):
        made, free = _along(trained, split, route, jax.random.fold_in(jax.random.key(config.eval.seed), number))
        decodable = {"decodable_without_grammar": float(free.decodable.mean())}
        found[route.name] = {"through": list(route.through), **figures(split, made), **decodable}
        source = route.through[0]
        modality, signals = split.modalities[source], split.signals(source, made.places)
        show = functools.partial(_shown, modality, signals, f"given, {source}")
        pages[route.name] = examples(split, made, show)
    figure: dict[str, Any] = {"directions": found}
    for name in ("decodable", "decodable_without_grammar") if found else ():
        figure[name] = float(np.mean([one[name] for one in found.values()]))
    asked = {route.through[-1] for route in config.eval.routes} | {one.field for one in config.eval.completions}
    targets = [field for field in config.generated if field in asked]
    figure["sampling"] = {field: dataclasses.asdict(config.target(field).sample) for field in targets}
    real = {field: real_examples(split, field) for field in targets}
    return Finding(figure, {"directions": pages, "real": real})


def _shown(modality: Modality, signals: list[Any], label: str, place: int) -> str:
    return modality.html(signals[place], label)


def _along(trained: Trained, split: EvaluatedSplit, route: Route, key: Any) -> tuple[Made, Generated]:
    """What comes out at the end of a route; and what does at its last step with nothing forbidden."""
    generator, (*_, source, target) = trained.generator, route.through
    places = split.having([route.through[0], target])
    items = split.items(route.through[0], places)
    generated = generator.along(route.through, items, key)
    modality = split.modalities[target]
    signals = [
        modality.decode(one) if good else None for one, good in zip(generated.items, generated.decodable, strict=True)
    ]
    if len(route.through) > 2:
        items = generator.along(route.through[:-1], items, key).items
    free = dataclasses.replace(trained.config.target(target).sample, grammar=False)
    last = jax.random.fold_in(key, len(route.through) - 2)
    return Made(target, places, signals, generated.decodable), generator.generate({source: items}, target, last, free)


def measure_completions(trained: Trained, split: EvaluatedSplit) -> Finding:
    """What becomes of signals of which one half is given, for each of `eval.completions`."""
    found: dict[str, Any] = {}
    pages: dict[str, Any] = {}
    for number, one in enumerate(trained.config.eval.completions, len(trained.config.eval.routes)):
        key = jax.random.fold_in(jax.random.key(trained.config.eval.seed), number)
        found[one.name], pages[one.name] = _completed(trained, split, one, key)
    return Finding({"completions": found}, {"completions": pages})


def _completed(trained: Trained, split: EvaluatedSplit, one: Completion, key: Any) -> tuple[dict[str, Any], Any]:
    """Figures and examples of one half; `blank` are the signals with nothing in the other half."""
    modality, places = split.modalities[one.field], split.having([one.field])
    items = split.items(one.field, places)
    known = [modality.given(one.half, whole) for whole in items]
    blank = [modality.decode(whole, mask) for whole, mask in zip(items, known, strict=True)]
    generated = trained.generator.complete(one.field, items, known, key)
    signals = [
        modality.decode(whole) if good else None
        for whole, good in zip(generated.items, generated.decodable, strict=True)
    ]
    made = Made(one.field, places, signals, generated.decodable)
    found = figures(split, made)
    classes = judged(split, one.field, blank)
    if classes is not None and split.labels is not None:
        found |= accuracy(classes, split.labels[places], "blank_")
    return found, examples(split, made, functools.partial(_shown, modality, blank, f"given, {one.half} half"))
