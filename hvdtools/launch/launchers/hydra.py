"""MPICH's and Intel MPI's mpirun (Hydra) as the launcher of the ranks, which Gloo coordinates."""

from __future__ import annotations

import re

from hvdtools.core.errors import HvdtoolsError
from hvdtools.launch.launchers import over_mpi
from hvdtools.launch.machine import Machine
from hvdtools.launch.outcome import Failure
from hvdtools.launch.spec import JobSpec
from hvdtools.rank_wrapper import TAG, watch_command


def usable(spec: JobSpec, machine: Machine) -> None:
    """Raise if this launcher cannot start the job here.

    Raises:
        HvdtoolsError: There is no such mpirun, Horovod has no Gloo, or the hosts take unequal
            numbers of ranks in a way that this launcher cannot be told.
    """
    over_mpi.usable(machine)
    over_mpi.controller(machine)
    _placement(spec, machine)


def environment(spec: JobSpec, machine: Machine) -> tuple[tuple[str, str], ...]:
    """The variables that every job under Hydra has, as (name, value)."""
    del spec
    intel = machine.mpirun is not None and machine.mpirun.flavour == "Intel MPI"
    return (
        *over_mpi.controller(machine),
        ("PYTHONUNBUFFERED", "1"),
        # Ranks bound to one core stall Horovod's background thread. MPICH binds none by itself.
        *([("I_MPI_PIN", "0")] if intel else []),
    )


def tokens(spec: JobSpec, machine: Machine, names: tuple[str, ...]) -> tuple[str, ...]:
    """The command line; Hydra hands its whole environment on, so `names` is not needed.

    Each rank runs under `hvdtools.rank_wrapper`, which says how it ended: Hydra waits for the
    others of a rank that fails before it called MPI, and MPICH's never names it. Nor does
    Hydra put the rank's number (`-l`) before lines alone, but before whatever was written at once.

    Raises:
        HvdtoolsError: There is no such mpirun.
    """
    del names
    mpirun = over_mpi.usable(machine)
    interface = ("-iface", spec.interface) if spec.interface else ()
    return (
        mpirun.path,
        *interface,
        *spec.pass_on,
        *_placement(spec, machine),
        *watch_command(machine.python, spec.command, tag=True),
    )


def _placement(spec: JobSpec, machine: Machine) -> tuple[str, ...]:
    hosts = spec.on.hosts(machine)
    if not hosts:
        # Named, since inside a job of a scheduler Hydra would take its nodes.
        return ("-launcher", "fork", "-hosts", "localhost", "-n", str(spec.ranks))
    slots = {host.slots for host in hosts}
    over_ssh = ("-launcher", "ssh")
    total = ("-n", str(spec.ranks))
    if spec.distribution == "cyclic":
        if len(slots) > 1:
            raise HvdtoolsError(
                "MPICH's and Intel MPI's mpirun deal ranks out in turn over hosts with equal "
                "slots only: give each host as many, or use --distribution block."
            )
        return (*over_ssh, "-hosts", ",".join(host.name for host in hosts), "-ppn", "1", *total)
    intel = machine.mpirun is not None and machine.mpirun.flavour == "Intel MPI"
    if not intel:
        return (*over_ssh, "-hosts", ",".join(map(str, hosts)), *total)
    if len(slots) > 1:
        raise HvdtoolsError(
            "Intel MPI's mpirun takes hosts with equal slots only: give each host as many, or use "
            "--launcher horovodrun."
        )
    names = ",".join(host.name for host in hosts)
    return (*over_ssh, "-hosts", names, "-ppn", str(slots.pop()), *total)


def tag(argv: tuple[str, ...]) -> re.Pattern[str]:
    """What stands before a rank's text in the output of this command line."""
    del argv
    return TAG


def failures(words: str, exit_code: int) -> tuple[Failure, ...]:
    """None: Hydra names the ranks that it ended, not the first; the rank wrapper tells more."""
    del words, exit_code
    return ()
