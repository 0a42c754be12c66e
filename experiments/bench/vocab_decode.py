"""Decoding [64, 4096] and [1024, 4096] tokens, all fields and error codes, against a pass that writes one array.

    python experiments/bench/vocab_decode.py

The pass is a jitted function that reads the same tokens and writes one int32 array. A decoder that returns six arrays
may take 4 × 6 times as long. The tokens are fragments in which one token in fifty was replaced by a random one.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from row import Row, spread

from omnijax.vocab.decode import decode
from omnijax.vocab.documents import Documents, Segment
from omnijax.vocab.encode import encode
from omnijax.vocab.ids import PrimaryIds
from omnijax.vocab.vocabulary import Space, Vocabulary

UNIT = "million tokens a second; ratio: passes that write one int32 array, for each array returned"
MOST = 4
TOKENS = 4096
DAMAGED = 0.02


def vocabularies() -> dict[str, Vocabulary]:
    """The vocabularies that are decoded, by name."""
    image, wide = (Space("image", 2**18),), (Space("patch", 2**96),)
    two = (*image, Space("sound", 500))
    marked: dict[str, Any] = {"control": ("image", "sound", "eos"), "spaces": two}
    return {
        "base 64, fixed, after": Vocabulary(
            positions=2048, digits=64, base=64, width="fixed", spaces=image, control=("image", "eos")
        ),
        "base 64, fixed, before, inline": Vocabulary(
            positions=2048, digits=64, base=64, width="fixed", position="before", layout="inline", **marked
        ),
        "base 9, minimal, after, mixed spaces": Vocabulary(positions=2048, digits=10, base=9, **marked),
        "base 64, fixed, no position": Vocabulary(
            positions=0, digits=64, base=64, width="fixed", position="none", **marked
        ),
        "base 64, fixed, little endian, check digit, two position tokens": Vocabulary(
            positions=64, position_places=2, digits=64, base=64, width="fixed", digit_order="little", check_digit=True,
            spaces=image, control=("image", "eos"),
        ),
        "2^96 ids, base 256, fixed, after": Vocabulary(
            positions=2048, digits=256, base=256, width="fixed", spaces=wide, control=("patch", "eos")
        ),
    }  # fmt: skip


def streams(v: Vocabulary, rows: int) -> jax.Array:
    """int32[rows, TOKENS]: segments of the first space end to end, with some tokens damaged."""
    source = np.random.default_rng(0)
    size = v.spaces[0].size
    items = min(600, v.last_position or 600)
    count = 16 * TOKENS // items
    shape = count * items
    ids = source.integers(0, min(size, 2**62), shape)
    if v.secondary_size > 2**63:
        ids = source.integers(0, 2**32, (shape, v.limbs), np.uint32)
    segments = [[Segment(0, np.zeros(items, np.int32), part)] for part in np.split(ids, count)]
    tokens = encode(v, Documents.of(segments)).tokens.array
    tokens = np.resize(tokens, rows * TOKENS).reshape(rows, TOKENS)
    damaged = source.random(tokens.shape) < DAMAGED
    return jnp.asarray(np.where(damaged, source.integers(0, v.size, tokens.shape), tokens).astype(np.int32))


def seconds(function: Callable[[jax.Array], Any], tokens: jax.Array, repeats: int) -> list[float]:
    """Seconds of one call, several times."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        jax.block_until_ready(function(tokens))
        times.append(time.perf_counter() - start)
    return times


def rows(shapes: tuple[int, ...] = (64, 1024), rounds: int = 9) -> Iterator[Row]:
    """Measures each vocabulary at each number of streams."""
    one_pass = jax.jit(lambda tokens: tokens + 1)
    yield from floors(one_pass, shapes, rounds)
    for name, v in vocabularies().items():

        def read(tokens: jax.Array, v: Vocabulary = v) -> Any:
            return decode(v, PrimaryIds(tokens))

        for batch in shapes:
            tokens = streams(v, batch)
            arrays = len(jax.tree.leaves(jax.block_until_ready(read(tokens))))
            jax.block_until_ready(one_pass(tokens))
            what = f"{name} [{batch}, {TOKENS}], {arrays} arrays"
            yield compare(what, one_pass, read, tokens, arrays, rounds, f"≤ {MOST}")


def floors(one_pass: Callable[[jax.Array], Any], shapes: tuple[int, ...], rounds: int) -> Iterator[Row]:
    """The cost of writing six arrays and nothing else, because several large results need new memory each time."""
    six = jax.jit(lambda tokens: tuple(tokens + k for k in range(6)))
    for batch in shapes:
        tokens = jnp.zeros((batch, TOKENS), jnp.int32)
        jax.block_until_ready((one_pass(tokens), six(tokens)))
        yield compare(f"writing alone [{batch}, {TOKENS}], 6 arrays", one_pass, six, tokens, 6, rounds, "the floor")


def compare(
    what: str,
    one_pass: Callable[[jax.Array], Any],
    read: Callable[[jax.Array], Any],
    tokens: jax.Array,
    arrays: int,
    rounds: int,
    demand: str,
) -> Row:
    """Times of the pass and of another function, run in turns."""
    passes, reads = [], []
    for _ in range(rounds):
        passes += seconds(one_pass, tokens, 5)
        reads += seconds(read, tokens, 2)
    middle = float(np.median(reads))
    ratio = middle / float(np.median(passes)) / arrays
    return Row(what, tokens.size / middle / 1e6, spread(reads), ratio, demand)


if __name__ == "__main__":
    for row in rows():
        print(f"{row.name}: {row.figure:.0f} million tokens/s, {row.ratio:.2f} passes for each array ({row.demand})")
