"""How numbers of a sweep are written: means with intervals, quantities, times."""

from __future__ import annotations

import math

from omnijax.sweep.statistics import Interval

MINUS = "\N{MINUS SIGN}"


def told(one: Interval, decimals: int = 3) -> str:
    """An interval as it stands in tables: `2.345 ± 0.012`; the mean alone, where there is no interval."""
    if not one.count or math.isnan(one.mean):
        return "–"
    mean = f"{one.mean:.{decimals}f}".replace("-", MINUS)
    return f"{mean} ± {one.half:.{decimals}f}" if math.isfinite(one.half) else mean


def signed(one: Interval, decimals: int = 3) -> str:
    """A difference, likewise."""
    return told(one, decimals) if one.mean < 0 or not one.count else f"+{told(one, decimals)}"


def share(one: Interval) -> str:
    """A share in percent, likewise; an interval isn't cut off at 0 or 100."""
    in_percent = Interval(100 * one.mean, 100 * one.low, 100 * one.high, one.count)
    return f"{told(in_percent, 1)}\N{NO-BREAK SPACE}%" if one.count else "–"


def quantity(value: float) -> str:
    """Three digits and a prefix of the SI."""
    if not math.isfinite(value):
        return "–"
    power = 0
    while abs(value) >= 999.5 and power < 6:
        value, power = value / 1000, power + 1
    return f"{value:.3g}\N{NO-BREAK SPACE}{('', 'k', 'M', 'G', 'T', 'P', 'E')[power]}".rstrip()


def duration(seconds: float) -> str:
    """A time with three digits at most, in its unit."""
    if not math.isfinite(seconds):
        return "–"
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.3g}\N{NO-BREAK SPACE}{unit}"
    return f"{seconds:.3g}\N{NO-BREAK SPACE}s"
