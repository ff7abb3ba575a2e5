"""What the doctor knows, as values: made by the probes or, in a test, by hand.

`HostFacts` describes one host, `ClusterFacts` all hosts of one call. A single machine is a cluster
of one.
"""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

from hvdtools.build.environment import Cuda, Framework, Nccl
from hvdtools.core.installed import InstalledHorovod
from hvdtools.core.mpi import Mpirun
from hvdtools.launch.hosts import Host
from hvdtools.launch.ssh_check import Problem

# The environment variables that change a run. No other is read: some hold passwords and tokens.
SHOWN_VARIABLES = (
    "CUDA_VISIBLE_DEVICES",
    "HOROVOD_CONTROLLER",
    "HOROVOD_CPU_OPERATIONS",
    "HOROVOD_GLOO_IFACE",
    "NCCL_IB_DISABLE",
    "NCCL_P2P_DISABLE",
    "NCCL_SOCKET_IFNAME",
    "OMP_NUM_THREADS",
)


@dataclass(frozen=True)
class Card:
    """A GPU: its name and memory."""

    name: str
    memory_bytes: int


@dataclass(frozen=True)
class Gpus:
    """What nvidia-smi reports.

    Attributes:
        driver: Version of the NVIDIA driver; None if nvidia-smi does not answer.
        cuda: The newest CUDA version that the driver supports, "13.0".
        cards: The GPUs, in the order of nvidia-smi.
        links: [i][j] is how GPU i reaches GPU j: "NV18" for 18 NVLinks; PIX, PXB, PHB, NODE
            and SYS, from a PCIe switch to the link between CPU sockets; "X" on the diagonal.
        complaint: Why nvidia-smi failed, "" if it did not.
        device_files: Number of GPUs that the kernel shows under /dev.
    """

    driver: str | None = None
    cuda: str | None = None
    cards: tuple[Card, ...] = ()
    links: tuple[tuple[str, ...], ...] = ()
    complaint: str = ""
    device_files: int = 0


@dataclass(frozen=True)
class Interface:
    """A network interface; `speed_mbit_per_s` and `mtu_bytes` are 0 if unknown.

    Attributes:
        addresses: IPv4 and IPv6 addresses, without link-local ones.
        subnets: The subnets of its IPv4 addresses, "10.0.0.0/24".
    """

    name: str
    up: bool
    addresses: tuple[str, ...]
    speed_mbit_per_s: int = 0
    mtu_bytes: int = 0
    subnets: tuple[str, ...] = ()

    @property
    def loopback(self) -> bool:
        """True if it reaches only this machine."""
        return any(address.startswith("127.") or address == "::1" for address in self.addresses)


@dataclass(frozen=True)
class Port:
    """An InfiniBand (or RoCE) port: "mlx5_0/1", "ACTIVE", "400 Gb/sec (4X NDR)", "InfiniBand"."""

    name: str
    state: str
    rate: str
    link_layer: str


@dataclass(frozen=True)
class Network:
    """Interfaces, InfiniBand ports, and how this host resolves its own name.

    Attributes:
        host_name: What the host calls itself.
        host_addresses: The addresses that it resolves this name to.
        default_route: The interface of the default route; "" if there is none.
    """

    host_name: str
    host_addresses: tuple[str, ...]
    interfaces: tuple[Interface, ...]
    ports: tuple[Port, ...]
    default_route: str = ""


@dataclass(frozen=True)
class Slurm:
    """srun, and the Slurm allocation that this process is in.

    Attributes:
        version: The version of srun, "22.05.8".
        mpi_kinds: What `srun --mpi=list` names, ("pmi2", "pmix").
        job: The job ID of the allocation; None outside of one.
        nodes: Number of nodes; 0 outside of an allocation.
        tasks: Number of tasks; 0 if none was requested.
        gpus_per_task: True if the allocation requested GPUs per task.
    """

    version: str
    mpi_kinds: tuple[str, ...]
    job: str | None = None
    nodes: int = 0
    tasks: int = 0
    gpus_per_task: bool = False


@dataclass(frozen=True)
class Cores:
    """The CPU cores, and the share that each rank gets.

    Attributes:
        usable: Cores that the CPU affinity allows this process.
        quota: The CPU quota of the container in cores; None if there is none.
        logical: Logical CPUs of the machine.
        physical: Physical cores of the machine; None if unknown.
        ranks: Ranks on this machine that `threads` is computed for.
        threads: Threads that each of these ranks would use.
    """

    usable: int
    quota: float | None
    logical: int
    physical: int | None
    ranks: int
    threads: int


@dataclass(frozen=True)
class Memory:
    """Main memory, and the shared memory in /dev/shm (0 if there is none)."""

    total_bytes: int
    available_bytes: int
    shared_bytes: int
    shared_free_bytes: int


@dataclass(frozen=True)
class FrameworkImport:
    """How importing a framework, and Horovod for it, went in a separate Python process.

    Attributes:
        framework: "torch" or "tensorflow".
        module: The module that failed to import, "" if all succeeded.
        complaint: The error, "" if all succeeded.
        gpus: Number of GPUs that the framework sees; None if the import failed.
    """

    framework: str
    module: str = ""
    complaint: str = ""
    gpus: int | None = 0


@dataclass(frozen=True)
class Horovod:
    """The installed Horovod, and what it needs.

    Attributes:
        installed: What its files say.
        mpi: The MPI that it was built with, "Open MPI 5.0.11"; "Open MPI" if only the name of
            its library is known; None for a build without MPI, or if unknown.
        missing: Python packages that it needs and that are not installed.
    """

    installed: InstalledHorovod
    mpi: str | None
    missing: tuple[str, ...]


@dataclass(frozen=True)
class HostFacts:
    """All that the doctor knows of one host and its Python environment.

    Attributes:
        versions: Subject -> the text that hosts are compared by, without what is not there.
        frameworks: Those installed, torch first.
        horovod: None if it is not installed.
        loads: One for each installed framework.
        mpi: The mpirun next to this Python or on PATH.
        cuda: A toolkit with nvcc, needed only to build Horovod for GPUs.
        nccl: The NCCL library found.
        slurm: None if there is no srun.
        variables: Those of `SHOWN_VARIABLES` that are set.
        resolved: Name of another host -> the addresses that it resolves to on this host.
        clock_s: The clock of the host when it answered, in seconds since 1970.
    """

    versions: Mapping[str, str]
    frameworks: tuple[Framework, ...]
    horovod: Horovod | None
    loads: tuple[FrameworkImport, ...]
    mpi: Mpirun | None
    cuda: Cuda | None
    nccl: Nccl | None
    gpus: Gpus
    network: Network
    slurm: Slurm | None
    cores: Cores
    memory: Memory
    variables: Mapping[str, str]
    resolved: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    clock_s: float = 0.0

    @property
    def machine(self) -> str:
        """hvdtools, Python and the system, in one line."""
        found = self.versions
        return f"hvdtools {found['hvdtools']}, Python {found['Python']}, {found['kernel']}"

    @property
    def gpu_count(self) -> int:
        """GPUs of nvidia-smi or, if a container lacks that tool, those that a framework sees."""
        return len(self.gpus.cards) or max((load.gpus or 0 for load in self.loads), default=0)

    @property
    def has_nccl(self) -> bool:
        """True if Horovod was built with NCCL."""
        return self.horovod is not None and self.horovod.installed.nccl

    @property
    def usable(self) -> dict[str, int]:
        """Framework that loads, together with Horovod for it -> the GPUs that it sees."""
        built_for = self.horovod.installed.built_for if self.horovod else {}
        loads = [load for load in self.loads if not load.complaint]
        return {load.framework: load.gpus or 0 for load in loads if load.framework in built_for}

    @property
    def available_cores(self) -> float:
        """Cores that ranks can use: affinity and quota count."""
        return min(float(self.cores.usable), self.cores.quota or self.cores.usable)

    def load(self, framework: str) -> FrameworkImport | None:
        """How importing this framework went; None if it is not installed."""
        return next((load for load in self.loads if load.framework == framework), None)


@dataclass(frozen=True)
class HostAnswer:
    """A host, and its facts or the problem that kept it from answering.

    Attributes:
        ahead_s: How far its clock is ahead of this machine's, to about a second.
    """

    host: Host
    facts: HostFacts | None = None
    problem: Problem | None = None
    ahead_s: float = 0.0


@dataclass(frozen=True)
class ClusterFacts:
    """The hosts that one call examined.

    Attributes:
        way: How the hosts are reached: "local" for this machine alone, "ssh" or "srun".
        here: The name of this machine.
        versions_here: As in `HostFacts`, for what starts the ranks from here.
        answers: One for each host, in the order of the user.
        interface: The network interface that the user named, or None.
    """

    way: str
    here: str
    versions_here: Mapping[str, str]
    answers: tuple[HostAnswer, ...]
    interface: str | None = None

    @property
    def facts(self) -> dict[str, HostFacts]:
        """Name -> facts of the hosts that answered."""
        return {each.host.name: each.facts for each in self.answers if each.facts}

    @property
    def slots(self) -> int:
        """The slots of all hosts: the ranks of an all-reduce."""
        return sum(each.host.slots for each in self.answers)

    @property
    def local(self) -> HostFacts | None:
        """The facts of this machine if it is the only one examined, else None."""
        return self.answers[0].facts if self.way == "local" else None


def read_host_facts(said: Mapping[str, Any]) -> HostFacts:
    """The facts from the JSON of `dataclasses.asdict`.

    Raises:
        AttributeError, KeyError, TypeError, ValueError: Another version of hvdtools wrote it.
    """
    facts: HostFacts = _read(HostFacts, said)
    return facts


def _read(kind: Any, value: Any) -> Any:
    """A value of a type that occurs in `HostFacts`, from its JSON."""
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is types.UnionType:  # always "X | None"
        return None if value is None else _read(arguments[0], value)
    if origin is tuple:
        return tuple(_read(arguments[0], each) for each in value)
    if origin in (dict, Mapping):
        return {name: _read(arguments[1], each) for name, each in value.items()}
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        kinds = get_type_hints(kind)
        return kind(**{name: _read(kinds[name], each) for name, each in value.items()})
    return Path(value) if kind is Path else value
