"""What does a larger secondary vocabulary cost the model, compared with a flat softmax of the same size?

    python experiments/bench/flat.py
    python experiments/bench/flat.py --json --rounds 5

The two-level steps are the package's, at the shape of `step.py` (8 sequences of 512 tokens, or another number with
`--rows`). Their 600 primary tokens write fragments of spaces of 2^18, 2^32 and 2^64 entries. The flat step is that of
`plain.py` with one row of embedding and head for each of 2^18 fragments, over as many items as the two-level sequences
hold (a flat sequence has one token for each). The flat softmax is run as it is, and in chunks: then the logits of only
one chunk exist at a time, also in the backward pass. Steps run in turns in one process. Bytes are reported by the
compiler: arguments, results that don't reuse arguments, and temporaries.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import itertools
import sys
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import plain
import step as bench
from random_codes import RandomCodes
from row import Row, report

from omnijax.config import Config, Task
from omnijax.data.corpus import Corpus
from omnijax.model.transformer import Transformer, parameter_count
from omnijax.step.sharding import make_mesh, put_batch
from omnijax.step.state import init_state, make_step

sys.path.append(str(Path(__file__).parents[2] / "tests"))
from random_data import batches_of, column_of

BITS = (18, 32, 64)
FLAT_BITS = 18
TOKENS_AN_ITEM = 4  # at 2^18: three digits in base 64, and a position
CHUNK = 128  # tokens
RECORDS, ITEMS = 500, 30


class Way(NamedTuple):
    """A step that is compared.

    Attributes:
        run: does some steps and measures them.
        parameters: number of parameters.
        size: bytes while it runs.
        items: number of items in a batch.
    """

    run: bench.ByHand
    parameters: int
    size: int
    items: float


def two_level(bits: int, rows: int, steps: int) -> tuple[Config, Way]:
    """The package's step with a space of 2^bits fragments."""
    config = bench.bench_config()
    batch = dataclasses.replace(config.batch, tasks=(Task(("text", "image"), (1.0, 1.0)),), size=rows)
    data, writing = RandomCodes(sizes=(("image", 2**bits),)), dataclasses.replace(config.writing, positions=274)
    config = dataclasses.replace(config, data=data, writing=writing, batch=batch)
    vocabulary, random = config.vocabulary, np.random.default_rng(0)
    wide = {"size": (RECORDS, ITEMS, vocabulary.limbs), "dtype": np.uint32}
    narrow = {"size": (RECORDS, ITEMS), "dtype": np.int64}
    ids = random.integers(0, 2 ** min(bits, 32), **(narrow if vocabulary.secondary_size < 2**63 else wide))
    rows = {"text": list(random.integers(0, vocabulary.general, (RECORDS, 1))), "image": list(ids)}
    corpus = Corpus(vocabulary, {name: column_of(vocabulary, name, one) for name, one in rows.items()})
    mesh = make_mesh(config.mesh, jax.devices()[:1])
    model = Transformer(config.model, vocabulary.size)
    state, compiled = init_state(config, model, mesh), make_step(config, model, mesh)
    batches = [
        put_batch(mesh, batch, config.batch.size) for batch in itertools.islice(batches_of(corpus, config.batch), steps)
    ]
    items = float(np.mean([np.sum(batch["items"]) for batch in batches]))
    size, parameters = bytes_of(compiled.lower(state, batches[0]).compile()), parameter_count(state.params)

    def run(batch: Any) -> jax.Array:
        nonlocal state
        state, metrics = compiled(state, batch)
        return metrics.parts.loss / metrics.parts.weight

    return config, Way(bench.ByHand(run, batches), parameters, size, items)


def flat(config: Config, chunked: bool, steps: int) -> Way:
    """The step by hand with one row for each fragment."""
    model, t = Transformer(config.model, 2**FLAT_BITS), (config.batch.sequence_length - 1) // TOKENS_AN_ITEM
    params = jax.jit(model.init)(jax.random.key(0))
    random, shape = np.random.default_rng(0), (config.batch.size, t)
    ids = random.integers(0, 2**FLAT_BITS, (steps, *shape[:1], t + 1)).astype(np.int32)
    same = {
        "positions": jnp.broadcast_to(jnp.arange(t), shape),
        "documents": jnp.zeros(shape, jnp.int32),
        "weights": jnp.ones(shape),
    }
    batches = [{"tokens": jnp.asarray(x[:, :-1]), "targets": jnp.asarray(x[:, 1:]), **same} for x in ids]
    step = plain.Step(params, chunked_loss if chunked else functools.partial(plain.loss, 2**FLAT_BITS))
    size = bytes_of(step.compiled(batches[0]))
    return Way(bench.ByHand(step, batches), parameter_count(params), size, float(np.prod(shape)))


def chunked_loss(params: Any, batch: Any) -> jax.Array:
    """`plain.loss` with the logits of one chunk of tokens at a time. The backward pass computes them again."""
    x, head = plain.hidden(params, batch), params["ends"]["head"]
    parts = x.reshape(-1, CHUNK, x.shape[-1]), batch["targets"].reshape(-1, CHUNK), batch["weights"].reshape(-1, CHUNK)

    @jax.checkpoint
    def add(total: jax.Array, part: Any) -> tuple[jax.Array, None]:
        x, targets, weights = part
        return total + jnp.sum(plain.nats_of(x, head, targets) * weights), None

    total, _ = jax.lax.scan(add, jnp.zeros(()), parts)
    return total / jnp.sum(batch["weights"])


def bytes_of(compiled: Any) -> int:
    """Bytes of a program while it runs."""
    memory = compiled.memory_analysis()
    results = memory.output_size_in_bytes - memory.alias_size_in_bytes
    return int(memory.argument_size_in_bytes + results + memory.temp_size_in_bytes)


def measure(rounds: int, rows: int) -> dict[str, list[Row]]:
    """The rows of each table, by its title."""
    steps, ways = rounds + 1, {}
    for bits in BITS:
        config, ways[f"two levels, 2^{bits} fragments"] = two_level(bits, rows, steps)
    ways[f"flat, 2^{FLAT_BITS} fragments"] = flat(config, chunked=False, steps=steps)
    ways[f"flat, 2^{FLAT_BITS} fragments, loss in chunks of {CHUNK}"] = flat(config, chunked=True, steps=steps)
    taken: dict[str, list[bench.Seconds]] = {name: [] for name in ways}
    for number in range(steps):
        for name, way in ways.items():
            seconds = way.run.run(1)
            taken[name] += [seconds] if number else []  # the first step compiles
    first = next(iter(ways))
    seconds = {name: bench.Seconds(*np.array(times).T) for name, times in taken.items()}

    def counted(values: dict[str, float]) -> list[Row]:
        return [Row(name, value, 0.0, value / values[first], "") for name, value in values.items()]

    found = {
        "million parameters": counted({name: way.parameters / 1e6 for name, way in ways.items()}),
        "MiB that the compiled step holds": counted({name: way.size / 2**20 for name, way in ways.items()}),
        "items in a batch": counted({name: way.items for name, way in ways.items()}),
        "seconds a step": [bench.line(name, x.wall, x.wall / seconds[first].wall) for name, x in seconds.items()],
        "seconds a step of all cores together": [
            bench.line(name, x.cores, x.cores / seconds[first].cores) for name, x in seconds.items()
        ],
    }
    return {f"{title}; ratio to two levels of 2^{BITS[0]}": table for title, table in found.items()}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5, help="turns of each way; figures are medians over the turns")
    parser.add_argument("--rows", type=int, default=8, help="sequences in a batch")
    report(parser, lambda options: measure(options.rounds, options.rows))
