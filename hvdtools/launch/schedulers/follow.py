"""Follows a submitted job to its end: its states, its log as it grows, its exit code."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

from hvdtools.launch.scheduler import Scheduler
from hvdtools.launch.schedulers.joblog import JobLog

# The controller serves everybody; the log is a file.
_ASK_S = 2.0
_READ_S = 0.5


class JobStatus(Protocol):
    """What a scheduler says of a job, or of an element of an array, at one moment.

    Attributes:
        name: Its number ("12", "12_4").
        log: The file of its output; None before the scheduler knows it.
        has_started: True if it runs or ran.
        is_over: True if it will not run again by itself.
        code: The exit code to report for a job that is over, 128 + number for a signal.
    """

    @property
    def name(self) -> str: ...
    @property
    def log(self) -> Path | None: ...
    @property
    def has_started(self) -> bool: ...
    @property
    def is_over(self) -> bool: ...
    @property
    def code(self) -> int: ...

    def text(self) -> str:
        """The state in one line for the user."""
        ...


Query = Callable[[str], Sequence[JobStatus] | None]


def follow(
    scheduler: Scheduler,
    job_id: str,
    query: Query,
    on_line: Callable[[str], None],
    on_state: Callable[[str], None],
) -> int:
    """Wait for the end of a job, or of all elements of an array, and return its exit code.

    SIGINT, SIGTERM and SIGHUP cancel the job while this runs in the main thread; this then waits
    until it is gone. A second one acts as it would without this.

    Args:
        scheduler: Cancels the job.
        job_id: As its `submit` returned it.
        query: The state of the job, or of all elements of the array; empty once the scheduler
            has forgotten it, None if it does not answer.
        on_line: Called with each line of the log, through all restarts.
        on_state: Called with a sentence whenever the state changes.

    Returns:
        That of the first rank that failed, 128 + number for a signal, 124 at the time limit, 130
        for a job that somebody cancelled; of an array the highest.
    """
    followed = _Followed(scheduler, job_id, query, on_line, on_state)
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
        self,
        scheduler: Scheduler,
        job_id: str,
        query: Query,
        on_line: Callable[[str], None],
        on_state: Callable[[str], None],
    ) -> None:
        self._scheduler, self._job_id, self._query = scheduler, job_id, query
        self._on_line, self._on_state = on_line, on_state
        self._jobs: dict[str, JobStatus] = {}
        self._logs: dict[str, JobLog] = {}
        self._asked_s = float("-inf")
        self._seen_over = 0
        self._silent = False
        self.cancelled = False

    def is_over(self) -> bool:
        """Ask the scheduler, if it is time to; True once the end was seen.

        Seen twice: a job that is about to be requeued may look as if it had ended.
        """
        if time.monotonic() - self._asked_s < _ASK_S:
            return False
        found = self._query(self._job_id)
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
            self._on_state(f"{self._scheduler.title} does not answer; still trying")
        self._silent = True

    def _take(self, job: JobStatus) -> None:
        before = self._jobs.get(job.name)
        self._jobs[job.name] = job
        if before is None or before.text() != job.text():
            self._on_state(job.text())
        if job.log is not None and job.has_started and job.name not in self._logs:
            self._logs[job.name] = JobLog(job.log)

    def read(self, *, to_end: bool = False) -> None:
        """Pass on what the logs have grown by; with `to_end` also a last line without its end."""
        for log in self._logs.values():
            for line in log.new_lines(to_end=to_end):
                self._on_line(line)
            if to_end and not log.was_there:
                self._on_state(f"the log {log.path} cannot be read from this machine")

    def cancel(self) -> None:
        """Ask the scheduler to end the job; `is_over` tells when it did."""
        self.cancelled = True
        self._on_state(f"canceling job {self._job_id}")
        self._scheduler.cancel(self._job_id)

    def code(self) -> int:
        """The highest exit code; 1 if the scheduler forgot the job before its end was seen."""
        if not self._jobs or not all(job.is_over for job in self._jobs.values()):
            self._on_state(
                f"{self._scheduler.title} has forgotten job {self._job_id}, and how it ended"
            )
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
