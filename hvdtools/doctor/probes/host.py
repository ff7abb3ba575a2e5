"""Examines this host: every probe at once, in threads, since most wait for a program.

Also run on each host of a cluster: python -m hvdtools.doctor.probes.host --slots N [NAME ...]
with the ranks planned on that host and the names of all hosts. It prints the facts as one line of
JSON.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import platform
import re
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import FrameType

from hvdtools import __version__
from hvdtools.build.detect import (
    RUNTIME_REQUIREMENTS,
    find_cuda,
    find_nccl,
    find_tensorflow,
    find_torch,
    missing,
)
from hvdtools.build.programs import first_match, query
from hvdtools.core import installed
from hvdtools.core.cpus import fair_threads, quota_cpus, usable_cpus
from hvdtools.core.installed import InstalledHorovod
from hvdtools.core.mpi import Mpirun
from hvdtools.doctor.describe import (
    describe_cards,
    describe_controllers,
    describe_driver,
    describe_horovod,
    describe_ports,
)
from hvdtools.doctor.facts import SHOWN_VARIABLES, Cores, Horovod, HostFacts, Memory, Slurm
from hvdtools.doctor.probes.framework_import import try_import
from hvdtools.doctor.probes.gpu import find_gpus
from hvdtools.doctor.probes.network import addresses_of, find_network
from hvdtools.launch import detect_host

MARK = "hvdtools-host "
LATE = "hvdtools-late"  # printed by a probe that ends itself
LIMIT_S = 180  # a framework on a network disk has two thirds of it to load

# MPICH and all that share its ABI use one name; Open MPI 4 and 5 use another.
_LIBRARY_OF_MPI = {"Open MPI": b"libmpi.so.40", "MPICH": b"libmpi.so.12"}


def probe_host(
    ranks: int | None, environ: Mapping[str, str], names: Sequence[str] = ()
) -> HostFacts:
    """Collect the facts of this host.

    Args:
        ranks: Ranks to compute threads for; None for one per GPU, or two without GPUs.
        environ: The environment; only `SHOWN_VARIABLES` and some of Slurm's are read.
        names: The names of the hosts of the cluster, to be resolved here.
    """
    horovod = installed.find()
    frameworks = tuple(found for found in (find_torch(), find_tensorflow()) if found)
    built_for = horovod.built_for if horovod else {}
    with ThreadPoolExecutor(max_workers=24) as pool:
        loads = [
            pool.submit(try_import, each.name, with_horovod=each.name in built_for)
            for each in frameworks
        ]
        machine, gpus = pool.submit(detect_host), pool.submit(find_gpus)
        cuda, slurm = pool.submit(find_cuda), pool.submit(find_slurm, environ)
        network = pool.submit(find_network)
        addresses = list(pool.map(addresses_of, names))
    facts = HostFacts(
        versions=program_versions(machine.result().mpirun),
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
        resolved=dict(zip(names, addresses, strict=True)),
        clock_s=time.time(),
    )
    return dataclasses.replace(facts, versions={**facts.versions, **_versions(facts)})


def program_versions(mpi: Mpirun | None) -> dict[str, str]:
    """The part of `HostFacts.versions` that also matters on a machine that only starts ranks."""
    here = {"hvdtools": __version__, "Python": platform.python_version()}
    return {**here, "MPI": mpi.name} if mpi else here


def _versions(facts: HostFacts) -> dict[str, str]:
    horovod = facts.horovod
    over = describe_controllers(horovod.installed) if horovod else ""
    found = {
        **{each.name: each.version for each in facts.frameworks},
        "Horovod": f"{describe_horovod(horovod)} ({over})" if horovod else "",
        "NCCL": facts.nccl.version if facts.nccl else "",
        "GPUs": describe_cards(facts.gpus),
        "driver": describe_driver(facts.gpus),
        "InfiniBand": ", ".join(describe_ports(facts.network)),
        "CPU": _cpu_model(),
        "kernel": f"{platform.system()} {platform.release()} {platform.machine()}",
    }
    return {subject: text for subject, text in found.items() if text}


def _cpu_model(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    text = cpuinfo.read_text() if cpuinfo.exists() else ""
    return (first_match(r"^model name\s*:\s*(.*)$", text) or platform.processor()).strip()


def _horovod(found: InstalledHorovod) -> Horovod:
    return Horovod(
        installed=found,
        mpi=_mpi_built_with(found) if "mpi" in found.controllers else None,
        missing=missing(RUNTIME_REQUIREMENTS),
    )


def _mpi_built_with(horovod: InstalledHorovod) -> str | None:
    """From the record of `hvdtools build` or, without one, from the library that it links."""
    if recorded := installed.built_with("mpi"):
        return recorded
    for library in installed.libraries_in(horovod.folder).values():
        for flavour in installed.names_in(library, _LIBRARY_OF_MPI):
            return flavour
    return None


def find_slurm(environ: Mapping[str, str]) -> Slurm | None:
    """What srun reports, and the variables of the allocation; None if there is no srun."""
    version = query(["srun", "--version"])
    if version is None:
        return None
    kinds = query(["srun", "--mpi=list"])
    job = environ.get("SLURM_JOB_ID")
    return Slurm(
        version=first_match(r"(\d+(?:\.\d+)+\S*)", version.text) or "of an unknown version",
        mpi_kinds=read_mpi_kinds(kinds.text if kinds and kinds.status == 0 else ""),
        job=job,
        nodes=read_count(environ, "SLURM_JOB_NUM_NODES") if job else 0,
        tasks=read_count(environ, "SLURM_NTASKS") if job else 0,
        gpus_per_task="SLURM_GPUS_PER_TASK" in environ,
    )


def read_mpi_kinds(listed: str) -> tuple[str, ...]:
    """The kinds that ``srun --mpi=list`` names, one per line below a heading.

    Older versions put "srun: " before each line.
    """
    lines = [re.sub(r"^srun:\s*", "", line).strip() for line in listed.splitlines()]
    return tuple(sorted({line for line in lines if re.fullmatch(r"\w+", line) and line != "none"}))


def read_count(environ: Mapping[str, str], name: str) -> int:
    """The value of a Slurm variable; 0 if it is not set or no number."""
    text = environ.get(name, "")
    return int(text) if text.isdigit() else 0


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


def _end_late(signum: int, frame: FrameType | None) -> None:
    print(LATE, flush=True)
    os._exit(1)


def main(arguments: Sequence[str]) -> None:
    """Print the facts of this host after `MARK`, or `LATE` if that takes too long."""
    signal.signal(signal.SIGALRM, _end_late)
    signal.alarm(LIMIT_S)
    # `-m` puts the working folder first: a file in it must not be imported as a framework.
    if sys.path and sys.path[0] == str(Path.cwd()):
        del sys.path[0]
    parser = argparse.ArgumentParser(prog="python -m hvdtools.doctor.probes.host")
    parser.add_argument("--slots", type=int, default=1)
    parser.add_argument("names", nargs="*")
    parsed = parser.parse_args(arguments)
    facts = probe_host(parsed.slots, os.environ, parsed.names)
    print(MARK + json.dumps(dataclasses.asdict(facts), default=str), flush=True)
    os._exit(0)  # no cleanup: the end of this process dates the answer


if __name__ == "__main__":
    main(sys.argv[1:])
