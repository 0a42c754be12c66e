"""Anchors from bits of single signals, with standard errors."""

from __future__ import annotations

import math

import numpy as np

from omnijax.sweep.anchors import Anchor, Measure


def of_signals(name: str, modality: str, measure: Measure, each: np.ndarray, units: np.ndarray, note: str) -> Anchor:
    """The anchor of signals that were measured one by one.

    Args:
        name: see `Anchor`, like modality, measure and note.
        modality: see `Anchor`.
        measure: see `Anchor`.
        each: float [n], bits of every signal.
        units: int [n], pixels, samples or bytes of every signal.
        note: see `Anchor`.
    """
    bits, count = np.asarray(each, np.float64), np.asarray(units, np.float64)
    value = bits.sum() / count.sum()
    # The error of a ratio of sums (delta method). If all signals have one size, it is the error of their mean.
    error = np.std(bits - value * count, ddof=1) / math.sqrt(len(bits)) / count.mean()
    return Anchor(name, modality, measure, float(value), float(error), note)
