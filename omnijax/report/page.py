"""The page around the parts: what the model is, and how it was made."""

from __future__ import annotations

import html
import json
import pathlib

from omnijax.files import write_atomically
from omnijax.report import examples, measures
from omnijax.report.inputs import RunFiles, file_of, read_run
from omnijax.report.text import beside, definitions, duration, facts, listed, section, whole_page
from omnijax.report.theme import Figures


def write_report(run_dir: pathlib.Path, split: str | None = None, out: pathlib.Path | None = None) -> pathlib.Path:
    """Writes `report.html` and `figures/*.png` of a run that was trained and evaluated.

    The page needs no other file and no network: pictures and sounds are data: URIs.

    Args:
        run_dir: directory of the run.
        split: one that isn't the run's own and was evaluated, for `report-SPLIT.html`.
        out: where the evaluation is, and where the report goes; the directory of the run by default.

    Returns:
        Path of the page.

    Raises:
        DataError: one of these files is missing or damaged; nothing has been written then.
        PlatformError: the libraries that draw figures aren't installed; nothing has been written then.
    """
    run, out = read_run(run_dir, split, out), out or run_dir
    plots = Figures(out / "figures")
    headline = f"One model for {listed(run.fields)}" if run.fields else "One model"
    body = [
        _opening(run, headline),
        examples.live_examples(run),
        examples.held_out(run),
        measures.directions(run),
        examples.grids(run),
        examples.completed(run),
        measures.confusions(run),
        measures.bits(run),
        measures.errors(run),
        examples.credits(run),
        _making(run),
    ]
    body.insert(7, measures.losses(run, plots))  # it writes, so that it comes last
    page = file_of(out, "report.html", split)
    write_atomically(page, whole_page(f"{run.name}: {headline}", "".join(body), beside("player.js")))
    return page


def _opening(run: RunFiles, headline: str) -> str:
    shown = {
        "parameters": f"{run.run['parameters']:,}",
        "training steps": f"{run.evaluation['step']:,}",
        "training time": duration(run.metrics[-1]["seconds"]),
        "tokens per second": f"{run.metrics[-1]['tokens_per_second']:,.0f}",
        "device": str(run.run["device"]),
        "measured on": f"{run.evaluation['examples']:,} records of {run.split}",
    }
    return (
        f'<p class="run">omnijax · run {html.escape(run.name)}</p><h1>{html.escape(headline)}</h1>'
        f'<p class="lead">One decoder-only transformer with one vocabulary of {run.run["vocabulary_size"]:,} tokens '
        "reads and writes all of it. A signal is a sequence of items. An item is a general token, or a fragment of a "
        f"much larger secondary vocabulary, which is written as a few digit tokens.</p>{facts(shown)}"
    )


def _making(run: RunFiles) -> str:
    measured = run.evaluation
    sampling = [
        html.escape(f"{name}: {', '.join(f'{key} {value}' for key, value in how.items())}")
        for name, how in measured["sampling"].items()
    ]
    made = {
        "Command": f"<code>{html.escape(run.run['command'])}</code>",
        "Versions": html.escape(", ".join(f"{name} {version}" for name, version in run.run["versions"].items())),
        "Training": f"{duration(run.metrics[-1]['seconds'])} on {html.escape(str(run.run['device']))}",
        "Evaluation": f"{duration(measured['seconds'])} on {html.escape(str(measured['device']))}; "
        f"{html.escape(run.split)}, seed {measured['seed']}",
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
