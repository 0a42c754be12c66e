"""The page around the parts: what the model is, and how it was made."""

from __future__ import annotations

import html
import json
import shlex

from omnijax.report import examples, measures
from omnijax.report.inputs import RunFiles
from omnijax.report.text import beside, definitions, duration, facts, listed, section, whole_page
from omnijax.report.theme import Figures


def render(run: RunFiles, plots: Figures) -> str:
    """The whole page as HTML, drawing its figures on the way."""
    body = [
        _opening(run),
        examples.live_examples(run),
        measures.directions(run),
        examples.grids(run),
        examples.completed(run),
        measures.confusions(run),
        measures.losses(run, plots),
        measures.bits(run),
        measures.errors(run),
        _making(run),
    ]
    return whole_page(f"{run.name}: {_headline(run)}", "".join(body), beside("player.js"))


def _headline(run: RunFiles) -> str:
    return f"One model for {listed(run.fields)}" if run.fields else "One model"


def _opening(run: RunFiles) -> str:
    size = f" of {run.run['vocabulary_size']:,} tokens" if "vocabulary_size" in run.run else ""
    shown = {"training steps": f"{run.evaluation['step']:,}"}
    if "parameters" in run.run:
        shown = {"parameters": f"{run.run['parameters']:,}"} | shown
    shown |= {
        "training time": duration(run.metrics[-1]["seconds"]),
        "tokens per second": f"{run.metrics[-1]['tokens_per_second']:,.0f}",
        "device": str(run.run["device"]),
        "measured on": f"{run.evaluation['examples']:,} records of {run.split}",
    }
    return (
        f'<p class="run">omnijax · run {html.escape(run.name)}</p><h1>{html.escape(_headline(run))}</h1>'
        f'<p class="lead">One decoder-only transformer with one vocabulary{size} reads and writes all of it. A signal '
        "is a sequence of items. An item is a general token, or a fragment of a much larger secondary vocabulary, "
        f"which is written as a few digit tokens.</p>{facts(shown)}"
    )


def _making(run: RunFiles) -> str:
    command, measured = run.run["command"], run.evaluation
    sampling = [
        html.escape(f"{name}: {', '.join(f'{key} {value}' for key, value in how.items())}")
        for name, how in measured["sampling"].items()
    ]
    tasks = measured.get("tasks", {})
    made = {
        "Command": f"<code>{html.escape(command if isinstance(command, str) else shlex.join(command))}</code>",
        "Versions": html.escape(", ".join(f"{name} {version}" for name, version in run.run["versions"].items())),
        "Training": f"{duration(run.metrics[-1]['seconds'])} on {html.escape(str(run.run['device']))}",
        "Evaluation": f"{duration(measured['seconds'])} on {html.escape(str(measured['device']))}; "
        f"{html.escape(run.split)}, seed {measured['seed']}",
        "Tasks": "<br>".join(f"{html.escape(task)}: {count:,} training records" for task, count in tasks.items()),
        "Sampling": "<br>".join(sampling),
    }
    config = html.escape(json.dumps(run.config, indent=2, ensure_ascii=False))
    return section(
        "making",
        "How it was made",
        "Everything needed to make this run again: the command, and the configuration as it was resolved.",
        definitions({name: value for name, value in made.items() if value})
        + f"<details><summary>Resolved configuration</summary><pre>{config}</pre></details>",
    )
