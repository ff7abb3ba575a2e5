"""An all-reduce over several hosts: as a value, as a launch plan, and run to its end."""

from __future__ import annotations

import math
import sys
import time
from dataclasses import dataclass, replace

from hvdtools.build.smoke_test import (
    CONTROLLER_NAMES,
    LIMIT_S,
    RANK_ENVIRONMENT,
    RANK_PROGRAM,
    Attempt,
    judge,
)
from hvdtools.core.words import counted
from hvdtools.doctor.facts import ClusterFacts
from hvdtools.launch import JobSpec, make_plan, run
from hvdtools.launch.hosts import Host
from hvdtools.launch.machine import Machine
from hvdtools.launch.outcome import TIMED_OUT
from hvdtools.launch.plan import Plan
from hvdtools.launch.schedulers.slurm.request import Slurm
from hvdtools.launch.schedulers.ssh import Hosts

_SLURM_PROGRAM = "hvdtools.doctor.allreduce.rank_program"
# Lets a step, also that of mpirun, start while a shell's step holds the resources.
_OVERLAP = ("SLURM_OVERLAP", "1")


@dataclass(frozen=True)
class Job:
    """An all-reduce over hosts; the controller is "mpi" or "gloo", the device "cpu" or "gpu"."""

    framework: str
    controller: str
    device: str
    hosts: tuple[Host, ...]
    limit_s: float = LIMIT_S

    @property
    def ranks(self) -> int:
        """One for each slot."""
        return sum(host.slots for host in self.hosts)

    @property
    def arguments(self) -> tuple[str, ...]:
        """The arguments of the program in each rank (`build/rank_check.py`)."""
        return (self.framework, self.device, self.controller, str(self.ranks))

    @property
    def name(self) -> str:
        """As a text, "torch over MPI"."""
        over = CONTROLLER_NAMES[self.controller]
        return f"{self.framework} over {over}{', NCCL' if self.device == 'gpu' else ''}"

    @property
    def size(self) -> str:
        """As a text, "6 ranks on 3 hosts"."""
        return f"{counted(self.ranks, 'rank')} on {counted(len(self.hosts), 'host')}"

    def over(self, names: tuple[str, ...], limit_s: float) -> Job:
        """The same all-reduce on some of the hosts."""
        hosts = tuple(host for host in self.hosts if host.name in names)
        return replace(self, hosts=hosts, limit_s=limit_s * self.limit_s / LIMIT_S)


def attempt(job: Job, cluster: ClusterFacts, machine: Machine) -> Attempt:
    """Run a job to its end; none of its processes is left on return.

    Raises:
        SystemExit: A signal to this process ended the job.
    """
    lines: list[str] = []
    plan = plan_job(job, cluster, machine)
    start_s = time.monotonic()
    outcome = run(
        plan, on_line=lambda rank, stream, line: lines.append(line), timeout_s=job.limit_s
    )
    elapsed_s = time.monotonic() - start_s
    output = "\n".join(lines)
    if outcome.stopped and outcome.exit_code != TIMED_OUT:
        sys.exit(outcome.exit_code)
    if outcome.stopped:
        return Attempt(f"no answer in {job.limit_s:g} s", output, elapsed_s)
    return Attempt(judge(job.ranks, outcome.exit_code, output), output, elapsed_s)


def plan_job(job: Job, cluster: ClusterFacts, machine: Machine) -> Plan:
    """The launch plan: over ssh, or in the Slurm allocation that this process is in.

    Inside Slurm, srun starts the ranks for Gloo, and mpirun for MPI (its daemons by srun).
    """
    spec = JobSpec(
        command=(machine.python, str(RANK_PROGRAM), *job.arguments),
        ranks=job.ranks,
        launcher="mpirun" if job.controller == "mpi" else "horovodrun",
        on=Hosts(job.hosts),
        env=tuple({"OMP_NUM_THREADS": "1", **RANK_ENVIRONMENT}.items()),
        interface=cluster.interface,
    )
    if cluster.way == "ssh":
        return make_plan(spec, machine)
    return _mpirun(job, spec, machine) if job.controller == "mpi" else _srun(job, spec, machine)


def _srun(job: Job, spec: JobSpec, machine: Machine) -> Plan:
    counts = {host.slots for host in job.hosts}
    # A limit for Slurm, in case this process cannot end the step any more.
    minutes = math.ceil(job.limit_s / 60) + 1
    only = (f"--nodelist={','.join(host.name for host in job.hosts)}", f"--time={minutes}")
    step = replace(
        spec,
        command=(machine.python, "-m", _SLURM_PROGRAM, *job.arguments),
        launcher="srun",
        on=Slurm(),
        env=(*spec.env, _OVERLAP),
        nodes=len(job.hosts),
        ranks_per_node=counts.pop() if len(counts) == 1 else None,
        pass_on=only,
    )
    return make_plan(step, machine)


def _mpirun(job: Job, spec: JobSpec, machine: Machine) -> Plan:
    assert machine.mpirun is not None
    root = ("OMPI_ALLOW_RUN_AS_ROOT", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM")
    interface = spec.interface
    argv = (
        machine.mpirun.path,
        *("-n", str(job.ranks), "--host", ",".join(map(str, job.hosts)), "--bind-to", "none"),
        *(("--mca", "btl_tcp_if_include", interface) if interface else ()),
        *(token for name, _ in spec.env for token in ("-x", name)),
        *spec.command,
    )
    allowed = tuple((name, "1") for name in root if machine.is_root)
    return Plan(argv, (*spec.env, _OVERLAP, *allowed), job.ranks, "mpirun")
