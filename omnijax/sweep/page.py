"""The report of a sweep: one page with all tables and figures."""

from __future__ import annotations

import html
import pathlib

import numpy as np

from omnijax.report.text import definitions, facts, section, whole_page
from omnijax.report.theme import Figures
from omnijax.sweep import sections
from omnijax.sweep.fairness import HASHED
from omnijax.sweep.numbers import quantity
from omnijax.sweep.results import Results, read_results

SHOWN_FORMS = 4
"""Most forms that get figures; the others get tables."""
_BUDGETS = {
    "items": ("items", "All arms saw equally many items. An arm with more tokens per item spent more time and FLOPs."),
    "flops": ("FLOPs", "All arms spent equally many training FLOPs, by formula. Cheaper arms saw more items."),
    "seconds": (
        "seconds",
        "All arms trained for equally many seconds, by the time of a step as measured before training. Faster arms saw "
        "more items. Another machine gives other results.",
    ),
}
_INTERVALS = (
    "95 % intervals (Student's t) over seeds. Seeds draw parameters, noise and order; the held-out documents are the "
    "same. Intervals of two seeds are very wide. An arm is compared with the baseline by the differences between runs "
    "with the same seed; about one arm in twenty looks different by chance."
)


def write_report(out: pathlib.Path) -> pathlib.Path:
    """Writes `report.html` and `figures/*.png` into the directory of a sweep, which may still be running.

    The page needs no other file and no network.

    Returns:
        Path of the page.

    Raises:
        DataError: see `read_results`; nothing has been written then.
    """
    results, plots = read_results(out), Figures(out / "figures")
    plots.directory.mkdir(exist_ok=True)
    shown = shown_forms(results)
    others = [form for form in results.forms if form not in shown]
    body = [
        _opening(results),
        _reading(results),
        *(sections.form(results, form, plots if form in shown else None) for form in [*shown, *others]),
        sections.units(results, plots),
        sections.accuracies(results),
        sections.cost(results),
        _making(results),
    ]
    page, partial = out / "report.html", out / ".report.html.partial"
    partial.write_text(whole_page(f"{results.name}: {results.question}", "".join(body)), encoding="utf-8")
    partial.replace(page)
    return page


def shown_forms(results: Results) -> list[str]:
    """The forms with the most bits per document, in the order of the results."""

    def weight(form: str) -> float:
        found = [run["bits"][form] for run in results.every if form in run["bits"]]
        return float(np.mean([entry["items"] * entry["renormalised"] for entry in found]))

    chosen = sorted(results.forms, key=weight, reverse=True)[:SHOWN_FORMS]
    return [form for form in results.forms if form in chosen]


def _opening(results: Results) -> str:
    shown = {
        "budget per arm": f"{quantity(results.budget['amount'])} {_BUDGETS[results.budget['kind']][0]}",
        "arms": f"{len(results.arms)}",
        "seeds": f"{len(results.seeds)}",
        "runs with a result": f"{len(results.every)} of {len(results.arms) * len(results.seeds)}",
        "baseline": results.baseline,
        "device": ", ".join(_devices(results)) or "–",
    }
    name, question = html.escape(results.name), html.escape(results.question)
    return f'<p class="run">omnijax · sweep {name}</p><h1>{question}</h1>{facts(shown)}'


def _devices(results: Results) -> list[str]:
    return sorted({str(run["device"]) for run in results.every})


def _reading(results: Results) -> str:
    """What is equal, what is missing, and how the tables are to be read."""
    missing = {arm: [f"seed {seed}" for seed in results.seeds if seed not in results.runs[arm]] for arm in results.arms}
    absent = "; ".join(f"{arm} ({', '.join(seeds)})" for arm, seeds in missing.items() if seeds)
    differ = [
        f"{said}, seed {seed}"
        for seed in results.seeds
        for part, said in HASHED.items()
        if len({run["data"][part] for run in results.every if run["seed"] == seed}) > 1
    ]
    same = "Equal in all arms, by SHA-256: " + "; ".join(HASHED.values()) + "."
    notes = {
        "Budget": _BUDGETS[results.budget["kind"]][1],
        "Data": f"NOT COMPARABLE: arms differ in {'; '.join(differ)}." if differ else same,
        "Missing": html.escape(absent) or "nothing",
        "Intervals": _INTERVALS,
    }
    if len(_devices(results)) > 1:
        notes["Devices"] = "Runs used different devices: their times and speeds aren't comparable."
    return section("reading", "How to read this", "", definitions(notes))


def _making(results: Results) -> str:
    if not results.every:
        return ""
    first = results.every[0]
    made = {
        "Command of one arm": f"<code>{html.escape(first['command'])}</code>",
        "Versions": html.escape(", ".join(f"{name} {version}" for name, version in first["versions"].items())),
        "Data": "<br>".join(f"{part} <code>{html.escape(value)}</code>" for part, value in first["data"].items()),
    }
    note = "The CSV files beside this page hold all numbers: results.csv, curves.csv and table.csv."
    return section("making", "How it was made", note, definitions(made))
