"""The report of a run: one self-contained page, and its figures."""

from __future__ import annotations

import pathlib

from omnijax.report.inputs import read_run
from omnijax.report.page import render
from omnijax.report.theme import Figures

__all__ = ["write_report"]


def write_report(run_dir: pathlib.Path) -> pathlib.Path:
    """Writes `report.html` and `figures/*.png` into a run directory that was trained and evaluated.

    The page needs no other file and no network: pictures and sounds are data: URIs.

    Returns:
        Path of the page.

    Raises:
        DataError: one of these files is missing or damaged; nothing has been written then.
        PlatformError: the libraries that draw figures aren't installed; nothing has been written then.
    """
    run = read_run(run_dir)
    figures = Figures(run_dir / "figures")
    figures.directory.mkdir(exist_ok=True)
    page = run_dir / "report.html"
    page.write_text(render(run, figures), encoding="utf-8")
    return page
