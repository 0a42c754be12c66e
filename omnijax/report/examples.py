"""Parts of the page that show signals: live examples, completions, and real signals beside generated ones.

A signal is a piece of HTML that its modality made, so that nothing here knows what it is.
"""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import Any

from omnijax.report.inputs import RunFiles
from omnijax.report.measures import held_out_table, measured_table
from omnijax.report.text import arrow, grid, percent, section, sheet

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
        source, target = measured["through"][0], measured["through"][-1]
        head = (f"{source} given", f"{target} generated", f"real {target}")
        cards.append(_card(run, measured, run.examples["directions"].get(name, []), arrow(name), head))
    note = f"Each line is one record of {run.split}: what the model was given, what it generated, and the real signal "
    note += f"of the same record. No example was chosen by its result. {_judge_told(run, 'directions')}"
    return section("examples", "What it can do", note, grid(cards, "cards"))


def completed(run: RunFiles) -> str:
    """Signals that were completed from one half, and how often that went well; nothing where this wasn't asked for."""
    measured = run.evaluation["completions"]
    if not measured:
        return ""
    titles = {name: "{} from its {} half".format(*name.split("/")) for name in measured}
    head, shown = ("given", "completed", "real"), run.examples["completions"]
    cards = [_card(run, measured[name], shown.get(name, []), titles[name], head) for name in measured]
    note = "Each fragment is written behind its position, and the model was trained on fragments in random order. So "
    note += f"it can go on from any part of a signal. Here it gets one half of a signal of {run.split} and generates "
    note += f"the other half. {_judge_told(run, 'completions')}"
    figures = measured_table({titles[name]: entry for name, entry in measured.items()})
    return section("completions", "Completed from one half", note, grid([figures, grid(cards, "cards")]))


def held_out(run: RunFiles) -> str:
    """For each kind of held-out records the figures, beside those of baselines; then examples."""
    cards = []
    for path, entries in run.examples.get("held_out", {}).items():
        kind, name = path.split("/", 1)
        source, target = name.split("->")
        head = (f"{source} given", f"{target} generated", f"real {target}")
        cards.append(_card(run, run.evaluation["tests"][kind][name], entries, f"{kind}: {arrow(name)}", head))
    note = "Training had none of these records, and nothing else of their group. “Right” is the share of generated "
    note += "signals in which the judge read the right class, with its 95 % interval. “Ranked first” and “among the "
    note += "first 5” compare the answers of all classes by exact likelihood. The baselines had the same records."
    return section("unseen", "What it never met", note, grid([held_out_table(run), grid(cards, "cards")]))


def credits(run: RunFiles) -> str:
    """The credits of the records on the page, where the data set has them."""
    shown = [run.examples[part] for part in ("directions", "completions", "real")] + [run.examples.get("held_out", {})]
    entries = [entry for part in shown for some in part.values() for entry in some]
    entries += [entry["nearest"] for entry in entries if "nearest" in entry]
    lines = sorted({html.escape(entry["credit"]) for entry in entries if entry.get("credit")})
    body = f"<details><summary>{len(lines)} records</summary>{'<br>'.join(lines)}</details>" if lines else ""
    return section("credits", "Credits", "Who made the real signals on this page, and under which licence.", body)


def grids(run: RunFiles) -> str:
    """For each generated field, real signals beside generated ones: by class where there are any, else by record."""
    blocks = []
    for field in dict.fromkeys(entry["through"][-1] for entry in run.evaluation["directions"].values()):
        lines: Lines = {name: {} for name in run.evaluation["classes"]}
        for entry in run.examples["real"].get(field, []):
            line = lines.setdefault(_line(run, entry), {})
            line.setdefault("real", []).append(entry["real"])
            line.setdefault("encoded and decoded", []).append(entry["coded"] or "")
        for name, entries in run.examples["directions"].items():
            for entry in entries if name.endswith(f"->{field}") else ():
                line = lines.setdefault(_line(run, entry), {})
                line.setdefault("real", [entry["real"] or ""])
                line.setdefault("encoded and decoded", [])
                line.setdefault(f"generated, {arrow(name)}", []).append(_made(entry, framed=True))
        if shown := sheet("", _rows(lines, _MOST_IN_CELL if run.evaluation["classes"] else 1), "signals keyed"):
            blocks.append(f'<div class="card"><h3>{html.escape(field)}</h3>{shown}</div>')
    note = f"Signals of {run.split} stand beside what the model generated. Where encoding loses something, a real "
    note += "signal is shown after encoding and decoding, too; a generated signal can't be better than that. "
    note += "A frame means that the judge read another class." if _judge_told(run, "directions") else ""
    return section("samples", "Real and generated signals", note, grid(blocks))


def _line(run: RunFiles, entry: dict[str, Any]) -> str:
    """What stands before the line of a signal: its class, or else its record."""
    return f"record {entry['record']}" if entry["class"] is None else _class(run, entry["class"])


def _class(run: RunFiles, index: int) -> str:
    return str(run.evaluation["classes"][index])


def _rows(lines: Lines, each: int) -> list[tuple[str, dict[str, str]]]:
    """Rows of a table: a few evenly spaced lines, with a few signals of each column."""
    filled = [name for name, line in lines.items() if any(line.values())]
    count = min(_MOST_LINES, len(filled))
    while True:
        shown = [filled[place * len(filled) // count] for place in range(count)]
        cells = [{column: "".join(some[:each]) for column, some in lines[name].items()} for name in shown]
        if max(each, count) <= 1 or sum(len(cell) for line in cells for cell in line.values()) <= _GRID_CHARACTERS:
            break
        each, count = (each - 1, count) if each > 1 else (1, count - 1)
    several = [
        {column: f'<span class="several">{cell}</span>' if cell else "" for column, cell in line.items()}
        for line in cells
    ]
    return [(html.escape(name), line) for name, line in zip(shown, several, strict=True)]


def _card(
    run: RunFiles,
    measured: Mapping[str, Any],
    entries: Sequence[dict[str, Any]],
    title: str,
    head: tuple[str, str, str],
) -> str:
    """The first examples of different classes, or the first ones where there are no classes, right or wrong."""
    score = percent(measured["accuracy"]) if "accuracy" in measured else f"decodable {percent(measured['decodable'])}"
    first: dict[str, dict[str, Any]] = {}
    for entry in entries:
        first.setdefault(_line(run, entry), entry)
    rows = []
    for entry in list(first.values())[:_EXAMPLES_SHOWN]:
        between = {f"{field} generated": piece or "" for field, piece in entry.get("between", {}).items()}
        cells = between | {head[1]: _made(entry), head[2]: entry["real"] or "", "judge": _verdict(run, entry)}
        rows.append((entry["given"], cells | {"nearest in training": entry.get("nearest", {"html": ""})["html"]}))
    return (
        f'<article class="card"><header><h3>{html.escape(title)}</h3><span class="score">{score}</span></header>'
        f"{sheet(head[0], rows, 'signals')}</article>"
    )


def _verdict(run: RunFiles, entry: dict[str, Any]) -> str:
    if entry["judged"] is None:
        return ""
    true = html.escape(_class(run, entry["class"]))
    if entry["judged"] == entry["class"]:
        return f'<span class="verdict">✓ {true}</span>'
    read = f"read as {_class(run, entry['judged'])}" if entry["judged"] >= 0 else f"no {run.label}"
    return f'<span class="verdict wrong">✗ {html.escape(read)}, is {true}</span>'


def _made(entry: dict[str, Any], framed: bool = False) -> str:
    """What was generated; if wanted, in a frame where the judge read another class."""
    made = entry["made"] or '<span class="word nothing">can’t be decoded</span>'
    wrong = framed and entry["judged"] not in (None, entry["class"])
    return f'<span class="framed">{made}</span>' if wrong else made


def _judge_told(run: RunFiles, part: str) -> str:
    """Who judges the `directions` or the `completions`; "" where nobody does."""
    if not any("accuracy" in entry for entry in run.evaluation[part].values()):
        return ""
    told = f"The judge is a classifier that was fitted on real training signals; ✓ means that it read the {run.label}."
    return f"{told} “Blank” is its accuracy when the other half is left blank." if part == "completions" else told
