"""The command `hvdtools launch`."""

from __future__ import annotations

import inspect
import keyword
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hvdtools.core.errors import HvdtoolsError
from hvdtools.core.renamed import new_value
from hvdtools.launch.option import Option
from hvdtools.launch.options import RENAMED, merged

if TYPE_CHECKING:
    from hvdtools.launch.plan import Plan, Submission
    from hvdtools.launch.spec import JobSpec


def launch(
    command: list[str] | None,
    job: Path | None,
    dry_run: bool,
    save: Path | None,
    **flags: Any,
) -> None:
    """Start COMMAND in N ranks: here, on hosts, under Slurm, on Kubernetes or SageMaker.

    Each line of a rank is shown behind its number, and the exit code is that of the first
    rank that failed.

    Example: hvdtools launch -n 2 -- python train.py
    """
    from hvdtools.launch.compose import compose
    from hvdtools.launch.machine import detect_host

    given = _given(flags)
    words = tuple(command or ())
    if job is not None:
        given, words = _over_file(job, given, words)
    spec = compose(given, words, os.environ)
    _carry_out(spec, detect_host(given.get("mpirun")), dry_run=dry_run, save=save)


def _carry_out(spec: JobSpec, machine: Any, *, dry_run: bool, save: Path | None) -> None:
    from hvdtools.launch.foreground import run_and_tell
    from hvdtools.launch.handover import hand_over
    from hvdtools.launch.machine import check_program
    from hvdtools.launch.make import is_submitted, make_plan, make_submission
    from hvdtools.launch.reach import check_hosts

    if is_submitted(spec, machine):
        submission = make_submission(spec, machine)
        if not _told(submission, dry_run, save):
            raise typer.Exit(hand_over(submission, spec))
        return
    plan = make_plan(spec, machine)
    check_program(spec.command)
    if plan.hosts and not dry_run:
        check_hosts(plan.hosts, Path.cwd(), machine.python)
    if not _told(plan, dry_run, save):
        raise typer.Exit(run_and_tell(plan, spec))


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


def _given(flags: dict[str, Any]) -> dict[str, Any]:
    """Option name -> value of the flags that were given."""
    names = {option.field: option for option in merged()}
    given = {}
    for old, new in RENAMED.items():
        flags[new] = new_value(f"--{old}", flags.pop(f"old_{old}"), f"--{new}", flags[new])
    for field, value in flags.items():
        option = names[field.removesuffix("_")]
        # Not `in (None, False)`: to Python 0 is False, and -n 0 was given.
        if not (value is None or value is False or value == []):
            given[option.name] = tuple(value) if option.kind is tuple else value
    return given


def _over_file(
    file: Path, given: dict[str, Any], words: tuple[str, ...]
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The flags on top of what a job file says; lists are added to, hosts replaced."""
    from hvdtools.launch.jobfile import read_job_file

    values, command = read_job_file(file)
    for option in merged():
        if option.kind is tuple and option.name in values and option.name in given:
            given[option.name] = (*values[option.name], *given[option.name])
    if {"hosts", "hostfile"} & set(given):
        values = {name: each for name, each in values.items() if name not in ("hosts", "hostfile")}
    return {**values, **given}, words or command


def _parameters() -> list[inspect.Parameter]:
    """The command's parameters, for typer: one for each option of the table."""
    command = typer.Argument(
        metavar="COMMAND", help="What every rank runs; put -- before it.", show_default=False
    )
    job = typer.Option(
        "--job",
        metavar="FILE",
        show_default=False,
        rich_help_panel="What",
        help="A TOML file with the options as keys; flags win.",
    )
    dry_run = typer.Option(
        "--dry-run", help="Print the command line, script or manifest, and stop."
    )
    save = typer.Option(
        "--save", metavar="FILE", show_default=False, help="Keep that text in a new file."
    )
    return [
        _parameter("command", list[str] | None, command),
        _parameter("job", Path | None, job),
        _parameter("dry_run", bool, dry_run, False),
        _parameter("save", Path | None, save),
        *(_parameter_of(option) for option in merged()),
        *(
            _parameter(f"old_{old}", str | None, typer.Option(f"--{old}", hidden=True))
            for old in RENAMED
        ),
    ]


def _parameter_of(option: Option) -> inspect.Parameter:
    kind = list[str] if option.kind is tuple else option.kind
    told = typer.Option(
        *(f"--{option.name}", *option.flags),
        metavar=option.metavar or None,
        help=option.help,
        show_default=False,
        rich_help_panel=option.panel,
    )
    # Python has a meaning of its own for these words.
    name = f"{option.field}_" if keyword.iskeyword(option.field) else option.field
    if option.kind is bool:
        return _parameter(name, bool, told, False)
    return _parameter(name, kind | None, told)


def _parameter(name: str, kind: Any, told: Any, default: Any = None) -> inspect.Parameter:
    annotation = Annotated[kind, told]
    kind_of = inspect.Parameter.KEYWORD_ONLY
    return inspect.Parameter(name, kind_of, default=default, annotation=annotation)


# typer reads a command's options from its signature, and they stand in one table.
launch.__signature__ = inspect.Signature(_parameters())  # type: ignore[attr-defined]
launch.__annotations__ = {each.name: each.annotation for each in _parameters()}
