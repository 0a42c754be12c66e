"""A page about a data set: what is in it, how it is split, how long its signals are, and what can't be used."""

from __future__ import annotations

import ast
import html
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Int

from omnijax.config import Config
from omnijax.data.corpus import encode_records
from omnijax.data.fitting import fitted
from omnijax.data.manifest import EXPERIMENT_FILE
from omnijax.errors import DataError
from omnijax.files import write_atomically
from omnijax.paths import as_path
from omnijax.report.text import beside, definitions, facts, grid, listed, percent, section, table, whole_page
from omnijax.source import TRAIN, read, signals_of
from omnijax.vocab.encode import count_tokens

MEASURED, SHOWN, PROBLEMS_SHOWN = 512, 12, 200
BUDGETS = (256, 512, 1024, 2048, 4096, 8192)


def write_data_page(config: Config, out: pathlib.Path) -> pathlib.Path:
    """Writes `data.html`. The page needs no other file and no network.

    Args:
        config: an experiment whose data set is there.
        out: directory of the page.

    Raises:
        DataError: the data set is missing or damaged, or has no training records.
    """
    source = config.data
    counts = {split: len(source.records(split)) for split in source.splits}
    if not counts[TRAIN]:
        raise DataError("records", 0, "the training split has at least one record", "add files")
    records = source.records(TRAIN)
    places = np.unique(np.linspace(0, len(records) - 1, MEASURED).astype(int))
    rows = read(records, places.tolist())
    lengths = {field: _lengths(config, rows, field) for field in source.fields}
    headline = f"Data: {listed(list(source.fields))}"
    shown = {f"{split} records": f"{count:,}" for split, count in counts.items()}
    body = [
        f'<p class="run">omnijax · {html.escape(source.directory)}</p><h1>{html.escape(headline)}</h1>{facts(shown)}',
        _examples(config, rows),
        _fields(config, lengths, len(rows)),
        _budgets(config, lengths),
        _left_out(config),
        _experiment(config),
    ]
    page = out / "data.html"
    write_atomically(page, whole_page(headline, "".join(body), beside("player.js")))
    return page


def _lengths(config: Config, rows: Sequence[Mapping[str, Any]], field: str) -> Int[np.ndarray, " n"]:
    """Number of tokens of a field, markers included, for each record that has the field."""
    having = [row for row in rows if signals_of(row, field)]
    if not having:
        return np.zeros(0, np.int64)
    corpus = encode_records(config, having, [field], fitted(config.data))
    return np.asarray(count_tokens(config.vocabulary, corpus.documents(np.arange(len(having)), [field]))[1])


def _examples(config: Config, rows: Sequence[Mapping[str, Any]]) -> str:
    cards = []
    for row in [rows[place] for place in np.unique(np.linspace(0, len(rows) - 1, SHOWN).astype(int))]:
        parts = []
        for field, modality in config.data.fields.items():
            shown = [modality.html(signal, field) for signal in signals_of(row, field)]
            parts.append(f"<div><h3>{html.escape(field)}</h3>{''.join(shown) or '–'}</div>")
        cards.append(f'<article class="card record">{"".join(parts)}</article>')
    return section("examples", "Examples", "Records of the training split, as they are stored.", grid(cards, "cards"))


def _fields(config: Config, lengths: Mapping[str, Int[np.ndarray, " n"]], measured: int) -> str:
    rows = []
    for field, counts in lengths.items():
        figures = np.quantile(counts, (0.5, 0.95, 1.0)) if len(counts) else np.zeros(3)
        having = percent(len(counts) / measured)
        kind = type(config.data.fields[field]).__name__
        rows.append([html.escape(field), kind, having, *(f"{figure:,.0f}" for figure in figures)])
    head = ["field", "modality", "records that have it", "tokens: median", "95 %", "longest"]
    note = f"Of {measured:,} training records, written as the experiment says."
    return section("fields", "Fields", note, table(head, rows))


def _budgets(config: Config, lengths: Mapping[str, Int[np.ndarray, " n"]]) -> str:
    means = {field: float(counts.mean()) for field, counts in lengths.items() if len(counts)}
    rows = []
    for task in config.batch.tasks:
        names = [name.partition("/")[0] for name in task.fields]
        length = 1 + sum(means.get(name, 0.0) for name in names)
        rows.append([html.escape(" → ".join(names)), *(f"{budget / length:,.1f}" for budget in BUDGETS)])
    note = "Documents of mean length in a sequence of so many tokens. A document that doesn't fit is an error."
    return section("budget", "What a sequence holds", note, table(["task", *(f"{b:,}" for b in BUDGETS)], rows))


def _experiment(config: Config) -> str:
    """What the experiment file says of itself: what training takes, and what is lost."""
    path = as_path(config.data.directory or ".") / EXPERIMENT_FILE
    said = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) if path.is_file() else None
    return section("experiment", "The experiment", "", f'<pre class="card">{html.escape(said)}</pre>') if said else ""


def _left_out(config: Config) -> str:
    problems = config.data.problems()
    excluded = {reason: f"{count:,} records" for reason, count in config.data.excluded().items()}
    files = {one["file"]: html.escape(one["reason"]) for one in problems[:PROBLEMS_SHOWN]}
    more = f"<p>… and {len(problems) - PROBLEMS_SHOWN:,} more.</p>" if len(problems) > PROBLEMS_SHOWN else ""
    body = definitions(excluded | files) + more if problems or excluded else ""
    note = f"{len(problems):,} files are in no record." if problems else "Every file is in a record."
    return section("problems", "Left out", note, body or "<p>Nothing.</p>")
