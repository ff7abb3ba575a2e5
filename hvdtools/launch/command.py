"""The command `hvdtools launch`."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Optional

import typer

from hvdtools.errors import HvdtoolsError

if TYPE_CHECKING:
    from hvdtools.launch.plan import Plan

_BROKEN_PIPE = 141  # 128 + SIGPIPE: what a shell reports for a program whose reader went away


def launch(
    command: Optional[list[str]] = typer.Argument(  # noqa: B008, UP045
        None, metavar="COMMAND", help="What every rank runs; put -- before it.", show_default=False
    ),
    ranks: Optional[int] = typer.Option(  # noqa: UP045
        None, "-n", "--ranks", metavar="N", help="How many ranks to start.", show_default=False
    ),
    starter: str = typer.Option(
        "auto", "--with", help="Who starts the ranks: auto, mpirun or horovodrun."
    ),
    env: list[str] = typer.Option(  # noqa: B008
        [], "--env", metavar="NAME[=VALUE]", help="A variable for every rank; may be repeated."
    ),
    oversubscribe: bool = typer.Option(
        False, "--oversubscribe", help="Allow more ranks than CPU cores."
    ),
    timeout_s: Optional[float] = typer.Option(  # noqa: UP045
        None, "--timeout", metavar="SECONDS", help="End the job after so long, with exit code 124."
    ),
    dry_run: bool = typer.Option(False, "--dry-run", help="Print the command line and stop."),
) -> None:
    """Start COMMAND in N ranks on this machine.

    Each line of a rank is shown behind its number. The exit code is that of the rank that
    failed first. Example: hvdtools launch -n 2 -- python train.py
    """
    from hvdtools.launch.machine import check_program, look_around
    from hvdtools.launch.plan import make_plan
    from hvdtools.launch.spec import JobSpec

    if ranks is None:
        raise HvdtoolsError(
            "Say how many ranks to start, as in `hvdtools launch -n 2 -- python train.py`."
        )
    if timeout_s is not None and timeout_s <= 0:
        raise HvdtoolsError(f"--timeout {timeout_s:g} leaves no time to run: give more than 0.")
    spec = JobSpec(tuple(command or ()), ranks, starter, read_env(env, os.environ), oversubscribe)
    plan = make_plan(spec, look_around())
    check_program(spec.command)
    typer.echo(plan.note, err=True)
    if dry_run:
        typer.echo(plan.text())
        return
    raise typer.Exit(_run_and_tell(plan, timeout_s))


def read_env(words: list[str], environ: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """The values of --env NAME=VALUE and --env NAME, which hands on the caller's own.

    Raises:
        HvdtoolsError: A variable that is named alone is not set.
    """
    pairs: list[tuple[str, str]] = []
    for word in words:
        name, equals, value = word.partition("=")
        if not equals and name not in environ:
            raise HvdtoolsError(
                f"--env {name} hands on a variable that is not set here: set it, or write "
                f"--env {name}=VALUE."
            )
        pairs.append((name, value if equals else environ[name]))
    return tuple(pairs)


def _run_and_tell(plan: Plan, timeout_s: float | None) -> int:
    from hvdtools.launch.outcome import outcome_text
    from hvdtools.launch.run import run

    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a rank's text must not break a plain terminal
            stream.reconfigure(errors="backslashreplace")
    try:
        outcome = run(plan, timeout_s=timeout_s)
    except BrokenPipeError:
        # Whoever read our output is gone; Python would complain once more when it closes stdout.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _BROKEN_PIPE
    if outcome.exit_code != 0:
        typer.echo(outcome_text(plan.starter, outcome), err=True)
    return outcome.exit_code
