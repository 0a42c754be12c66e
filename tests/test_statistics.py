"""Intervals over seeds: against scipy, and how often they hold the truth."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.stats

from omnijax.sweep.statistics import Interval, interval, paired, verdict


@pytest.mark.parametrize("count", [2, 3, 10])
def test_an_interval_is_that_of_scipy(count: int) -> None:
    values = np.random.default_rng(count).normal(3.0, 0.5, count)
    found = interval(values.tolist())
    wanted = scipy.stats.t.interval(0.95, count - 1, values.mean(), scipy.stats.sem(values))
    np.testing.assert_allclose((found.low, found.high), wanted, rtol=1e-12)
    np.testing.assert_allclose(found.half, (wanted[1] - wanted[0]) / 2, rtol=1e-9)
    assert (found.mean, found.count) == (values.mean(), count)


def test_three_values_by_hand() -> None:
    # s = 1, t(2) = 4.3026527, so half = 4.3026527 / sqrt(3).
    found = interval([1.0, 2.0, 3.0])
    assert found.mean == 2.0
    assert found.half == pytest.approx(2.4841377, abs=1e-6)


@pytest.mark.parametrize("count", [2, 3, 5])
def test_it_holds_the_truth_as_often_as_it_says(count: int) -> None:
    values = np.random.default_rng(count).normal(7.0, 2.0, (4000, count))
    held = np.mean([not interval(row).excludes(7.0) for row in values])
    assert abs(held - 0.95) < 0.015  # four standard errors of 4000 trials
    # The normal quantile, which many use, is far too narrow for a few seeds.
    narrow = np.mean(np.abs(values.mean(1) - 7.0) < 1.96 * values.std(1, ddof=1) / math.sqrt(count))
    assert narrow < 0.90


def test_a_paired_interval_is_that_of_scipy_and_takes_common_seeds() -> None:
    rng = np.random.default_rng(0)
    shared = rng.normal(0, 5.0, 6)
    arm, baseline = shared + rng.normal(1.0, 0.1, 6), shared + rng.normal(0, 0.1, 6)
    found = paired(dict(enumerate(arm)) | {77: 1e9}, {99: 1e9} | dict(enumerate(baseline)))
    wanted = scipy.stats.ttest_rel(arm, baseline).confidence_interval(0.95)
    np.testing.assert_allclose((found.low, found.high), tuple(wanted), rtol=1e-9)
    assert found.count == 6
    assert verdict(found) == "higher"
    # The effect of the seeds would hide it: the intervals of the arms themselves overlap.
    assert interval(arm).low < interval(baseline).high
    assert interval(baseline).low < interval(arm).high


def test_paired_differences_hold_the_truth_as_often_as_they_say() -> None:
    rng = np.random.default_rng(1)
    shared = rng.normal(0, 5.0, (4000, 3))
    arm, baseline = shared + rng.normal(0, 0.2, (4000, 3)), shared + rng.normal(0, 0.2, (4000, 3))
    verdicts = [verdict(paired(dict(enumerate(a)), dict(enumerate(b)))) for a, b in zip(arm, baseline)]
    alike = np.mean([one == "not distinguishable" for one in verdicts])
    assert abs(alike - 0.95) < 0.015
    assert {"lower", "higher", "not distinguishable"} == set(verdicts)


def test_few_seeds_are_called_few() -> None:
    one = interval([2.5])
    assert (one.mean, one.count) == (2.5, 1)
    assert math.isnan(one.low)
    assert math.isnan(one.high)
    assert not one.excludes(1000.0)
    assert verdict(one) == "one seed"
    two = interval([1.0, 1.1])
    assert two.half == pytest.approx(0.05 * 12.7062047, rel=1e-6)
    assert verdict(two) == "higher"
    assert verdict(Interval(1.05, 1.05 - 1.3, 1.05 + 1.3, 2)) == "not distinguishable"
    nothing = paired({0: 1.0}, {1: 1.0})
    assert nothing.count == 0
    assert math.isnan(nothing.mean)
    assert verdict(nothing) == "not comparable"
    assert verdict(interval([1.0, math.nan, 2.0])) == "not comparable"


def test_equal_values_are_alike_and_any_steady_difference_is_one() -> None:
    assert verdict(paired({0: 1.0, 1: 2.0}, {0: 1.0, 1: 2.0})) == "not distinguishable"
    assert verdict(paired({0: 1.0, 1: 2.0}, {0: 1.5, 1: 2.5})) == "lower"
