"""Looks at this machine: every probe at once, in threads, since most wait for a program."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from hvdtools import __version__
from hvdtools.build.detect import RUNTIME_REQUIREMENTS, find_tensorflow, find_torch, missing
from hvdtools.build.detect_gpu import find_cuda, find_nccl
from hvdtools.core import installed
from hvdtools.core.cpus import fair_threads, quota_cpus, usable_cpus
from hvdtools.core.installed import InstalledHorovod
from hvdtools.doctor.facts import SHOWN_VARIABLES, Facts, Horovod
from hvdtools.doctor.facts_host import Cores, Memory
from hvdtools.doctor.probe_gpu import find_gpus
from hvdtools.doctor.probe_load import load
from hvdtools.doctor.probe_network import find_network
from hvdtools.doctor.probe_slurm import find_slurm
from hvdtools.launch import detect_host

# MPICH and what follows its binary interface share one name; Open MPI 4 and 5 another.
_LIBRARY_OF_MPI = {"Open MPI": b"libmpi.so.40", "MPICH": b"libmpi.so.12"}


def look(ranks: int | None, environ: Mapping[str, str]) -> Facts:
    """Find the facts; imports no framework here.

    Args:
        ranks: Ranks to reckon threads for: if None, one a GPU, or two without GPUs.
        environ: The environment; only a few named variables of it are read.
    """
    horovod = installed.find()
    frameworks = tuple(found for found in (find_torch(), find_tensorflow()) if found)
    built_for = horovod.built_for if horovod else {}
    with ThreadPoolExecutor(max_workers=8) as pool:
        loads = [
            pool.submit(load, each.name, with_horovod=each.name in built_for) for each in frameworks
        ]
        machine, gpus = pool.submit(detect_host), pool.submit(find_gpus)
        cuda, slurm = pool.submit(find_cuda), pool.submit(find_slurm, environ)
        network = pool.submit(find_network)
    return Facts(
        machine=_machine(),
        frameworks=frameworks,
        horovod=_horovod(horovod) if horovod else None,
        loads=tuple(each.result() for each in loads),
        mpi=machine.result().mpirun,
        cuda=cuda.result(),
        nccl=find_nccl(cuda.result()),
        gpus=gpus.result(),
        network=network.result(),
        slurm=slurm.result(),
        cores=find_cores(ranks or len(gpus.result().cards) or 2),
        memory=find_memory(),
        variables={name: environ[name] for name in SHOWN_VARIABLES if name in environ},
    )


def _machine() -> str:
    system = f"{platform.system()} {platform.release()} {platform.machine()}"
    return f"hvdtools {__version__}, Python {platform.python_version()}, {system}"


def _horovod(found: InstalledHorovod) -> Horovod:
    return Horovod(
        installed=found,
        mpi=_mpi_built_with(found) if "mpi" in found.controllers else None,
        missing=missing(RUNTIME_REQUIREMENTS),
    )


def _mpi_built_with(horovod: InstalledHorovod) -> str | None:
    """From the build's own note or, of another's build, the library that it names."""
    if recorded := installed.built_with("mpi"):
        return recorded
    for library in installed.libraries_in(horovod.folder).values():
        for flavour in installed.names_in(library, _LIBRARY_OF_MPI):
            return flavour
    return None


def find_cores(ranks: int) -> Cores:
    """The cores of this process, and the threads that each of `ranks` ranks would use."""
    import psutil

    mine = usable_cpus()
    return Cores(
        usable=len(mine),
        quota=quota_cpus(),
        logical=os.cpu_count() or len(mine),
        physical=psutil.cpu_count(logical=False),
        ranks=ranks,
        threads=fair_threads(mine, [mine] * ranks),
    )


def find_memory(shared: Path = Path("/dev/shm")) -> Memory:
    """Main memory and /dev/shm."""
    import psutil

    main = psutil.virtual_memory()
    disk = psutil.disk_usage(str(shared)) if shared.is_dir() else None
    return Memory(
        total_bytes=main.total,
        available_bytes=main.available,
        shared_bytes=disk.total if disk else 0,
        shared_free_bytes=disk.free if disk else 0,
    )
