"""Words, numbers and tables of the page, each written in one way only."""

from __future__ import annotations

import html
import math
import pathlib
from collections.abc import Collection, Mapping, Sequence


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


def section(anchor: str, title: str, note: str, body: str) -> str:
    """A part of the page; `title` and `note` are plain text, `body` is HTML. Nothing if there is no body."""
    note = f'<p class="note">{html.escape(note)}</p>'
    return f'<section id="{anchor}"><h2>{html.escape(title)}</h2>{note}{body}</section>' if body else ""


def table(head: Sequence[str], rows: Sequence[Sequence[str]], css: str = "") -> str:
    """A table of HTML cells; the first of each row is its heading; `css` is its class."""
    top = "".join(f'<th scope="col">{cell}</th>' for cell in head)
    body = "".join(
        f'<tr><th scope="row">{row[0]}</th>{"".join(f"<td>{cell}</td>" for cell in row[1:])}</tr>' for row in rows
    )
    return f'<div class="scroll"><table class="{css}"><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'


def sheet(corner: str, rows: Sequence[tuple[str, Mapping[str, str]]], css: str = "") -> str:
    """A table without empty columns; nothing if there is no row.

    Args:
        corner: the title of the headings; plain text, as those of the columns.
        rows: the heading and the cells of each row, HTML, the cells by column.
        css: class of the table.
    """
    columns = nonempty([cells for _, cells in rows])
    lines = [[heading, *(cells.get(name, "") for name in columns)] for heading, cells in rows]
    return table([*map(html.escape, [corner, *columns])], lines, css) if rows else ""


def nonempty(rows: Collection[Mapping[str, str]]) -> list[str]:
    """The columns that aren't empty in all rows, in the order in which they first occur."""
    every = dict.fromkeys(name for row in rows for name in row)
    return [name for name in every if any(row.get(name) for row in rows)]


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


def grid(pieces: Sequence[str], css: str = "") -> str:
    """Pieces of HTML side by side, or one below another; nothing if there is none."""
    return f'<div class="grid {css}">{"".join(pieces)}</div>' if any(pieces) else ""
