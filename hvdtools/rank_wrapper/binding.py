"""Binds a rank to cores: its share of the node's, of a NUMA node's, or of those beside its GPU.

Done in the rank and not by the launcher, so that it is the same under every
launcher, heeds what a batch system already took away, and knows the GPU that the
rank will take: that of its local rank.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from hvdtools.core.cpus import cpu_list, read_cpu_list, usable_cpus
from hvdtools.core.errors import HvdtoolsError
from hvdtools.core.topology import LaunchEnvironment, read_launch_environment
from hvdtools.rank_wrapper.gpus import Gpu, gpu_of

_SYSTEM = Path("/sys/devices/system")


@dataclass(frozen=True)
class Layout:
    """The CPUs of this node that may be used.

    Attributes:
        cores: Physical cores in NUMA order: the usable CPU numbers (hardware threads) of each.
        numa: NUMA node -> its usable CPUs; {0: all} where the kernel tells nothing.
    """

    cores: tuple[frozenset[int], ...]
    numa: dict[int, frozenset[int]]


def find_layout(usable: frozenset[int], system: Path = _SYSTEM) -> Layout:
    """Read the kernel's topology files.

    Source: Documentation/ABI/stable/sysfs-devices-system-cpu (thread_siblings_list) and
    sysfs-devices-node (cpulist).
    """
    numa = {
        int(folder.name.removeprefix("node")): _cpus_in(folder / "cpulist") & usable
        for folder in (system / "node").glob("node[0-9]*")
    }
    numa = {number: cpus for number, cpus in sorted(numa.items()) if cpus} or {0: usable}
    cores: dict[frozenset[int], None] = {}
    for cpus in numa.values():
        for cpu in sorted(cpus):
            siblings = _cpus_in(system / f"cpu/cpu{cpu}/topology/thread_siblings_list") & usable
            cores[siblings or frozenset({cpu})] = None
    return Layout(tuple(cores), numa)


def _cpus_in(file: Path) -> frozenset[int]:
    try:
        return read_cpu_list(file.read_text())
    except OSError:
        return frozenset()


def choose(
    kind: str,
    place: LaunchEnvironment,
    layout: Layout,
    near: Sequence[frozenset[int]],
    wanted: int | None,
) -> frozenset[int]:
    """The CPUs for one rank.

    Args:
        kind: As `JobSpec.bind` has it.
        near: For each local rank, the CPUs beside its GPU (for "gpu" alone).
        wanted: Cores for each rank; None for an equal share.

    Raises:
        HvdtoolsError: There are fewer cores than the ranks want.
    """
    mine = place.local_rank
    if kind == "cores":
        group = list(range(place.local_size))
        pool = frozenset().union(*layout.cores)
    elif kind == "numa":
        nodes = list(layout.numa.values())
        at = [rank * len(nodes) // place.local_size for rank in range(place.local_size)]
        group = [rank for rank in range(place.local_size) if at[rank] == at[mine]]
        pool = nodes[at[mine]]
    else:
        group = [rank for rank in range(place.local_size) if near[rank] == near[mine]]
        pool = near[mine]
    return _share([core & pool for core in layout.cores if core & pool], group, mine, wanted)


def _share(
    cores: list[frozenset[int]], group: list[int], mine: int, wanted: int | None
) -> frozenset[int]:
    if len(cores) < len(group) * (wanted or 1):
        raise HvdtoolsError(
            f"{len(group)} ranks want {wanted or 1} cores each and share {len(cores)} on "
            f"{socket.gethostname()}: start fewer ranks a node, or ask for fewer with "
            "--cpus-per-rank, or leave out --bind."
        )
    place = group.index(mine)
    if wanted is not None:
        taken = cores[place * wanted : (place + 1) * wanted]
    else:
        taken = cores[place * len(cores) // len(group) : (place + 1) * len(cores) // len(group)]
    return frozenset().union(*taken)


def bind(
    kind: str,
    wanted: int | None,
    print_to: TextIO | None,
    environ: Mapping[str, str] = os.environ,
) -> None:
    """Bind this process, and say where to it is bound if `print_to` is given.

    Raises:
        HvdtoolsError: There are too few cores, or a GPU is wanted and there is none.
    """
    place = read_launch_environment(environ)
    layout = find_layout(usable_cpus())
    gpus = [gpu_of(local_rank, environ) for local_rank in range(place.local_size)]
    if kind != "none":
        near = [_near(gpu, layout, kind) for gpu in gpus]
        os.sched_setaffinity(0, choose(kind, place, layout, near, wanted))
    if print_to is not None:
        text = in_words(place.rank, usable_cpus(), layout, gpus[place.local_rank])
        print(text, file=print_to, flush=True)


def _near(gpu: Gpu | None, layout: Layout, kind: str) -> frozenset[int]:
    everywhere = frozenset().union(*layout.cores)
    if kind != "gpu":
        return everywhere
    if gpu is None:
        raise HvdtoolsError(
            f"--bind gpu needs a GPU, and {socket.gethostname()} shows none: use --bind cores or "
            "--bind numa."
        )
    # A GPU in a container may not say where it is.
    return gpu.near & everywhere or everywhere


def in_words(rank: int, cpus: frozenset[int], layout: Layout, gpu: Gpu | None) -> str:
    """ "hvdtools: rank 1 is on host1, CPUs 2-3 (NUMA node 0), GPU 1 (NVIDIA H100)"."""
    numa = [str(number) for number, those in layout.numa.items() if those & cpus]
    nodes = f"NUMA node{'s' * (len(numa) > 1)} {', '.join(numa)}"
    shown = f", GPU {gpu.name}" if gpu else ""
    where = f"{socket.gethostname()}, CPUs {cpu_list(cpus)} ({nodes}){shown}"
    return f"hvdtools: rank {rank} is on {where}"
