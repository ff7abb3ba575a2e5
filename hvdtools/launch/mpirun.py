"""Open MPI's mpirun as the starter of the ranks: its options, its tags, its last words."""

from __future__ import annotations

import re
import shlex

from hvdtools.errors import HvdtoolsError
from hvdtools.launch.failure import Failure
from hvdtools.launch.machine import Machine, Mpirun
from hvdtools.launch.spec import JobSpec

# Before each line of a rank: "[prterun-host-123@1,0]<stdout>: " or "[1,0]<stdout>: " from Open
# MPI 5; Open MPI 4 sets no space after the colon, so that one there belongs to the rank's text.
_TAG_5 = re.compile(r"\[[^\s\[\],]+,(?P<rank>\d+)\]<(?P<stream>stdout|stderr)>: ")
_TAG_4 = re.compile(r"\[\d+,(?P<rank>\d+)\]<(?P<stream>stdout|stderr)>:")

# How Open MPI (PRRTE 3, and orterun 4) names the first rank that failed; line breaks fall anywhere.
_EXITED = re.compile(r"Process name: +\[\S+?,(\d+)\] +Exit code: +(\d+)")
_SIGNALLED = re.compile(r"process rank (\d+) with PID \d+ on node \S+ exited on signal (\d+)")
_ABORTED = re.compile(r"exited due to process rank (\d+) with PID")  # MPI_Abort, or no MPI_Finalize


def usable(machine: Machine) -> Mpirun:
    """The mpirun to start with.

    Raises:
        HvdtoolsError: There is none, it is not Open MPI's, or the installed
            Horovod cannot be coordinated by MPI.
    """
    found = machine.mpirun
    if found is None:
        raise HvdtoolsError(
            "There is no mpirun beside this Python or on PATH: run `pip install 'hvdtools[mpi]'` "
            "and then `hvdtools build`, or use --with horovodrun."
        )
    if found.flavour != "Open MPI" or found.version < (4,):
        raise HvdtoolsError(
            f"{found.path} is not Open MPI 4 or newer (it says {found.name!r}) and its options "
            "are not known here: run `pip install 'hvdtools[mpi]'`, or use --with horovodrun."
        )
    if machine.horovod is not None and "mpi" not in machine.controllers:
        raise HvdtoolsError(
            f"The installed Horovod {machine.horovod} was built without MPI: run `hvdtools build` "
            "where mpirun is found, or use --with horovodrun."
        )
    return found


def environment(machine: Machine) -> tuple[tuple[str, str], ...]:
    """The variables that every job under mpirun has, as (name, value)."""
    allow_root = ("OMPI_ALLOW_RUN_AS_ROOT", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM")
    return (
        *((name, "1") for name in allow_root if machine.is_root),
        ("HOROVOD_CONTROLLER", "mpi"),
        ("HOROVOD_CPU_OPERATIONS", "mpi"),
        # Without it a rank's Python holds its lines back until 8 KiB have gathered.
        ("PYTHONUNBUFFERED", "1"),
    )


def tokens(spec: JobSpec, machine: Machine, names: tuple[str, ...]) -> tuple[str, ...]:
    """The command line: `names` are the variables to hand to ranks wherever they run.

    `--host localhost:N` states the slots: left alone, mpirun counts physical cores and
    refuses a second rank on one core's two threads. Binding is off because ranks
    that are all bound to the first core stall Horovod's background thread.
    """
    mpirun = usable(machine)
    crowded = spec.ranks > machine.slots
    tag_option = ("--output", "tag") if mpirun.version >= (5,) else ("--tag-output",)
    return (
        mpirun.path,
        *("-n", str(spec.ranks)),
        *("--host", f"localhost:{min(spec.ranks, machine.slots)}"),
        *("--bind-to", "none"),
        *("--map-by", "slot:OVERSUBSCRIBE" if crowded else "slot"),
        *tag_option,
        *(token for name in names for token in ("-x", name)),
        *_shielded(spec.command),
    )


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
