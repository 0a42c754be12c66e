"""The report of a sweep: one page with all tables and figures."""

from __future__ import annotations

import functools
import html
import itertools
import math
import pathlib
import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from omnijax.files import write_atomically
from omnijax.report.curves import Line
from omnijax.report.text import arrow, definitions, duration, facts, given, section, table, whole_page
from omnijax.report.theme import Figures
from omnijax.sweep.anchors import Anchor
from omnijax.sweep.comparison import MEANS, TO_EQUAL_BITS, Results, Row, curve_of, read_results, rows_of
from omnijax.sweep.fairness import HASHED
from omnijax.sweep.figures import curves_figure, rows_figure
from omnijax.sweep.statistics import Interval, interval, quantity, share, told

_BASE, _FEWEST_BASES = re.compile(r"base=(\d+)"), 3
_READING = {
    "Intervals": "± is half of Student's 95 % interval over seeds. Differences to the baseline are between runs with "
    "the same seed; about one arm in twenty looks different by chance.",
    "Bits": "Held-out bits, renormalised under the grammar; less is better. The leak is what the raw bits have more.",
    "To equal bits": "What was spent until the final bits of the baseline with the same seed: an upper bound, since a "
    "run with a smaller budget would have lowered its learning rate earlier.",
    "Anchors": "Figures from outside on the same held-out data, with one standard error. "
    "experiments/ablations/anchors.py writes them, as anchors.csv beside sweep.json.",
    "Cost": "Ratios are relative to the baseline, per item: predicted by FLOPs, and measured as training time without "
    "compilation. Peak bytes are those of one training step, according to the compiler.",
}


def write_report(out: pathlib.Path) -> pathlib.Path:
    """Writes `report.html` and `figures/*.png` into the directory of a sweep, which may still be running.

    Returns the path of the page, which needs no other file and no network. Raises a `DataError` as `read_results`;
    nothing has been written then.
    """
    results, plots = read_results(out), Figures(out / "figures")
    plots.directory.mkdir(exist_ok=True)
    body = [_opening(results), *(_form(results, form, plots) for form in results.forms), _accuracies(results)]
    for form in results.forms[:1]:
        body.append(section("cost", "Cost", "", _arms(rows_of(results, form), _COST_COLUMNS)))
    page = out / "report.html"
    write_atomically(page, whole_page(f"{results.name}: {results.sweep['question']}", "".join(body)))
    return page


def _opening(results: Results) -> str:
    """The question, what is equal, what is missing, how the tables are to be read, and how they were made."""
    budget, seeds, every = results.sweep["budget"], results.sweep["seeds"], results.every
    devices = sorted({str(run["device"]) for run in every})
    shown = {
        "budget per arm": f"{quantity(budget['amount'])} {budget['kind']}",
        "arms": f"{len(results.runs)}",
        "seeds": f"{len(seeds)}",
        "runs with a result": f"{len(every)} of {len(results.runs) * len(seeds)}",
        "baseline": results.baseline,
        "device": ", ".join(devices) or "–",
    }
    absent = {arm: [str(seed) for seed in seeds if seed not in runs] for arm, runs in results.runs.items()}
    differ = [
        f"{said}, seed {seed}"
        for seed, (part, said) in itertools.product(seeds, HASHED.items())
        if len({run["data"][part] for run in every if run["seed"] == seed}) > 1
    ]
    same = f"Equal in all arms, by SHA-256: {'; '.join(HASHED.values())}."
    notes = {
        "Budget": f"All arms were trained for equally many {budget['kind']}; FLOPs are those of a formula.",
        "Data": f"NOT COMPARABLE: arms differ in {'; '.join(differ)}." if differ else same,
        "Missing": "; ".join(f"{arm} (seed {', '.join(those)})" for arm, those in absent.items() if those),
        "Devices": "Runs used different devices: their times and speeds aren't comparable." * (len(devices) > 1),
        **_READING,
        "Command of one arm": every[0]["command"] if every else "",
        "Versions": ", ".join(f"{name} {version}" for name, version in every[0]["versions"].items()) if every else "",
    }
    title = f'<p class="run">omnijax · sweep {html.escape(results.name)}</p>'
    title += f"<h1>{html.escape(results.sweep['question'])}</h1>{facts(shown)}"
    reading = definitions({term: html.escape(said) for term, said in notes.items() if said})
    note = "The CSV files beside this page hold all numbers: results.csv, curves.csv and table.csv."
    return title + section("reading", "How to read this", note, reading)


def _form(results: Results, form: str, plots: Figures) -> str:
    """One form: the tables of all arms and anchors, and the figures."""
    rows, unit, baseline = rows_of(results, form), results.unit(form), results.baseline
    label, title, key = f"bits per {unit}", f"Bits per item: {given(form)}", re.sub(r"[^\w]+", "_", form)
    ordered = sorted(results.anchors, key=lambda one: one.value)
    anchors = [one for one in ordered if (one.measure, one.modality) == (label, form)]
    units = {label: lambda row: told(row.over("bits_per_unit"))} if unit else {}
    shown = _arms(rows, _BITS_COLUMNS | units)
    if anchors:
        cells = {one.name: [told(_error(one)), one.note] for one in anchors}
        shown += _table(["anchor", label, "how it was measured"], cells)
    drawn: dict[str, Any] = {}
    if bases := _bases(rows):
        drawn["base"] = functools.partial(curves_figure, bases, baseline, "bits per item", "base", skipped=0)
    values = {row.arm: row.values("renormalised_bits") for row in rows}
    drawn["arms"] = functools.partial(rows_figure, values, baseline, {}, "bits per item")
    for axis, below in (("seconds", "training time, seconds"), ("flops", "training FLOPs")):
        if lines := _curves(results, form, axis):
            drawn[axis] = functools.partial(curves_figure, lines, baseline, "bits per item", below)
    if unit:
        values = {row.arm: row.values("bits_per_unit") for row in rows}
        # Anchors far away would press everything else together: they are in the table only.
        most = 1.6 * max(value for seeds in values.values() for value in seeds)
        near = {one.name: one.value for one in anchors if one.value <= most}
        drawn["unit"] = functools.partial(rows_figure, values, baseline, near, label)
    figures = [
        f'<figure class="card">{plots.add(f"{kind}_{key}", paint, f"{title}, {kind}")}</figure>'
        for kind, paint in drawn.items()
    ]
    return section(f"form_{key}", title, "", f'{shown}<div class="grid pair">{"".join(figures)}</div>')


def _bases(rows: list[Row]) -> list[Line]:
    """Bits against the base, and flat lines for arms without one; nothing for fewer than three bases.

    An arm of several choices differs in more than the base, so it isn't drawn.
    """
    found = {row.arm: row.bits for row in rows if row.lines and "," not in row.arm}
    bases = sorted((int(base[1]), arm) for arm in found if (base := _BASE.fullmatch(arm)))
    if len(bases) < _FEWEST_BASES:
        return []
    x, y = np.array([base for base, _ in bases]), np.array([found[arm].mean for _, arm in bases])
    intervals = [([base, base], [found[arm].low, found[arm].high]) for base, arm in bases]
    flat = [Line(arm, x[[0, -1]], np.full(2, one.mean)) for arm, one in found.items() if not _BASE.fullmatch(arm)]
    return [Line("base", x, y, intervals), *flat]


def _curves(results: Results, form: str, axis: str) -> list[Line]:
    lines = []
    for arm, runs in results.runs.items():
        curves = [np.array(points).T for run in runs.values() if (points := curve_of(run, form, axis))]
        if curves:
            # Seeds may have different numbers of points; the last ones correspond.
            length = min(curve.shape[1] for curve in curves)
            x, y = np.mean([curve[:, -length:] for curve in curves], axis=0)
            lines.append(Line(arm, x, y, [(one[0], one[1]) for one in curves]))
    return lines


def _accuracies(results: Results) -> str:
    """How often judges recognise what each arm generated, by route; empty if no arm generated anything."""
    routes = list(dict.fromkeys(route for run in results.every for route in run["accuracies"]))
    cells = {}
    for arm, runs in results.runs.items():
        found = [[run["accuracies"][route] for run in runs.values() if route in run["accuracies"]] for route in routes]
        cells[arm] = [share(interval([one["accuracy"] for one in seeds])) for seeds in found]
    for one in results.anchors:
        if one.measure == "accuracy":
            cells[one.name] = [share(_error(one)) if route == one.modality else "" for route in routes]
    note = "Judges, which were fitted on real training signals, classify what each arm generated."
    shown = _table(["arm", *map(arrow, routes)], cells)
    return section("accuracies", "Generated signals, percent correct", note, shown) if routes else ""


def reached(row: Row, axis: str) -> str:
    """What was spent until the final bits of the baseline, and by how many seeds, if not by all."""
    spent, seeds = row.over(TO_EQUAL_BITS[axis]), row.difference.count
    if not spent.count:
        return "not reached" if seeds else "–"
    shown = (duration if axis == "seconds" else quantity)(spent.mean)
    return shown if spent.count == seeds else f"{shown}, {spent.count} of {seeds} seeds"


def _mean(column: str, row: Row) -> str:
    return quantity(row.over(column).mean)


_BITS_COLUMNS: dict[str, Callable[[Row], str]] = {
    "bits per item": lambda row: told(row.bits),
    "to the baseline": lambda row: told(row.difference, sign="+") if row.difference.mean else "",
    "": lambda row: (
        {"lower": "fewer bits", "higher": "more bits"}.get(row.verdict, row.verdict) if row.difference.mean else ""
    ),
    "raw": lambda row: f"{row.over('raw_bits').mean:.3f}",
    "of raw: position": lambda row: f"{row.over('position_bits').mean:.3f}",
    "leak": lambda row: f"{row.over('leak_bits').mean:.3f}",
    "exact items": lambda row: share(row.over("exact")),
    "tokens per item": lambda row: f"{row.over('tokens_per_item').mean:.3g}",
    "time to equal bits": lambda row: reached(row, "seconds"),
    "FLOPs to equal bits": lambda row: reached(row, "flops"),
    "seeds": lambda row: f"{row.bits.count}",
}

_COST_COLUMNS = {name.replace("_", " "): functools.partial(_mean, name) for name in MEANS}


def _arms(rows: list[Row], columns: Mapping[str, Callable[[Row], str]]) -> str:
    """A table with a line for every arm."""
    absent = ["no result"] + [""] * (len(columns) - 1)
    cells = {row.arm: [cell(row) for cell in columns.values()] if row.lines else absent for row in rows}
    return _table(["arm", *columns], cells)


def _table(head: list[str], cells: dict[str, list[str]]) -> str:
    """A table of plain text with a line for each name; numbers are without line breaks, errors in a fainter colour."""

    def shown(text: str) -> str:
        value, plus, error = html.escape(text).partition(" ± ")
        return f'{value} <span class="error">± {error}</span>' if plus else value

    rows = [[html.escape(name), *map(shown, line)] for name, line in cells.items()]
    return f'<div class="card">{table([html.escape(one) for one in head], rows)}</div>'


def _error(one: Anchor) -> Interval:
    """An anchor and one standard error."""
    error = math.nan if one.standard_error is None else one.standard_error
    return Interval(one.value, one.value - error, one.value + error, 1)
