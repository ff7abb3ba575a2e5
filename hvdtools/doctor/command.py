"""`hvdtools doctor`: one screen that says whether a run can work here, and what to fix."""

from __future__ import annotations

import io
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hvdtools.core.errors import HvdtoolsError

if TYPE_CHECKING:
    from rich.console import Console

    from hvdtools.doctor.cluster.report import ClusterReport
    from hvdtools.doctor.report import Report
    from hvdtools.launch.hosts import Host

_SEVERAL = "Several hosts"


def doctor(
    ranks: Annotated[
        int | None,
        typer.Option("--np", min=1, metavar="N", help="Run a checked all-reduce on N ranks."),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print facts and findings as one JSON object.")
    ] = False,
    hosts: Annotated[
        str | None,
        typer.Option(
            metavar="A:4,B:4",
            help="Look at these hosts over ssh, compare them, and run an all-reduce on all slots.",
            rich_help_panel=_SEVERAL,
        ),
    ] = None,
    hostfile: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="The same from a file, one on a line.", rich_help_panel=_SEVERAL
        ),
    ] = None,
    on: Annotated[
        str | None,
        typer.Option(
            metavar="PLACE",
            help="local: this machine alone; slurm: the nodes of this allocation, as it is inside "
            "one of several nodes.",
            rich_help_panel=_SEVERAL,
        ),
    ] = None,
    interface: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="The network interface that jobs will be started with.",
            rich_help_panel=_SEVERAL,
        ),
    ] = None,
    frameworks: Annotated[
        str,
        typer.Option(
            help="Run the all-reduce with these alone.",
            metavar="TORCH,TENSORFLOW",
            rich_help_panel=_SEVERAL,
        ),
    ] = "",
    no_ranks: Annotated[
        bool,
        typer.Option(
            "--no-ranks", help="Compare the hosts, and start no ranks.", rich_help_panel=_SEVERAL
        ),
    ] = False,
) -> None:
    """Say what is here, what is wrong with it, and what to do.

    Of several hosts, the odd one out is named. The exit code is 1 if anything that a run
    needs is an error. What only a run on GPUs would lack is a warning where there are no GPUs.
    """
    from rich.console import Console

    from hvdtools.doctor.cluster import where

    if isinstance(sys.stdout, io.TextIOWrapper):  # a plain terminal may know no check mark
        sys.stdout.reconfigure(errors="replace")
    chosen = where.place(on, hosts, hostfile, os.environ)
    if chosen == "local":
        of_several = {"--interface": interface, "--frameworks": frameworks, "--no-ranks": no_ranks}
        for flag in (flag for flag, value in of_several.items() if value):
            raise HvdtoolsError(
                f"{flag} is about several hosts: name them with --hosts or --hostfile, or leave "
                "it out."
            )
        report: Report | ClusterReport = examined(ranks)
    else:
        wanted = () if no_ranks else where.read_frameworks(frameworks)
        named = chosen == "hosts"
        found = where.named_hosts(hosts, hostfile) if named else where.allocated_hosts(os.environ)
        report = _examined_cluster(
            where.dealt(found, ranks), "ssh" if named else "srun", interface, wanted
        )
    _tell(report, Console(), as_json)
    raise typer.Exit(1 if report.level == "error" else 0)


def _tell(report: Report | ClusterReport, console: Console, as_json: bool) -> None:
    from hvdtools.doctor import report as of_one
    from hvdtools.doctor.cluster import report as of_several

    if isinstance(report, of_one.Report):
        from hvdtools.doctor.show import show

        typer.echo(of_one.to_json(report)) if as_json else show(report, console)
    else:
        from hvdtools.doctor.cluster.show import show as show_several

        typer.echo(of_several.to_json(report)) if as_json else show_several(report, console)


def _examined_cluster(
    hosts: tuple[Host, ...], way: str, interface: str | None, frameworks: tuple[str, ...]
) -> ClusterReport:
    from rich.console import Console

    from hvdtools.doctor.cluster.examine import examined as cluster_examined

    with Console(stderr=True).status("") as status:
        return cluster_examined(hosts, way, interface, status.update, frameworks)


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
