"""Binds a rank to cores: its share of the node's, of a NUMA node's, or of those near its GPU.

The rank does it, not the launcher, so that it works the same under every launcher,
respects the cores that a batch system has taken away, and uses the GPU of the local rank.
"""

from __future__ import annotations

import functools
import os
import shutil
import socket
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from hvdtools.core.cpus import usable_cpus
from hvdtools.core.errors import HvdtoolsError
from hvdtools.core.text import format_ranges, parse_ranges
from hvdtools.core.topology import LaunchEnvironment, read_launch_environment

_SYSTEM = Path("/sys/devices/system")
_PCI = Path("/sys/bus/pci/devices")
_NVIDIA_SMI_TIMEOUT_S = 60


@dataclass(frozen=True)
class CpuLayout:
    """The usable CPUs of this node.

    Attributes:
        cores: Physical cores in NUMA order: the usable CPU numbers (hardware threads) of each.
        numa: NUMA node -> its usable CPUs; {0: all} if the kernel does not list NUMA nodes.
    """

    cores: tuple[frozenset[int], ...]
    numa: dict[int, frozenset[int]]


@dataclass(frozen=True)
class Gpu:
    """A GPU.

    Attributes:
        name: Identifies it on the node: "1 (NVIDIA H100)", or the entry of
            CUDA_VISIBLE_DEVICES.
        cpus: The CPUs near it; empty if unknown.
    """

    name: str
    cpus: frozenset[int] = frozenset()


def bind(
    kind: str,
    cpus_per_rank: int | None,
    print_to: TextIO | None,
    environ: Mapping[str, str] = os.environ,
) -> None:
    """Bind this process, and print where it runs if `print_to` is given.

    Raises:
        HvdtoolsError: There are too few cores, or `kind` is "gpu" and there is no GPU.
    """
    launch_env = read_launch_environment(environ)
    layout = read_layout(usable_cpus())
    gpus = [gpu_of(local_rank, environ) for local_rank in range(launch_env.local_size)]
    if kind != "none":
        near = [_cpus_near(gpu, layout, kind) for gpu in gpus]
        os.sched_setaffinity(0, choose_cpus(kind, launch_env, layout, near, cpus_per_rank))
    if print_to is not None:
        gpu = gpus[launch_env.local_rank]
        text = describe_binding(launch_env.rank, usable_cpus(), layout, gpu)
        print(text, file=print_to, flush=True)


def read_layout(usable: frozenset[int], system: Path = _SYSTEM) -> CpuLayout:
    """Read the kernel's topology files.

    Source: Documentation/ABI/stable/sysfs-devices-system-cpu (thread_siblings_list) and
    sysfs-devices-node (cpulist).
    """
    numa = {
        int(folder.name.removeprefix("node")): _read_cpus(folder / "cpulist") & usable
        for folder in (system / "node").glob("node[0-9]*")
    }
    numa = {number: cpus for number, cpus in sorted(numa.items()) if cpus} or {0: usable}
    cores: dict[frozenset[int], None] = {}
    for cpus in numa.values():
        for cpu in sorted(cpus):
            siblings = _read_cpus(system / f"cpu/cpu{cpu}/topology/thread_siblings_list") & usable
            cores[siblings or frozenset({cpu})] = None
    return CpuLayout(tuple(cores), numa)


def _read_cpus(file: Path) -> frozenset[int]:
    try:
        return frozenset(parse_ranges(file.read_text()))
    except OSError:
        return frozenset()


def choose_cpus(
    kind: str,
    launch_env: LaunchEnvironment,
    layout: CpuLayout,
    near: Sequence[frozenset[int]],
    cpus_per_rank: int | None,
) -> frozenset[int]:
    """The CPUs for this rank.

    Args:
        kind: As in `JobSpec.bind`, but not "none".
        near: For each local rank, the CPUs near its GPU (only used by "gpu").
        cpus_per_rank: Cores for each rank; None for an equal share.

    Raises:
        HvdtoolsError: There are fewer cores than the ranks need.
    """
    own, local_ranks = launch_env.local_rank, range(launch_env.local_size)
    if kind == "cores":
        group = list(local_ranks)
        pool = frozenset().union(*layout.cores)
    elif kind == "numa":
        nodes = list(layout.numa.values())
        node_of = [rank * len(nodes) // launch_env.local_size for rank in local_ranks]
        group = [rank for rank in local_ranks if node_of[rank] == node_of[own]]
        pool = nodes[node_of[own]]
    else:
        group = [rank for rank in local_ranks if near[rank] == near[own]]
        pool = near[own]
    cores = [core & pool for core in layout.cores if core & pool]
    return _share_of(cores, group, own, cpus_per_rank)


def _share_of(
    cores: list[frozenset[int]], group: list[int], own: int, cpus_per_rank: int | None
) -> frozenset[int]:
    if len(cores) < len(group) * (cpus_per_rank or 1):
        raise HvdtoolsError(
            f"{len(group)} ranks need {cpus_per_rank or 1} cores each and share {len(cores)} on "
            f"{socket.gethostname()}: start fewer ranks a node, lower --cpus-per-rank, or leave "
            "out --bind."
        )
    index = group.index(own)
    if cpus_per_rank is not None:
        share = cores[index * cpus_per_rank : (index + 1) * cpus_per_rank]
    else:
        share = cores[index * len(cores) // len(group) : (index + 1) * len(cores) // len(group)]
    return frozenset().union(*share)


def _cpus_near(gpu: Gpu | None, layout: CpuLayout, kind: str) -> frozenset[int]:
    everywhere = frozenset().union(*layout.cores)
    if kind != "gpu":
        return everywhere
    if gpu is None:
        raise HvdtoolsError(
            f"--bind gpu needs a GPU, but {socket.gethostname()} shows none: use --bind cores or "
            "--bind numa."
        )
    # In a container the location of a GPU may be unknown.
    return gpu.cpus & everywhere or everywhere


def describe_binding(rank: int, cpus: frozenset[int], layout: CpuLayout, gpu: Gpu | None) -> str:
    """ "hvdtools: rank 1 is on host1, CPUs 2-3 (NUMA node 0), GPU 1 (NVIDIA H100)"."""
    numa = [str(number) for number, node_cpus in layout.numa.items() if node_cpus & cpus]
    nodes = f"NUMA node{'s' * (len(numa) != 1)} {', '.join(numa)}"
    on_gpu = f", GPU {gpu.name}" if gpu else ""
    where = f"{socket.gethostname()}, CPUs {format_ranges(cpus)} ({nodes}){on_gpu}"
    return f"hvdtools: rank {rank} is on {where}"


def gpu_of(local_rank: int, environ: Mapping[str, str]) -> Gpu | None:
    """The GPU that `init()` gives to a local rank; None without one.

    Local ranks take the visible GPUs in turn: a launcher may show each rank only its own.

    Raises:
        HvdtoolsError: nvidia-smi is installed and fails.
    """
    gpus = _query_gpus()
    visible = environ.get("CUDA_VISIBLE_DEVICES")
    names = list(gpus) if visible is None else [n.strip() for n in visible.split(",") if n]
    if not names:
        return None
    name = names[local_rank % len(names)]
    return gpus.get(name, Gpu(name))


@functools.cache
def _query_gpus() -> dict[str, Gpu]:
    """The GPUs that nvidia-smi lists, by number; {} without it."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return {}
    query = [tool, "--query-gpu=index,name,pci.bus_id", "--format=csv,noheader"]
    done = subprocess.run(
        query, capture_output=True, text=True, timeout=_NVIDIA_SMI_TIMEOUT_S, check=False
    )
    if done.returncode != 0:
        raise HvdtoolsError(
            f"nvidia-smi fails ({(done.stdout + done.stderr).strip()[:200]}): see "
            "`hvdtools doctor`."
        )
    return parse_gpus(done.stdout, _PCI)


def parse_gpus(text: str, pci: Path) -> dict[str, Gpu]:
    """Number -> GPU, from nvidia-smi's lines like "0, NVIDIA H100, 00000000:1B:00.0".

    Source: the kernel's Documentation/ABI/testing/sysfs-bus-pci (local_cpulist);
    nvidia-smi writes the domain with eight digits, the kernel with four.
    """
    found = {}
    for line in text.splitlines():
        number, name, address = (part.strip() for part in line.split(","))
        cpus = _read_cpus(pci / address.lower()[-12:] / "local_cpulist")
        found[number] = Gpu(f"{number} ({name})", cpus)
    return found
