"""Parts of the page of a sweep: forms of document, units that codecs share, what is generated, cost."""

from __future__ import annotations

import functools
import html
import re
from collections.abc import Callable

import numpy as np
from matplotlib.figure import Figure

from omnijax.report.text import arrow, section, table
from omnijax.report.theme import Figures, Theme
from omnijax.sweep import figures, numbers, words
from omnijax.sweep.figures import Line, Mark
from omnijax.sweep.inputs import Results
from omnijax.sweep.statistics import interval
from omnijax.sweep.table import Axis, Row, accuracies, measured_ratio, predicted_ratio

_BASE = re.compile(r"base=(\d+)")
_AXES: dict[Axis, str] = {"seconds": "training time, seconds", "flops": "training FLOPs"}
_UNITS = {"image": "bits per pixel", "text": "bits per byte"}
_FEWEST_BASES, _MOST_OTHERS = 3, 5  # bases that make a curve, lines that can be told apart beside it


def given(form: str) -> str:
    """A form of document as a reader expects it, escaped."""
    return html.escape(form.replace("|", " given "))


def form(results: Results, name: str, rows: list[Row], plots: Figures) -> str:
    """One form: the table of all arms, and its figures."""
    key = _key(name)
    marks = [Mark(row.arm, row.bits, _values(results, row.arm, "bits", name, "renormalised")) for row in rows]
    drawn = {
        f"arms_{key}": (
            "Arm by arm",
            functools.partial(figures.rows_figure, marks, results.baseline, {}, "bits per item"),
        )
    }
    bases = {int(found[1]): mark for mark in marks if mark.value.count and (found := _BASE.fullmatch(mark.label))}
    # Arms of several choices differ from the curve in more than the base: their place is the figure of all arms.
    others = {
        mark.label: mark.value
        for mark in marks
        if mark.value.count and mark not in bases.values() and "," not in mark.label
    }
    if len(bases) >= _FEWEST_BASES and len(others) <= _MOST_OTHERS:
        values = {base: mark.value for base, mark in bases.items()}
        against = functools.partial(figures.base_figure, values, others, "bits per item")
        drawn = {f"base_{key}": ("Against the base", against)} | drawn
    for axis, below in _AXES.items():
        if lines := _lines(results, name, axis):
            over = functools.partial(figures.curves_figure, lines, results.baseline, "bits per item", below)
            drawn[f"{axis}_{key}"] = (f"Against {below.partition(',')[0]}", over)
    if places := {arm: each for arm in results.arms if (each := accuracies(results, arm, name))}:
        right = functools.partial(figures.places_figure, places, results.baseline)
        drawn[f"places_{key}"] = ("Digits guessed right, by place", right)
    panels = [_panel(plots, file, title, paint, given(name)) for file, (title, paint) in drawn.items()]
    return section(
        f"form_{key}",
        f"Bits per item: {name.replace('|', ' given ')}",
        "Held-out, under the grammar; less is better. Mean over seeds ± half of its 95 % interval, and the difference "
        "to the baseline of the same seeds. Raw bits are those without the grammar, some of them spent on positions; "
        "the leak is what the grammar takes off. Faint dots and lines are single seeds. To equal bits: what was spent "
        "until the bits that the baseline of the same seed ended with, on straight lines between checkpoints.",
        f'<div class="card">{_table(results, rows)}</div>{_grid(panels)}',
    )


def _key(form: str) -> str:
    return re.sub(r"[^\w]+", "_", form)


def _grid(panels: list[str]) -> str:
    return f'<div class="grid pair" style="margin-top:1rem">{"".join(panels)}</div>'


def _panel(plots: Figures, file: str, title: str, paint: Callable[[Theme], Figure], of: str) -> str:
    picture = plots.add(file, paint, f"{title}: {of}", "wide")
    return f'<figure class="card"><h3>{html.escape(title)}</h3>{picture}</figure>'


def _values(results: Results, arm: str, *path: str) -> list[float]:
    return list(results.values(arm, *path).values())


def _mean(results: Results, arm: str, *path: str) -> float:
    return interval(_values(results, arm, *path)).mean


def _lines(results: Results, form: str, axis: Axis) -> list[Line]:
    lines = []
    for arm in results.arms:
        seeds = []
        for run in results.runs[arm].values():
            points = [(point[axis], point["bits"][form]) for point in run["curve"] if form in point["bits"]]
            if points:
                x, y = np.array(points, np.float64).T
                seeds.append((x, y))
        if seeds:
            # Seeds may have another number of steps; places along the budget correspond.
            length = min(len(x) for x, _ in seeds)
            mean_x, mean_y = (np.mean([one[k][-length:] for one in seeds], axis=0) for k in (0, 1))
            lines.append(Line(arm, (mean_x, mean_y), seeds if len(seeds) > 1 else []))
    return lines


def _table(results: Results, rows: list[Row]) -> str:
    cells = []
    for row in rows:
        name = f"{html.escape(row.arm)}{_note('baseline') if row.arm == results.baseline else ''}"
        if not row.bits.count:
            cells.append([name, '<span class="nothing">no result</span>', *[""] * 9])
            continue

        raw, leak, position, exact = (
            interval(_values(results, row.arm, "bits", row.form, part)) for part in ("raw", "leak", "position", "exact")
        )
        base = row.arm == results.baseline
        cells.append(
            [
                name,
                f"<strong>{_spread(numbers.told(row.bits))}</strong>",
                "" if base else _spread(numbers.signed(row.difference)),
                "" if base else _verdict(row),
                f"{raw.mean:.3f}",
                f"{position.mean:.3f}",
                f"{leak.mean:.3f}",
                _spread(numbers.share(exact)) if exact.count else "–",
                words.reached(row.seconds_to, "s"),
                words.reached(row.flops_to, "FLOPs"),
                f"{row.bits.count}",
            ]
        )
    head = ["arm", "bits per item", "to the baseline", "", "raw", "of raw: position", "leak", "exact items"]
    return table([*head, "time to equal bits", "FLOPs to equal bits", "seeds"], cells)


def _note(text: str) -> str:
    return f'<span class="route">{text}</span>'


def _spread(text: str) -> str:
    """A number with its error, the error in a fainter colour, and never broken."""
    mean, plus, half = text.partition(" ± ")
    return f'<span style="white-space:nowrap">{mean}{f" <span class=error>± {half}</span>" if plus else ""}</span>'


def _verdict(row: Row) -> str:
    if row.verdict in ("lower", "higher"):
        css, said = ("verdict", "fewer bits") if row.verdict == "lower" else ("verdict wrong", "more bits")
        return f'<span class="{css}">{said}</span>'
    return f'<span class="verdict" style="color:var(--muted)">{row.verdict}</span>'


def others(results: Results, rows: dict[str, list[Row]]) -> str:
    """The forms that have no figures, as tables."""
    if not rows:
        return ""
    parts = "".join(f"<h3>{given(form)}</h3>{_table(results, found)}" for form, found in rows.items())
    return f"<details><summary>Further forms, as tables: {len(rows)}</summary>{parts}</details>"


def units(results: Results, plots: Figures) -> str:
    """Bits in the units that codecs share, with the outside anchors beside; nothing where no form is lossless."""
    panels = []
    for name in dict.fromkeys(name for run in results.every for name in run["bits_per_unit"]):
        unit = _UNITS[name.partition("|")[0]]
        found = {arm: _values(results, arm, "bits_per_unit", name) for arm in results.arms}
        marks = [Mark(arm, interval(values), values) for arm, values in found.items()]
        fitting = [one for one in results.anchors if one.measure == unit and one.modality == name]
        # The head of a file around each small picture would press everything else together: that is in the table alone.
        most = 1.6 * max(value for values in found.values() for value in values)
        near = {one.name: one.value for one in fitting if one.value <= most}
        paint = functools.partial(figures.rows_figure, marks, results.baseline, near, unit)
        panels.append(_panel(plots, f"unit_{_key(name)}", f"{name.capitalize()}, {unit}", paint, given(name)))
        if fitting:
            cells = [
                [html.escape(one.name), _spread(_anchored(one.value, one.standard_error))]
                for one in sorted(fitting, key=lambda one: one.value)
            ]
            notes = "".join(
                f"<dt>{html.escape(one.name)}</dt><dd>{html.escape(one.note)}</dd>"
                for one in sorted(fitting, key=lambda one: one.value)
            )
            panels.append(
                f'<div class="card">{table(["outside anchor", unit], cells)}<details><summary>How each was measured'
                f'</summary><dl class="made">{notes}</dl></details></div>'
            )
    if not panels:
        return ""
    outside = (
        "Diamonds are outside anchors on the same held-out data, those within reach: codecs, and models that count. "
        if results.anchors
        else "There are no outside anchors here: experiments/ablations/anchors.py writes them, as anchors.csv beside "
        "sweep.json. "
    )
    return section(
        "units",
        "Beside codecs and counting",
        f"{outside}Of an arm the bits are those of its items, without the tokens that say where a segment begins and "
        "ends; a line end of the text anchors counts as a byte.",
        _grid(panels),
    )


def _anchored(value: float, error: float | None) -> str:
    return f"{value:.3f}" if error is None else f"{value:.3f} ± {error:.3f}"


def directions(results: Results) -> str:
    """The generated directions of every arm, and classifiers beside; nothing where no arm was asked for them."""
    named = [run["directions"]["directions"] for run in results.every if run["directions"]]
    names = list(dict.fromkeys(name for found in named for name in found))
    if not names:
        return ""
    rows = [
        [
            html.escape(arm),
            *(
                _spread(numbers.told(interval([100 * one for one in of]), 1))
                for of in (_values(results, arm, "directions", "directions", name) for name in names)
            ),
        ]
        for arm in results.arms
    ]
    for one in results.anchors:
        if one.measure == "accuracy":
            cell = _spread(f"{100 * one.value:.1f} ± {100 * (one.standard_error or 0):.1f}")
            rows.append([_note(html.escape(one.name)), *(cell if name == one.modality else "" for name in names)])
    return section(
        "directions",
        "What is generated, in percent right",
        "Judges that were fitted on real training signals read what each arm generated. Mean over seeds ± half of its "
        "95 % interval; of a classifier, an outside anchor, ± one standard error over records.",
        f'<div class="card">{table(["arm", *(html.escape(arrow(name)) for name in names)], rows)}</div>',
    )


def cost(results: Results, plots: Figures) -> str:
    """What every arm took, and how far that was foreseen."""
    rows, ratios = [], []
    for arm in results.arms:
        if not results.runs[arm]:
            rows.append([html.escape(arm), '<span class="nothing">no result</span>', *[""] * 10])
            continue
        measured = interval(list(measured_ratio(results, arm).values()))
        predicted = interval(list(predicted_ratio(results, arm).values())).mean
        ratios.append((arm, predicted, measured))
        spaces = results.runs[arm][min(results.runs[arm])]["speed"]["tokens_per_item"]
        at_once = ", one step" if results.configs[arm]["model"]["head"] != "token" else ""
        rows.append(
            [
                html.escape(arm),
                numbers.quantity(_mean(results, arm, "cost", "parameters")),
                "<br>".join(
                    f"{html.escape(name)}\N{NO-BREAK SPACE}{value:.3g}{at_once}" for name, value in spaces.items()
                ),
                numbers.quantity(_mean(results, arm, "step")),
                numbers.quantity(_mean(results, arm, "items")),
                numbers.quantity(_mean(results, arm, "speed", "items_per_second")),
                numbers.quantity(_mean(results, arm, "speed", "tokens_per_second")),
                numbers.duration(_mean(results, arm, "seconds")),
                numbers.quantity(_mean(results, arm, "flops")),
                numbers.quantity(_mean(results, arm, "cost", "softmax_flops_per_item")),
                f"{numbers.quantity(_mean(results, arm, 'cost', 'peak_bytes'))}B",
                f"{predicted:.2f} / {measured.mean:.2f}",
            ]
        )
    head = ["arm", "parameters", "tokens per item", "steps", "items seen", "items per s", "tokens per s", "training"]
    head += ["training FLOPs", "softmax FLOPs per item", "peak memory", "cost predicted / measured"]
    panels = []
    if ratios:
        paint = functools.partial(figures.cost_figure, ratios, results.baseline)
        panels = [_panel(plots, "cost", "Cost of an item: predicted and measured", paint, "every arm")]
    return section(
        "cost",
        "What it cost",
        "Predicted by counting FLOPs before anything was trained; measured in training, without compilation. Peak "
        "memory is the compiler's, of one training step. Both costs are in units of the baseline's.",
        f'<div class="card">{table(head, rows)}</div>{_grid(panels)}',
    )
