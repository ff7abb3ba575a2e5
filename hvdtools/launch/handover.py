"""Hands a submission over to who runs it: sbatch, kubectl or the AWS command line."""

from __future__ import annotations

import shutil
import subprocess
import tempfile

import typer

from hvdtools.core.errors import HvdtoolsError
from hvdtools.launch.plan import Submission
from hvdtools.launch.spec import JobSpec, Slurm


def hand_over(submission: Submission, spec: JobSpec) -> int:
    """Submit the job, follow it if that was asked for, and return its exit code (or 0).

    Raises:
        HvdtoolsError: The program that takes it is not here, or refuses it.
    """
    if shutil.which(submission.argv[0]) is None:
        raise HvdtoolsError(
            f"There is no {submission.argv[0]} on this machine, and {submission.program} takes "
            "the job: run this where it is, or keep the text with --dry-run or --save FILE."
        )
    if isinstance(spec.on, Slurm):
        return _to_slurm(submission, wait=spec.on.wait)
    # A file and not a pipe: the AWS command line opens what it reads twice.
    with tempfile.TemporaryFile("w+") as document:
        document.write(submission.document)
        document.seek(0)
        done = subprocess.run(
            submission.argv,
            stdin=document,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )
    if done.returncode != 0:
        said = " ".join(done.stderr.split()) or f"exit code {done.returncode}"
        raise HvdtoolsError(f"{submission.program} refuses the job: {said}")
    typer.echo(done.stdout.rstrip())
    return 0


def _to_slurm(submission: Submission, *, wait: bool) -> int:
    from hvdtools.launch.schedulers.slurm.follow import follow, submit

    job_id = submit(submission)
    typer.echo(f"submitted as job {job_id}", err=True)
    if not wait:
        typer.echo(job_id)
        return 0
    from hvdtools.launch.progress import Progress

    progress = Progress(f"job {job_id}")

    def on_line(line: str) -> None:
        progress.saw(0, line)
        typer.echo(line)

    def on_state(state: str) -> None:
        progress.stop()
        typer.echo(state, err=True)

    try:
        return follow(job_id, on_line, on_state)
    finally:
        progress.stop()
