"""What is measured of a run: a table of tasks, each a function of a loaded run and a split."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
import rich.console
import rich.progress

from omnijax.config import Route
from omnijax.errors import ConfigError
from omnijax.evaluate.held_out import interval, ranks_of
from omnijax.evaluate.judging import Finding, Made, accuracy, examples, figures, judge_of, real_examples
from omnijax.evaluate.likelihoods import bits_per_item
from omnijax.evaluate.loading import Trained
from omnijax.evaluate.split import EvaluatedSplit, decoded


def measure_bits(trained: Trained, split: EvaluatedSplit) -> Finding:
    """Exact bits per item of every form of document; per natural unit of lossless fields, beside classical codecs."""
    config, generator = trained.config, trained.generator
    units: dict[str, tuple[np.ndarray, str]] = {}
    anchors: dict[str, Any] = {}
    for field in config.generated:
        modality, places = split.modalities[field], split.places([field])
        signals = split.signals(field, places)
        found = [one for one in map(modality.units, signals) if one is not None]
        if not found or len(found) < len(signals) or not modality.lossless or field in config.data.several:
            continue
        counts = np.zeros(len(split.records), np.int64)
        counts[places] = [count for count, _ in found]
        units[field] = counts, found[0][1]
        if codecs := modality.anchors(signals):
            anchors[field] = {"unit": found[0][1], **codecs}
    origins = config.data.origins(config.eval.split)
    bits = bits_per_item(config, generator.model, generator.params, split.corpus, len(split.records), units, origins)
    return Finding({"bits_per_item": bits, "anchors": anchors})


def measure_directions(trained: Trained, split: EvaluatedSplit) -> Finding:
    """What is generated along each of `eval.routes`: how much decodes, the modality's metrics, what judges read."""
    config = trained.config
    found: dict[str, Any] = {}
    pages: dict[str, Any] = {}
    for number, route in enumerate(config.eval.routes):
        made, free = _along(trained, split, route, jax.random.fold_in(jax.random.key(config.eval.seed), number))
        found[route.name] = {"through": list(route.through), **figures(split, made), "decodable_without_grammar": free}
        pages[route.name] = examples(split, made)
    figure: dict[str, Any] = {"directions": found}
    for name in ("decodable", "decodable_without_grammar") if found else ():
        figure[name] = float(np.mean([one[name] for one in found.values()]))
    asked = {route.through[-1] for route in config.eval.routes} | {one.field for one in config.eval.completions}
    targets = [field for field in config.generated if field in asked]
    figure["sampling"] = {field: dataclasses.asdict(config.target(field).sample) for field in targets}
    return Finding(figure, {"directions": pages, "real": {field: real_examples(split, field) for field in targets}})


def _along(trained: Trained, split: EvaluatedSplit, route: Route, key: Any, bare: bool = True) -> tuple[Made, float]:
    """What a route generates; and, if `bare`, the share that decodes when its last step may use any token."""
    generator, (first, *_), (source, target) = trained.generator, route.through, route.through[-2:]
    places = split.places([first, target])
    if not len(places):
        places = split.having([first])  # a judge may read what has no real one beside it
    items = split.items(first, places)
    steps = generator.along(route.through, items, key)
    read = {field: decoded(split.modalities[field], one) for field, one in zip(route.through[1:], steps, strict=True)}
    signals, given = read.pop(target), split.signals(first, places)
    made = Made(target, places, signals, steps[-1].decodable, first, given, first, read)
    if not bare:
        return made, math.nan
    items = steps[-2].items if len(steps) > 1 else items
    free = dataclasses.replace(trained.config.target(target).sample, grammar=False)
    last = jax.random.fold_in(key, len(route.through) - 2)
    return made, float(generator.generate({source: items}, target, last, free).decodable.mean())


def measure_completions(trained: Trained, split: EvaluatedSplit) -> Finding:
    """What becomes of signals of which one half is given, for each of `eval.completions`."""
    found: dict[str, Any] = {}
    pages: dict[str, Any] = {}
    for number, one in enumerate(trained.config.eval.completions, len(trained.config.eval.routes)):
        key = jax.random.fold_in(jax.random.key(trained.config.eval.seed), number)
        modality, places = split.modalities[one.field], split.having([one.field])
        items = split.items(one.field, places)
        known = [modality.given(one.half, whole) for whole in items]
        blank = [modality.decode(whole, mask) for whole, mask in zip(items, known, strict=True)]
        generated = trained.generator.complete(one.field, items, known, key)
        signals, told = decoded(modality, generated), f"{one.half} half"
        made = Made(one.field, places, signals, generated.decodable, one.field, blank, told)
        found[one.name], pages[one.name] = figures(split, made), examples(split, made)
        judge = judge_of(split, one.field)
        if judge is not None and split.labels is not None:
            found[one.name] |= accuracy(judge(blank), split.labels[places], "blank_")
    return Finding({"completions": found}, {"completions": pages})


def measure_held_out(trained: Trained, split: EvaluatedSplit) -> Finding:
    """What is generated on each of `eval.held_out`, how often it is right, and how answers rank if there are any."""
    found: dict[str, dict[str, Any]] = {}
    pages: dict[str, Any] = {}
    for number, kind in enumerate(trained.config.eval.held_out):
        part, found[kind.kind] = split.sibling(kind), {}
        for place, route in enumerate(kind.routes):
            key = jax.random.fold_in(jax.random.key(trained.config.eval.seed), 1000 * (1 + number) + place)
            if not len(part.places(route.through[:1])):
                found[kind.kind][route.name] = {"examples": 0}
                continue
            made, _ = _along(trained, part, route, key, bare=False)
            row = figures(part, made)
            names = ("accuracy", "examples", "decodable", "judge", "judge_coded")
            right = {name: row[name] for name in names if name in row}
            right |= {"interval": interval(row["accuracy"], row["examples"])} if "accuracy" in row else {}
            ranks = ranks_of(trained, part, route, made.places)
            tops = {f"top_{n}": float((ranks <= n).mean()) for n in (1, 5)} if len(ranks) else {}
            anchors = trained.config.data.anchors(part.config.eval.split, route.name)
            found[kind.kind][route.name] = right | tops | {"anchors": dict(anchors)}
            pages[f"{kind.kind}/{route.name}"] = examples(part, made)
    return Finding({"tests": found}, {"held_out": pages}) if found else Finding({})


TASKS: dict[str, Callable[[Trained, EvaluatedSplit], Finding]] = {
    "bits": measure_bits,
    "directions": measure_directions,
    "completions": measure_completions,
    "held_out": measure_held_out,
}
"""By name, in the order in which they are done."""


def check_tasks(names: Sequence[str]) -> tuple[str, ...]:
    """The tasks of these names, in the order in which they are done; raises a `ConfigError` for others and for none."""
    for name in names or ("",):
        if name not in TASKS:
            raise ConfigError("tasks", name, f"the tasks are {', '.join(TASKS)}", "choose among these")
    return tuple(name for name in TASKS if name in names)


def run_tasks(
    trained: Trained, split: EvaluatedSplit, tasks: Sequence[str], stopped: Callable[[], bool] = lambda: False
) -> dict[str, Finding]:
    """What each of some tasks found, in their order; those that were done when `stopped` said so."""
    found: dict[str, Finding] = {}
    with rich.progress.Progress(transient=True, disable=not rich.console.Console().is_terminal) as progress:
        trained = trained._replace(generator=dataclasses.replace(trained.generator, progress=progress))
        for name in progress.track(tasks, description="evaluating"):
            if stopped():
                break
            found[name] = TASKS[name](trained, split)
    return found
