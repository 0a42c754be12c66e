"""Words, numbers and tables of the page, each written in one way only."""

from __future__ import annotations

import html
import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any


def beside(name: str) -> str:
    """The text of a file of this folder, for the page."""
    return pathlib.Path(__file__).with_name(name).read_text(encoding="utf-8")


def arrow(direction: str) -> str:
    """A direction, `a->b`, as a reader expects it; not escaped."""
    return direction.replace("->", " → ")


def given(form: str) -> str:
    """A form of document, `a|b`, as a reader expects it; not escaped."""
    return form.replace("|", " given ")


def listed(names: Sequence[str]) -> str:
    """Names in a sentence; not escaped."""
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def percent(share: float) -> str:
    """A share in percent, with one decimal unless it is whole."""
    return f"{100 * share:.1f}".removesuffix(".0") + "\N{NO-BREAK SPACE}%"


def duration(seconds: float) -> str:
    """Three digits, in seconds, minutes, hours or days."""
    if not math.isfinite(seconds):
        return "–"
    units = ((86400, "d"), (3600, "h"), (60, "min"))
    size, unit = next((one for one in units if seconds >= 2 * one[0]), (1, "s"))
    return f"{seconds / size:.3g}\N{NO-BREAK SPACE}{unit}"


def told_route(through: Sequence[str]) -> str:
    """Which fields a direction goes through on its way, escaped; "" where it goes directly."""
    return f"by way of {html.escape(listed(through[1:-1]))}" if len(through) > 2 else ""


def bar(share: float, marks: dict[str, float]) -> str:
    """A bar of length `share`, with thin named marks at other shares."""
    ticks = "".join(
        f'<b style="left:{100 * at:.1f}%" title="{html.escape(f"{name}: {percent(at)}", quote=True)}"></b>'
        for name, at in marks.items()
    )
    return f'<span class="bar" aria-hidden="true"><i style="width:{100 * share:.1f}%"></i>{ticks}</span>'


def section(anchor: str, title: str, note: str, body: str) -> str:
    """A part of the page; `title` and `note` are plain text, `body` is HTML."""
    return (
        f'<section id="{anchor}"><h2>{html.escape(title)}</h2><p class="note">{html.escape(note)}</p>{body}</section>'
    )


def table(head: Sequence[str], rows: Sequence[Sequence[str]], css: str = "") -> str:
    """A table of HTML cells; the first of each row is its heading; `css` is its class."""
    heads = "".join(f'<th scope="col">{cell}</th>' for cell in head)
    body = "".join(
        f'<tr><th scope="row">{row[0]}</th>{"".join(f"<td>{cell}</td>" for cell in row[1:])}</tr>' for row in rows
    )
    return (
        f'<div class="scroll"><table class="{css}"><thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table></div>'
    )


def whole_page(title: str, body: str, script: str = "") -> str:
    """An HTML page that needs no other file; `title` is plain text, `body` is HTML."""
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{html.escape(title)}</title><style>{beside('style.css')}</style></head>"
        f"<body><main>{body}</main>{script and f'<script>{script}</script>'}</body></html>\n"
    )


def facts(values: Mapping[str, str]) -> str:
    """Large figures with their names, at the top of a page; both are plain text."""
    shown = "".join(
        f"<div><dt>{html.escape(name)}</dt><dd>{html.escape(value)}</dd></div>" for name, value in values.items()
    )
    return f'<dl class="facts">{shown}</dl>'


def definitions(values: Mapping[str, str]) -> str:
    """A card with terms, plain text, and what they mean, HTML."""
    shown = "".join(f"<dt>{html.escape(term)}</dt><dd>{value}</dd>" for term, value in values.items())
    return f'<div class="card"><dl class="made">{shown}</dl></div>'


def lean_table(head: Sequence[str], rows: Sequence[Sequence[str]], css: str = "") -> str:
    """A table without the columns that are empty in all rows."""
    kept = [place for place in range(len(head)) if any(row[place] for row in rows)]
    return table([head[place] for place in kept], [[row[place] for place in kept] for row in rows], css)


_SHARES = {"accuracy": "accuracy", "shuffled": "shuffled", "blank_accuracy": "blank", "judge": "judge"}
_SHARES |= {"judge_coded": "judge, coded", "decodable": "decodable", "decodable_without_grammar": "without grammar"}
_MARKS = ("chance", "blank_accuracy", "judge", "judge_coded")


def measured_table(measured: dict[str, dict[str, Any]]) -> str:
    """Figures of directions or completions, each with its title; accuracy only where there is a judge."""
    rows = []
    for title, entry in measured.items():
        route = f'<span class="route">{told_route(entry["through"])}</span>' if "through" in entry else ""
        metrics = "<br>".join(f"{html.escape(k.replace('_', ' '))} {v:.3g}" for k, v in entry["metrics"].items())
        shares = [_share(entry, name) if name in entry else "" for name in _SHARES]
        rows.append([html.escape(title) + route, *shares, metrics, f"{entry['examples']:,}"])
    return lean_table(["", *_SHARES.values(), "other figures", "records"], rows, "lean")


def _share(entry: dict[str, Any], name: str) -> str:
    """A share with its standard error, where it has one; the accuracy with a bar."""
    told, error = percent(entry[name]), name.replace("accuracy", "standard_error")
    if error != name:
        told = f'<strong>{told}</strong> <span class="error">± {100 * entry[error]:.1f}</span>'
    return told + bar(entry[name], {mark: entry[mark] for mark in _MARKS if mark in entry}) * (name == "accuracy")
