"""Decodes streams of primary tokens on the device, against one pass over the same bytes.

The vocabularies and streams are those of `experiments/bench/vocab_decode.py`.
"""

from __future__ import annotations

import functools
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import jax
from rates import Figure, measured, seconds

from omnijax.vocab.decode import decode
from omnijax.vocab.ids import PrimaryIds

sys.path.append(str(Path(__file__).parents[1] / "bench"))
import vocab_decode

DEMAND = 8.0


def figures(tiny: bool, until: float) -> Iterator[Figure]:
    """For each vocabulary, the time relative to a pass that reads the same tokens and writes as many int32 arrays.

    Args:
        tiny: toy sizes, and only the first vocabulary.
        until: no vocabulary is started after this time.
    """
    rows, rounds, calls = (4, 2, 1) if tiny else (8192, 7, 4)
    worst = 0.0
    for name, v in list(vocab_decode.vocabularies().items())[: 1 if tiny else None]:
        if time.time() > until:
            yield Figure(f"{name}: left out, no time", None, "")
            continue
        tokens = vocab_decode.streams(v, rows)
        read = functools.partial(decode, v, PrimaryIds(tokens))
        arrays = len(jax.tree.leaves(jax.eval_shape(read)))
        alone = measured(seconds(functools.partial(_one_pass, tokens, arrays), rounds, calls))
        decoded = measured(seconds(read, rounds, calls))
        worst = max(worst, decoded.value / alone.value)
        yield Figure(f"{name}: tokens a second", tokens.size / decoded.value, "tokens/s", decoded.spread)
        yield Figure(f"{name}: a pass", (1 + arrays) * tokens.nbytes / alone.value / 1e9, "GB/s", alone.spread)
        yield Figure(f"{name}: time over the pass", decoded.value / alone.value, "×", decoded.spread)
    held = None if tiny else worst <= DEMAND
    yield Figure("decoder: time over the pass, slowest vocabulary", worst, "×", None, f"≤ {DEMAND:g}", held)


@functools.partial(jax.jit, static_argnums=1)
def _one_pass(tokens: jax.Array, arrays: int) -> tuple[jax.Array, ...]:
    """Reads the tokens once, and writes the same number of arrays of their size."""
    return tuple(tokens + k for k in range(arrays))
