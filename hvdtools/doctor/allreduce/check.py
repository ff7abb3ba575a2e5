"""Runs the all-reduces; if one over several hosts fails, finds the host that breaks it."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from hvdtools.build import smoke_test
from hvdtools.build.smoke_test import LIMIT_S, SmokeTest, error_lines, jobs
from hvdtools.doctor.allreduce.fault_isolation import (
    FaultIsolation,
    OutOfTimeError,
    isolate_faults,
)
from hvdtools.doctor.allreduce.job import Job, attempt
from hvdtools.doctor.compare import listed
from hvdtools.doctor.facts import ClusterFacts, HostFacts
from hvdtools.launch import detect_host
from hvdtools.launch.launchers.over_mpi import reaches_mpi
from hvdtools.launch.machine import Machine

OnStart = Callable[[str], object]

_SMALL_JOB_S = 60.0  # a healthy one takes a few seconds
_SEARCH_S = 600.0


@dataclass(frozen=True)
class Check:
    """One all-reduce that was run.

    Attributes:
        name: As a text, "torch over MPI, 6 ranks on 3 hosts".
        hosts: The hosts of its ranks; () for this machine alone.
        complaint: What is wrong, "" if every rank had the right sums.
        said: If it failed, the lines that say why, four at most.
        elapsed_s: From the start of the job to its end.
        isolation: If it failed on several hosts, what smaller groups of them revealed.
    """

    name: str
    hosts: tuple[str, ...]
    complaint: str
    said: tuple[str, ...]
    elapsed_s: float
    isolation: FaultIsolation | None = None


def run_checks(
    cluster: ClusterFacts, frameworks: tuple[str, ...], on_start: OnStart
) -> tuple[Check, ...]:
    """Run the all-reduces of these frameworks on all slots, one after another.

    `on_start` is called with the name of each.

    Raises:
        HvdtoolsError: A job cannot be started from here.
    """
    if cluster.local is not None:
        return tuple(_run_local(cluster.local, cluster.slots, on_start))
    machine = detect_host()
    done: list[Check] = []
    for job in planned_jobs(cluster, machine, frameworks):
        known = [each.isolation for each in done if each.isolation and each.isolation.hosts]
        done.append(_run(job, cluster, machine, known[:1], on_start))
    return tuple(done)


def _run_local(facts: HostFacts, ranks: int, on_start: OnStart) -> Iterator[Check]:
    for test in planned_tests(facts, ranks):
        on_start(test.name)
        tried = smoke_test.attempt(test, ranks / facts.available_cores)
        said = error_lines(tried.output) if tried.complaint else ()
        yield Check(test.name, (), tried.complaint, said, round(tried.elapsed_s, 1))


def planned_tests(facts: HostFacts, ranks: int) -> Iterator[SmokeTest]:
    """A job for each framework that loads, each controller, and NCCL if there are enough GPUs."""
    if facts.horovod is None:
        return
    installed = facts.horovod.installed
    controllers = [name for name in installed.controllers if name != "mpi" or facts.mpi]
    for framework, gpus in facts.usable.items():
        sizes = {"cpu": ranks}
        if installed.nccl and gpus >= ranks:
            sizes["gpu"] = ranks
        yield from jobs([framework], controllers, sizes, Path(sys.executable), facts.mpi)


def planned_jobs(
    cluster: ClusterFacts, machine: Machine, frameworks: tuple[str, ...]
) -> Iterator[Job]:
    """A job for each framework, controller and device, on the hosts that can take part."""
    controllers = ["mpi"] if reaches_mpi(machine) else []
    controllers += ["gloo"] if "gloo" in machine.controllers else []
    for framework in frameworks:
        facts = {name: each for name, each in cluster.facts.items() if framework in each.usable}
        hosts = tuple(each.host for each in cluster.answers if each.host.name in facts)
        if len(hosts) < min(2, len(cluster.answers)):
            continue
        crowd = max(host.slots / max(1.0, facts[host.name].available_cores) for host in hosts)
        fits = all(
            facts[host.name].has_nccl and facts[host.name].usable[framework] >= host.slots
            for host in hosts
        )
        for controller in controllers:
            for device in ("cpu", "gpu") if fits else ("cpu",):
                yield Job(framework, controller, device, hosts, LIMIT_S * max(1.0, crowd))


def _run(
    job: Job,
    cluster: ClusterFacts,
    machine: Machine,
    known: list[FaultIsolation],
    on_start: OnStart,
) -> Check:
    name = f"{job.name}, {job.size}"
    on_start(name)
    tried = attempt(job, cluster, machine)
    said = error_lines(tried.output) if tried.complaint else ()
    isolation = None
    if tried.complaint and len(job.hosts) > 1:
        search = _SmallerJobs(job, cluster, machine, on_start)
        confirmed = next(filter(search.confirms, known), None)
        isolation = confirmed or isolate_faults(search.names, search.works)
    hosts = tuple(host.name for host in job.hosts)
    return Check(name, hosts, tried.complaint, said, round(tried.elapsed_s, 1), isolation)


class _SmallerJobs:
    """The same job on groups of its hosts, until time is up."""

    def __init__(
        self, job: Job, cluster: ClusterFacts, machine: Machine, on_start: OnStart
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

    def confirms(self, known: FaultIsolation) -> bool:
        """True if this job, too, works without the hosts that broke an earlier one."""
        rest = tuple(name for name in self.names if name not in known.hosts)
        return len(rest) > 1 and self.works(rest)
