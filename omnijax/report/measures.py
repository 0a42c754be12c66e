"""Parts of the page that show numbers: accuracy, confusions, losses, bits, decodable share."""

from __future__ import annotations

import functools
import html

import numpy as np

from omnijax.report import curves, figures
from omnijax.report.inputs import RunFiles
from omnijax.report.text import arrow, bar, percent, section, table, told_route
from omnijax.report.theme import Figures

_KINDS = {"loss": "all tokens", "loss/aos": "boundary (aos)"}


def directions(run: RunFiles) -> str:
    """The table of directions with chance, the shuffled control and the judges' own accuracy beside."""
    measured = run.evaluation
    chance, judges = measured["chance"], measured["judges"]
    rows = []
    for name, accuracy in measured["directions"].items():
        target = name.split("->")[1]
        own = {judge: share for judge, share in judges.items() if judge.split("_")[0] == target}
        ceiling = {"judge on real signals": list(own.values())[-1]} if own else {}
        error = f'<span class="error">± {100 * measured["standard_errors"][name]:.1f}</span>'
        rows.append(
            [
                f'{html.escape(arrow(name))}<span class="route">{told_route(measured["routes"][name])}</span>',
                f"<strong>{percent(accuracy)}</strong> {error}{bar(accuracy, {'chance': chance} | ceiling)}",
                percent(measured["shuffled_control_by_direction"][name]),
                "".join(_own(judge, share) for judge, share in own.items()) or '<span class="error">exact word</span>',
            ]
        )
    others = [f"{_judged(name)} {percent(share)}" for name, share in judges.items()]
    return section(
        "directions",
        "How often it is right",
        f"Share of {measured['examples']} held-out records for which the right digit was read in what the model "
        f"generated, ± one standard error. Chance is {percent(chance)}. Marks on a bar: chance, and what the judge "
        "itself reaches on real held-out signals (for speech, after the codec: through the codebook and back). "
        "Shuffled: the same outputs scored against another record, which has to fall to chance.",
        f'<div class="card">{table(["direction", "accuracy", "shuffled", "judge on real signals"], rows, "lean")}</div>'
        '<p class="note">Generated text is right when it is exactly the word. Generated images and speech are read by '
        "classifiers that were fitted on real training signals only, so their mistakes are part of these numbers. "
        f"Their own accuracy on real held-out signals: {html.escape('; '.join(others))}. Shuffled "
        f"control over all directions: {percent(measured['shuffled_control'])}.</p>",
    )


def confusions(run: RunFiles, plots: Figures) -> str:
    """One confusion matrix for each direction."""
    panels = []
    for name, counts in run.evaluation["confusion"].items():
        paint = functools.partial(figures.confusion, np.asarray(counts))
        picture = plots.add(
            f"confusion_{name.replace('->', '_to_')}", paint, f"Confusion matrix, {arrow(name)}", "small"
        )
        panels.append(f'<figure class="card">{_headed(name, run.evaluation["directions"][name])}{picture}</figure>')
    return section(
        "confusion",
        "What is mistaken for what",
        "Counts of held-out records: the row is the true digit, the column the one that was read in what the model "
        "generated, and the column “–” is not a digit at all. A perfect model fills the diagonal only.",
        f'<div class="grid cards">{"".join(panels)}</div>',
    )


def losses(run: RunFiles, plots: Figures) -> str:
    """Loss curves, by kind of token and by digit place; kinds that the run never met are absent."""
    kinds, places = curves.loss_kinds(run.metrics), curves.loss_places(run.metrics)
    kinds = [name for name in ["loss", *kinds] if len(curves.curve(run.metrics, name)[0])]
    places = [name for name in places if len(curves.curve(run.metrics, name)[0])]
    kind_labels = [_KINDS[name] if name in _KINDS else name.removeprefix("loss/") for name in kinds]
    place_labels = [f"digit {name.removeprefix('loss/digit_')}" for name in places]
    panels = []
    for key, title, names, labels in (
        ("loss_kinds", "By kind of token", kinds, kind_labels),
        ("loss_digits", "By digit place", places, place_labels),
    ):
        if names:
            paint = functools.partial(curves.loss_figure, run.metrics, names, labels)
            picture = plots.add(key, paint, f"Loss curves. {title}", "wide")
            panels.append(f'<figure class="card"><h3>{title}</h3>{picture}</figure>')
    return section(
        "loss",
        "How it learned",
        "Training loss by step, with the last value at the end of each curve. General tokens are bytes of text; digits "
        "spell the index of an image or speech fragment, digit 0 being the most significant; the position token says "
        "where the fragment belongs. Lines are means of five neighbouring points, which lie faintly behind.",
        f'<div class="grid pair">{"".join(panels)}</div>',
    )


def bits(run: RunFiles, plots: Figures) -> str:
    """Exact bits per item of each modality, as a figure and as numbers."""
    measured = run.evaluation["bits_per_item"]
    paint = functools.partial(curves.bits_figure, measured)
    picture = plots.add("bits", paint, "Bits per item by modality, split by digit place and position", "wide")
    columns = ("uniform", "raw", "renormalised", "leak", "digits", "position")
    rows = [
        [
            html.escape(name.replace("|", " given ")),
            *(f"{entry[column]:.3f}" for column in columns),
            " · ".join(f"{place:.2f}" for place in entry["by_place"]),
        ]
        for name, entry in measured.items()
    ]
    head = ["bits per item", "all alike", "raw", "renormalised", "leak", "in digits", "in position", "by digit place"]
    return section(
        "bits",
        "How many bits an item costs",
        "Exact −log₂ of the probability that the model gives to held-out items, by themselves or given another "
        "modality. All alike: if every item were as likely as any other. Raw counts all tokens as candidates; "
        "renormalised only those that the grammar allows there; leak is the difference, lost on tokens that can never "
        "be decoded. "
        f"Images are lossless, so this is {run.evaluation['bits_per_pixel']:.2f} bits per pixel of theirs.",
        f'<div class="grid"><figure class="card">{picture}<figcaption>The parts of an item: its digits, most '
        f'significant first, and its position.</figcaption></figure><div class="card">{table(head, rows)}</div></div>',
    )


def errors(run: RunFiles) -> str:
    """How often the likeliest token is wrong, by digit place, for position and check digit too where there are any."""
    measured = run.evaluation["bits_per_item"]
    kinds = sorted({kind for entry in measured.values() for kind in entry["errors"]}, key=_rank)
    rows = [
        [
            html.escape(name.replace("|", " given ")),
            *(percent(entry["errors"][kind]) if kind in entry["errors"] else "" for kind in kinds),
        ]
        for name, entry in measured.items()
    ]
    return section(
        "errors",
        "Where the first guess is wrong",
        "Share of the tokens of held-out items for which another one is the likeliest, when all before it are right. "
        "Digit 0 is the most significant: a wrong one there spoils the fragment more than any behind it. A picture's "
        "position is foreseeable in raster order, and by nature not in a random one.",
        f'<div class="card snug">{table(["wrong", *(_kind(kind) for kind in kinds)], rows)}</div>',
    )


def _rank(kind: str) -> tuple[int, int]:
    """Digits by place, then what stands around them, then general tokens."""
    place = kind.removeprefix("digit_")
    return (0, int(place)) if place != kind else (("check", "position", "general").index(kind) + 1, 0)


def _kind(kind: str) -> str:
    """A kind of token as a reader expects it."""
    return {"general": "byte of text", "check": "check digit"}.get(kind, kind.replace("_", " "))


def decodable(run: RunFiles) -> str:
    """Share of sampled documents that decode without an error, with the grammar on and off."""
    measured = run.evaluation
    rows = [
        [
            html.escape(arrow(name)),
            percent(share["grammar"]),
            percent(share["free"]),
        ]
        for name, share in measured["decodable_by_direction"].items()
    ]
    total = [measured["decodable"], measured["decodable_without_grammar"]]
    rows.append(["all", *(f"<strong>{percent(share)}</strong>" for share in total)])
    return section(
        "decodable",
        "How much can be decoded",
        "Share of generated items that decode without an error: when the sampler may pick only tokens that the grammar "
        "allows, and when it may pick any.",
        f'<div class="card snug">{table(["direction", "with grammar", "without"], rows)}</div>',
    )


def _headed(name: str, accuracy: float) -> str:
    return f'<header><h3>{html.escape(arrow(name))}</h3><span class="score">{percent(accuracy)}</span></header>'


def _own(judge: str, share: float) -> str:
    variant = judge.partition("_")[2]
    return f'<span class="route">{html.escape(variant)} {percent(share)}</span>' if variant else percent(share)


def _judged(name: str) -> str:
    return name.replace("_codec", " through the codebook and back")
