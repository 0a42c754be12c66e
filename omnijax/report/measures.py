"""Parts of the page that show numbers: accuracy, confusions, losses, bits, errors."""

from __future__ import annotations

import functools
import html
from collections.abc import Mapping
from typing import Any

import numpy as np

from omnijax.report import curves
from omnijax.report.inputs import RunFiles, field_of
from omnijax.report.text import arrow, given, grid, listed, percent, section, sheet, table
from omnijax.report.theme import Figures

_MOST_CLASSES, _MOST_MISTAKES = 25, 15
_SHARES = {"accuracy": "accuracy", "shuffled": "shuffled", "blank_accuracy": "blank", "judge": "judge"}
_SHARES |= {"judge_coded": "judge, coded", "decodable": "decodable", "decodable_without_grammar": "without grammar"}
_HELD_OUT = {"accuracy": "right", "top_1": "ranked first", "top_5": "among the first 5"}
_HELD_OUT |= {"judge": "judge", "judge_coded": "judge, coded", "decodable": "decodable"}
_KINDS = {"general": "general token", "check": "check digit", "aos": "boundary (aos)"}
"""Kinds of tokens as a reader expects them, where the name doesn't say it."""
_BITS = {"uniform": "all alike", "raw": "raw", "renormalised": "renormalised", "leak": "leak"}
_BITS |= {"digits": "in digits", "position": "in position"}


def told_figures(entry: Mapping[str, Any]) -> dict[str, str]:
    """Figures of a direction or a completion by column, as plain text; accuracy only where there is a judge."""
    told = {column: percent(entry[name]) for name, column in _SHARES.items() if name in entry}
    for name, error in (("accuracy", "standard_error"), ("blank_accuracy", "blank_standard_error")):
        if name in entry:
            told[_SHARES[name]] += f" ± {100 * entry[error]:.1f}"
    metrics = (f"{name.replace('_', ' ')} {value:.3g}" for name, value in entry["metrics"].items())
    between = listed(entry["through"][1:-1]) if "through" in entry else ""
    return told | {"other figures": ", ".join(metrics), "by way of": between, "records": f"{entry['examples']:,}"}


def measured_table(measured: Mapping[str, Mapping[str, Any]]) -> str:
    """Figures of directions or completions, each with its title; the accuracy with a bar."""
    rows = []
    for title, entry in measured.items():
        cells = {column: html.escape(text) for column, text in told_figures(entry).items()}
        if "accuracy" in entry:
            cells["accuracy"] += _bar(entry)
        rows.append((html.escape(title), cells))
    return f'<div class="card">{sheet("", rows, "lean")}</div>'


def _bar(entry: Mapping[str, Any]) -> str:
    """The accuracy as a bar, and marks at other shares."""
    ticks = "".join(
        f'<b style="left:{100 * entry[mark]:.1f}%" title="{mark.replace("_", " ")}: {percent(entry[mark])}"></b>'
        for mark in ("chance", "blank_accuracy", "judge", "judge_coded")
        if mark in entry
    )
    return f'<span class="bar" aria-hidden="true"><i style="width:{100 * entry["accuracy"]:.1f}%"></i>{ticks}</span>'


def directions(run: RunFiles) -> str:
    """The table of directions: accuracy where the target has a judge, the modality's own figures, decodable share."""
    measured = run.evaluation["directions"]
    if not measured:
        return ""
    chances = dict.fromkeys(percent(entry["chance"]) for entry in measured.values() if "accuracy" in entry)
    judged = (
        f"Accuracy is the share of records for which the judge read the right {run.label} in what the model generated, "
        "± one standard error. “Shuffled” scores the same outputs with the classes of other records; it has to fall to "
        "chance. “Judge” is the accuracy of the judge on real signals, “coded” on real signals that were encoded and "
        f"decoded. Marks on a bar show chance ({' or '.join(chances)}) and the judge. "
    )
    note = (
        f"These figures were measured on {run.split}. {judged if chances else ''}A signal is decodable if it decodes "
        "without an error. The sampler may pick only tokens that the grammar allows; “without grammar”, it may pick "
        f"any. Of all generated signals, {percent(run.evaluation['decodable'])} are decodable with the grammar, and "
        f"{percent(run.evaluation['decodable_without_grammar'])} without."
    )
    rows = {arrow(name): entry for name, entry in measured.items()}
    return section("directions", "How often it is right", note, measured_table(rows))


def held_out_table(run: RunFiles) -> str:
    """A table with a row for each kind of held-out records and each direction."""
    rows = [(html.escape(title), cells) for title, cells in told_tests(run.evaluation.get("tests", {})).items()]
    return f'<div class="card">{sheet("", rows, "lean")}</div>' if rows else ""


def told_tests(tests: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, str]]:
    """Table rows of held-out records: for each kind and direction, its figures as plain text by column."""
    rows = {}
    for kind, directions_of in tests.items():
        for name, entry in directions_of.items():
            cells = {title: percent(entry[key]) for key, title in _HELD_OUT.items() if key in entry}
            if "interval" in entry:
                cells["right"] += " ({} to {})".format(*map(percent, entry["interval"]))
            cells |= {title: percent(share) for title, share in entry.get("anchors", {}).items()}
            rows[f"{kind}: {arrow(name)}"] = cells | {"records": f"{entry['examples']:,}"}
    return rows


def confusions(run: RunFiles) -> str:
    """One confusion matrix for each direction whose target has a judge."""
    panels = [
        f'<figure class="card"><header><h3>{html.escape(arrow(name))}</h3><span class="score">'
        f"{percent(entry['accuracy'])}</span></header>{_confusion(run, np.asarray(entry['confusion']))}</figure>"
        for name, entry in run.evaluation["directions"].items()
        if "accuracy" in entry
    ]
    note = (
        f"Numbers of records of {run.split}. The row is the true {run.label}, the column the one that the judge read "
        "in what the model generated; “–” means none. A perfect model fills the diagonal only."
    )
    return section("confusion", "What is mistaken for what", note, grid(panels, "cards"))


def _confusion(run: RunFiles, counts: np.ndarray) -> str:
    """The matrix, int [c, c + 1], or the most frequent mistakes where there are many classes."""
    names = [html.escape(name) for name in run.evaluation["classes"]] + ["–"]
    if len(counts) > _MOST_CLASSES:
        wrong = np.where(np.eye(*counts.shape) > 0, 0, counts)
        places = np.argsort(-wrong, axis=None, kind="stable")[:_MOST_MISTAKES].tolist()
        mistakes = [place for place in (divmod(place, len(names)) for place in places) if wrong[place]]
        return table(["true", "read as", "records"], [[names[a], names[b], f"{wrong[a, b]:,}"] for a, b in mistakes])
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    cells = [
        [
            f'<i class="{"full" if share > 0.5 else "part"}" style="--share:{share:.3f}">{count or ""}</i>'
            for count, share in zip(*line, strict=True)
        ]
        for line in zip(counts.tolist(), shares.tolist(), strict=True)
    ]
    return table(["", *names], [[name, *line] for name, line in zip(names, cells)], "confusion")


def losses(run: RunFiles, plots: Figures) -> str:
    """Loss curves, by kind of token and by digit place; kinds that the run never met are absent."""
    kinds, places = curves.loss_names(run.metrics)
    panels = []
    for key, title, names in (("loss_kinds", "By kind of token", kinds), ("loss_digits", "By digit place", places)):
        if names:
            labels = {name: "all tokens" if name == "loss" else _kind(name.removeprefix("loss/")) for name in names}
            paint = functools.partial(curves.loss_figure, run.metrics, labels)
            figure = plots.add(key, paint, f"Loss curves. {title}")
            panels.append(f'<figure class="card"><h3>{title}</h3>{figure}</figure>')
    note = (
        "Training loss by step, with the last value at the end of each curve. Digits write a fragment, digit 0 being "
        "the most significant; the position token says where the fragment belongs. Lines are means of five "
        "neighbouring points, which lie faintly behind."
    )
    return section("loss", "How it learned", note, grid(panels, "pair"))


def bits(run: RunFiles) -> str:
    """Exact bits per item of each form of document, and bits per natural unit with the anchors beside."""
    rows: list[tuple[str, dict[str, str]]] = []
    for name, entry in run.evaluation["bits_per_item"].items():
        cells = {column: f"{entry[key]:.3f}" for key, column in _BITS.items()}
        cells["by digit place"] = " · ".join(f"{place:.2f}" for place in entry["by_place"])
        rows.append((html.escape(given(name)), cells))
        for source, own in entry["sources"].items():
            rows.append((html.escape(f"… of {source}"), {"renormalised": f"{own['renormalised']:.3f}"}))
    if not rows:
        return ""
    note = (
        f"Exact −log₂ of the probability that the model gives to items of {run.split}, by themselves or given another "
        "field. “All alike” is the cost if every item were as likely as any other. “Raw” counts all tokens as "
        "candidates, “renormalised” only those that the grammar allows there. The leak is the difference: bits lost on "
        "tokens that can never be decoded. The parts of the raw bits are in the digits, the most significant first, "
        "and in the position."
    )
    shown = f'<div class="card">{sheet("bits per item", rows)}</div>'
    return section("bits", "How many bits an item costs", note, grid([shown, _units(run)]))


def _units(run: RunFiles) -> str:
    """Bits per natural unit where a field is lossless, with those of classical codecs on the same signals."""
    rows = []
    for name, entry in run.evaluation["bits_per_item"].items():
        codecs = run.evaluation["anchors"].get(field_of(name), {"unit": ""})
        for unit, value in entry["units"].items():
            cells = {"this model": f"<strong>{value:.3f}</strong> bits per {html.escape(unit)}"}
            if codecs["unit"] == unit:
                cells |= {codec: f"{bits:.3f}" for codec, bits in codecs.items() if codec != "unit"}
            rows.append((html.escape(given(name)), cells))
    return f'<div class="card snug">{sheet("bits per natural unit", rows)}</div>' if rows else ""


def errors(run: RunFiles) -> str:
    """How often the likeliest token is wrong, by digit place, for position and check digit too where there are any."""
    measured = run.evaluation["bits_per_item"]
    kinds = sorted({kind for entry in measured.values() for kind in entry["errors"]}, key=_rank)
    if not kinds:
        return ""
    rows = []
    for name, entry in measured.items():
        cells = {_kind(kind): percent(entry["errors"][kind]) if kind in entry["errors"] else "" for kind in kinds}
        rows.append((html.escape(given(name)), cells))
    note = (
        f"Share of the tokens of {run.split} for which another token is the likeliest, when all tokens before are "
        "right. Digit 0 is the most significant: a wrong one changes the fragment more than a wrong digit behind it. "
        "A position can be foreseen where fragments are written in order, and not where the order is random."
    )
    return section(
        "errors", "Where the first guess is wrong", note, f'<div class="card snug">{sheet("wrong", rows)}</div>'
    )


def _rank(kind: str) -> tuple[int, int, str]:
    """Digits by place, then what stands around them, then general tokens."""
    place = kind.removeprefix("digit_")
    return (0, int(place), "") if place.isdigit() else (1, kind == "general", kind)


def _kind(kind: str) -> str:
    return _KINDS.get(kind, kind.replace("_", " "))
