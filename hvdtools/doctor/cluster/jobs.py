"""The all-reduces over several hosts: which there are, and how one of them ends."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator

from hvdtools.build.smoke_test import LIMIT_S, RANK_PROGRAM, Attempt, judge
from hvdtools.core.errors import TIMED_OUT
from hvdtools.doctor.cluster.facts import Cluster
from hvdtools.doctor.cluster.job import ENVIRONMENT, Job
from hvdtools.doctor.cluster.slurm import plan_in_slurm
from hvdtools.launch import JobSpec, make_plan, run
from hvdtools.launch.launchers.over_mpi import reaches_mpi
from hvdtools.launch.machine import Machine
from hvdtools.launch.plan import Plan
from hvdtools.launch.schedulers.ssh import Hosts


def planned(cluster: Cluster, machine: Machine, frameworks: tuple[str, ...]) -> Iterator[Job]:
    """A job for each framework, controller and device, on the hosts that can take part."""
    for framework in frameworks:
        facts = {name: each for name, each in cluster.facts.items() if framework in each.usable}
        hosts = tuple(each.host for each in cluster.answers if each.host.name in facts)
        if len(hosts) < min(2, len(cluster.answers)):
            continue
        crowd = max(host.slots / max(1.0, facts[host.name].cores) for host in hosts)
        fits = all(
            each.nccl and each.usable[framework] >= host.slots
            for host, each in zip(hosts, facts.values(), strict=True)
        )
        for controller in _controllers(cluster, machine):
            for device in ("cpu", "gpu") if fits else ("cpu",):
                yield Job(framework, controller, device, hosts, LIMIT_S * max(1.0, crowd))


def _controllers(cluster: Cluster, machine: Machine) -> list[str]:
    found = ["mpi"] if reaches_mpi(machine) else []
    return [*found, "gloo"] if "gloo" in machine.controllers else found


def attempt(job: Job, cluster: Cluster, machine: Machine) -> Attempt:
    """Run a job to its end; no process of it is left on return.

    Raises:
        SystemExit: A signal to this process ended the job.
    """
    lines: list[str] = []
    plan = _plan(job, cluster, machine)
    start_s = time.monotonic()
    outcome = run(
        plan, on_line=lambda rank, stream, line: lines.append(line), timeout_s=job.limit_s
    )
    took_s = time.monotonic() - start_s
    output = "\n".join(lines)
    if outcome.stopped and outcome.exit_code != TIMED_OUT:
        sys.exit(outcome.exit_code)
    if outcome.stopped:
        return Attempt(f"no answer in {job.limit_s:g} s", output, took_s)
    return Attempt(judge(job.ranks, outcome.exit_code, output), output, took_s)


def _plan(job: Job, cluster: Cluster, machine: Machine) -> Plan:
    spec = JobSpec(
        command=(machine.python, str(RANK_PROGRAM), *job.words),
        ranks=job.ranks,
        launcher="mpirun" if job.controller == "mpi" else "horovodrun",
        on=Hosts(job.hosts),
        env=ENVIRONMENT,
        interface=cluster.interface,
    )
    over_ssh = cluster.way == "ssh"
    return make_plan(spec, machine) if over_ssh else plan_in_slurm(job, spec, machine)
