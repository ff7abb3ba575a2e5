"""What Slurm says of a job: its state, where it runs, how it ended."""

from __future__ import annotations

import re
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path

from hvdtools.launch.outcome import TIMED_OUT

_CANCELLED = 128 + signal.SIGINT

# https://slurm.schedmd.com/job_state_codes.html: the states that a job does not leave.
_OVER = {
    "BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY",
    "PREEMPTED", "REVOKED", "TIMEOUT",
}  # fmt: skip
_IN_WORDS = {
    "COMPLETED": "done",
    "TIMEOUT": "ended by its time limit",
    "DEADLINE": "ended by its deadline",
    "CANCELLED": "cancelled",
    "COMPLETING": "cleaning up",
    "NODE_FAIL": "lost a node",
    "OUT_OF_MEMORY": "out of memory",
}


@dataclass(frozen=True)
class Job:
    """A job, or an element of an array, as Slurm sees it now.

    Attributes:
        name: Its number, "12" or "12_4" for an element.
        state: Slurm's word for it.
        reason: Slurm's word for why it waits; "None" if there is none.
        nodes: Where it runs, "host[1-2]"; "(null)" before.
        exit_code: 0 to 255.
        signum: The signal that ended it, 0 for none.
        log: The file of its output; None before Slurm knows it.
    """

    name: str
    state: str
    reason: str
    nodes: str
    exit_code: int
    signum: int
    log: Path | None

    @property
    def has_started(self) -> bool:
        """True if it runs or ran: it has a log."""
        return self.state != "PENDING"

    @property
    def is_over(self) -> bool:
        """True if it will not run again, unless somebody requeues it."""
        return self.state in _OVER

    @property
    def code(self) -> int:
        """The exit code to report for a job that is over, 128 + number for a signal."""
        if self.state == "COMPLETED":
            return 0
        if self.state in ("TIMEOUT", "DEADLINE"):
            return TIMED_OUT
        if self.state == "CANCELLED":
            return _CANCELLED
        if self.state == "OUT_OF_MEMORY":
            return 128 + signal.SIGKILL
        return self.exit_code or (128 + self.signum if self.signum else 1)

    def text(self) -> str:
        """In one line for the user."""
        if self.state == "PENDING":
            why = "" if self.reason == "None" else f" ({self.reason})"
            return f"job {self.name} waits{why}"
        if self.state == "RUNNING":
            return f"job {self.name} runs on {self.nodes}"
        if self.state == "FAILED":
            return f"job {self.name} failed with exit code {self.code}"
        return f"job {self.name}: {_IN_WORDS.get(self.state, self.state)}"


def query(job_id: str) -> tuple[Job, ...] | None:
    """The job, or all elements of the array; empty once Slurm has forgotten it.

    None if there is no answer. Asks the controller alone: many clusters keep no accounts.
    """
    done = subprocess.run(
        ["scontrol", "show", "job", job_id],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    if done.returncode == 0:
        return read_jobs(done.stdout)
    return () if "Invalid job id" in done.stderr else None


def read_jobs(text: str) -> tuple[Job, ...]:
    """Read what `scontrol show job` printed."""
    return tuple(_read_job(part) for part in text.split("\n\n") if "JobId=" in part)


def _read_job(text: str) -> Job:
    # A line begins with three spaces and names its first field; a job's own name and comment
    # may hold what looks like a field, but no line break.
    def first(pattern: str, default: str = "") -> str:
        found = re.search(pattern, text, re.MULTILINE)
        return found[1] if found else default

    number = first(r"^JobId=(\d+)")
    array, task = first(r"^JobId=\d+ ArrayJobId=(\d+)"), first(r"^JobId=\S+ \S+ ArrayTaskId=(\S+)")
    log = first(r"^   StdOut=(.+)$")
    return Job(
        name=f"{array}_{task}" if array else number,
        state=first(r"^   JobState=(\S+)"),
        reason=first(r"^   JobState=\S+ Reason=(\S+)", "None"),
        nodes=first(r"^   NodeList=(\S+)"),
        exit_code=int(first(r"^   Requeue=.* ExitCode=(\d+):", "0")),
        signum=int(first(r"^   Requeue=.* ExitCode=\d+:(\d+)", "0")),
        log=Path(log) if log and "%" not in log else None,
    )
