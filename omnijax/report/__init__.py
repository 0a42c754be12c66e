"""The report of a run: one self-contained page, and its figures."""

from omnijax.report.page import write_report

__all__ = ["write_report"]
