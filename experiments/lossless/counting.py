"""Models of pictures, sounds and texts that only count: how often each byte came after each context in training.

A byte's probability blends contexts, from the coarsest to the finest. After a context that was seen n times, before d
different bytes, a byte that came c times has the probability (c + d · p) / (n + d), where p is that after the coarser
context (Witten and Bell 1991; prediction by partial matching, method C). So nothing is tuned.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64, Int64, UInt8

from experiments.anchors.per_unit import of_signals
from omnijax.modalities import colours, predict
from omnijax.sweep.anchors import Anchor, Measure

VALUES, SILENCE, END = 256, 128, b"\xff"
ORDERS = 5
"""Bytes of text before the one that is counted."""


class Signals(NamedTuple):
    """Bytes to be counted.

    Attributes:
        values: uint8[bytes], those of all signals.
        contexts: int64[bytes] each, below 2^55, from the coarsest to the finest.
    """

    values: UInt8[np.ndarray, " bytes"]
    contexts: Sequence[Int64[np.ndarray, " bytes"]]


def bits(train: Signals, heldout: Signals) -> Float64[np.ndarray, " bytes"]:
    """Bits that each held-out byte takes, float64[bytes], with probabilities from the counts of the training bytes."""
    chance = np.full(len(heldout.values), 1 / VALUES)
    for known, asked in zip(train.contexts, heldout.contexts, strict=True):
        pairs, counts = np.unique(known * VALUES + train.values, return_counts=True)
        contexts, starts, kinds = np.unique(pairs // VALUES, return_index=True, return_counts=True)
        totals = np.add.reduceat(counts, starts)
        distinct = _found(contexts, kinds, asked)
        seen = _found(pairs, counts, asked * VALUES + heldout.values)
        total = _found(contexts, totals, asked) + distinct
        chance = np.where(total > 0, (seen + distinct * chance) / np.maximum(total, 1), chance)
    return -np.log2(chance)


def _found(
    keys: Int64[np.ndarray, " keys"], values: Int64[np.ndarray, " keys"], asked: Int64[np.ndarray, " n"]
) -> Int64[np.ndarray, " n"]:
    """The value of each key that is asked for; 0 where it isn't there."""
    place = np.minimum(np.searchsorted(keys, asked), len(keys) - 1)
    return np.where(keys[place] == asked, values[place], 0)


def of_pictures(pictures: Sequence[UInt8[np.ndarray, "h w 3"]]) -> Signals:
    """Residuals of green, red - green and blue - green, in the contexts of residuals that were coded before.

    Contexts: the channel; with it, the summed size of four neighbours' residuals in this channel; with both, the size
    of the residual in the channel before.
    """
    residuals = predict.residuals(colours.written(np.stack(pictures), "green", VALUES), VALUES)
    size = np.abs(residuals.astype(np.int8).astype(np.int64))
    padded = np.pad(size, ((0, 0), (1, 0), (1, 1), (0, 0)))
    near = padded[:, 1:, :-2] + padded[:, :-1, 1:-1] + padded[:, :-1, :-2] + padded[:, :-1, 2:]
    channel = np.broadcast_to(np.arange(3), size.shape)
    before = np.pad(size[..., :-1], ((0, 0),) * 3 + ((1, 0),))
    coarse = channel * 64 + _steps(near)
    contexts = (channel, coarse, coarse * 64 + _steps(4 * before))
    return Signals(residuals.ravel(), [one.ravel().astype(np.int64) for one in contexts])


def of_sounds(sounds: Sequence[UInt8[np.ndarray, " samples"]]) -> Signals:
    """Second differences. Contexts: none; the summed size of the last four; with it, the last two themselves."""
    found: list[list[np.ndarray]] = [[], [], [], []]
    for sound in sounds:
        differences = np.diff(sound.astype(np.int64), prepend=[SILENCE, SILENCE], n=2)
        padded = np.pad(differences, (4, 0))
        near = sum(np.abs(padded[4 - back : len(padded) - back]) for back in (1, 2, 3, 4))
        last, other = (np.clip(padded[4 - back : len(padded) - back], -15, 15) + 15 for back in (1, 2))
        values = (differences % VALUES).astype(np.uint8)
        coarse = _steps(near)
        for column, part in zip(found, (values, 0 * coarse, coarse, (coarse * 32 + last) * 32 + other), strict=True):
            column.append(part)
    values, *contexts = (np.concatenate(column) for column in found)
    return Signals(values, contexts)


def of_texts(texts: Sequence[bytes]) -> Signals:
    """The bytes of each text, and its end. Contexts of a byte: the last 0, 1, … `ORDERS` bytes of the same text."""
    whole = np.frombuffer(b"".join(bytes(ORDERS) + text + END for text in texts), np.uint8)
    inside = np.concatenate([np.arange(ORDERS + len(text) + 1) >= ORDERS for text in texts])
    (places,) = np.nonzero(inside)
    contexts = [np.zeros(len(places), np.int64)]
    for order in range(1, ORDERS + 1):
        contexts.append(contexts[-1] * VALUES + whole[places - order])
    return Signals(whole[places], contexts)


def _steps(sizes: Int64[np.ndarray, "..."]) -> Int64[np.ndarray, "..."]:
    """Two steps for each doubling."""
    return np.rint(2 * np.log2(1 + sizes)).astype(np.int64)


MODELS = {"picture": of_pictures, "sound": of_sounds, "text": of_texts}
TOLD = {
    "picture": "median-predictor residuals after sizes of residuals nearby and in the channel before",
    "sound": "second differences after those before them",
    "text": f"bytes after up to {ORDERS} bytes",
}


def anchors(train: dict[str, list], heldout: dict[str, list], units: dict[str, Measure]) -> Iterator[Anchor]:
    """Bits per unit of the held-out signals of each field."""
    for field, signals_of in MODELS.items():
        each = bits(signals_of(train[field]), signals_of(heldout[field]))
        sizes = np.array([np.size(one) if field != "text" else len(one) for one in heldout[field]])
        counted = sizes + (field == "text")  # its end
        sums = np.add.reduceat(each, np.cumsum(counted) - counted)
        yield of_signals(
            "context counts", field, units[field], sums, sizes, f"counts of the training split: {TOLD[field]}"
        )
