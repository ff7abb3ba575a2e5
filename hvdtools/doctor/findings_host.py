"""Findings about Slurm, the cores and the memory."""

from __future__ import annotations

from collections.abc import Iterator

from hvdtools.core.words import counted
from hvdtools.doctor.facts import Facts
from hvdtools.doctor.finding import Finding, ok, warning
from hvdtools.doctor.findings_software import family

_GIB = 2**30
# NVIDIA's advice for containers (`--shm-size=1g`); Docker gives 64 MiB unless told.
_SHARED_WANTED_BYTES = _GIB


def examine_host(facts: Facts) -> Iterator[Finding]:
    """What slows a run or stops a start, on a host whose software is sound."""
    yield from _slurm(facts)
    yield from _cores(facts)
    yield from _memory(facts)


def _slurm(facts: Facts) -> Iterator[Finding]:
    slurm = facts.slurm
    if slurm is None:
        yield warning("Slurm", "there is no srun here")
        return
    built_with = facts.horovod.mpi if facts.horovod else None
    has_pmix = any(kind.startswith("pmix") for kind in slurm.mpi_kinds)
    if built_with and family(built_with) == "Open MPI" and not has_pmix:
        yield warning(
            "Slurm",
            "srun has no pmix here, and under any other --mpi each rank of Open MPI believes to "
            "be alone",
            "inside an allocation, start the ranks with mpirun, not with srun",
        )
        return
    inside = f"inside job {slurm.job}" if slurm.job else "outside of an allocation"
    yield ok("Slurm", f"srun answers, {inside}")


def _cores(facts: Facts) -> Iterator[Finding]:
    cores = facts.cores
    found = []
    if cores.quota is not None and cores.quota < cores.usable:
        found.append(
            warning(
                "cores",
                f"the container may use {cores.quota:g} cores, but shows {cores.usable}: programs "
                "that count cores start too many threads",
                "give it more CPU, or set OMP_NUM_THREADS for what is not started by hvdtools",
            )
        )
    available = min(float(cores.usable), cores.quota or cores.usable)
    threads = _asked_threads(facts)
    if threads is not None and threads * cores.ranks > available and threads > 1:
        found.append(
            warning(
                "cores",
                f"OMP_NUM_THREADS={threads} gives {counted(cores.ranks, 'rank')} "
                f"{threads * cores.ranks} threads on {available:g} cores",
                f"unset it, or set it to {cores.threads}",
            )
        )
    if cores.ranks > available:
        found.append(
            warning(
                "cores",
                f"{counted(cores.ranks, 'rank')} are more than {available:g} cores, and take "
                "turns on them",
            )
        )
    yield from found or [ok("cores", f"enough for {counted(cores.ranks, 'rank')}")]


def _asked_threads(facts: Facts) -> int | None:
    text = facts.variables.get("OMP_NUM_THREADS", "")
    # "4,2" gives nested levels; the first counts here.
    first = text.partition(",")[0].strip()
    return int(first) if first.isdigit() else None


def _memory(facts: Facts) -> Iterator[Finding]:
    memory = facts.memory
    remedy = "in a container, start it with --shm-size=1g (or more), or --ipc=host"
    if memory.shared_free_bytes >= _SHARED_WANTED_BYTES:
        yield ok("memory", "room enough in /dev/shm")
    elif memory.shared_bytes == 0:
        yield warning(
            "memory", "there is no /dev/shm, which MPI, NCCL and data loaders use", remedy
        )
    else:
        yield warning(
            "memory",
            f"/dev/shm has {memory.shared_free_bytes / 2**20:.0f} MiB free, which MPI, NCCL and "
            "data loaders' workers may outgrow",
            remedy,
        )
