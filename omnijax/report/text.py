"""Words and numbers of the page, each written in one way only."""

from __future__ import annotations

import html


def arrow(direction: str) -> str:
    """`image->text` as a reader expects it; not escaped."""
    return direction.replace("->", " → ")


def percent(share: float) -> str:
    """A share in percent, with one decimal unless it is whole."""
    return f"{100 * share:.1f}".removesuffix(".0") + "\N{NO-BREAK SPACE}%"


def told_route(route: str) -> str:
    """How a direction was generated, in words."""
    stops = route.split("->")
    if len(stops) == 2:
        return "directly"
    between = " and ".join(html.escape(stop) for stop in stops[1:-1])
    return f"by way of {between}: {html.escape(arrow(route))}"


def bar(share: float, marks: dict[str, float]) -> str:
    """A bar of length `share`, with thin named marks at other shares."""
    ticks = "".join(
        f'<b style="left:{100 * at:.1f}%" title="{html.escape(f"{name}: {percent(at)}", quote=True)}"></b>'
        for name, at in marks.items()
    )
    return f'<span class="bar" aria-hidden="true"><i style="width:{100 * share:.1f}%"></i>{ticks}</span>'


def section(anchor: str, title: str, note: str, body: str) -> str:
    """A part of the page; `title` and `note` are plain text, `body` is HTML."""
    return (
        f'<section id="{anchor}"><h2>{html.escape(title)}</h2><p class="note">{html.escape(note)}</p>{body}</section>'
    )


def table(head: list[str], rows: list[list[str]], css: str = "") -> str:
    """A table of HTML cells; the first of each row is its heading; `css` is its class."""
    heads = "".join(f'<th scope="col">{cell}</th>' for cell in head)
    body = "".join(
        f'<tr><th scope="row">{row[0]}</th>{"".join(f"<td>{cell}</td>" for cell in row[1:])}</tr>' for row in rows
    )
    return (
        f'<div class="scroll"><table class="{css}"><thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table></div>'
    )
