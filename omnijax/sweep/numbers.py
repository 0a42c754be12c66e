"""How numbers are written in tables: means with intervals, quantities, times."""

from __future__ import annotations

import math

from omnijax.sweep.statistics import Interval

MINUS = "\N{MINUS SIGN}"


def told(one: Interval, decimals: int = 3) -> str:
    """`2.345 ± 0.012`; only the mean if there is no interval."""
    if not one.count or math.isnan(one.mean):
        return "–"
    mean = f"{one.mean:.{decimals}f}".replace("-", MINUS)
    return f"{mean} ± {one.half:.{decimals}f}" if math.isfinite(one.half) else mean


def signed(one: Interval, decimals: int = 3) -> str:
    """A difference, with its sign."""
    return told(one, decimals) if one.mean < 0 or not one.count else f"+{told(one, decimals)}"


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
