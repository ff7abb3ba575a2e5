"""Machines for the doctor's tests, made by hand: a sound CPU host and a sound GPU host."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from hvdtools.build.environment import Cuda, Framework, Nccl
from hvdtools.core.installed import InstalledHorovod
from hvdtools.core.mpi import Mpirun
from hvdtools.doctor.facts import (
    Card,
    ClusterFacts,
    Cores,
    FrameworkImport,
    Gpus,
    Horovod,
    HostAnswer,
    HostFacts,
    Interface,
    Memory,
    Network,
    Slurm,
)
from hvdtools.launch.hosts import Host

GIB = 2**30
LOOPBACK = Interface("lo", True, ("127.0.0.1", "::1"))
ETHERNET = Interface("eth0", True, ("10.0.0.7", "fd00::7"), 25_000)

CPU_HOST = HostFacts(
    versions={"hvdtools": "0.1.0", "Python": "3.11.7", "kernel": "Linux 6.1 x86_64"},
    frameworks=(
        Framework("torch", "2.13.0+cpu", None, Path("/site/torch/lib")),
        Framework("tensorflow", "2.21.0", None, Path("/site/tensorflow")),
    ),
    horovod=Horovod(
        installed=InstalledHorovod(
            version="0.28.1",
            folder=Path("/site/horovod"),
            built_for={"torch": "2.13.0+cpu", "tensorflow": "2.21.0"},
            controllers=("mpi", "gloo"),
            nccl=False,
        ),
        mpi="Open MPI 5.0.11",
        missing=(),
    ),
    loads=(FrameworkImport("torch"), FrameworkImport("tensorflow")),
    mpi=Mpirun("/bin/mpirun", "Open MPI", (5, 0, 11)),
    cuda=None,
    nccl=None,
    gpus=Gpus(),
    network=Network("node1", ("10.0.0.7",), (ETHERNET, LOOPBACK), ()),
    slurm=None,
    cores=Cores(usable=8, quota=None, logical=8, physical=4, ranks=2, threads=4),
    memory=Memory(64 * GIB, 60 * GIB, 32 * GIB, 32 * GIB),
    variables={},
)


def alone(facts: HostFacts, ranks: int = 1) -> ClusterFacts:
    """The machine as the doctor examines it: a cluster of one."""
    answer = HostAnswer(Host("localhost", ranks), facts)
    return ClusterFacts("local", "node1", facts.versions, (answer,))


def with_horovod(facts: HostFacts, **changes: object) -> HostFacts:
    """The same machine with another Horovod; fields of `InstalledHorovod` or of `Horovod`."""
    assert facts.horovod is not None
    inner = {name: value for name, value in changes.items() if hasattr(INSTALLED, name)}
    outer = {name: value for name, value in changes.items() if name not in inner}
    installed = replace(facts.horovod.installed, **inner)  # type: ignore[arg-type]
    return replace(facts, horovod=replace(facts.horovod, installed=installed, **outer))  # type: ignore[arg-type]


assert CPU_HOST.horovod is not None
INSTALLED = CPU_HOST.horovod.installed

GPU_HOST = with_horovod(
    replace(
        CPU_HOST,
        frameworks=(Framework("torch", "2.11.0+cu130", "13.0", Path("/site/torch/lib")),),
        loads=(FrameworkImport("torch", gpus=2),),
        cuda=Cuda(Path("/usr/local/cuda"), "13.0"),
        nccl=Nccl("2.28.9", Path("/nccl/include"), Path("/nccl/lib/libnccl.so.2")),
        gpus=Gpus(
            driver="580.65.06",
            cuda="13.0",
            cards=(Card("NVIDIA H200", 141 * GIB),) * 2,
            links=(("X", "NV18"), ("NV18", "X")),
            device_files=2,
        ),
        slurm=Slurm("24.05.2", ("pmi2", "pmix"), job="4711", nodes=2, tasks=4),
    ),
    built_for={"torch": "2.11.0+cu130"},
    nccl=True,
)
