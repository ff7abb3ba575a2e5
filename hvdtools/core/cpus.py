"""The CPU cores that this process may use: its affinity, and the container's quota."""

from __future__ import annotations

import os
from pathlib import Path

_CGROUP_V2 = Path("/sys/fs/cgroup/cpu.max")


def usable_cpus() -> frozenset[int]:
    """The numbers of the CPUs that this process may run on.

    A container or taskset may allow fewer than the machine has. macOS has no
    such limit.
    """
    if hasattr(os, "sched_getaffinity"):
        return frozenset(os.sched_getaffinity(0))
    return frozenset(range(os.cpu_count() or 1))


def quota_cpus(cpu_max: Path = _CGROUP_V2) -> float | None:
    """The container's CPU quota in cores, or None without one.

    Source: cgroup v2's ``cpu.max``, "$MAX $PERIOD" in microseconds. Kubernetes
    limits CPUs that way, and the affinity does not show it.
    """
    try:
        allowed, period = cpu_max.read_text().split()
    except (OSError, ValueError):
        return None
    return None if allowed == "max" else int(allowed) / int(period)


def fair_threads(own_cpus: frozenset[int], cpus_of_ranks: list[frozenset[int]]) -> int:
    """Threads for this rank such that the ranks of a node do not compete for cores.

    Args:
        own_cpus: The CPUs of this rank.
        cpus_of_ranks: The CPUs of every rank on this node, this one included.

    Returns:
        This rank's share of its CPUs, at least 1: all of them where the launcher
        bound each rank to different ones, a part where ranks share them.
    """
    sharing = sum(1 for cpus in cpus_of_ranks if cpus & own_cpus)
    cores: float = len(own_cpus)
    quota = quota_cpus()
    if quota is not None:
        cores = min(cores, quota)
    return max(1, int(cores / max(1, sharing)))


def fair_threads_before_init(local_size: int) -> int:
    """`fair_threads` for a framework that fixes its threads before ranks can communicate.

    A rank with fewer CPUs than its parent process was bound by the launcher, to a part of
    the parent's; one with as many shares them with all ranks of its node.
    """
    own_cpus = usable_cpus()
    parent_cpus = _cpus_of_parent() or own_cpus
    is_bound = own_cpus < parent_cpus
    sharing = round(local_size * len(own_cpus) / len(parent_cpus)) if is_bound else local_size
    return fair_threads(own_cpus, [own_cpus] * max(1, sharing))


def _cpus_of_parent() -> frozenset[int] | None:
    if not hasattr(os, "sched_getaffinity"):
        return None
    try:
        return frozenset(os.sched_getaffinity(os.getppid()))
    except OSError:  # it has ended, or belongs to another user
        return None
