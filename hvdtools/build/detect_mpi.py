"""Find an MPI: its compiler, its launcher, and whose it is."""

from __future__ import annotations

import shlex
import shutil
import sys
from pathlib import Path

from hvdtools.build.environment import Mpi
from hvdtools.build.query import query_output
from hvdtools.core.mpi import read_mpirun_version


def find_mpi() -> Mpi | None:
    """An MPI that can both compile and start: beside this Python, else on PATH."""
    beside = Path(sys.executable).parent / "mpicxx"
    found = str(beside) if beside.exists() else shutil.which("mpicxx")
    if found is None:
        return None
    mpicxx = Path(found)
    mpirun, mpicc = mpicxx.with_name("mpirun"), mpicxx.with_name("mpicc")
    kind = read_mpirun_version(str(mpirun), query_output([str(mpirun), "--version"]) or "")
    if not kind.version or not mpicc.exists():
        return None
    linked = shlex.split(query_output([found, "-show"]) or "")
    folders = [Path(word[2:]) for word in linked if word.startswith("-L")]
    holding = [folder for folder in folders if list(folder.glob("libmpi*.so*"))]
    libraries = holding[0] if holding else mpicxx.parent.parent / "lib"
    return Mpi(kind.flavour, kind.release, mpirun, mpicxx, mpicc, libraries)
