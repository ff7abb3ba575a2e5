"""Which CPU cores this process may use: its affinity, and the container's quota."""

from __future__ import annotations

import os
from pathlib import Path

_CGROUP_V2 = Path("/sys/fs/cgroup/cpu.max")


def usable_cpus() -> frozenset[int]:
    """The numbers of the CPUs that this process may run on.

    A container or taskset may allow fewer than the machine has. macOS has no
    such limit to ask for.
    """
    if hasattr(os, "sched_getaffinity"):
        return frozenset(os.sched_getaffinity(0))
    return frozenset(range(os.cpu_count() or 1))


def quota_cpus(cpu_max: Path = _CGROUP_V2) -> float | None:
    """The container's CPU quota in cores, or None where there is none.

    Source: cgroup v2's ``cpu.max``, "$MAX $PERIOD" in microseconds. Kubernetes
    limits CPUs that way, and the affinity does not show it.
    """
    try:
        allowed, period = cpu_max.read_text().split()
    except (OSError, ValueError):
        return None
    return None if allowed == "max" else int(allowed) / int(period)


def fair_threads(mine: frozenset[int], cpus_of_ranks: list[frozenset[int]]) -> int:
    """Threads for this rank so that the ranks of a node do not fight over cores.

    Args:
        mine: The CPUs of this rank.
        cpus_of_ranks: The CPUs of every rank on this node, this one included.

    Returns:
        This rank's share of its own CPUs, at least 1: all of them where the
        launcher bound each rank to its own, a part where ranks share.
    """
    sharing = sum(1 for cpus in cpus_of_ranks if cpus & mine)
    cores: float = len(mine)
    quota = quota_cpus()
    if quota is not None:
        cores = min(cores, quota)
    return max(1, int(cores / max(1, sharing)))


def fair_threads_of_siblings(local_size: int) -> int:
    """`fair_threads` for a framework that fixes its threads before ranks can talk.

    A rank on fewer CPUs than its parent was bound by the launcher, and has its
    part of the parent's; one on as many shares them with the ranks of its node.
    """
    mine = usable_cpus()
    parents = _cpus_of_parent() or mine
    sharing = round(local_size * len(mine) / len(parents)) if mine < parents else local_size
    return fair_threads(mine, [mine] * max(1, sharing))


def _cpus_of_parent() -> frozenset[int] | None:
    if not hasattr(os, "sched_getaffinity"):
        return None
    try:
        return frozenset(os.sched_getaffinity(os.getppid()))
    except OSError:  # it has ended, or belongs to somebody else
        return None


def read_cpu_list(text: str) -> frozenset[int]:
    """The numbers in the kernel's notation, "0-3,8"."""
    found: set[int] = set()
    for part in text.strip().split(","):
        first, _, last = part.partition("-")
        if first:
            found.update(range(int(first), int(last or first) + 1))
    return frozenset(found)


def cpu_list(cpus: frozenset[int]) -> str:
    """The kernel's notation for the numbers, "0-3,8"."""
    runs: list[list[int]] = []
    for cpu in sorted(cpus):
        if runs and cpu == runs[-1][-1] + 1:
            runs[-1].append(cpu)
        else:
            runs.append([cpu])
    return ",".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)
