"""Runs the all-reduces over all hosts; where one fails, finds the host that breaks it."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass

from hvdtools.doctor.cluster.compare import listed
from hvdtools.doctor.cluster.facts import Cluster
from hvdtools.doctor.cluster.fault_isolation import FaultIsolation, OutOfTimeError, isolate_faults
from hvdtools.doctor.cluster.job import Job
from hvdtools.doctor.cluster.jobs import attempt, planned
from hvdtools.launch.machine import Machine

_SAID = 4  # lines
_NOISE = re.compile(r"warnings\.warn|Warning\b")
_ERROR = re.compile(
    r"\b\w*(Error|Exception)\b: |Unable to|refused|timed out|No route|error occurred|the job has"
    r"|sums are wrong"
)
_SMALL_JOB_S = 60.0  # a healthy one takes a few seconds
_SEARCH_S = 600.0


@dataclass(frozen=True)
class ClusterCheck:
    """One job over all hosts that could take part.

    Attributes:
        name: In words, "torch over MPI, 6 ranks on 3 hosts".
        hosts: Their names.
        complaint: What is wrong, "" if every rank had the right sums.
        said: Of a job that failed, the lines that say why, four at most.
        elapsed_s: From the start of the job to its end.
        isolation: Of a job that failed, what smaller groups of hosts told.
    """

    name: str
    hosts: tuple[str, ...]
    complaint: str
    said: tuple[str, ...]
    elapsed_s: float
    isolation: FaultIsolation | None = None


def check(
    cluster: Cluster,
    machine: Machine,
    frameworks: tuple[str, ...],
    on_start: Callable[[str], object],
) -> tuple[ClusterCheck, ...]:
    """Run the jobs of these frameworks one after another; `on_start` is told the name of each.

    Raises:
        HvdtoolsError: A job cannot be started from here.
    """
    done: list[ClusterCheck] = []
    for job in planned(cluster, machine, frameworks):
        name = f"{job.name}, {job.size}"
        on_start(name)
        tried = attempt(job, cluster, machine)
        said = last_words(tried.output) if tried.complaint else ()
        isolation = None
        if tried.complaint and len(job.hosts) > 1:
            search = _SmallerJobs(job, cluster, machine, on_start)
            known = next(
                (each.isolation for each in done if each.isolation and each.isolation.hosts), None
            )
            isolation = search.confirmed(known) or isolate_faults(search.names, search.works)
        hosts = tuple(host.name for host in job.hosts)
        done.append(
            ClusterCheck(name, hosts, tried.complaint, said, round(tried.elapsed_s, 1), isolation)
        )
    return tuple(done)


def last_words(output: str) -> tuple[str, ...]:
    """The lines of a failed job that say why: the first that name an error, else the last."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    lines = [line for line in lines if not _NOISE.search(line)]
    return tuple([line for line in lines if _ERROR.search(line)][:_SAID] or lines[-_SAID:])


class _SmallerJobs:
    """The same job on groups of its hosts, until time is up."""

    def __init__(
        self, job: Job, cluster: Cluster, machine: Machine, on_start: Callable[[str], object]
    ) -> None:
        self.names = tuple(host.name for host in job.hosts)
        self._job, self._cluster, self._machine = job, cluster, machine
        self._on_start = on_start
        self._end_s = time.monotonic() + _SEARCH_S

    def works(self, names: tuple[str, ...]) -> bool:
        """Raises OutOfTimeError when the search has taken too long."""
        if time.monotonic() > self._end_s:
            raise OutOfTimeError
        self._on_start(f"{self._job.name} fails; trying {listed(names)}")
        smaller = self._job.over(names, _SMALL_JOB_S)
        return not attempt(smaller, self._cluster, self._machine).complaint

    def confirmed(self, known: FaultIsolation | None) -> FaultIsolation | None:
        """The isolation of an earlier job, if this one works without those hosts, too."""
        if known is None:
            return None
        rest = tuple(name for name in self.names if name not in known.hosts)
        return known if len(rest) > 1 and self.works(rest) else None
