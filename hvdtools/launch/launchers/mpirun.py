"""Open MPI's mpirun as the launcher of the ranks: its options, its tags, its last words."""

from __future__ import annotations

import re
import shlex

from hvdtools.launch.hosts import Host
from hvdtools.launch.launchers import over_mpi
from hvdtools.launch.machine import Machine
from hvdtools.launch.outcome import Failure
from hvdtools.launch.spec import JobSpec
from hvdtools.rank_wrapper import watch_command

# Before each line of a rank: "[prterun-host-123@1,0]<stdout>: " or "[1,0]<stdout>: " from Open
# MPI 5; Open MPI 4 sets no space after the colon, so that one there belongs to the rank's text.
_TAG_5 = re.compile(r"\[[^\s\[\],]+,(?P<rank>\d+)\]<(?P<stream>stdout|stderr)>: ")
_TAG_4 = re.compile(r"\[\d+,(?P<rank>\d+)\]<(?P<stream>stdout|stderr)>:")

# How Open MPI (PRRTE 3, and orterun 4) names the first rank that failed; line breaks fall anywhere.
_EXITED = re.compile(r"Process name: +\[\S+?,(\d+)\] +Exit code: +(\d+)")
_SIGNALLED = re.compile(r"process rank (\d+) with PID \d+ on node \S+ exited on signal (\d+)")
_ABORTED = re.compile(r"exited due to process rank (\d+) with PID")  # MPI_Abort, or no MPI_Finalize


def environment(spec: JobSpec, machine: Machine) -> tuple[tuple[str, str], ...]:
    """The variables that every job under mpirun has, as (name, value)."""
    del spec
    allow_root = ("OMPI_ALLOW_RUN_AS_ROOT", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM")
    return (
        *((name, "1") for name in allow_root if machine.is_root),
        *over_mpi.controller(machine),
        # Without it a rank's Python holds its lines back until 8 KiB have gathered.
        ("PYTHONUNBUFFERED", "1"),
    )


def tokens(spec: JobSpec, machine: Machine, names: tuple[str, ...]) -> tuple[str, ...]:
    """The command line: `names` are the variables to hand to ranks wherever they run.

    The slots are always stated: left alone, mpirun counts physical cores and
    refuses a second rank on one core's two threads. Binding is off because ranks
    that are all bound to the first core stall Horovod's background thread. Over
    hosts each rank is watched: MPI ends ranks whose peer went away, and of those
    mpirun may hear first.

    Raises:
        HvdtoolsError: This mpirun is another MPI's.
    """
    mpirun = over_mpi.usable(machine)
    is_5 = mpirun.version >= (5,)
    return (
        mpirun.path,
        *("-n", str(spec.ranks)),
        *_placement(spec, machine, is_5),
        *("--bind-to", "none"),
        *_interface(spec.interface, is_5),
        *(("--output", "tag") if is_5 else ("--tag-output",)),
        *(token for name in names for token in ("-x", name)),
        *spec.pass_on,
        *_shielded(_command(spec, machine)),
    )


def _placement(spec: JobSpec, machine: Machine, is_5: bool) -> tuple[str, ...]:
    over_ssh: tuple[str, ...] = ()
    order = "node" if spec.distribution == "cyclic" else "slot"
    hosts = spec.on.hosts(machine)
    if hosts is None:
        return ("--map-by", order)  # inside the scheduler's job mpirun knows its nodes
    if hosts:
        # Inside a job of a scheduler mpirun would take all of its nodes.
        over_ssh = ("--prtemca", "plm", "ssh") if is_5 else ("--mca", "plm", "rsh")
    else:
        hosts = (Host("localhost", min(spec.ranks, machine.slots)),)
    crowd = ":OVERSUBSCRIBE" if spec.ranks > sum(host.slots for host in hosts) else ""
    return ("--host", ",".join(map(str, hosts)), *over_ssh, "--map-by", f"{order}{crowd}")


def _interface(name: str | None, is_5: bool) -> tuple[str, ...]:
    if name is None:
        return ()
    own = ("--prtemca", "prte_if_include") if is_5 else ("--mca", "oob_tcp_if_include")
    return ("--mca", "btl_tcp_if_include", name, *own, name)


def _command(spec: JobSpec, machine: Machine) -> tuple[str, ...]:
    if spec.on.hosts(machine) != ():
        return watch_command(machine.python, spec.command)
    return spec.command


def _shielded(command: tuple[str, ...]) -> tuple[str, ...]:
    # A word that is a colon ends one program and begins the next on mpirun's line,
    # and it cannot be escaped: the command then goes as one word that sh takes apart.
    if ":" not in command:
        return command
    return ("sh", "-c", f"exec {shlex.join(command)}")


def tag(argv: tuple[str, ...]) -> re.Pattern[str]:
    """What stands before a rank's text in the output of this command line."""
    return _TAG_4 if "--tag-output" in argv else _TAG_5


def failures(words: str, exit_code: int) -> tuple[Failure, ...]:
    """The rank that failed first, from mpirun's own words; empty if it names none.

    Args:
        words: All that mpirun said itself, line breaks and all.
        exit_code: mpirun's, which is that of an MPI_Abort.
    """
    flat = " ".join(words.split())
    if found := _EXITED.search(flat):
        return (Failure(int(found[1]), int(found[2])),)
    if found := _SIGNALLED.search(flat):
        return (Failure(int(found[1]), 128 + int(found[2])),)
    if found := _ABORTED.search(flat):
        return (Failure(int(found[1]), exit_code),)
    return ()


def usable(spec: JobSpec, machine: Machine) -> None:
    """Raise if this launcher cannot start the job here.

    Raises:
        HvdtoolsError: There is no mpirun that is known, or no controller fits it.
    """
    over_mpi.usable(machine)
    over_mpi.controller(machine)
    del spec
