"""Sections of the report: bits in each form of document, bits per natural unit, accuracies, cost."""

from __future__ import annotations

import functools
import html
import re
from collections.abc import Callable, Mapping

import numpy as np
from matplotlib.figure import Figure

from omnijax.report.curves import Line
from omnijax.report.text import arrow, duration, given, section, table
from omnijax.report.theme import Figures, Theme
from omnijax.sweep import figures
from omnijax.sweep.comparison import COSTS, Row, curve_of, rows_of
from omnijax.sweep.numbers import quantity, share, signed, told
from omnijax.sweep.results import Results
from omnijax.sweep.statistics import interval

_BASE = re.compile(r"base=(\d+)")
_FEWEST_BASES, _MOST_OTHERS = 3, 5  # bases that make a curve; lines beside it that can be told apart
_BASELINE = '<span class="route">baseline</span>'
_VERDICTS = {"lower": ("fewer bits", "verdict"), "higher": ("more bits", "verdict wrong")}
Columns = Mapping[str, Callable[[Row], str]]


def form(results: Results, name: str, plots: Figures | None) -> str:
    """One form: the table of all arms, and its figures; without `plots` only the table."""
    shown = _table(results, rows_of(results, name), _BITS_COLUMNS)
    if plots is None:
        return f"<details><summary>{html.escape(given(name))}</summary>{shown}</details>"
    arms = {arm: [*results.values(arm, "bits", name, "renormalised").values()] for arm in results.arms}
    values = {arm: interval(seeds) for arm, seeds in arms.items() if seeds}
    bases = {int(found[1]): value for arm, value in values.items() if (found := _BASE.fullmatch(arm))}
    # An arm of several choices differs from the curve in more than the base, so it isn't drawn beside it.
    alone = {arm: value for arm, value in values.items() if not _BASE.fullmatch(arm) and "," not in arm}
    label, drawn = "bits per item", {}
    if len(bases) >= _FEWEST_BASES and len(alone) <= _MOST_OTHERS:
        drawn["base", "Against the base"] = functools.partial(figures.base_figure, bases, alone, label)
    drawn["arms", "All arms"] = functools.partial(figures.rows_figure, arms, results.baseline, {}, label)
    for axis, below in (("seconds", "training time, seconds"), ("flops", "training FLOPs")):
        if lines := _lines(results, name, axis):
            over = functools.partial(figures.curves_figure, lines, results.baseline, label, below)
            drawn[axis, f"Against {below.partition(',')[0]}"] = over
    panels = [
        _panel(plots, f"{kind}_{_key(name)}", title, paint, given(name)) for (kind, title), paint in drawn.items()
    ]
    return section(
        f"form_{_key(name)}",
        f"Bits per item: {given(name)}",
        "Held-out bits, renormalised under the grammar; less is better. Means over seeds, each with half of its 95 % "
        "interval; thin lines and dots are single seeds. Raw bits are without the grammar; the leak is the difference. "
        "To equal bits: what was spent until the final bits of the baseline with the same seed. It is an upper bound, "
        "since a run with a smaller budget would have lowered its learning rate earlier.",
        f"{shown}{_grid(panels)}",
    )


def units(results: Results, plots: Figures) -> str:
    """Bits per natural unit, beside the anchors with the same unit; empty if no form is lossless."""
    panels = []
    for name, unit in ((name, results.unit(name)) for name in results.forms):
        if not unit:
            continue
        label = f"bits per {unit}"
        arms = {arm: [*results.values(arm, "bits", name, "units", unit).values()] for arm in results.arms}
        anchors = [one for one in results.anchors if (one.measure, one.modality) == (label, name)]
        # Anchors far away would press everything else together: they are in the table only.
        most = 1.6 * max(value for values in arms.values() for value in values)
        near = {one.name: one.value for one in anchors if one.value <= most}
        paint = functools.partial(figures.rows_figure, arms, results.baseline, near, label)
        panels.append(_panel(plots, f"unit_{_key(name)}", f"{given(name).capitalize()}, {label}", paint, given(name)))
        anchors.sort(key=lambda one: one.value)
        cells = {one.name: [_anchor(one.value, one.standard_error, 3), html.escape(one.note)] for one in anchors}
        panels += [_card(["anchor", label, "how it was measured"], cells)] * bool(cells)
    if not panels:
        return ""
    there = "Diamonds are anchors on the same held-out data: codecs, and models that count. "
    absent = "There are no anchors: experiments/ablations/anchors.py writes them, as anchors.csv beside sweep.json. "
    note = "Bits of an arm are those of its items, without the tokens around them."
    return section("units", "Bits per natural unit", (there if results.anchors else absent) + note, _grid(panels))


def accuracies(results: Results) -> str:
    """How often judges recognise what each arm generated, by route; empty if no arm generated anything."""
    routes = list(dict.fromkeys(route for run in results.every for route in run["accuracies"]))
    if not routes:
        return ""
    cells = {}
    for arm in results.arms:
        found = [results.values(arm, "accuracies", route, "accuracy") for route in routes]
        cells[arm] = [_spread(share(interval([*values.values()]))) for values in found]
    for one in results.anchors:
        if one.measure == "accuracy":
            error = None if one.standard_error is None else 100 * one.standard_error
            cells[one.name] = [_anchor(100 * one.value, error, 1) * (route == one.modality) for route in routes]
    return section(
        "accuracies",
        "Generated signals, percent correct",
        "Judges, which were fitted on real training signals, classify what each arm generated. Means over seeds, each "
        "with half of its 95 % interval; an anchor is a classifier, with one standard error over records.",
        _card(["arm", *(html.escape(arrow(route)) for route in routes)], cells),
    )


def cost(results: Results) -> str:
    """What every arm took, and what was predicted."""

    def tokens(row: Row) -> str:
        per_item = next(iter(results.runs[row.arm].values()))["speed"]["tokens_per_item"]
        at_once = "" if results.configs[row.arm]["model"]["head"] == "token" else ", one step"
        return "<br>".join(f"{html.escape(name)} {value:.3g}{at_once}" for name, value in per_item.items())

    def of(name: str) -> Callable[[Row], str]:
        return lambda row: (duration if name == "seconds" else quantity)(row.means[name])

    columns: dict[str, Callable[[Row], str]] = {"tokens per item": tokens}
    columns |= {name.replace("_", " "): of(name) for name in COSTS}
    columns["predicted / measured"] = lambda row: "{predicted_ratio:.2f} / {measured_ratio:.2f}".format(**row.means)
    return section(
        "cost",
        "Cost",
        "The predicted cost counts FLOPs; the measured cost is training time, without compilation. Both are per item, "
        "relative to the baseline. Peak memory is that of one training step, according to the compiler.",
        _table(results, rows_of(results, results.forms[0]) if results.forms else [], columns),
    )


def reached(row: Row, axis: str) -> str:
    """What was spent until the final bits of the baseline, and by how many seeds, if not by all."""
    spent, seeds = row.reached(axis), len(row.reach[axis])
    if not spent.count:
        return "not reached" if seeds else "–"
    shown = (duration if axis == "seconds" else quantity)(spent.mean)
    return shown if spent.count == seeds else f"{shown}, {spent.count} of {seeds} seeds"


def _verdict(row: Row) -> str:
    said, css = _VERDICTS.get(row.verdict, (row.verdict, "route"))
    return f'<span class="{css}">{said}</span>' if row.difference.mean else ""


_BITS_COLUMNS: Columns = {
    "bits per item": lambda row: f"<strong>{_spread(told(row.bits))}</strong>",
    "to the baseline": lambda row: _spread(signed(row.difference)) if row.difference.mean else "",
    "": _verdict,
    "raw": lambda row: told(row.parts["raw"]).partition(" ± ")[0],
    "of raw: position": lambda row: told(row.parts["position"]).partition(" ± ")[0],
    "leak": lambda row: told(row.parts["leak"]).partition(" ± ")[0],
    "exact items": lambda row: _spread(share(row.parts["exact"])),
    "time to equal bits": lambda row: reached(row, "seconds"),
    "FLOPs to equal bits": lambda row: reached(row, "flops"),
    "seeds": lambda row: f"{row.bits.count}",
}


def _lines(results: Results, form: str, axis: str) -> list[Line]:
    lines = []
    for arm, runs in results.runs.items():
        curves = [np.array(points).T for run in runs.values() if (points := curve_of(run, form, axis))]
        if curves:
            # Seeds may have different numbers of points; the last ones correspond.
            length = min(curve.shape[1] for curve in curves)
            x, y = np.mean([curve[:, -length:] for curve in curves], axis=0)
            lines.append(Line(arm, x, y, [(one[0], one[1]) for one in curves] if len(curves) > 1 else []))
    return lines


def _key(form: str) -> str:
    return re.sub(r"[^\w]+", "_", form)


def _grid(panels: list[str]) -> str:
    return f'<div class="grid pair" style="margin-top:1rem">{"".join(panels)}</div>'


def _panel(plots: Figures, file: str, title: str, paint: Callable[[Theme], Figure], of: str) -> str:
    plot = plots.add(file, paint, f"{title}: {of}")
    return f'<figure class="card"><h3>{html.escape(title)}</h3>{plot}</figure>'


def _table(results: Results, rows: list[Row], columns: Columns) -> str:
    """A line for every arm, with its cell for each heading."""
    cells = {}
    for row in rows:
        made = [cell(row) for cell in columns.values()] if results.runs[row.arm] else [""] * len(columns)
        made[0] = made[0] or '<span class="nothing">no result</span>'
        made[0] += _BASELINE * (row.arm == results.baseline)
        cells[row.arm] = made
    return _card(["arm", *columns], cells)


def _card(head: list[str], cells: dict[str, list[str]]) -> str:
    """A table with a line of HTML cells for each name, which is plain text."""
    lines = [[html.escape(name), *line] for name, line in cells.items()]
    return f'<div class="card">{table(head, lines)}</div>'


def _spread(text: str) -> str:
    """A number without line breaks, its error in a fainter colour."""
    mean, plus, half = text.partition(" ± ")
    return f'<span style="white-space:nowrap">{mean}{f" <span class=error>± {half}</span>" if plus else ""}</span>'


def _anchor(value: float, error: float | None, decimals: int) -> str:
    return _spread(f"{value:.{decimals}f}" + ("" if error is None else f" ± {error:.{decimals}f}"))
