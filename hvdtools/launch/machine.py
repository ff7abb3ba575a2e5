"""The facts about this machine that a plan is made from, found once and then frozen."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from hvdtools import installed
from hvdtools.cpus import usable_cpus
from hvdtools.errors import HvdtoolsError


@dataclass(frozen=True)
class Mpirun:
    """An mpirun and whose it is.

    Attributes:
        path: The program.
        flavour: "Open MPI", or the first line of what it says of itself where that is another.
        version: As numbers, (5, 0, 11); empty for another flavour.
    """

    path: str
    flavour: str
    version: tuple[int, ...] = ()

    @property
    def name(self) -> str:
        """In words, "Open MPI 5.0.11"."""
        return " ".join([self.flavour, ".".join(map(str, self.version))]).strip()


@dataclass(frozen=True)
class Machine:
    """What `make_plan` needs to know; made by `look_around`, or by hand in a test.

    Attributes:
        slots: CPU cores that this process may use: ranks that fit without sharing one.
        is_root: True if this process runs as root, which Open MPI refuses unless told.
        python: The interpreter that hvdtools runs in.
        mpirun: The mpirun found, or None.
        horovodrun: Path of the horovodrun found, or None.
        horovod: Version of the installed Horovod, or None.
        controllers: Who can coordinate its ranks: "mpi", "gloo", both or none.
    """

    slots: int
    is_root: bool
    python: str
    mpirun: Mpirun | None
    horovodrun: str | None
    horovod: str | None
    controllers: tuple[str, ...]


def look_around() -> Machine:
    """Find the facts of this machine. Starts `mpirun --version` and nothing else."""
    horovod = installed.find()
    return Machine(
        slots=len(usable_cpus()),
        is_root=os.geteuid() == 0,
        python=sys.executable,
        mpirun=_find_mpirun(),
        horovodrun=_find_beside_python("horovodrun"),
        horovod=horovod.version if horovod else None,
        controllers=horovod.controllers if horovod else (),
    )


def check_program(command: tuple[str, ...]) -> None:
    """Check that the first word of `command` can be run from this folder.

    A starter reports a missing program once a rank, deep in its own words.

    Raises:
        HvdtoolsError: There is no such program, or it may not be executed.
    """
    program = command[0]
    if shutil.which(program) is not None:
        return
    if Path(program).is_file():
        raise HvdtoolsError(
            f"{program!r} cannot be executed: start it with its interpreter, as in "
            f"`python {program}`, or make it executable with chmod +x and name it by a path."
        )
    raise HvdtoolsError(
        f"There is no program {program!r} on PATH or at that path: correct the first word after --."
    )


def _find_beside_python(program: str) -> str | None:
    # Not resolve(): a virtual environment's python is a link, and its folder is what counts.
    beside = Path(sys.executable).parent / program
    return str(beside) if os.access(beside, os.X_OK) else shutil.which(program)


def _find_mpirun() -> Mpirun | None:
    path = _find_beside_python("mpirun")
    if path is None:
        return None
    try:
        said = subprocess.run(
            [path, "--version"],
            capture_output=True,
            text=True,
            errors="replace",
            stdin=subprocess.DEVNULL,
            timeout=60,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return Mpirun(path, flavour=f"nothing: {error}")
    return read_mpirun_version(path, said.stdout + said.stderr)


def read_mpirun_version(path: str, said: str) -> Mpirun:
    """Read what ``mpirun --version`` said ("mpirun (Open MPI) 5.0.11")."""
    found = re.search(r"\(Open MPI\) (\d+(?:\.\d+)*)", said)
    if found is None:
        first_line = next((line.strip() for line in said.splitlines() if line.strip()), "nothing")
        return Mpirun(path, flavour=first_line)
    return Mpirun(path, "Open MPI", tuple(int(part) for part in found[1].split(".")))
