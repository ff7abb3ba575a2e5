"""Submits a job to a scheduler and, if asked to, follows it to its end."""

from __future__ import annotations

import typer

from hvdtools.launch.plan import Submission
from hvdtools.launch.progress import Progress
from hvdtools.launch.scheduler import Scheduler


def submit(submission: Submission, scheduler: Scheduler) -> int:
    """Submit the job, follow it if that was asked for, and return its exit code (or 0).

    Raises:
        HvdtoolsError: The program that takes the job is not here, or refuses it.
    """
    job_id = scheduler.submit(submission)
    if not scheduler.waits():
        if scheduler.gives_job_id:
            typer.echo(f"submitted as job {job_id}", err=True)
        typer.echo(job_id)
        return 0
    typer.echo(f"submitted as job {job_id}", err=True)
    progress = Progress(f"job {job_id}")

    def on_line(line: str) -> None:
        progress.saw(0, line)
        typer.echo(line)

    def on_state(state: str) -> None:
        progress.stop()
        typer.echo(state, err=True)

    try:
        return scheduler.follow(job_id, on_line, on_state)
    finally:
        progress.stop()
