"""Arms compared with the baseline: bits with intervals, paired differences, cost, and what equal bits take."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from omnijax.sweep.results import Result, Results
from omnijax.sweep.statistics import Interval, Verdict, interval, paired, verdict

AXES = ("seconds", "flops")
PARTS = ("raw", "leak", "position", "exact")
COSTS: dict[str, tuple[str, ...]] = {
    **{key: ("cost", key) for key in ("parameters", "softmax_flops_per_item", "training_flops_per_item", "peak_bytes")},
    **{key: ("speed", key) for key in ("items_per_second", "tokens_per_second")},
    "steps": ("step",),
    **{key: (key,) for key in ("items", "seconds", "flops")},
}
"""Path of each cost in a result."""


class Row(NamedTuple):
    """An arm in one form of document. Bits are per item, renormalised under the grammar.

    Attributes:
        arm: its name.
        form: what is measured: `b|a` is b, given a in the same document.
        bits: over seeds.
        difference: to the baseline, over the seeds that both have.
        reach: `seconds` and `flops` until the final bits of the baseline, for each seed that can be compared; None
            where a seed doesn't reach them.
        parts: `PARTS` and `bits_per_unit`, over seeds.
        means: costs, over seeds; the ratios are relative to the baseline with the same seed.
    """

    arm: str
    form: str
    bits: Interval
    difference: Interval
    reach: dict[str, list[float | None]]
    parts: dict[str, Interval]
    means: dict[str, float]

    @property
    def verdict(self) -> Verdict:
        """What the difference shows."""
        return verdict(self.difference)

    def reached(self, axis: str) -> Interval:
        """`seconds` or `flops` until the final bits of the baseline, over the seeds that reach them."""
        return interval([place for place in self.reach[axis] if place is not None])


def rows_of(results: Results, form: str) -> list[Row]:
    """A row for every arm of the sweep, including arms without results."""
    targets = results.values(results.baseline, "bits", form, "renormalised")
    rows = []
    for arm in results.arms:
        bits = results.values(arm, "bits", form, "renormalised")
        parts = {key: results.values(arm, "bits", form, key) for key in PARTS}
        parts["bits_per_unit"] = results.values(arm, "bits", form, "units", results.unit(form))
        costs = per_item(results, arm, form) | {key: results.values(arm, *path) for key, path in COSTS.items()}
        flops, speed = "training_flops_per_item", "items_per_second"
        costs["predicted_ratio"] = _ratio(costs[flops], results.values(results.baseline, *COSTS[flops]))
        costs["measured_ratio"] = _ratio(results.values(results.baseline, *COSTS[speed]), costs[speed])
        rows.append(
            Row(
                arm,
                form,
                bits=interval([*bits.values()]),
                difference=paired(bits, targets),
                reach={axis: _reach(results, arm, form, axis, targets) for axis in AXES},
                parts={key: interval([*values.values()]) for key, values in parts.items()},
                means={key: interval([*values.values()]).mean for key, values in costs.items()},
            )
        )
    return rows


def per_item(results: Results, arm: str, form: str) -> dict[str, dict[int, float]]:
    """`tokens_per_item` of the modality that a form measures, and `steps_per_item` of the backbone, by seed.

    A generated item takes one step for each token, or one in all if a head writes the whole item.
    """
    modality = re.split(r"[|,]", form)[0]
    tokens = results.values(arm, "speed", "tokens_per_item", modality)
    by_token = results.configs[arm]["model"]["head"] == "token"
    return {"tokens_per_item": tokens, "steps_per_item": tokens if by_token else dict.fromkeys(tokens, 1.0)}


def curve_of(run: Result, form: str, axis: str) -> list[tuple[float, float]]:
    """(what was spent, bits) at each checkpoint of a result that measured the form."""
    return [(point[axis], point["bits"][form]) for point in run["curve"] if form in point["bits"]]


def _reach(results: Results, arm: str, form: str, axis: str, targets: Mapping[int, float]) -> list[float | None]:
    curves = {seed: curve_of(run, form, axis) for seed, run in results.runs[arm].items() if seed in targets}
    return [crossing(points, targets[seed]) for seed, points in curves.items() if points]


def crossing(points: Sequence[tuple[float, float]], target: float) -> float | None:
    """The first place where a curve, linear between points, comes down to a target; None if it doesn't.

    If the first point is already below the target, its place is returned, which is then an upper bound.

    Args:
        points: (place, value), by rising place.
        target: reached if a value equals it to nine digits, or is lower.
    """
    before: tuple[float, float] | None = None
    for place, value in points:
        if not math.isfinite(value):
            continue
        if value <= target + 1e-9 * abs(target):
            if before is None or before[1] <= value:
                return place
            share = (before[1] - target) / (before[1] - value)
            return before[0] + min(share, 1.0) * (place - before[0])
        before = (place, value)
    return None


def _ratio(over: Mapping[int, float], under: Mapping[int, float]) -> dict[int, float]:
    return {seed: over[seed] / under[seed] for seed in over if seed in under and under[seed] > 0}
