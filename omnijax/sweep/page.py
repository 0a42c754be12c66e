"""The page of a sweep: what was asked, what came out, and what that does and doesn't show."""

from __future__ import annotations

import html
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from omnijax.report.style import STYLE
from omnijax.report.text import section
from omnijax.report.theme import Figures
from omnijax.sweep import parts, words
from omnijax.sweep.inputs import Results, read_results
from omnijax.sweep.table import Row, rows_of

SHOWN_FORMS = 4
"""Forms with figures of their own, at most; all are in the tables."""


def write_report(out: pathlib.Path) -> pathlib.Path:
    """Writes `report.html` and `figures/*.png` into the directory of a sweep, whether it has ended or not.

    The page needs no other file and no network. Where `anchors.csv` lies in the directory, its figures stand beside
    those of the same unit.

    Args:
        out: holds sweep.json, and arms/NAME/seedK/result.json of what is done.

    Returns:
        Path of the page.

    Raises:
        DataError: a file is missing or damaged; nothing has been written then.
    """
    results = read_results(out)
    plots = Figures(out / "figures")
    plots.directory.mkdir(exist_ok=True)
    page, partial = out / "report.html", out / ".report.html.partial"
    partial.write_text(render(results, plots), encoding="utf-8")
    partial.replace(page)
    return page


def render(results: Results, plots: Figures) -> str:
    """The whole page as HTML, drawing its figures on the way."""
    rows = {form: rows_of(results, form) for form in results.forms}
    shown = shown_forms(results)
    body = [
        _opening(results),
        _shows(results, {form: rows[form] for form in shown}),
        *(parts.form(results, name, rows[name], plots) for name in shown),
        parts.others(results, {form: rows[form] for form in rows if form not in shown}),
        parts.units(results, plots),
        parts.directions(results),
        parts.cost(results, plots),
        _making(results),
    ]
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{html.escape(results.name)}: {html.escape(results.question)}</title>"
        f"<style>{STYLE}</style></head><body><main>{''.join(body)}</main></body></html>\n"
    )


def shown_forms(results: Results) -> list[str]:
    """The forms whose documents hold the most bits, in their own order; text of a few bytes is hardly what is asked."""

    def weight(form: str) -> float:
        def bits(run: dict[str, Any]) -> float | None:
            return run["bits"][form]["items"] * run["bits"][form]["renormalised"] if form in run["bits"] else None

        found = [value for arm in results.arms for value in results.computed(arm, bits).values()]
        return float(np.mean(found)) if found else 0.0

    chosen = sorted(results.forms, key=lambda form: -weight(form))[:SHOWN_FORMS]
    return [form for form in results.forms if form in chosen]


def _opening(results: Results) -> str:
    done = sum(len(runs) for runs in results.runs.values())
    devices = words.listed(sorted({str(run["device"]) for run in results.every})) or "–"
    facts = {
        "budget of an arm": words.budget_told(results),
        "arms": f"{len(results.arms)}",
        "seeds": f"{len(results.seeds)}",
        "runs with a result": f"{done} of {len(results.arms) * len(results.seeds)}",
        "baseline": results.baseline,
        "hardware": devices,
    }
    shown = "".join(f"<div><dt>{key}</dt><dd>{html.escape(value)}</dd></div>" for key, value in facts.items())
    return (
        f'<p class="run">omnijax · sweep {html.escape(results.name)}</p><h1>{html.escape(results.question)}</h1>'
        f'<dl class="facts">{shown}</dl>'
    )


def _shows(results: Results, rows: dict[str, list[Row]]) -> str:
    told = "".join(
        f'<div class="card"><h3>{parts.given(form)}</h3>{_list(list(words.findings(results, found)))}</div>'
        for form, found in rows.items()
    )
    limits = _list(list(words.limits(results, list(rows))))
    return section(
        "shows",
        "What the figures show, and what they don't",
        "Written from the figures. An arm is told from the baseline by the interval of their differences, seed for "
        "seed; from the lowest arm, if their own intervals don't overlap. Whatever can't be told apart is called so, "
        "however far apart the means are.",
        f'<div class="grid pair">{told}</div><h3 style="margin:1.4rem 0 .4rem">Before anyone relies on it</h3>'
        f'<div class="card">{limits}</div>',
    )


def _list(sentences: Sequence[str]) -> str:
    lines = "".join(f"<li>{html.escape(sentence)}</li>" for sentence in sentences)
    return f'<ul style="margin:.5rem 0 0;padding-left:1.1rem">{lines}</ul>'


def _making(results: Results) -> str:
    if not results.every:
        return ""
    first = results.every[0]
    versions = ", ".join(f"{name} {version}" for name, version in first["versions"].items())
    command = first["command"] if isinstance(first["command"], str) else " ".join(first["command"])
    made = {
        "Command of one arm": f"<code>{html.escape(command)}</code>",
        "Versions": html.escape(versions),
        "Device": html.escape(words.listed(sorted({str(run["device"]) for run in results.every}))),
        "Data": "<br>".join(f"{name} <code>{html.escape(str(value))}</code>" for name, value in first["data"].items()),
    }
    lines = "".join(f"<dt>{key}</dt><dd>{value}</dd>" for key, value in made.items())
    return section(
        "making",
        "How it was made",
        "results.csv beside this page has a line for every arm, seed and form, curves.csv one for every checkpoint; "
        "table.csv has what the tables show, directions.csv what was generated.",
        f'<div class="card"><dl class="made">{lines}</dl></div>',
    )
