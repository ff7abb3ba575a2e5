"""Find an MPI: its compiler, its launcher, and whose it is."""

from __future__ import annotations

import shlex
import shutil
import sys
from pathlib import Path

from hvdtools.engine.ask import ask, first_match
from hvdtools.engine.environment import Mpi


def mpi_flavour(answer: str) -> tuple[str, str] | None:
    """(flavour, version) from what `mpirun --version` prints, or None if it is none we know."""
    for flavour, pattern in (
        ("Open MPI", r"\(Open MPI\) (\S+)"),
        ("Intel MPI", r"Intel\(R\) MPI Library.*Version (\S+)"),
        ("MPICH", r"^\s*Version:\s+(\S+)"),
    ):
        if version := first_match(pattern, answer):
            return flavour, version
    return None


def find_mpi() -> Mpi | None:
    """An MPI that can both compile and start: beside this Python, else on PATH."""
    beside = Path(sys.executable).parent / "mpicxx"
    found = str(beside) if beside.exists() else shutil.which("mpicxx")
    if found is None:
        return None
    mpicxx = Path(found)
    mpirun, mpicc = mpicxx.with_name("mpirun"), mpicxx.with_name("mpicc")
    kind = mpi_flavour(ask([str(mpirun), "--version"]) or "")
    if kind is None or not mpicc.exists():
        return None
    linked = shlex.split(ask([found, "-show"]) or "")
    folders = [Path(word[2:]) for word in linked if word.startswith("-L")]
    holding = [folder for folder in folders if list(folder.glob("libmpi*.so*"))]
    libraries = holding[0] if holding else mpicxx.parent.parent / "lib"
    return Mpi(*kind, mpirun, mpicxx, mpicc, libraries)
