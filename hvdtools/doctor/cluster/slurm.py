"""All-reduces on nodes of the Slurm allocation that this process is in: no ssh is needed."""

from __future__ import annotations

import math
from dataclasses import replace

from hvdtools.doctor.cluster.job import Job
from hvdtools.launch import JobSpec, make_plan
from hvdtools.launch.machine import Machine
from hvdtools.launch.plan import Plan
from hvdtools.launch.schedulers.slurm.request import Slurm

_MEETING = "hvdtools.doctor.cluster.rank_meeting"
# Of a step, also of mpirun's own: it does not wait for what a shell's step holds.
_OVERLAP = ("SLURM_OVERLAP", "1")


def plan_in_slurm(job: Job, spec: JobSpec, machine: Machine) -> Plan:
    """The plan for a job: Gloo by srun, MPI by mpirun, which starts its daemons by srun.

    Args:
        spec: The job as it would be over ssh.
    """
    if job.controller == "mpi":
        return _mpirun(job, spec, machine)
    counts = {host.slots for host in job.hosts}
    # So that Slurm ends it where this process cannot any more.
    minutes = math.ceil(job.limit_s / 60) + 1
    only = (f"--nodelist={','.join(host.name for host in job.hosts)}", f"--time={minutes}")
    step = replace(
        spec,
        command=(machine.python, "-m", _MEETING, *job.words),
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
