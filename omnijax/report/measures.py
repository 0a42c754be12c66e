"""Parts of the page that show numbers: accuracy, confusions, losses, bits, errors."""

from __future__ import annotations

import functools
import html
from typing import Any

import numpy as np

from omnijax.report import curves
from omnijax.report.inputs import RunFiles, field_of
from omnijax.report.text import arrow, given, lean_table, measured_table, percent, section, table
from omnijax.report.theme import Figures

_MOST_CLASSES, _MOST_MISTAKES = 25, 15


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
    return section("directions", "How often it is right", note, f'<div class="card">{measured_table(rows)}</div>')


def confusions(run: RunFiles) -> str:
    """One confusion matrix for each direction whose target has a judge."""
    panels = [
        f'<figure class="card"><header><h3>{html.escape(arrow(name))}</h3><span class="score">'
        f"{percent(entry['accuracy'])}</span></header>{_confusion(run, np.asarray(entry['confusion']))}</figure>"
        for name, entry in run.evaluation["directions"].items()
        if "accuracy" in entry
    ]
    if not panels:
        return ""
    return section(
        "confusion",
        "What is mistaken for what",
        f"Numbers of records of {run.split}. The row is the true {run.label}, the column the one that the judge read "
        "in what the model generated; “–” means none. A perfect model fills the diagonal only.",
        f'<div class="grid cards">{"".join(panels)}</div>',
    )


def _confusion(run: RunFiles, counts: np.ndarray) -> str:
    """The matrix, int [c, c + 1], or the most frequent mistakes where there are many classes."""
    names = [html.escape(name) for name in run.evaluation["classes"]] + ["–"]
    if len(counts) > _MOST_CLASSES:
        wrong = np.where(np.eye(*counts.shape) > 0, 0, counts)
        places = np.argsort(-wrong, axis=None, kind="stable")[:_MOST_MISTAKES].tolist()
        mistakes = [place for place in (divmod(place, len(names)) for place in places) if wrong[place]]
        return table(["true", "read as", "records"], [[names[a], names[b], f"{wrong[a, b]:,}"] for a, b in mistakes])
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    rows = [
        [name, *(_heat(count, part) for count, part in zip(line.tolist(), parts.tolist(), strict=True))]
        for name, line, parts in zip(names[:-1], counts, share, strict=True)
    ]
    return table(["", *names], rows, "confusion")


def _heat(count: int, share: float) -> str:
    return f'<i class="{"full" if share > 0.5 else "part"}" style="--share:{share:.3f}">{count or ""}</i>'


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
    return section(
        "loss",
        "How it learned",
        "Training loss by step, with the last value at the end of each curve. Digits write a fragment, digit 0 being "
        "the most significant; the position token says where the fragment belongs. Lines are means of five "
        "neighbouring points, which lie faintly behind.",
        f'<div class="grid pair">{"".join(panels)}</div>',
    )


def bits(run: RunFiles) -> str:
    """Exact bits per item of each form of document, and bits per natural unit with the anchors beside."""
    measured = run.evaluation["bits_per_item"]
    if not measured:
        return ""
    widest = max(entry["raw"] for entry in measured.values()) or 1.0
    columns = ("uniform", "raw", "renormalised", "leak", "digits", "position")
    rows = [
        [
            f"{html.escape(given(name))}{_stack(entry, widest)}",
            *(f"{entry[column]:.3f}" for column in columns),
            " · ".join(f"{place:.2f}" for place in entry["by_place"]),
        ]
        for name, entry in measured.items()
    ]
    head = ["bits per item", "all alike", "raw", "renormalised", "leak", "in digits", "in position", "by digit place"]
    return section(
        "bits",
        "How many bits an item costs",
        f"Exact −log₂ of the probability that the model gives to items of {run.split}, by themselves or given another "
        "field. “All alike” is the cost if every item were as likely as any other. “Raw” counts all tokens as "
        "candidates, “renormalised” only those that the grammar allows there. The leak is the difference: bits lost on "
        "tokens that can never be decoded. The bars show the raw bits of digits, the most significant first, and of "
        "the position.",
        f'<div class="grid"><div class="card">{lean_table(head, rows, "bits")}</div>{_units(run)}</div>',
    )


def _stack(entry: dict[str, Any], widest: float) -> str:
    """Bits of an item as a bar: its digits by place, its position, or a general token."""
    parts = {f"digit {place}": value for place, value in enumerate(entry["by_place"])} or {"token": entry["raw"]}
    drawn = {name: 100 * value / widest for name, value in (parts | {"position": entry["position"]}).items()}
    pieces = (
        f'<i class="{name.partition(" ")[0]}" style="width:{width:.2f}%" title="{name}"></i>'
        for name, width in drawn.items()
        if width > 0
    )
    return f'<span class="stack" aria-hidden="true">{"".join(pieces)}</span>'


def _units(run: RunFiles) -> str:
    """Bits per natural unit where a field is lossless, with those of classical codecs on the same signals."""
    found = [
        (name, unit, value, run.evaluation["anchors"].get(field_of(name), {"unit": ""}))
        for name, entry in run.evaluation["bits_per_item"].items()
        for unit, value in entry["units"].items()
    ]
    if not found:
        return ""
    codecs = list(dict.fromkeys(codec for *_, anchors in found for codec in anchors if codec != "unit"))
    rows = [
        [
            html.escape(given(name)),
            f"<strong>{value:.3f}</strong> bits per {html.escape(unit)}",
            *(f"{anchors[codec]:.3f}" if codec in anchors and anchors["unit"] == unit else "" for codec in codecs),
        ]
        for name, unit, value, anchors in found
    ]
    head = ["bits per natural unit", "this model", *map(html.escape, codecs)]
    return f'<div class="card snug">{lean_table(head, rows)}</div>'


def errors(run: RunFiles) -> str:
    """How often the likeliest token is wrong, by digit place, for position and check digit too where there are any."""
    measured = run.evaluation["bits_per_item"]
    kinds = sorted({kind for entry in measured.values() for kind in entry["errors"]}, key=_rank)
    if not kinds:
        return ""
    rows = [
        [
            html.escape(given(name)),
            *(percent(entry["errors"][kind]) if kind in entry["errors"] else "" for kind in kinds),
        ]
        for name, entry in measured.items()
    ]
    return section(
        "errors",
        "Where the first guess is wrong",
        f"Share of the tokens of {run.split} for which another token is the likeliest, when all tokens before are "
        "right. Digit 0 is the most significant: a wrong one changes the fragment more than a wrong digit behind it. "
        "A position can be foreseen where fragments are written in order, and not where the order is random.",
        f'<div class="card snug">{table(["wrong", *(html.escape(_kind(kind)) for kind in kinds)], rows)}</div>',
    )


def _rank(kind: str) -> tuple[int, int, str]:
    """Digits by place, then what stands around them, then general tokens."""
    place = kind.removeprefix("digit_")
    return (0, int(place), "") if place.isdigit() else (1, kind == "general", kind)


def _kind(kind: str) -> str:
    """A kind of token as a reader expects it."""
    names = {"general": "general token", "check": "check digit", "aos": "boundary (aos)"}
    return names.get(kind, kind.replace("_", " "))
