"""Compressors on the held-out words, one per line, and word frequencies, in bits per byte of the lines."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from experiments.anchors.codecs import FAMILIES, Best, Writing, best_after, best_of, settings
from experiments.anchors.per_unit import of_signals
from omnijax.sweep.anchors import Anchor

LINES = (Writing("lines", bytes, lambda data, like: data),)


def anchors(train: Sequence[str], heldout: Sequence[str]) -> Iterator[Anchor]:
    """General compressors on the words, by themselves and after those of the training split, and a word histogram.

    A line end counts as a byte: it marks the end of a word, like the closing token of a segment.

    Raises:
        PlatformError: a codec isn't lossless.
    """
    before, stream = _lines(train), _lines(heldout)
    for name in FAMILIES:
        best = best_of(settings(name, text=True), [stream], LINES)
        yield _anchor(f"{name}, one stream", best, heldout, "all lines in one")
        after = best_after(settings(name), before, stream, LINES, most_bytes=2**22)
        note = "the words of the training split are known to both sides"
        yield _anchor(f"{name}, one stream, after the training split", after, heldout, note)
    names, counts = np.unique(train, return_counts=True)
    counted = dict(zip(names.tolist(), counts.tolist(), strict=True))
    unseen = len(set(heldout) - counted.keys())
    # Jeffreys' prior adds half a count to each word. The ten words are known.
    total = len(train) + 0.5 * (len(counted) + unseen)
    bits = np.array([-np.log2((counted.get(word, 0) + 0.5) / total) for word in heldout])
    sizes = np.array([len(_lines([word])) for word in heldout])
    note = f"how often each word comes in the training split; {bits.mean():.3f} bits per word"
    yield of_signals("word histogram", "text", "bits per byte", bits, sizes, note)


def _lines(words: Sequence[str]) -> bytes:
    return "".join(f"{word}\n" for word in words).encode()


def _anchor(name: str, best: Best, heldout: Sequence[str], note: str) -> Anchor:
    bits = float(best.bits.sum())
    told = f"{note}; {bits / len(heldout):.3f} bits per word; best of several: {best.told}"
    return Anchor(name, "text", "bits per byte", bits / len(_lines(heldout)), None, told)
