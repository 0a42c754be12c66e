"""Does the grammar let a model say anything that can't be read? Samples from an untrained one, over every layout.

Each way of writing (layout, position, width, digit order, check digit, each with every other; radices, position places,
assignment, order, kind of segment in turn) gets a tiny transformer with fresh parameters. Everything that it samples
under the grammar has to be accepted by the checker, to decode without an error, and to come out of the encoder again as
the same tokens. The share of what it samples without the grammar that would pass is printed beside it.

    python experiments/bench/fuzz_sample.py --samples 100000

About fifteen minutes on 2 CPU cores, most of it compiling. Exits with 1 if a sample fails.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import sys
from collections.abc import Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import rich.console
import rich.progress

from omnijax.config import ModelConfig, SampleConfig, Target
from omnijax.errors import VocabularyError
from omnijax.model.transformer import Transformer
from omnijax.sample.sampler import Sampler
from omnijax.vocab.assemble import assemble
from omnijax.vocab.assignment.random import Random
from omnijax.vocab.decode import Error, Kind, decode
from omnijax.vocab.documents import Documents
from omnijax.vocab.encode import encode
from omnijax.vocab.grammar import Grammar, SegmentRule
from omnijax.vocab.ids import PrimaryIds
from omnijax.vocab.vocabulary import END, PAD, Space, Vocabulary

MODEL = ModelConfig(depth=1, width=16, heads=2, kv_heads=1, head_size=8, mlp_width=16)
ROWS = 512
FREE_SHARE = 4
"""One batch without the grammar for so many with it."""


class Counts(NamedTuple):
    """Of one way of writing, or of all.

    Attributes:
        samples: drawn under the grammar.
        failed: of these, not accepted, not read without an error, or not written again as the same tokens.
        free: drawn without it.
        passed: of these, what is a document all the same.
    """

    samples: int
    failed: int
    free: int
    passed: int


class Way(NamedTuple):
    """What is sampled."""

    vocabulary: Vocabulary
    target: Target


def ways() -> Iterator[Way]:
    """Every combination of the ways of writing that can be read back, with the other options in turn."""
    small, wide = Space("image", 100), Space("image", 2**96 - 5, assignment=Random(key=3))
    spaces = itertools.cycle([(small, Space("sound", 3)), (Space("sound", 3), wide), (small,)])
    bases = itertools.cycle([5, 16, (2, *(7, 16) * 16)])
    # As many values as no other cycle has, and no power of two, so that all meet.
    names, orders = itertools.cycle(["image", "sound", "image", "text", "image"]), itertools.cycle("rarraaa")
    places, ends = itertools.cycle([1, 2, 1, 1, 2, 1, 2, 1, 1, 2, 1]), itertools.cycle([(END,)] * 9 + [()] * 4)
    options = (
        ("grouped", "inline"),
        ("after", "before", "none"),
        ("minimal", "fixed"),
        ("big", "little"),
        (False, True),
    )
    for layout, position, width, digit_order, check_digit in itertools.product(*options):
        parts = {"layout": layout, "position": position, "width": width, "digit_order": digit_order}
        try:
            vocabulary = Vocabulary(
                general=6,
                positions=7,
                digits=16,
                base=next(bases),
                spaces=next(spaces),
                control=("text", "image", "sound", *next(ends)),
                check_digit=check_digit,
                position_places=next(places) if position != "none" else 1,
                **parts,
            )
        except VocabularyError:
            continue  # what can't be read back is no vocabulary
        name, order = next(names), {"r": "raster", "a": "any"}[next(orders)]
        if name not in [space.name for space in vocabulary.spaces]:
            name = "text"
        retries = 2 if check_digit and width == "fixed" else 0
        yield Way(
            vocabulary,
            Target(name, 0, 4, SampleConfig(retries=retries), order if position != "none" else "raster"),
        )


def wholes(way: Way, sampler: Sampler, params: object, rows: int, seed: int) -> np.ndarray:
    """Documents of a random text and what is sampled behind it."""
    v, random = way.vocabulary, np.random.default_rng(seed)
    boundary = [v.aos] if v.layout == "grouped" else []
    text = random.integers(1, 1 + v.general, (rows, 3))
    opening = np.column_stack([np.full(rows, v.token("text")), text, np.tile(boundary, (rows, 1))]).astype(np.int32)
    prompts = np.append(opening, np.full((rows, 1), v.token(way.target.name), np.int32), axis=1)
    lengths = np.full(rows, prompts.shape[1], np.int32)
    return np.append(prompts, sampler(params, prompts, lengths, jax.random.key(seed)).tokens, axis=1)


def passes(way: Way, tokens: np.ndarray) -> np.ndarray:
    """bool[rows]: a document that the checker accepts, that is read without an error, and written again the same."""
    v, target = way.vocabulary, way.target
    after = (END,) * (v.end is not None) + ("text",) * (target.name == "text")  # the prompt is a text, too
    rule = SegmentRule(target.name, target.min_items, target.max_items, then=after)
    accepted = jax.jit(Grammar(v, (rule,), order=target.order).accepts)(PrimaryIds(jnp.asarray(tokens)))
    reading = jax.device_get(decode(v, PrimaryIds(jnp.asarray(tokens))))
    good = np.asarray(accepted) & (reading.error == Error.NONE).all(axis=1)
    for row, documents in zip(
        np.flatnonzero(good), assemble(v, reading._replace(**picked(reading, good))), strict=True
    ):
        good[row] = len(documents) == 1 and written_again(way, documents[0], reading, row, tokens[row])
    return good


def picked(reading: object, rows: np.ndarray) -> dict[str, object]:
    """The fields of a reading, some rows of them."""
    fields = reading._asdict()
    return {name: tuple(x[rows] for x in part) if name == "high" else part[rows] for name, part in fields.items()}


def written_again(way: Way, document: list, reading: object, row: int, tokens: np.ndarray) -> bool:
    """The encoder writes this document, its fragments in the order in which they stand, with the same tokens."""
    order, first = [], 0
    for number, segment in enumerate(document):
        places = np.arange(len(segment.ids))
        if way.vocabulary.position != "none":
            here = (reading.segment[row] == number + 1) & (reading.kind[row] == Kind.FRAGMENT)
            fragments = reading.position[row][here] - 1
            places = np.append(np.setdiff1d(places, fragments), fragments)
        order.append(first + places)
        first += len(places)
    given = np.concatenate(order) if way.target.order == "any" else None
    again = encode(way.vocabulary, Documents.of([document]), given).tokens.array
    padded = np.full(tokens.size, PAD, np.int32)
    padded[: again.size] = again[: tokens.size]
    return bool((padded == tokens).all())


def fuzz(way: Way, samples: int, seed: int) -> Counts:
    """Samples one way of writing, at least so often."""
    model = Transformer(MODEL, way.vocabulary.size)
    params = jax.jit(model.init)(jax.random.key(seed))
    sampler = Sampler.of(model, way.vocabulary, way.target)
    rows = min(ROWS, samples)
    batches = -(-samples // rows)
    failed = sum(int((~passes(way, wholes(way, sampler, params, rows, seed + k))).sum()) for k in range(batches))
    loose = dataclasses.replace(way.target, sample=SampleConfig(grammar=False))
    free = Sampler.of(model, way.vocabulary, loose)
    count = -(-batches // FREE_SHARE)
    passed = sum(int(passes(way, wholes(way, free, params, rows, seed + k)).sum()) for k in range(count))
    return Counts(batches * rows, failed, count * rows, passed)


def main(samples: int, seed: int) -> Counts:
    """Samples every way of writing, and prints the counts."""
    every = list(ways())
    total = Counts(0, 0, 0, 0)
    console = rich.console.Console(stderr=True)
    with rich.progress.Progress(console=console, disable=not console.is_terminal) as progress:
        bar = progress.add_task("sampling", total=len(every))
        for number, way in enumerate(every):
            counts = fuzz(way, -(-samples // len(every)), seed + 1000 * number)
            total = Counts(*(a + b for a, b in zip(total, counts, strict=True)))
            v, target = way.vocabulary, way.target
            names = ("layout", "position", "width", "digit_order", "check_digit", "position_places", "base")
            parts = {name: getattr(v, name) for name in names}
            parts["base"] = "mixed" if isinstance(v.base, tuple) else v.base
            parts |= {"segment": target.name, "bits": sum(s.size for s in v.spaces).bit_length(), "order": target.order}
            print(json.dumps(parts | {END: v.end is not None} | counts._asdict()), flush=True)
            progress.advance(bar)
    share = total.passed / total.free
    print(json.dumps(total._asdict() | {"ways": len(every), "passed_without_grammar": round(share, 4)}))
    return total


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=100_000, help="under the grammar, over all ways of writing")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    sys.exit(1 if main(options.samples, options.seed).failed else 0)
