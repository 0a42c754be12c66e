"""The page around the parts: what the model is, and how it was made."""

from __future__ import annotations

import html
import json
import shlex

from omnijax.report import examples, measures
from omnijax.report.inputs import RunFiles
from omnijax.report.style import SCRIPT, STYLE
from omnijax.report.text import section
from omnijax.report.theme import Figures

_PLURALS = {"image": "images", "video": "videos"}


def render(run: RunFiles, plots: Figures) -> str:
    """The whole page as HTML, drawing its figures on the way."""
    body = [
        _opening(run),
        examples.live_examples(run),
        measures.directions(run),
        examples.sample_grids(run, plots),
        examples.completed(run, plots),
        examples.spoken(run, plots),
        measures.confusions(run, plots),
        measures.losses(run, plots),
        measures.bits(run, plots),
        measures.errors(run),
        measures.decodable(run),
        _making(run),
    ]
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{html.escape(run.name)}: one model for {html.escape(_listed(_modalities(run)))}</title>"
        f"<style>{STYLE}</style></head><body><main>{''.join(body)}</main><script>{SCRIPT}</script></body></html>\n"
    )


def _modalities(run: RunFiles) -> list[str]:
    """What the modalities hold, in the order in which the directions first name them."""
    names = {name: name for direction in run.evaluation["directions"] for name in direction.split("->")}
    told = names | _PLURALS
    return [told[name] for name in names]


def _listed(names: list[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def _opening(run: RunFiles) -> str:
    names = html.escape(_listed(_modalities(run)))
    size = f" of {run.run['vocabulary_size']:,} tokens" if "vocabulary_size" in run.run else " of a few hundred tokens"
    facts = {"training steps": f"{run.evaluation['step']:,}"}
    if "parameters" in run.run:
        facts = {"parameters": f"{run.run['parameters']:,}"} | facts
    facts["training time"] = _duration(run.metrics[-1]["seconds"])
    facts["tokens per second"] = f"{run.metrics[-1]['tokens_per_second']:,.0f}"
    facts |= {"device": str(run.run["device"]), "held-out records": f"{run.evaluation['examples']:,}"}
    shown = "".join(f"<div><dt>{key}</dt><dd>{html.escape(value)}</dd></div>" for key, value in facts.items())
    return (
        f'<p class="run">omnijax · run {html.escape(run.name)}</p><h1>One model for {names}</h1>'
        f'<p class="lead">One decoder-only transformer over one vocabulary{size} reads and writes {names}. What is '
        "not plain text is cut into fragments, and each fragment is written as a few digit tokens: its index in a much "
        "larger secondary vocabulary.</p>"
        f'<dl class="facts">{shown}</dl>'
    )


def _making(run: RunFiles) -> str:
    command = run.run["command"]
    versions = ", ".join(f"{name} {version}" for name, version in run.run["versions"].items())
    sampling = [
        f"{name}: {', '.join(f'{key} {value}' for key, value in how.items())}"
        for name, how in run.evaluation["sampling"].items()
    ]
    made = {
        "Command": f"<code>{html.escape(command if isinstance(command, str) else shlex.join(command))}</code>",
        "Versions": html.escape(versions),
        "Device": html.escape(str(run.run["device"])),
        "Training": _duration(run.metrics[-1]["seconds"]),
        "Evaluation": _duration(run.evaluation["seconds"]),
        "Sampling": "<br>".join(html.escape(line) for line in sampling),
    }
    lines = "".join(f"<dt>{key}</dt><dd>{value}</dd>" for key, value in made.items())
    config = html.escape(json.dumps(run.config, indent=2, ensure_ascii=False))
    return section(
        "making",
        "How it was made",
        "Everything needed to make this run again: the command, and the configuration as it was resolved.",
        f'<div class="card"><dl class="made">{lines}</dl></div>'
        f"<details><summary>Resolved configuration</summary><pre>{config}</pre></details>",
    )


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
