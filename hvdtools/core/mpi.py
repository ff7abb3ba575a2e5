"""Finds mpirun and the MPI that it belongs to, by asking the program itself."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

# flavour -> pattern of its version in the output of `mpirun --version`. Debian's mpirun.openmpi
# calls itself OpenRTE, after Open MPI 4's run-time layer.
_FLAVOURS = {
    "Open MPI": r"\((?:Open MPI|OpenRTE)\) (\d+(?:\.\d+)*)",
    "Intel MPI": r"Intel\(R\) MPI Library.*Version (\d+(?:\.\d+)*)",
    "MPICH": r"^\s*Version:\s+(\d+(?:\.\d+)*)",
}
# Both start their ranks with MPICH's process manager, Hydra.
HYDRA = ("MPICH", "Intel MPI")
_TIMEOUT_S = 60


@dataclass(frozen=True)
class Mpirun:
    """An mpirun and its MPI.

    Attributes:
        path: The program.
        flavour: "Open MPI", "MPICH", "Intel MPI"; for another one the first line of its
            `--version`.
        version: As numbers, (5, 0, 11); empty for another flavour.
    """

    path: str
    flavour: str
    version: tuple[int, ...] = ()

    @property
    def name(self) -> str:
        """Flavour and version, "Open MPI 5.0.11"."""
        return f"{self.flavour} {self.release}".strip()

    @property
    def release(self) -> str:
        """The version as text, "5.0.11"; "" if unknown."""
        return ".".join(map(str, self.version))


def _find_program(program: str) -> str | None:
    """Path of a program in this Python's environment, else on PATH; None if there is none."""
    # Not resolve(): a virtual environment's python is a link, and the link's folder counts.
    in_environment = Path(sys.executable).parent / program
    return str(in_environment) if os.access(in_environment, os.X_OK) else shutil.which(program)


def find_mpirun(chosen: str | None = None) -> Mpirun | None:
    """The named mpirun, or that of this Python's environment, else on PATH; None without one."""
    path = shutil.which(chosen) if chosen else _find_program("mpirun")
    return None if path is None else _query(path)


def _query(path: str) -> Mpirun:
    # Intel's mpirun is a script that runs the first mpiexec.hydra on PATH.
    hydra = Path(path).with_name("mpiexec.hydra")
    path = str(hydra) if Path(path).name == "mpirun" and hydra.exists() else path
    try:
        done = subprocess.run(
            [path, "--version"],
            capture_output=True,
            text=True,
            errors="replace",
            stdin=subprocess.DEVNULL,
            timeout=_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return Mpirun(path, flavour=f"nothing: {error}")
    return read_mpirun_version(path, done.stdout + done.stderr)


def read_mpirun_version(path: str, output: str) -> Mpirun:
    """Parse the output of ``mpirun --version`` ("mpirun (Open MPI) 5.0.11")."""
    for flavour, pattern in _FLAVOURS.items():
        if found := re.search(pattern, output, re.MULTILINE):
            return Mpirun(path, flavour, tuple(int(part) for part in found[1].split(".")))
    first_line = next((line.strip() for line in output.splitlines() if line.strip()), "nothing")
    return Mpirun(path, flavour=first_line)
