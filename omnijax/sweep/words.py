"""What the figures of a sweep do and don't show, in sentences that are made from them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence

from omnijax.sweep.inputs import Results
from omnijax.sweep.numbers import duration, quantity, signed, told
from omnijax.sweep.statistics import CONFIDENCE, interval, overlap
from omnijax.sweep.table import Reach, Row, measured_ratio, predicted_ratio

_BUDGETS = {
    "items": (
        "items seen in training",
        "Every arm saw as many items. They didn't take the same time or the same FLOPs for it: an arm that writes more "
        "tokens an item was allowed to spend more of both.",
    ),
    "flops": (
        "training FLOPs",
        "Every arm spent as many FLOPs, counted by formula, up to its last whole step. Cheap arms saw more items for "
        "them, and FLOPs aren't time.",
    ),
    "seconds": (
        "seconds of training",
        "Every arm was given as many steps as fit, by the speed of its step as it was measured beforehand. Fast arms "
        "saw more items, and on another machine the same seconds buy each arm something else.",
    ),
}
_MANY_ARMS = 20
_LEAK = 0.02


def reached(found: Reach, unit: str) -> str:
    """What was spent until the baseline's bits, and in how many seeds that came about; `unit` is s or FLOPs."""
    if not found.seeds:
        return "–"
    if not found.reached:
        return "not reached"
    shown = duration(found.spent.mean) if unit == "s" else quantity(found.spent.mean)
    return shown if found.reached == found.seeds else f"{shown}, {found.reached} of {found.seeds} seeds"


def listed(names: Iterable[str]) -> str:
    """Names in a row, the last one behind `and`."""
    every = list(names)
    return " and ".join([", ".join(every[:-1]), every[-1]] if len(every) > 1 else every)


def budget_told(results: Results) -> str:
    """The budget: how much of what."""
    return f"{quantity(results.budget['amount'])} {_BUDGETS[results.budget['kind']][0]}"


def findings(results: Results, rows: Sequence[Row]) -> Iterator[str]:
    """What one form of document shows: the lowest arm, then all against the baseline."""
    there = [row for row in rows if row.bits.count and math.isfinite(row.bits.mean)]
    base = next((row for row in there if row.arm == results.baseline), None)
    if not there:
        yield "No arm has a result."
        return
    best = min(there, key=lambda row: row.bits.mean)
    alike = [row.arm for row in there if row is not best and overlap(row.bits, best.bits)]
    yield f"{best.arm} has the lowest mean, {told(best.bits)} bits per item."
    if best.bits.count < 2:
        yield "There is one seed, so that nothing says how far apart two runs of the same arm would be."
    elif best is not base and alike:
        yield f"Not distinguishable from it, since the intervals overlap: {listed(alike)}."
    elif best is not base and len(there) > 1:
        yield "No other arm's interval overlaps with its own."
    if base is None:
        yield f"The baseline, {results.baseline}, has no result: there is nothing to hold the others against."
        return
    others = [row for row in there if row is not base]
    for kind, word in (("lower", "Fewer bits than"), ("higher", "More bits than")):
        chosen = [f"{row.arm} ({signed(row.difference)})" for row in others if row.verdict == kind]
        if chosen:
            yield f"{word} {base.arm}, seed for seed: {listed(chosen)}."
    chosen = [row.arm for row in others if row.verdict == "not distinguishable"]
    if chosen:
        yield f"Not distinguishable from {base.arm}, seed for seed: {listed(chosen)}."
    chosen = [f"{row.arm} ({signed(row.difference)})" for row in others if row.verdict == "one seed"]
    if chosen:
        yield f"One seed only, which can be chance: {listed(chosen)}."
    chosen = [row.arm for row in others if row.verdict == "not comparable"]
    if chosen:
        yield f"Without a seed in common with {base.arm}, or without a finite number: {listed(chosen)}."
    never = [row.arm for row in others if row.seconds_to.seeds and not row.seconds_to.reached]
    if never:
        yield f"Within the budget these never came down to the bits that {base.arm} ended with: {listed(never)}."


def limits(results: Results, forms: Sequence[str]) -> Iterator[str]:
    """What the figures don't show, and what they rest on."""
    yield _BUDGETS[results.budget["kind"]][1]
    yield from _times(results)
    yield from _seeds(results)
    yield from _completeness(results)
    yield from _sameness(results)
    yield from _units(results, forms)
    yield from _leaks(results, forms)
    if len(results.arms) > 1 and results.every:
        yield (
            "What equal bits take is read off curves whose learning rate falls towards the end of each budget: an arm "
            "that was told to stop there would have got there sooner. It is an upper bound."
        )
    yield from _prediction(results)


def _times(results: Results) -> Iterator[str]:
    if results.budget["kind"] == "seconds" and results.every:
        shortest, longest = (end(results.every, key=lambda run: run["seconds"]) for end in (min, max))
        yield (
            f"In the event they trained for {duration(shortest['seconds'])} ({shortest['arm']}) to "
            f"{duration(longest['seconds'])} ({longest['arm']})."
        )


def _seeds(results: Results) -> Iterator[str]:
    counts = sorted({len(results.runs[arm]) for arm in results.arms} - {0})
    most = max(counts, default=0)
    if most == 0:
        return
    if most == 1:
        yield "There is one seed: differences are what two single runs happened to have, and no interval can be given."
    else:
        span = f"{counts[0]} to {most}" if counts[0] < most else f"{most}"
        yield (
            f"Intervals are Student's, {CONFIDENCE:.0%}, over {span} seeds, and take the seeds to be nearly normal; "
            "seeds draw parameters, noise and order, and never the held-out documents, so that these are the same ones."
        )
    if most == 2:
        yield "Two seeds give intervals 12.7 standard errors wide on each side: only large differences can show."
    if len(results.arms) > 2:
        several = f"about one in {_MANY_ARMS}" if len(results.arms) >= _MANY_ARMS else "now and then one"
        yield (
            f"Each of the {len(results.arms)} arms is held against the baseline by itself: {several} would look "
            "different by chance alone."
        )


def _completeness(results: Results) -> Iterator[str]:
    if not results.missing:
        yield f"Nothing is missing: all {len(results.arms)} arms have all {len(results.seeds)} seeds."
        return
    begun = set(results.started)
    stopped = [pair for pair in results.missing if pair in begun]
    waiting = [pair for pair in results.missing if pair not in begun]
    for kind, pairs in (
        ("were begun and have no result (failed, stopped, or still running)", stopped),
        ("were not begun", waiting),
    ):
        if pairs:
            arms = dict.fromkeys(arm for arm, _ in pairs)
            named = (f"{arm} (seed {listed(str(seed) for one, seed in pairs if one == arm)})" for arm in arms)
            yield f"Missing: {len(pairs)} of {len(results.arms) * len(results.seeds)} runs {kind}: {listed(named)}."


def _sameness(results: Results) -> Iterator[str]:
    if not results.every:
        return
    for seed in results.seeds:
        for key, name in (("fragments", "training fragments"), ("heldout", "held-out split"), ("order", "order")):
            found = {runs[seed]["data"][key] for runs in results.runs.values() if seed in runs}
            if len(found) > 1:
                yield f"Not comparable: arms of seed {seed} differ in their {name}, by SHA-256."
                return
    yield "Training fragments, held-out split and the order of documents are the same for every arm, by SHA-256."
    devices = sorted({str(run["device"]) for run in results.every})
    if len(devices) == 1:
        yield f"All was run on one kind of device, {devices[0]}: times and speeds are of it, and of what else it did."
    else:
        yield f"Runs are from different devices, {listed(devices)}: times and speeds can't be held against each other."
    rates = {config["optim"]["learning_rate"] for config in results.configs.values()}
    if len(rates) == 1 and len(results.arms) > 1:
        yield (
            f"One learning rate for all, {rates.pop():g}, as every other knob that isn't in an arm's name: tuned by "
            "itself, an arm could do better."
        )
    elif rates:
        yield f"Learning rates differ between arms: {listed(f'{rate:g}' for rate in sorted(rates))}."


def _units(results: Results, forms: Sequence[str]) -> Iterator[str]:
    lossless = list(dict.fromkeys(form for run in results.every for form in run["bits_per_unit"]))
    if lossless:
        yield f"Lossless by themselves, so that their bits can be held against codecs: {listed(lossless)}."
    elif forms:
        yield "No form is lossless: bits per item compare arms on this codec, and nothing else."
    if any(form.startswith("speech") for form in forms):
        yield (
            "Speech isn't lossless: its items are what the codebook makes of a signal, and only arms on that codebook "
            "can be compared."
        )


def _leaks(results: Results, forms: Sequence[str]) -> Iterator[str]:
    large: dict[str, float] = {}
    for arm in results.arms:
        for form in forms:
            leak = interval(list(results.values(arm, "bits", form, "leak").values())).mean
            if leak > _LEAK and leak > large.get(arm, 0.0):
                large[arm] = leak
    if large:
        named = (f"{arm} ({leak:.2f} bits per item)" for arm, leak in large.items())
        yield (
            "Bits are renormalised under the grammar; on tokens that can't be decoded these lost the most in some "
            f"form: {listed(named)}."
        )


def _prediction(results: Results) -> Iterator[str]:
    worst: tuple[float, str] | None = None
    for arm in results.arms:
        predicted = interval(list(predicted_ratio(results, arm).values())).mean
        measured = interval(list(measured_ratio(results, arm).values())).mean
        if arm != results.baseline and predicted > 0 and measured > 0:
            off = measured / predicted
            if worst is None or abs(math.log(off)) > abs(math.log(worst[0])):
                worst = (off, arm)
    if worst is not None:
        yield (
            f"Predicted cost counts FLOPs alone. It was furthest from the measured time for {worst[1]}, which took "
            f"{worst[0]:.2f} times what was predicted, relative to {results.baseline}."
        )
