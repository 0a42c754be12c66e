"""What does the grammar cost in sampling, and what does it save? Compared with sampling the same model without it.

Uses the model of the digits demo with fresh parameters, its vocabulary, and 120 sequences after a spoken or written
word, with as many tokens with the grammar as without. Without skipping, each token needs a forward pass, so the
measurement is the grammar itself. With skipping, position tokens (which follow from the order of the picture), `aos`
and `eos` need no forward pass. Runs take turns, and a ratio is the median over neighbouring runs.

    python experiments/bench/vocab_sample.py

For the command of all parts, demands and results see `vocab.py`.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
from random_codes import prompt
from row import Row, spread

from omnijax.config import Config
from omnijax.experiment import load_experiment
from omnijax.model.transformer import Transformer
from omnijax.sample.generate import segment_target
from omnijax.sample.sampler import Sampler, SegmentTarget

DIGITS = Path(__file__).parents[1] / "digits.py"
REPEATS = 9


def run(config: Config, source: str, target: SegmentTarget, skip: bool) -> Callable[[int], float]:
    """Returns a function from a seed to the seconds for one token of all sequences."""
    v = config.vocabulary
    model = Transformer(config.model, v.size)
    params = jax.jit(model.init)(jax.random.key(0))
    random = np.random.default_rng(0)
    size, items = {"text": (v.general, 5), "speech": (v.spaces[2].size, 20)}[source]
    prompts = prompt(v, source, [random.integers(0, size, items) for _ in range(config.eval.batch_size)], target.name)
    sampler = Sampler.of(model, v, target, skip)

    def seconds(seed: int) -> float:
        start = time.perf_counter()
        tokens = np.asarray(sampler(params, *prompts, jax.random.key(seed)))
        return (time.perf_counter() - start) / int((tokens > 0).sum(axis=1).max())

    return seconds


def rows(repeats: int = REPEATS) -> list[Row]:
    """All rows of the sampler's part."""
    config = load_experiment(DIGITS)
    targets = {name: segment_target(config, name, 0) for name in ("image", "speech")}
    speech = dataclasses.replace(targets["speech"], min_items=targets["speech"].max_items)
    table = []
    for source, target in (("text", targets["image"]), ("text", speech), ("speech", targets["image"])):
        free = dataclasses.replace(target, sample=dataclasses.replace(target.sample, grammar=False))
        ways = {
            "without the grammar (the reference)": (run(config, source, free, False), ""),
            "with it, each token drawn": (run(config, source, target, False), "≤ 1.1 × the reference"),
            "with it, forced tokens skipped": (run(config, source, target, True), "< 1 × the reference"),
        }
        found: dict[str, list[float]] = {name: [] for name in ways}
        for repeat in range(repeats + 1):
            for name, (seconds, _) in ways.items():
                taken = seconds(repeat)
                if repeat:  # the first one compiles
                    found[name].append(taken)
        reference = np.array(next(iter(found.values())))
        for name, (_, demand) in ways.items():
            taken = np.array(found[name])
            figure, ratio = 1e-3 * config.eval.batch_size / float(np.median(taken)), float(np.median(taken / reference))
            table.append(Row(f"{source} → {target.name}, {name}", figure, spread(taken), ratio, demand))
    return table


if __name__ == "__main__":
    for line in rows():
        print(json.dumps(line._asdict(), ensure_ascii=False))
