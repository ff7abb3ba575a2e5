"""The command `hvdtools launch`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hvdtools.core.errors import HvdtoolsError
from hvdtools.core.renamed import new_value
from hvdtools.launch.flags import field_of, given, with_flags
from hvdtools.launch.options import RENAMED, all_options

if TYPE_CHECKING:
    from hvdtools.launch.machine import Machine
    from hvdtools.launch.plan import Plan, Submission
    from hvdtools.launch.spec import JobSpec


@with_flags(all_options(), RENAMED)
def launch(
    command: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="COMMAND", help="What every rank runs; put -- before it.", show_default=False
        ),
    ] = None,
    job: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            show_default=False,
            rich_help_panel="What",
            help="A TOML file with the options as keys; flags win.",
        ),
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Print the command line, script or manifest, and stop."),
    ] = False,
    save: Annotated[
        Path | None,
        typer.Option(metavar="FILE", show_default=False, help="Keep that text in a new file."),
    ] = None,
    **flags: Any,
) -> None:
    """Start COMMAND in N ranks: here, on hosts, or where a scheduler allocates nodes.

    Each line of a rank is shown behind its number, and the exit code is that of the first
    rank that failed.

    Example: hvdtools launch -n 2 -- python train.py
    """
    from hvdtools.launch.machine import detect_host
    from hvdtools.launch.parse_options import parse_options

    for old, new in RENAMED.items():
        new_field = field_of(new)
        flags[new_field] = new_value(
            f"--{old}", flags.pop(field_of(old)), f"--{new}", flags[new_field]
        )
    values = given(flags, all_options())
    words = tuple(command or ())
    if job is not None:
        values, words = _over_file(job, values, words)
    spec = parse_options(values, words, os.environ)
    _start(spec, detect_host(values.get("mpirun")), dry_run=dry_run, save=save)


def _start(spec: JobSpec, machine: Machine, *, dry_run: bool, save: Path | None) -> None:
    from hvdtools.launch.console import run_and_tell, submit
    from hvdtools.launch.machine import check_program
    from hvdtools.launch.plan import Submission
    from hvdtools.launch.planner import plan
    from hvdtools.launch.ssh_check import check_hosts

    planned = plan(spec, machine)
    if isinstance(planned, Submission):
        if not _told(planned, dry_run, save):
            raise typer.Exit(submit(planned, spec.on))
        return
    check_program(spec.command)
    if planned.hosts and not dry_run:
        check_hosts(planned.hosts, Path.cwd(), machine.python)
    if not _told(planned, dry_run, save):
        raise typer.Exit(run_and_tell(planned, spec))


def _told(plan: Plan | Submission, dry_run: bool, save: Path | None) -> bool:
    """Say what was planned and keep its text if asked to; True if that was all."""
    typer.echo(plan.note, err=True)
    if save is not None:
        _save(plan, save)
    if dry_run:
        typer.echo(plan.text().rstrip("\n"))
    return dry_run


def _save(plan: Plan | Submission, file: Path) -> None:
    from hvdtools.launch.plan import Plan

    is_command = isinstance(plan, Plan)
    text = plan.text().rstrip("\n") + "\n"
    try:
        with file.open("x") as opened:
            opened.write(f"#!/bin/sh\nexec {text}" if is_command else text)
    except FileExistsError:
        raise HvdtoolsError(f"{file} is there already: choose another name for --save.") from None
    except OSError as error:
        raise HvdtoolsError(f"--save {file} cannot be written: {error}.") from None
    if is_command or text.startswith("#!"):
        file.chmod(0o755)


def _over_file(
    file: Path, flags: dict[str, Any], words: tuple[str, ...]
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The flags on top of what a job file says; lists are added to, hosts replaced."""
    from hvdtools.launch.jobfile import read_job_file

    values, command = read_job_file(file)
    for option in all_options().values():
        if option.kind is tuple and option.name in values and option.name in flags:
            flags[option.name] = (*values[option.name], *flags[option.name])
    if {"hosts", "hostfile"} & set(flags):
        values = {name: each for name, each in values.items() if name not in ("hosts", "hostfile")}
    return {**values, **flags}, words or command
