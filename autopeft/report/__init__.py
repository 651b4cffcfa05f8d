"""Looks at a study: tables, plots and a page."""

from autopeft.report.baseline import Comparison, compare
from autopeft.report.choice import RULES, Choice, choose, pick
from autopeft.report.front import Front
from autopeft.report.page import hypervolumes, write_report
from autopeft.report.plot import plot
from autopeft.report.summary import summary
from autopeft.report.value import shown, title

__all__ = [
    "RULES",
    "Choice",
    "Comparison",
    "Front",
    "choose",
    "compare",
    "hypervolumes",
    "pick",
    "plot",
    "shown",
    "summary",
    "title",
    "write_report",
]
