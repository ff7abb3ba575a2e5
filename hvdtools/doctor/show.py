"""One screen: a row for each subject, then errors and warnings, with remedies."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from hvdtools.core.words import counted
from hvdtools.doctor.check import SUBJECT as ALL_REDUCE
from hvdtools.doctor.describe import rows
from hvdtools.doctor.finding import Finding
from hvdtools.doctor.report import Report, worst

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

# A mark and a word: not everyone sees the colour, not every terminal the mark.
_MARKS = {"ok": ("✓ ok", "green"), "warning": ("! warning", "yellow"), "error": ("✗ error", "red")}


def show(report: Report, console: Console) -> None:
    """Print the report."""
    show_page(
        report.facts.machine, list(screen_rows(report)), report.findings, verdict(report), console
    )


def show_page(
    title: str,
    lines: list[tuple[str, str, str]],
    findings: tuple[Finding, ...],
    last_line: str,
    console: Console,
) -> None:
    """Print a title, the rows (level, subject, text), what to fix, and the verdict."""
    console.print(title, markup=False, highlight=False)
    console.print(_table(lines))
    told = [each for each in findings if each.level == "error"]
    told += [each for each in findings if each.level == "warning" and each.remedy]
    if told:
        console.print()
        console.print(_remedies(told))
    console.print()
    console.print(last_line, markup=False, highlight=False)


def screen_rows(report: Report) -> Iterator[tuple[str, str, str]]:
    """(level, subject, text): facts, and those warnings that need no remedy."""
    for subject, text in rows(report.facts):
        findings = report.of(subject)
        plain = [each.message for each in findings if each.level == "warning" and not each.remedy]
        yield worst(findings), subject, "; ".join(part for part in (text, *plain) if part)
    for finding in report.of(ALL_REDUCE):
        yield finding.level, ALL_REDUCE, finding.message


def verdict(report: Report) -> str:
    """The last line: may a run start?"""
    if worst(report.findings) == "error" or report.checks:
        return outcome(report.findings)
    return "No errors. `hvdtools doctor --np 2` also tries an all-reduce."


def outcome(findings: tuple[Finding, ...]) -> str:
    """How many errors there are."""
    errors = sum(each.level == "error" for each in findings)
    if not errors:
        return "No errors."
    return f"{counted(errors, 'error')}: follow the remedies after →."


def _table(lines: list[tuple[str, str, str]]) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for level, subject, text in lines:
        mark, colour = _MARKS[level]
        # Text, not markup: a path may hold brackets.
        table.add_row(Text(mark, colour), Text(subject, "bold"), Text(text or "none"))
    return table


def _remedies(findings: list[Finding]) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for finding in findings:
        mark, colour = _MARKS[finding.level]
        text = Text(f"{finding.subject}: {finding.message}")
        text.append(f"\n→ {finding.remedy}", "bold")
        table.add_row(Text(mark, colour), text)
    return table
