"""Means over seeds with Student's 95 % intervals, paired differences to the baseline, and how numbers are written."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import scipy.stats

CONFIDENCE = 0.95
Verdict = Literal["lower", "higher", "not distinguishable", "one seed", "not comparable"]


@dataclasses.dataclass(frozen=True)
class Interval:
    """A mean over seeds and its confidence interval.

    Attributes:
        mean: NaN if there are no values.
        low: lower end; NaN with fewer than two values, from which no interval can be computed.
        high: upper end.
        count: number of values.
    """

    mean: float
    low: float
    high: float
    count: int

    @property
    def half(self) -> float:
        """Half of its width, as in `mean ± half`; NaN with fewer than two values."""
        return (self.high - self.low) / 2

    def excludes(self, value: float) -> bool:
        """Whether the value lies outside; False if there is no interval."""
        return self.low > value or self.high < value


def interval(values: Sequence[float]) -> Interval:
    """Mean and Student-t interval of independent, nearly normal values, one for each seed: mean ± t(n - 1) · s / √n.

    s is the standard deviation of the sample, with n - 1 in its denominator. The interval of two values is very wide,
    since t is 12.7 then.
    """
    found = np.asarray(values, np.float64)
    mean, half = float(found.mean()) if found.size else math.nan, math.nan
    if found.size > 1:
        half = float(scipy.stats.t.ppf((1 + CONFIDENCE) / 2, found.size - 1) * scipy.stats.sem(found))
    return Interval(mean, mean - half, mean + half, found.size)


def paired(arm: Mapping[int, float], baseline: Mapping[int, float]) -> Interval:
    """Interval of the differences arm - baseline, by seed, over the seeds that both have (paired t).

    A seed draws the same order of documents in both. Its effect cancels, so the interval is narrower than each arm's.
    """
    return interval([arm[seed] - baseline[seed] for seed in sorted(arm.keys() & baseline.keys())])


def verdict(difference: Interval) -> Verdict:
    """What a paired difference shows: whether the arm is lower or higher than the baseline.

    `one seed`: there is no interval, so the difference may be chance. `not comparable`: no seed ran in both, or a value
    isn't finite.
    """
    if not math.isfinite(difference.mean):
        return "not comparable"
    if difference.count == 1:
        return "one seed"
    if not difference.excludes(0.0):
        return "not distinguishable"
    return "lower" if difference.mean < 0 else "higher"


def told(one: Interval, decimals: int = 3, sign: str = "") -> str:
    """`2.345 ± 0.012`; only the mean if there is no interval. `sign="+"` is for a difference."""
    if math.isnan(one.mean):
        return "–"
    mean = f"{one.mean:{sign}.{decimals}f}".replace("-", "\N{MINUS SIGN}")
    return f"{mean} ± {one.half:.{decimals}f}" if math.isfinite(one.half) else mean


def share(one: Interval) -> str:
    """A share in percent; the interval may exceed 0 or 100."""
    in_percent = Interval(100 * one.mean, 100 * one.low, 100 * one.high, one.count)
    return f"{told(in_percent, 1)}\N{NO-BREAK SPACE}%" if one.count else "–"


def quantity(value: float) -> str:
    """Three digits and an SI prefix."""
    prefixes = ["", "k", "M", "G", "T", "P", "E"]
    while abs(value) >= 999.5 and len(prefixes) > 1:
        value = value / 1000
        prefixes.pop(0)
    return f"{value:.3g}\N{NO-BREAK SPACE}{prefixes[0]}".rstrip() if math.isfinite(value) else "–"
