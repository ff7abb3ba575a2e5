"""Submits a job and follows it to its end: its states, its log as it grows, its exit code."""

from __future__ import annotations

import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from hvdtools.core.errors import HvdtoolsError
from hvdtools.launch.plan import Submission
from hvdtools.launch.schedulers.slurm.job import Job, look
from hvdtools.launch.schedulers.slurm.joblog import JobLog

# The controller serves everybody; the log is a file.
_ASK_S = 2.0
_READ_S = 0.5


def submit(submission: Submission) -> str:
    """Hand the batch script to sbatch and return the job's number.

    Raises:
        HvdtoolsError: There is no sbatch here, or Slurm refuses the job.
    """
    try:
        done = subprocess.run(
            submission.argv,
            input=submission.document,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )
    except FileNotFoundError:
        raise HvdtoolsError(
            f"There is no {submission.argv[0]} on this machine: run this where Slurm is installed, "
            "or keep the script with --save and take it there."
        ) from None
    if done.returncode != 0:
        said = "; ".join(line.removeprefix("sbatch: error: ") for line in done.stderr.splitlines())
        raise HvdtoolsError(f"Slurm refuses the job: {said or f'exit code {done.returncode}'}")
    return done.stdout.strip().partition(";")[0]


def follow(job_id: str, on_line: Callable[[str], None], on_state: Callable[[str], None]) -> int:
    """Wait for the end of a job, or of all elements of an array, and return its exit code.

    SIGINT, SIGTERM and SIGHUP cancel the job while this runs in the main thread; this then waits
    until it is gone. A second one acts as it would without this.

    Args:
        job_id: As `submit` returned it.
        on_line: Called with each line of the log, as it stands there, through all restarts.
        on_state: Called with a sentence whenever the state changes.

    Returns:
        That of the first rank that failed, 128 + number for a signal, 124 at the time limit, 130
        for a job that somebody cancelled; of an array the highest.
    """
    followed = _Followed(job_id, on_line, on_state)
    with _signals() as signals:
        while not followed.is_over():
            time.sleep(_READ_S)
            followed.read()
            if signals and not followed.cancelled:
                followed.cancel()
    followed.read(to_end=True)
    return 128 + signals[0] if signals else followed.code()


class _Followed:
    """A job that is followed: what was last seen of it and of its elements."""

    def __init__(
        self, job_id: str, on_line: Callable[[str], None], on_state: Callable[[str], None]
    ) -> None:
        self._job_id = job_id
        self._on_line, self._on_state = on_line, on_state
        self._jobs: dict[str, Job] = {}
        self._logs: dict[str, JobLog] = {}
        self._asked_s = float("-inf")
        self._seen_over = 0
        self._silent = False
        self.cancelled = False

    def is_over(self) -> bool:
        """Ask Slurm, if it is time to; True once the end was seen.

        Seen twice: a job that is about to be requeued may look as if it had ended.
        """
        if time.monotonic() - self._asked_s < _ASK_S:
            return False
        found = look(self._job_id)
        self._asked_s = time.monotonic()
        if found is None:
            self._say_silent()
            return False
        self._silent = False
        if not found:  # forgotten, some minutes after its end
            return True
        for job in found:
            self._take(job)
        # The record of elements that wait goes as the last of them starts.
        names = {job.name for job in found}
        self._jobs = {name: job for name, job in self._jobs.items() if name in names or job.is_over}
        over = all(job.is_over for job in self._jobs.values())
        self._seen_over = self._seen_over + 1 if over else 0
        return self._seen_over > 1

    def _say_silent(self) -> None:
        if not self._silent:
            self._on_state("Slurm's controller does not answer; still trying")
        self._silent = True

    def _take(self, job: Job) -> None:
        before = self._jobs.get(job.name)
        self._jobs[job.name] = job
        if before is None or before.text() != job.text():
            self._on_state(job.text())
        if job.log is not None and job.state != "PENDING" and job.name not in self._logs:
            self._logs[job.name] = JobLog(job.log)

    def read(self, *, to_end: bool = False) -> None:
        """Pass on what the logs have grown by; with `to_end` also a last line without its end."""
        for log in self._logs.values():
            for line in log.new_lines(to_end=to_end):
                self._on_line(line)
            if to_end and not log.was_there:
                self._on_state(f"the log {log.path} cannot be read from this machine")

    def cancel(self) -> None:
        """Ask Slurm to end the job; `is_over` tells when it did."""
        self.cancelled = True
        self._on_state(f"cancelling job {self._job_id}")
        subprocess.run(["scancel", self._job_id], stdin=subprocess.DEVNULL, check=False)

    def code(self) -> int:
        """The highest exit code; 1 if Slurm forgot the job before its end was seen."""
        if not self._jobs or not all(job.is_over for job in self._jobs.values()):
            self._on_state(f"Slurm has forgotten job {self._job_id}, and how it ended")
            return 1
        return max(job.code for job in self._jobs.values())


@contextmanager
def _signals() -> Iterator[list[int]]:
    """While inside, the first signal that would end this process is put on the list instead."""
    came: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield came  # Python handles signals in the main thread alone
        return
    wanted = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # nohup keeps its promise
        wanted.append(signal.SIGHUP)
    before: dict[int, Any] = {}

    def restore() -> None:
        for signum, handler in before.items():
            signal.signal(signum, handler)

    def take(signum: int, frame: FrameType | None) -> None:
        came.append(signum)
        restore()

    before.update({signum: signal.signal(signum, take) for signum in wanted})
    try:
        yield came
    finally:
        restore()
