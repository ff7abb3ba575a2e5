"""`hvdtools doctor`: one screen that says whether a run can work here, and what to mend."""

from __future__ import annotations

import io
import os
import sys
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from hvdtools.doctor.report import Report


def doctor(
    ranks: Annotated[
        int | None,
        typer.Option("--np", min=1, metavar="N", help="Also run a checked all-reduce on N ranks."),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print facts and findings as one JSON object.")
    ] = False,
) -> None:
    """Say what is here, what is broken and what to do about it.

    The exit code is 1 if anything that a run needs is broken. What only a run on GPUs would
    lack is a note where there are no GPUs.
    """
    from rich.console import Console

    from hvdtools.doctor.report import to_json
    from hvdtools.doctor.show import show

    if isinstance(sys.stdout, io.TextIOWrapper):  # a plain terminal may know no check mark
        sys.stdout.reconfigure(errors="replace")
    report = examined(ranks)
    if as_json:
        typer.echo(to_json(report))
    else:
        show(report, Console())
    raise typer.Exit(1 if report.level == "broken" else 0)


def examined(ranks: int | None) -> Report:
    """Look at this machine, run the checks if `ranks` is given, and conclude."""
    from rich.console import Console

    from hvdtools.doctor.check import check, examine_checks
    from hvdtools.doctor.findings import examine
    from hvdtools.doctor.probe import look
    from hvdtools.doctor.report import Report

    # On stderr, so that stdout holds the report alone; nothing is shown in a pipe.
    with Console(stderr=True).status("Looking at this machine") as status:
        facts = look(ranks, os.environ)
        findings = examine(facts)
        if ranks is None:
            return Report(facts, findings)
        checks = check(facts, ranks, lambda name: status.update(f"All-reduce: {name}"))
    return Report(facts, (*findings, *examine_checks(facts, ranks, checks)), checks)
