"""Which mpirun is here, and whose: asked of the program itself."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

# flavour -> its version in what `mpirun --version` says. Debian's mpirun.openmpi calls itself
# OpenRTE, after Open MPI 4's run-time layer.
_FLAVOURS = {
    "Open MPI": r"\((?:Open MPI|OpenRTE)\) (\d+(?:\.\d+)*)",
    "Intel MPI": r"Intel\(R\) MPI Library.*Version (\d+(?:\.\d+)*)",
    "MPICH": r"^\s*Version:\s+(\d+(?:\.\d+)*)",
}
# Both descend from MPICH, and so does the program that starts their ranks.
HYDRA = ("MPICH", "Intel MPI")
_PATIENCE_S = 60


@dataclass(frozen=True)
class Mpirun:
    """An mpirun and whose it is.

    Attributes:
        path: The program.
        flavour: "Open MPI", "MPICH", "Intel MPI"; or the first line of what it says of itself
            where that is another.
        version: As numbers, (5, 0, 11); empty for another flavour.
    """

    path: str
    flavour: str
    version: tuple[int, ...] = ()

    @property
    def name(self) -> str:
        """In words, "Open MPI 5.0.11"."""
        return f"{self.flavour} {self.release}".strip()

    @property
    def release(self) -> str:
        """The version as text, "5.0.11"; "" where it is unknown."""
        return ".".join(map(str, self.version))


def find_beside_python(program: str) -> str | None:
    """Path of a program in this Python's environment, else on PATH; None if it is nowhere."""
    # Not resolve(): a virtual environment's python is a link, and its folder is what counts.
    beside = Path(sys.executable).parent / program
    return str(beside) if os.access(beside, os.X_OK) else shutil.which(program)


def find_mpirun(chosen: str | None = None) -> Mpirun | None:
    """The mpirun named, or the one beside this Python or on PATH; None if there is none."""
    path = shutil.which(chosen) if chosen else find_beside_python("mpirun")
    return None if path is None else _ask(path)


def _ask(path: str) -> Mpirun:
    # Intel's mpirun is a script that runs whatever mpiexec.hydra comes first on PATH.
    hydra = Path(path).with_name("mpiexec.hydra")
    path = str(hydra) if Path(path).name == "mpirun" and hydra.exists() else path
    try:
        said = subprocess.run(
            [path, "--version"],
            capture_output=True,
            text=True,
            errors="replace",
            stdin=subprocess.DEVNULL,
            timeout=_PATIENCE_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return Mpirun(path, flavour=f"nothing: {error}")
    return read_mpirun_version(path, said.stdout + said.stderr)


def read_mpirun_version(path: str, said: str) -> Mpirun:
    """Read what ``mpirun --version`` said ("mpirun (Open MPI) 5.0.11")."""
    for flavour, pattern in _FLAVOURS.items():
        if found := re.search(pattern, said, re.MULTILINE):
            return Mpirun(path, flavour, tuple(int(part) for part in found[1].split(".")))
    first_line = next((line.strip() for line in said.splitlines() if line.strip()), "nothing")
    return Mpirun(path, flavour=first_line)
