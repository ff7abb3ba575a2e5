"""Resources of a host: Slurm, CPU cores and shared memory."""

from __future__ import annotations

from collections.abc import Iterator

from hvdtools.core.text import count_noun
from hvdtools.doctor.facts import HostFacts
from hvdtools.doctor.findings import Finding, ok, warning
from hvdtools.doctor.rules.software import family

_GIB = 2**30
# NVIDIA's advice for containers (`--shm-size=1g`); the default of Docker is 64 MiB.
_SHARED_WANTED_BYTES = _GIB


def slurm(facts: HostFacts) -> Iterator[Finding]:
    """srun can start the ranks of the MPI that Horovod was built with."""
    found = facts.slurm
    if found is None:
        yield warning("Slurm", "there is no srun here")
        return
    built_with = facts.horovod.mpi if facts.horovod else None
    has_pmix = any(kind.startswith("pmix") for kind in found.mpi_kinds)
    if built_with and family(built_with) == "Open MPI" and not has_pmix:
        yield warning(
            "Slurm",
            "srun has no pmix here, and with any other --mpi each rank of Open MPI runs alone",
            "inside an allocation, start the ranks with mpirun, not with srun",
        )
        return
    inside = f"inside job {found.job}" if found.job else "outside of an allocation"
    yield ok("Slurm", f"srun answers, {inside}")


def cores(facts: HostFacts) -> Iterator[Finding]:
    """There are enough CPU cores for the ranks and their threads."""
    cpu = facts.cores
    found = []
    if cpu.quota is not None and cpu.quota < cpu.usable:
        found.append(
            warning(
                "cores",
                f"the container may use {cpu.quota:g} cores, but shows {cpu.usable}: programs "
                "that count cores start too many threads",
                "give it more CPU, or set OMP_NUM_THREADS for programs not started by hvdtools",
            )
        )
    available = facts.available_cores
    threads = _requested_threads(facts)
    if threads is not None and threads * cpu.ranks > available and threads > 1:
        found.append(
            warning(
                "cores",
                f"OMP_NUM_THREADS={threads} gives {count_noun(cpu.ranks, 'rank')} "
                f"{threads * cpu.ranks} threads on {available:g} cores",
                f"unset it, or set it to {cpu.threads}",
            )
        )
    if cpu.ranks > available:
        found.append(
            warning(
                "cores",
                f"{count_noun(cpu.ranks, 'rank')} are more than {available:g} cores, and share "
                "them",
            )
        )
    yield from found or [ok("cores", f"enough for {count_noun(cpu.ranks, 'rank')}")]


def _requested_threads(facts: HostFacts) -> int | None:
    text = facts.variables.get("OMP_NUM_THREADS", "")
    # "4,2" sets nested levels; the first one counts here.
    first = text.partition(",")[0].strip()
    return int(first) if first.isdigit() else None


def shared_memory(facts: HostFacts) -> Iterator[Finding]:
    """/dev/shm is large enough."""
    memory = facts.memory
    remedy = "in a container, start it with --shm-size=1g (or more), or --ipc=host"
    if memory.shared_free_bytes >= _SHARED_WANTED_BYTES:
        yield ok("memory", "/dev/shm is large enough")
    elif memory.shared_bytes == 0:
        yield warning(
            "memory", "there is no /dev/shm, which MPI, NCCL and data loaders use", remedy
        )
    else:
        yield warning(
            "memory",
            f"/dev/shm has {memory.shared_free_bytes / 2**20:.0f} MiB free, which may be "
            "too little for MPI, NCCL and data loader workers",
            remedy,
        )


RULES = (slurm, cores, shared_memory)
