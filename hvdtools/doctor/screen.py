"""One screen: a row for each subject, then errors and warnings with their remedies, a verdict."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from hvdtools.core.text import count_noun
from hvdtools.doctor.describe import cluster_rows, cluster_title, host_rows
from hvdtools.doctor.findings import Finding, worst
from hvdtools.doctor.report import Report
from hvdtools.doctor.rules.allreduce import SUBJECT as ALL_REDUCE
from hvdtools.doctor.rules.allreduce import in_short
from hvdtools.doctor.rules.versions import SUBJECTS

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

# A mark and a word: not everyone sees the color, and not every terminal shows the mark.
_MARKS = {"ok": ("✓ ok", "green"), "warning": ("! warning", "yellow"), "error": ("✗ error", "red")}


def show(report: Report, console: Console) -> None:
    """Print the report."""
    from rich.text import Text

    local = report.cluster.local
    title = local.machine if local else cluster_title(report.cluster)
    console.print(title, markup=False, highlight=False)
    # Text, not markup: a path may hold brackets.
    rows = ((level, (Text(name, "bold"), Text(text))) for level, name, text in screen_rows(report))
    console.print(_table(rows))
    problems = [each for each in report.findings if each.level == "error"]
    problems += [each for each in report.findings if each.level == "warning" and each.remedy]
    if problems:
        console.print()
        console.print(_table((each.level, (_with_remedy(each),)) for each in problems))
    console.print()
    console.print(verdict(report), markup=False, highlight=False)


def _with_remedy(finding: Finding) -> Text:
    from rich.text import Text

    text = Text(f"{finding.subject}: {finding.message}")
    return text.append(f"\n→ {finding.remedy}", "bold")


def screen_rows(report: Report) -> Iterator[tuple[str, str, str]]:
    """(level, subject, text): facts, and the warnings that have no remedy."""
    local = report.cluster.local
    for subject, text in host_rows(local) if local else cluster_rows(report.cluster):
        findings = report.of(subject)
        said = [each.message for each in findings if each.level == "warning" and not each.remedy]
        if not local and subject in SUBJECTS:
            said = []  # the text shows what differs
        if not local and not text:
            said += [each.message for each in findings if each.level == "ok"]
        parts = [part for part in (text, *said) if part]
        yield worst(findings), subject, "; ".join(parts) or ("none" if local else "see below")
    checks = report.checks or ()
    for position, finding in enumerate(report.of(ALL_REDUCE)):
        in_row = not local and position < len(checks)
        text = in_short(checks[position], finding) if in_row else finding.message
        yield finding.level, ALL_REDUCE, text


def verdict(report: Report) -> str:
    """The last line: how many errors there are, and what was not tried."""
    errors = sum(each.level == "error" for each in report.findings)
    if errors:
        return f"{count_noun(errors, 'error')}: follow the remedies after →."
    if report.checks:
        return "No errors."
    if report.cluster.local:
        return "No errors. `hvdtools doctor --np 2` also tries an all-reduce."
    return "No errors. Without --no-ranks the hosts also try an all-reduce."


def _table(rows: Iterable[tuple[str, tuple[Text, ...]]]) -> Table:
    """A table of levels and texts, of which the last is folded."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for level, cells in rows:
        mark, color = _MARKS[level]
        table.add_row(Text(mark, color), *cells)
    for column in table.columns[:-1]:
        column.no_wrap = True
    table.columns[-1].overflow = "fold"
    return table
