"""What the user of `hvdtools launch` sees: progress, log files, restarts, and a job's end."""

from __future__ import annotations

import io
import os
import sys
import time
from contextlib import nullcontext
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, TextIO

import typer

from hvdtools.core.errors import HvdtoolsError
from hvdtools.core.log import FIRST_STEP
from hvdtools.launch.outcome import Outcome, outcome_text
from hvdtools.launch.plan import Plan, Submission
from hvdtools.launch.run import run, show
from hvdtools.launch.scheduler import Scheduler
from hvdtools.launch.spec import JobSpec

if TYPE_CHECKING:
    from rich.status import Status

_BROKEN_PIPE = 141  # 128 + SIGPIPE: what a shell reports for a program whose reader went away


def run_and_tell(plan: Plan, spec: JobSpec) -> int:
    """Run the plan, again as often as `spec.restarts` allows, and return its exit code.

    Raises:
        HvdtoolsError: The log files cannot be written; nothing was started then.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a rank's text must not break a plain terminal
            stream.reconfigure(errors="backslashreplace")
    folder = spec.log_dir
    with LogFiles(folder, plan.ranks) if folder else nullcontext() as files:
        try:
            return _run_with_restarts(plan, spec, files)
        except BrokenPipeError:
            # Whoever read our output is gone; Python would complain once more when it closes it.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return _BROKEN_PIPE


def _run_with_restarts(plan: Plan, spec: JobSpec, files: LogFiles | None) -> int:
    for attempt in range(spec.restarts + 1):
        if attempt and files is not None:
            files.restart(attempt)
        outcome = _run_once(plan, spec, files)
        code = spec.on.exit_code(outcome)
        if outcome.exit_code == 0:
            return code
        print(outcome_text(plan.launcher, outcome), file=sys.stderr, flush=True)
        if outcome.stopped or outcome.told_to_save or attempt == spec.restarts:
            break
        print(f"restart {attempt + 1} of {spec.restarts}", file=sys.stderr, flush=True)
    if files is not None:
        print(f"each rank's output is in {Path(spec.log_dir or '')}", file=sys.stderr)
    return code


def _run_once(plan: Plan, spec: JobSpec, files: LogFiles | None) -> Outcome:
    progress = Progress(plan.note)

    def on_line(rank: int | None, stream: str, line: str) -> None:
        progress.saw(rank, line)
        if files is not None and rank is not None:
            files.write(rank, line)
        show(rank, stream, line)

    try:
        return run(plan, on_line=on_line, timeout_s=spec.timeout_s)
    finally:
        progress.stop()


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


class Progress:
    """Watches a job's lines for signs of life.

    On a terminal a spinner counts the seconds until a rank speaks; elsewhere only
    the line about the first step is printed, to stderr.
    """

    def __init__(self, what: str) -> None:
        self._start_s = time.monotonic()
        self._stepped = False
        self._status: Status | None = None
        if sys.stderr.isatty():
            from rich.console import Console

            self._status = Console(stderr=True).status(f"Starting {what}")
            self._status.start()

    def saw(self, rank: int | None, line: str) -> None:
        """Take note of a line before it is shown."""
        if rank is not None:
            self.stop()
        if not self._stepped and FIRST_STEP in line:
            self._stepped = True
            took_s = time.monotonic() - self._start_s
            print(f"first step {took_s:.1f} s after the start", file=sys.stderr, flush=True)

    def stop(self) -> None:
        """Take the spinner away."""
        if self._status is not None:
            self._status.stop()
            self._status = None


class LogFiles:
    """Writes each rank's lines, of both streams as they arrive, to "rank-3.log" in a folder.

    Files of an earlier job are never written to; a restart of the same job writes to
    "rank-3.restart-1.log".

    Args:
        folder: Is made if it is not there.
        ranks: How many ranks there are; the numbers have as many digits as the last needs.

    Raises:
        HvdtoolsError: The folder cannot be made or written to, or holds such files.
    """

    def __init__(self, folder: Path, ranks: int) -> None:
        self._folder, self._digits = folder, len(str(ranks - 1))
        self._files: dict[int, TextIO] = {}
        self._suffix = ""
        try:
            folder.mkdir(parents=True, exist_ok=True)
            taken = sorted(folder.glob("rank-*.log"))
            if taken:
                raise HvdtoolsError(
                    f"{folder} holds the output of an earlier job ({taken[0].name}): choose "
                    "another --log-dir, or move it away."
                )
            self._file(0)  # or the first line would find out
        except OSError as error:
            raise HvdtoolsError(f"--log-dir {folder} cannot be written to: {error}.") from None

    def __enter__(self) -> LogFiles:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._close()

    def restart(self, number: int) -> None:
        """Go on in new files, for the `number`-th restart."""
        self._close()
        self._suffix = f".restart-{number}"

    def write(self, rank: int, line: str) -> None:
        """Add a line of a rank; it is on disk when this returns."""
        self._file(rank).write(line + "\n")

    def _file(self, rank: int) -> TextIO:
        if rank not in self._files:
            path = self._folder / f"rank-{rank:0{self._digits}}{self._suffix}.log"
            self._files[rank] = path.open("x", buffering=1, errors="backslashreplace")
        return self._files[rank]

    def _close(self) -> None:
        for file in self._files.values():
            file.close()
        self._files.clear()
