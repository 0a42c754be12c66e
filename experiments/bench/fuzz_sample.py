"""Does the grammar let a model write anything that can't be read? Samples an untrained model over every layout.

Each way of writing gets a tiny transformer with fresh parameters. Ways combine layout, position, width, digit order and
check digit in full; radices, position places, assignment, order and kind of segment vary in turn. Every sample under
the grammar must be accepted by the checker, decode without an error, and encode to the same tokens again. The share of
samples without the grammar that would pass is printed too.

    python experiments/bench/fuzz_sample.py --samples 100000

Takes about fifteen minutes on 2 CPU cores, most of it compiling; `python experiments/prove.py fuzz_sample` does it in
parts. The exit status is 1 if a sample fails.
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
from parts import add_part, pick

from omnijax.config import ModelConfig, SampleConfig
from omnijax.errors import VocabularyError
from omnijax.model.transformer import Transformer
from omnijax.sample.sampler import Sampler, SegmentTarget
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
"""There is one batch without the grammar for this many with it."""


class Counts(NamedTuple):
    """Counts for one way of writing, or for all.

    Attributes:
        samples: number of samples under the grammar.
        failed: number of these that weren't accepted, decoded with an error, or encoded to other tokens.
        free: number of samples without the grammar.
        passed: number of these that are documents all the same.
    """

    samples: int
    failed: int
    free: int
    passed: int


class Way(NamedTuple):
    """A way of writing: a vocabulary, and what is sampled."""

    vocabulary: Vocabulary
    target: SegmentTarget


def ways() -> Iterator[Way]:
    """Every combination of the main options that can be read back. The other options vary in turn."""
    small, wide = Space("image", 100), Space("image", 2**96 - 5, assignment=Random(key=3))
    spaces = itertools.cycle([(small, Space("sound", 3)), (Space("sound", 3), wide), (small,)])
    bases = itertools.cycle([5, 16, (2, *(7, 16) * 16)])
    # No two cycles have the same length, and none is a power of two, so that all values meet.
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
            continue  # this combination can't be read back
        name, order = next(names), {"r": "raster", "a": "any"}[next(orders)]
        if name not in [space.name for space in vocabulary.spaces]:
            name = "text"
        order = order if position != "none" else "raster"
        yield Way(vocabulary, SegmentTarget(name, 0, 4, "any", order=order))


def wholes(way: Way, sampler: Sampler, params: object, rows: int, seed: int) -> np.ndarray:
    """Documents of a random text and a sampled segment after it."""
    v, random = way.vocabulary, np.random.default_rng(seed)
    boundary = [v.aos] if v.layout == "grouped" else []
    text = random.integers(1, 1 + v.general, (rows, 3))
    opening = np.column_stack([np.full(rows, v.token("text")), text, np.tile(boundary, (rows, 1))]).astype(np.int32)
    prompts = np.append(opening, np.full((rows, 1), v.token(way.target.name), np.int32), axis=1)
    lengths = np.full(rows, prompts.shape[1], np.int32)
    return np.append(prompts, sampler(params, prompts, lengths, jax.random.key(seed)), axis=1)


def passes(way: Way, tokens: np.ndarray) -> np.ndarray:
    """bool[rows]: the checker accepts the document, it decodes without an error, and encodes to the same tokens."""
    v, target = way.vocabulary, way.target
    after = (END,) * (v.end is not None) + ("text",) * (target.name == "text")  # the prompt is a text too
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
    """Some rows of the fields of a reading."""
    fields = reading._asdict()
    return {name: tuple(x[rows] for x in part) if name == "high" else part[rows] for name, part in fields.items()}


def written_again(way: Way, document: list, reading: object, row: int, tokens: np.ndarray) -> bool:
    """Whether the encoder writes this document, with the fragments in the same order, as the same tokens."""
    order, first = [], 0
    for number, segment in enumerate(document):
        places = np.arange(len(segment.ids))
        if way.vocabulary.position != "none":
            here = (reading.segment[row] == number + 1) & np.isin(reading.kind[row], (Kind.GENERAL, Kind.FRAGMENT))
            fragment = reading.kind[row][here] == Kind.FRAGMENT
            fragments = reading.position[row][here][fragment] - 1
            written = np.empty(len(places), np.int64)  # general tokens take the places that no fragment names
            written[fragment], written[~fragment] = fragments, np.setdiff1d(places, fragments)
            places = written
        order.append(first + places)
        first += len(places)
    given = np.concatenate(order) if way.target.order == "any" else None
    again = encode(way.vocabulary, Documents.of([document]), given).tokens.array
    padded = np.full(tokens.size, PAD, np.int32)
    padded[: again.size] = again[: tokens.size]
    return bool((padded == tokens).all())


def fuzz(way: Way, samples: int, seed: int) -> Counts:
    """Samples one way of writing, at least `samples` times."""
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


def main(samples: int, seed: int, part: str) -> Counts:
    """Samples every way of writing, or some of them, and prints the counts."""
    every = list(enumerate(ways()))
    chosen = pick(every, part)
    total = Counts(0, 0, 0, 0)
    console = rich.console.Console(stderr=True)
    with rich.progress.Progress(console=console, disable=not console.is_terminal) as progress:
        bar = progress.add_task("sampling", total=len(chosen))
        for number, way in chosen:
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
    print(json.dumps(total._asdict() | {"ways": len(chosen), "passed_without_grammar": round(share, 4)}))
    return total


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=100_000, help="samples under the grammar, over all ways")
    parser.add_argument("--seed", type=int, default=0)
    add_part(parser)
    options = parser.parse_args()
    sys.exit(1 if main(options.samples, options.seed, options.part).failed else 0)
