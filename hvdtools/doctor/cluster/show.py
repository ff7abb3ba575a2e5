"""The screen for several hosts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from hvdtools.doctor.cluster.describe import rows, title
from hvdtools.doctor.cluster.findings_checks import SUBJECT as ALL_REDUCE
from hvdtools.doctor.cluster.findings_checks import in_short
from hvdtools.doctor.cluster.findings_versions import SUBJECTS
from hvdtools.doctor.cluster.report import ClusterReport
from hvdtools.doctor.report import worst
from hvdtools.doctor.show import outcome, show_page

if TYPE_CHECKING:
    from rich.console import Console


def show(report: ClusterReport, console: Console) -> None:
    """Print the report."""
    lines = list(screen_rows(report))
    show_page(title(report.cluster), lines, report.findings, verdict(report), console)


def screen_rows(report: ClusterReport) -> Iterator[tuple[str, str, str]]:
    """(level, subject, text): what hosts have, and those warnings that need no remedy."""
    for subject, text in rows(report.cluster):
        findings = report.of(subject)
        said = [each.message for each in findings if each.level == "warning" and not each.remedy]
        if subject in SUBJECTS:
            said = []  # the text has what differs
        if not text:
            said += [each.message for each in findings if each.level == "ok"]
        parts = [part for part in (text, *said) if part]
        yield worst(findings), subject, "; ".join(parts) or "see below"
    ends = report.of(ALL_REDUCE)
    for check, finding in zip(report.checks or (), ends, strict=False):
        yield finding.level, ALL_REDUCE, in_short(check, finding)
    for finding in ends[len(report.checks or ()) :]:
        yield finding.level, ALL_REDUCE, finding.message


def verdict(report: ClusterReport) -> str:
    """The last line: may a run start?"""
    if report.level == "error" or report.checks:
        return outcome(report.findings)
    return "No errors. Without --no-ranks the hosts also try an all-reduce."
