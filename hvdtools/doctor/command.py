"""`hvdtools doctor`: one screen that reports whether a run can work here, and what to fix."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hvdtools.core.errors import HvdtoolsError

if TYPE_CHECKING:
    from hvdtools.doctor.facts import ClusterFacts
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
            help="Examine these hosts over ssh, compare them, and run an all-reduce on all slots.",
            rich_help_panel=_SEVERAL,
        ),
    ] = None,
    hostfile: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="The same from a file, one per line.",
            rich_help_panel=_SEVERAL,
        ),
    ] = None,
    on: Annotated[
        str | None,
        typer.Option(
            metavar="PLACE",
            help="local: only this machine; slurm: the nodes of this allocation, the default "
            "inside one of several nodes.",
            rich_help_panel=_SEVERAL,
        ),
    ] = None,
    interface: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="The network interface that jobs will use.",
            rich_help_panel=_SEVERAL,
        ),
    ] = None,
    frameworks: Annotated[
        str,
        typer.Option(
            help="Run the all-reduce with only these.",
            metavar="TORCH,TENSORFLOW",
            rich_help_panel=_SEVERAL,
        ),
    ] = "",
    no_ranks: Annotated[
        bool,
        typer.Option(
            "--no-ranks", help="Compare the hosts, but start no ranks.", rich_help_panel=_SEVERAL
        ),
    ] = False,
) -> None:
    """Report what is here, what is wrong with it, and what to do.

    With several hosts, the outliers are named. The exit code is 1 if there is an error. What
    only a run on GPUs would lack is a warning if there are no GPUs.
    """
    from rich.console import Console

    from hvdtools.doctor.host_selection import (
        allocated_hosts,
        assign_ranks,
        choose_scope,
        named_hosts,
        read_frameworks,
    )
    from hvdtools.doctor.report import to_json
    from hvdtools.doctor.screen import show

    if isinstance(sys.stdout, io.TextIOWrapper):  # not every terminal can print a check mark
        sys.stdout.reconfigure(errors="replace")
    scope = choose_scope(on, hosts, hostfile, os.environ)
    if scope == "local":
        for_several = {"--interface": interface, "--frameworks": frameworks, "--no-ranks": no_ranks}
        for flag in (flag for flag, value in for_several.items() if value):
            raise HvdtoolsError(
                f"{flag} is for several hosts: name them with --hosts or --hostfile, or leave it "
                "out."
            )
        report = examine_local(ranks)
    else:
        chosen = () if no_ranks else read_frameworks(frameworks)
        found = named_hosts(hosts, hostfile) if scope == "hosts" else allocated_hosts(os.environ)
        way = "ssh" if scope == "hosts" else "srun"
        report = _examine_cluster(assign_ranks(found, ranks), way, interface, chosen)
    typer.echo(to_json(report)) if as_json else show(report, Console())
    raise typer.Exit(1 if report.level == "error" else 0)


def examine_local(ranks: int | None) -> Report:
    """Examine this machine; run the all-reduces if `ranks` is given."""
    from hvdtools.doctor.collect import collect_local
    from hvdtools.doctor.rules.versions import FRAMEWORKS

    with _status() as show_status:
        show_status("Examining this machine")
        return _conclude(collect_local(ranks), FRAMEWORKS if ranks else (), show_status)


def _examine_cluster(
    hosts: tuple[Host, ...], way: str, interface: str | None, frameworks: tuple[str, ...]
) -> Report:
    from hvdtools.doctor.collect import collect_cluster

    with _status() as show_status:
        cluster = collect_cluster(hosts, way, interface, show_status)
        return _conclude(cluster, frameworks, show_status)


def _conclude(
    cluster: ClusterFacts, frameworks: tuple[str, ...], show_status: Callable[[str], None]
) -> Report:
    """Apply the rules, and run the all-reduces of these frameworks."""
    from hvdtools.doctor.allreduce.check import run_checks
    from hvdtools.doctor.report import Report
    from hvdtools.doctor.rules import examine
    from hvdtools.doctor.rules.allreduce import examine_checks

    findings = examine(cluster)
    if not frameworks:
        return Report(cluster, findings)
    checks = run_checks(cluster, frameworks, lambda name: show_status(f"All-reduce: {name}"))
    return Report(cluster, (*findings, *examine_checks(cluster, checks)), checks)


@contextlib.contextmanager
def _status() -> Iterator[Callable[[str], None]]:
    """A status line on stderr, so that stdout has only the report; a pipe shows none."""
    from rich.console import Console

    with Console(stderr=True).status("") as status:
        yield status.update
