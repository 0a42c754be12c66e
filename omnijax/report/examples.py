"""Parts of the page that show signals: live examples, completions, and real signals beside generated ones.

A signal is a piece of HTML that its modality made, so that nothing here knows what it is.
"""

from __future__ import annotations

import html
from typing import Any

from omnijax.report.inputs import RunFiles
from omnijax.report.text import arrow, lean_table, measured_table, percent, section, told_route

_EXAMPLES_SHOWN = 5
_MOST_LINES, _MOST_IN_CELL = 10, 3
_GRID_CHARACTERS = 1_000_000
"""A grid shows fewer signals of a class, and then fewer lines, until its HTML is about as long as this."""
Lines = dict[str, dict[str, list[str]]]
"""Signals by line and column."""


def live_examples(run: RunFiles) -> str:
    """A card for each direction: what was given, what the model made of it, the real signal, what the judge read."""
    cards = []
    for name, measured in run.evaluation["directions"].items():
        source, target = (html.escape(measured["through"][place]) for place in (0, -1))
        head = [f"{source} given", f"{target} generated", f"real {target}"]
        route = told_route(measured["through"])
        cards.append(_card(run, arrow(name), route, measured, head, run.examples["directions"].get(name, [])))
    if not cards:
        return ""
    note = f"Each line is one record of {run.split}: what the model was given, what it generated, and the real signal "
    note += f"of the same record. No example was chosen by its result. {_judge_told(run, 'directions')}"
    return section("examples", "What it can do", note, f'<div class="grid cards">{"".join(cards)}</div>')


def completed(run: RunFiles) -> str:
    """Signals that were completed from one half, and how often that went well; nothing where this wasn't asked for."""
    measured = {_told_half(name): entry for name, entry in run.evaluation["completions"].items()}
    if not measured:
        return ""
    shown = {_told_half(name): entries for name, entries in run.examples["completions"].items()}
    head = ["given", "completed", "real"]
    cards = [_card(run, name, "", entry, head, shown.get(name, [])) for name, entry in measured.items()]
    note = "Each fragment is written behind its position, and the model was trained on fragments in random order. So "
    note += f"it can go on from any part of a signal. Here it gets one half of a signal of {run.split} and generates "
    note += f"the other half. {_judge_told(run, 'completions')}"
    body = f'<div class="card">{measured_table(measured)}</div><div class="grid cards">{"".join(cards)}</div>'
    return section("completions", "Completed from one half", note, f'<div class="grid">{body}</div>')


def grids(run: RunFiles) -> str:
    """For each generated field, real signals beside generated ones: by class where there are any, else by record."""
    blocks = []
    for field in dict.fromkeys(entry["through"][-1] for entry in run.evaluation["directions"].values()):
        lines: Lines = {name: {} for name in run.evaluation["classes"]}
        columns = ["real", "encoded and decoded"]
        for number, entry in enumerate(run.examples["real"].get(field, [])):
            line = lines.setdefault(_line(run, entry, number), {})
            line.setdefault("real", []).append(entry["real"])
            line.setdefault("encoded and decoded", []).append(entry["coded"] or "")
        for name, entries in run.examples["directions"].items():
            if name.endswith(f"->{field}"):
                columns.append(f"generated, {arrow(name)}")
                for number, entry in enumerate(entries):
                    line = lines.setdefault(_line(run, entry, number), {})
                    line.setdefault("real", [entry["real"]])
                    line.setdefault(columns[-1], []).append(_framed(entry))
        if rows := _rows(lines, columns, _MOST_IN_CELL if run.evaluation["classes"] else 1):
            shown = lean_table(["", *map(html.escape, columns)], rows, "signals keyed")
            blocks.append(f'<div class="card"><h3>{html.escape(field)}</h3>{shown}</div>')
    if not blocks:
        return ""
    note = f"Signals of {run.split} stand beside what the model generated. Where encoding loses something, a real "
    note += "signal is shown after encoding and decoding, too; a generated signal can't be better than that. "
    note += "A frame means that the judge read another class." if _judge_told(run, "directions") else ""
    return section("samples", "Real and generated signals", note, f'<div class="grid">{"".join(blocks)}</div>')


def _line(run: RunFiles, entry: dict[str, Any], number: int) -> str:
    """What stands before the line of a signal."""
    if entry["class"] is not None:
        return run.class_name(entry["class"])
    return f"record {entry['record']}" if "record" in entry else f"signal {number + 1}"


def _rows(lines: Lines, columns: list[str], each: int) -> list[list[str]]:
    """Rows of a table: a few evenly spaced lines, with a few signals of each column."""
    filled = [name for name, line in lines.items() if any(line.values())]
    count = min(_MOST_LINES, len(filled))
    while True:
        shown = [filled[place * len(filled) // count] for place in range(count)]
        cells = [["".join(lines[name].get(column, [])[:each]) for column in columns] for name in shown]
        if max(each, count) <= 1 or sum(len(cell) for row in cells for cell in row) <= _GRID_CHARACTERS:
            break
        each, count = (each - 1, count) if each > 1 else (1, count - 1)
    several = [[f'<span class="several">{cell}</span>' if cell else "" for cell in row] for row in cells]
    return [[html.escape(name), *row] for name, row in zip(shown, several, strict=True)]


def _told_half(name: str) -> str:
    """`FIELD/HALF` in words; not escaped."""
    field, _, half = name.partition("/")
    return f"{field} from its {half} half"


def _card(
    run: RunFiles, title: str, route: str, measured: dict[str, Any], head: list[str], entries: list[dict[str, Any]]
) -> str:
    """The first examples of different classes, or the first ones where there are no classes, right or wrong."""
    score = percent(measured["accuracy"]) if "accuracy" in measured else f"decodable {percent(measured['decodable'])}"
    first: dict[str, dict[str, Any]] = {}
    for number, entry in enumerate(entries):
        first.setdefault(_line(run, entry, number), entry)
    rows = [
        [entry["given"], _or_lost(entry["made"]), entry["real"], _verdict(run, entry)]
        for entry in list(first.values())[:_EXAMPLES_SHOWN]
    ]
    lines = lean_table([*head, "judge"], rows, "signals") if rows else ""
    return (
        f'<article class="card"><header><h3>{html.escape(title)}</h3><span class="score">{score}</span></header>'
        f'<p class="route">{route}</p>{lines}</article>'
    )


def _verdict(run: RunFiles, entry: dict[str, Any]) -> str:
    if entry["judged"] is None:
        return ""
    true = html.escape(run.class_name(entry["class"]))
    if entry["judged"] == entry["class"]:
        return f'<span class="verdict">✓ {true}</span>'
    read = f"read as {run.class_name(entry['judged'])}" if entry["judged"] >= 0 else f"no {run.label}"
    return f'<span class="verdict wrong">✗ {html.escape(read)}, is {true}</span>'


def _or_lost(signal: str | None) -> str:
    return '<span class="word nothing">can’t be decoded</span>' if signal is None else signal


def _framed(entry: dict[str, Any]) -> str:
    """What was generated; in a frame where the judge read another class."""
    made = _or_lost(entry["made"])
    return made if entry["judged"] in (None, entry["class"]) else f'<span class="framed">{made}</span>'


def _judge_told(run: RunFiles, part: str) -> str:
    """Who judges the `directions` or the `completions`; "" where nobody does."""
    if not any("accuracy" in entry for entry in run.evaluation[part].values()):
        return ""
    told = f"The judge is a classifier that was fitted on real training signals; ✓ means that it read the {run.label}."
    return f"{told} “Blank” is its accuracy when the other half is left blank." if part == "completions" else told
