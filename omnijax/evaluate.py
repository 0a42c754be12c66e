"""What a trained model can do, on the held-out split: `eval.json`, examples, and the table that people read first."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import rich.console
import rich.progress
import rich.table
from jaxtyping import Int

from omnijax.checkpoint import FOLDER, Checkpoints
from omnijax.config import Config
from omnijax.data.corpus import Corpus, digit_modalities, fragment_records
from omnijax.data.prepare import prepare
from omnijax.data.records import Records, load_records
from omnijax.errors import CheckpointError
from omnijax.examples import Direction, collect
from omnijax.generate import Generated, Generator
from omnijax.inpainting import Completed, complete_half, measures
from omnijax.judges import Judges, fit_judges
from omnijax.likelihoods import bits_per_item
from omnijax.modalities import Modality, PatchImage
from omnijax.model.transformer import Transformer
from omnijax.run import device, load_config
from omnijax.sharding import mesh_that_fits
from omnijax.state import abstract_state

EVAL, SAMPLES = "eval.json", "samples.npz"
SHUFFLES = 20
DIGITS = 10


class Trained(NamedTuple):
    """A run, loaded."""

    config: Config
    generator: Generator
    step: int


def load_run(run: Path) -> Trained:
    """The newest checkpoint of a run, parameters only, on the devices that are here.

    Raises:
        CheckpointError: no run, or one without a checkpoint.
    """
    config = load_config(run)
    if not (run / FOLDER).is_dir():
        raise CheckpointError("run", str(run), "it has no checkpoint yet", "go on training it")
    model = Transformer(config.model, config.vocabulary.size)
    abstract = abstract_state(config, model, mesh_that_fits(config)).params
    with Checkpoints(run) as checkpoints:
        found = checkpoints.newest_params(abstract, config.vocabulary)
    if found is None:
        raise CheckpointError("run", str(run), "it has no checkpoint yet", "go on training it")
    step, params = found
    return Trained(config, Generator(config, model, params), step)


def evaluate(run: Path) -> dict[str, Any]:
    """Evaluates the newest checkpoint of a run; writes `eval.json` and `samples.npz` there.

    Returns:
        What stands in `eval.json`.

    Raises:
        CheckpointError: see `load_run`.
        DataError: the data set is damaged.
    """
    started = time.perf_counter()
    config, generator, step = load_run(run)
    prepare(config.data)
    modalities = digit_modalities(config.data)
    train, heldout = load_records(config.data, "train"), load_records(config.data, "heldout")
    corpus = fragment_records(config.vocabulary, heldout, modalities)
    count = min(config.eval.examples, len(heldout))
    labels = heldout.labels[:count]

    with rich.progress.Progress(transient=True, disable=not rich.console.Console().is_terminal) as progress:
        generator = dataclasses.replace(generator, progress=progress)
        bar = progress.add_task("evaluating", total=2 * len(config.eval.routes) + len(config.eval.completions) + 2)
        bits = bits_per_item(
            config, generator.model, generator.params, corpus, count
        )  # checks the data, so it is first
        progress.advance(bar)
        judges = fit_judges(train, config.data)
        progress.advance(bar)
        directions, free = {}, {}
        for number, route in enumerate(config.eval.routes):
            name = f"{route.through[0]}->{route.through[-1]}"
            key = jax.random.fold_in(jax.random.key(config.eval.seed), number)
            fragments = corpus.fragments[route.through[0]][:count]
            directions[name] = _judge(
                judges, modalities, route.through[-1], generator.along(route.through, fragments, key)
            )
            progress.advance(bar)
            free[name] = _without_grammar(generator, route.through, fragments, key).decodable
            progress.advance(bar)
        completions: dict[str, Completed] = {}
        for number, half in enumerate(config.eval.completions, len(config.eval.routes)):
            key = jax.random.fold_in(jax.random.key(config.eval.seed), number)
            completions[half] = _complete(generator, judges, train, corpus, half, key)
            progress.advance(bar)

    accuracies = {name: float(np.mean(d.judged == labels)) for name, d in directions.items()}
    shuffled = {name: _shuffled(d.judged, labels, config.eval.seed) for name, d in directions.items()}
    codec = [modalities["speech"].signal(ids) for ids in corpus.fragments["speech"][:count]]
    result = {
        "step": step,
        "examples": count,
        "directions": accuracies,
        "standard_errors": {name: float(np.sqrt(p * (1 - p) / count)) for name, p in accuracies.items()},
        "routes": {f"{r.through[0]}->{r.through[-1]}": "->".join(r.through) for r in config.eval.routes},
        "confusion": {name: _confusion(d.judged, labels) for name, d in directions.items()},
        "judges": {
            "image": float(np.mean(judges.image(heldout.images[:count]) == labels)),
            "speech": float(np.mean(judges.speech(heldout.speech[:count]) == labels)),
            "speech_codec": float(np.mean(judges.speech(codec) == labels)),
        },
        "bits_per_item": bits,
        "bits_per_pixel": _bits_per_pixel(bits, heldout.images[0].size),
        "decodable": float(np.mean([d.decodable for d in directions.values()])),
        "decodable_without_grammar": float(np.mean(list(free.values()))),
        "decodable_by_direction": {
            name: {"grammar": float(d.decodable.mean()), "free": float(free[name].mean())}
            for name, d in directions.items()
        },
        "completions": {half: measures(completed, labels) for half, completed in completions.items()},
        "shuffled_control": float(np.mean(list(shuffled.values()))),
        "shuffled_control_by_direction": shuffled,
        "chance": 1 / DIGITS,
        "sampling": {target.name: dataclasses.asdict(target.sample) for target in config.eval.targets},
        "device": device(),
        "seconds": time.perf_counter() - started,
    }
    np.savez_compressed(run / SAMPLES, allow_pickle=False, **collect(config, heldout, directions, completions, codec))
    (run / EVAL).write_text(json.dumps(result, indent=2) + "\n")
    return result


def _bits_per_pixel(bits: dict[str, dict[str, Any]], pixels: int) -> float:
    """Of pictures as they stand in raster order; of a drawn order the digits alone, since it says nothing of them."""
    form, part = ("image", "renormalised") if "image" in bits else ("image, any order", "digits")
    return float(bits[form][part] * bits[form]["items"] / pixels)


def _judge(judges: Judges, modalities: dict[str, Modality], target: str, generated: Generated) -> Direction:
    signals = [
        modalities[target].signal(ids) if good else None
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


def _complete(generator: Generator, judges: Judges, train: Records, corpus: Corpus, half: str, key: Any) -> Completed:
    """The pictures of the evaluated records, completed from one half of them."""
    image = digit_modalities(generator.config.data)["image"]
    assert isinstance(image, PatchImage)
    count = generator.config.eval.examples
    return complete_half(generator, judges, train, image, corpus.fragments["image"][:count], half, key)


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


def print_table(result: dict[str, Any], console: rich.console.Console) -> None:
    """The six directions, for people."""
    table = rich.table.Table(title=f"held-out accuracy, {result['examples']} examples, step {result['step']}")
    for column in ("direction", "accuracy", "by way of", "decodable", "without grammar", "pairing shuffled"):
        table.add_column(column, justify="left" if column in ("direction", "by way of") else "right")
    for name, accuracy in result["directions"].items():
        way = result["routes"][name].split("->")[1:-1]
        decodable = result["decodable_by_direction"][name]
        table.add_row(
            name,
            f"{accuracy:.3f} ± {result['standard_errors'][name]:.3f}",
            ", ".join(way) or "—",
            f"{decodable['grammar']:.3f}",
            f"{decodable['free']:.3f}",
            f"{result['shuffled_control_by_direction'][name]:.3f}",
        )
    console.print(table)
    for half, found in result["completions"].items():
        console.print(
            f"completed from the {half} half: {found['accuracy']:.3f} ± {found['standard_error']:.3f} "
            f"({found['examples']} pictures; other half left blank {found['blank_accuracy']:.3f}, "
            f"a judge fitted on such halves {found['half_accuracy']:.3f})",
            highlight=False,
        )
    judges = ", ".join(f"{name} {accuracy:.3f}" for name, accuracy in result["judges"].items())
    console.print(f"judges on real held-out signals: {judges}; chance {result['chance']:.2f}", highlight=False)
