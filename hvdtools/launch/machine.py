"""The facts about this machine that a plan is made from, found once and then frozen."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from hvdtools.core import installed
from hvdtools.core.cpus import usable_cpus
from hvdtools.core.errors import HvdtoolsError
from hvdtools.core.mpi import Mpirun, find_mpirun
from hvdtools.launch.scheduler import Allocation
from hvdtools.launch.schedulers import all_schedulers

# Words for the interpreter that hvdtools runs in.
PYTHONS = ("python", "python3")


@dataclass(frozen=True)
class Machine:
    """What `make_plan` needs to know; made by `detect_host`, or by hand in a test.

    Attributes:
        slots: CPU cores that this process may use: ranks that fit without sharing one.
        is_root: True if this process runs as root, which Open MPI refuses unless told.
        python: The interpreter that hvdtools runs in.
        mpirun: The mpirun found, or None.
        horovod: Version of the installed Horovod, or None.
        controllers: Who can coordinate its ranks: "mpi", "gloo", both or none.
        built_with: The MPI that Horovod was built with, "Open MPI 5.0.11"; None if unknown.
        srun: Path of srun, or None.
        allocations: Scheduler -> its job that this process runs in.
    """

    slots: int
    is_root: bool
    python: str
    mpirun: Mpirun | None
    horovod: str | None
    controllers: tuple[str, ...]
    built_with: str | None = None
    srun: str | None = None
    allocations: Mapping[str, Allocation] = field(default_factory=dict)


def detect_host(mpirun: str | None = None) -> Machine:
    """Find the facts of this machine. Starts `mpirun --version` and nothing else.

    Args:
        mpirun: The mpirun to take; None for the one beside this Python or on PATH.

    Raises:
        HvdtoolsError: There is no such mpirun.
    """
    if mpirun is not None and shutil.which(mpirun) is None:
        raise HvdtoolsError(f"There is no program {mpirun!r}: correct --mpirun.")
    horovod = installed.find()
    return Machine(
        slots=len(usable_cpus()),
        is_root=os.geteuid() == 0,
        python=sys.executable,
        mpirun=find_mpirun(mpirun),
        horovod=horovod.version if horovod else None,
        controllers=horovod.controllers if horovod else (),
        built_with=installed.built_with("mpi"),
        srun=shutil.which("srun"),
        allocations={
            each.name: found
            for each in all_schedulers()
            if (found := each.detect(os.environ)) is not None
        },
    )


def check_program(command: tuple[str, ...]) -> None:
    """Check that the first word of `command` can be run from this folder.

    A launcher reports a missing program once a rank, deep in its own words.

    Raises:
        HvdtoolsError: There is no such program, or it may not be executed.
    """
    program = command[0]
    # Ranks run these in the environment of hvdtools, which need not be on PATH.
    if program in PYTHONS or shutil.which(program) is not None:
        return
    if Path(program).is_file():
        raise HvdtoolsError(
            f"{program!r} cannot be executed: start it with its interpreter, as in "
            f"`python {program}`, or make it executable with chmod +x and name it by a path."
        )
    raise HvdtoolsError(
        f"There is no program {program!r} on PATH or at that path: correct the first word after --."
    )
