"""What seeds can say: means with Student's intervals, and paired differences against the baseline."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import scipy.stats

from omnijax.errors import ConfigError

CONFIDENCE = 0.95
Verdict = Literal["lower", "higher", "not distinguishable", "one seed", "not comparable"]


@dataclasses.dataclass(frozen=True)
class Interval:
    """A mean over seeds and what is known about it.

    Attributes:
        mean: of the values; NaN if there are none.
        low: lower end of the confidence interval; NaN with fewer than two values, which say nothing about how far
            seeds are apart.
        high: upper end.
        count: how many values.
    """

    mean: float
    low: float
    high: float
    count: int

    @property
    def half(self) -> float:
        """Half the width: `mean ± half`. NaN with fewer than two values."""
        return (self.high - self.low) / 2

    def excludes(self, value: float) -> bool:
        """Whether the interval lies wholly on one side of a value; False where there is no interval."""
        return self.low > value or self.high < value


def interval(values: Sequence[float], confidence: float = CONFIDENCE) -> Interval:
    """Mean and Student-t interval of independent values that are nearly normal: one for each seed.

    The interval is mean ± t(n - 1) · s / √n, with the sample's own standard deviation s (n - 1 in its denominator).
    Two values give a very wide one (t is 12.7 then): little is known, and it says so.

    Args:
        values: one for each seed.
        confidence: how often such an interval holds the true mean.

    Raises:
        ConfigError: the confidence isn't between 0 and 1.
    """
    if not 0 < confidence < 1:
        raise ConfigError("confidence", confidence, "it must lie between 0 and 1", "0.95 is usual")
    found = np.asarray(values, np.float64)
    if found.size < 2:
        return Interval(float(found[0]) if found.size else math.nan, math.nan, math.nan, found.size)
    mean = float(found.mean())
    quantile = float(scipy.stats.t.ppf((1 + confidence) / 2, found.size - 1))
    half = quantile * float(found.std(ddof=1)) / math.sqrt(found.size)
    return Interval(mean, mean - half, mean + half, found.size)


def paired(arm: Mapping[int, float], baseline: Mapping[int, float], confidence: float = CONFIDENCE) -> Interval:
    """Interval of the differences arm - baseline over the seeds that both have (paired t).

    A seed draws the same order of documents in both, so that what it brings by itself cancels, and the interval is
    narrower than that of either arm.

    Args:
        arm: value of each seed.
        baseline: likewise.
        confidence: how often such an interval holds the true difference.

    Raises:
        ConfigError: the confidence isn't between 0 and 1.
    """
    return interval([arm[seed] - baseline[seed] for seed in sorted(arm.keys() & baseline.keys())], confidence)


def verdict(difference: Interval) -> Verdict:
    """What a paired difference allows to say about the arm, held against the baseline.

    `one seed`: there is no interval, so nothing about chance can be said. `not comparable`: no seed ran in both, or a
    value isn't a finite number.
    """
    if difference.count == 0 or not math.isfinite(difference.mean):
        return "not comparable"
    if difference.count == 1:
        return "one seed"
    if not difference.excludes(0.0):
        return "not distinguishable"
    return "lower" if difference.mean < 0 else "higher"


def overlap(one: Interval, other: Interval) -> bool:
    """Whether two intervals share a value; True where one of them is unknown."""
    return not (one.low > other.high or one.high < other.low)
