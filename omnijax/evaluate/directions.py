"""What a run generates, held against independent judges: one modality from another, and pictures from one half."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Int

from omnijax.evaluate.completions import Completed, complete_half, measures
from omnijax.evaluate.heldout import Heldout
from omnijax.evaluate.loading import Trained
from omnijax.evaluate.report_samples import Direction
from omnijax.modalities import PatchImage
from omnijax.sample.generate import Generated, Generator

SHUFFLES = 20
DIGITS = 10


class Found(NamedTuple):
    """What a task found.

    Attributes:
        figures: what JSON can hold.
        made: what was generated, by name, for the examples of the report.
    """

    figures: dict[str, Any]
    made: Mapping[str, Any] = {}


def measure_directions(trained: Trained, heldout: Heldout) -> Found:
    """How often judges see the right digit in what is generated along each of `eval.routes`."""
    config, generator, _ = trained
    if not config.eval.routes:
        return Found({"directions": {}})
    count = min(config.eval.examples, len(heldout.records))
    directions, free = {}, {}
    for number, route in enumerate(config.eval.routes):
        name = f"{route.through[0]}->{route.through[-1]}"
        key = jax.random.fold_in(jax.random.key(config.eval.seed), number)
        fragments = heldout.corpus.fragments[route.through[0]][:count]
        directions[name] = _judge(heldout, route.through[-1], generator.along(route.through, fragments, key))
        free[name] = _without_grammar(generator, route.through, fragments, key).decodable
    return Found(_figures(trained, heldout, count, directions, free), directions)


def measure_completions(trained: Trained, heldout: Heldout) -> Found:
    """How often judges see the right digit in pictures completed from each of `eval.completions`."""
    config, generator, _ = trained
    completed: dict[str, Completed] = {}
    for number, half in enumerate(config.eval.completions, len(config.eval.routes)):
        image = heldout.modalities["image"]
        assert isinstance(image, PatchImage)
        key = jax.random.fold_in(jax.random.key(config.eval.seed), number)
        fragments = heldout.corpus.fragments["image"][: config.eval.examples]
        completed[half] = complete_half(generator, heldout.judges, heldout.train, image, fragments, half, key)
    figures = {half: measures(one, heldout.records.labels[: len(one.pictures)]) for half, one in completed.items()}
    return Found({"completions": figures}, completed)


def _figures(
    trained: Trained, heldout: Heldout, count: int, directions: dict[str, Direction], free: dict[str, Any]
) -> dict[str, Any]:
    config, records, judges = trained.config, heldout.records, heldout.judges
    labels = records.labels[:count]
    accuracies = {name: float(np.mean(one.judged == labels)) for name, one in directions.items()}
    shuffled = {name: _shuffled(one.judged, labels, config.eval.seed) for name, one in directions.items()}
    return {
        "directions": accuracies,
        "standard_errors": {name: float(np.sqrt(p * (1 - p) / count)) for name, p in accuracies.items()},
        "routes": {f"{r.through[0]}->{r.through[-1]}": "->".join(r.through) for r in config.eval.routes},
        "confusion": {name: _confusion(one.judged, labels) for name, one in directions.items()},
        "judges": {
            "image": float(np.mean(judges.image(records.images[:count]) == labels)),
            "speech": float(np.mean(judges.speech(records.speech[:count]) == labels)),
            "speech_codec": float(np.mean(judges.speech(through_codebook(heldout, count)) == labels)),
        },
        "decodable": float(np.mean([one.decodable for one in directions.values()])),
        "decodable_without_grammar": float(np.mean(list(free.values()))),
        "decodable_by_direction": {
            name: {"grammar": float(one.decodable.mean()), "free": float(free[name].mean())}
            for name, one in directions.items()
        },
        "shuffled_control": float(np.mean(list(shuffled.values()))),
        "shuffled_control_by_direction": shuffled,
        "chance": 1 / DIGITS,
        "sampling": {target.name: dataclasses.asdict(target.sample) for target in config.eval.targets},
    }


def through_codebook(heldout: Heldout, count: int) -> list[Any]:
    """The first real utterances as the codebook gives them back."""
    return [heldout.modalities["speech"].signal(ids) for ids in heldout.corpus.fragments["speech"][:count]]


def _judge(heldout: Heldout, target: str, generated: Generated) -> Direction:
    judges = heldout.judges
    signals = [
        heldout.modalities[target].signal(ids) if good else None
        for ids, good in zip(generated.fragments, generated.decodable, strict=True)
    ]
    judged = np.full(len(signals), -1, np.int64)
    good = np.flatnonzero(generated.decodable)
    judge: Callable[[list[Any]], Int[np.ndarray, " n"]] = {
        "image": lambda found: judges.image(np.stack(found)),
        "speech": lambda found: judges.speech(found),
        "text": lambda found: judges.word(found),
    }[target]
    if good.size:
        judged[good] = judge([signals[i] for i in good])
    return Direction(signals, judged, generated.decodable)


def _without_grammar(generator: Generator, route: Sequence[str], fragments: Any, key: Any) -> Generated:
    """The last step of a route with nothing forbidden, from a source that is there."""
    *_, source, target = route
    if len(route) > 2:
        fragments = generator.along(route[:-1], fragments, key).fragments
    free = dataclasses.replace(generator.target(target).sample, grammar=False)
    return generator.generate(source, fragments, target, jax.random.fold_in(key, len(route) - 2), free)


def _shuffled(judged: Int[np.ndarray, " n"], labels: Int[np.ndarray, " n"], seed: int) -> float:
    """Accuracy when each output is held against the label of another example: what the pairing is worth."""
    random = np.random.default_rng(seed)
    return float(np.mean([np.mean(judged == random.permutation(labels)) for _ in range(SHUFFLES)]))


def _confusion(judged: Int[np.ndarray, " n"], labels: Int[np.ndarray, " n"]) -> list[list[int]]:
    """Rows: the true digit; columns: the judged digit, the last one for none."""
    table = np.zeros((DIGITS, DIGITS + 1), np.int64)
    np.add.at(table, (labels, judged), 1)  # -1 is the last column
    return [[int(n) for n in row] for row in table]
