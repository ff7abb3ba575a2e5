"""What the doctor looks at on the host itself: GPUs, network, Slurm, cores and memory."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Card:
    """A GPU: its name and memory."""

    name: str
    memory_bytes: int


@dataclass(frozen=True)
class Gpus:
    """What nvidia-smi says.

    Attributes:
        driver: Version of NVIDIA's driver; None where it does not answer.
        cuda: The newest CUDA version that the driver serves, "13.0".
        cards: The GPUs, in nvidia-smi's order.
        links: Row by row, how a GPU reaches each other: "NV18" for 18 NVLinks; PIX, PXB,
            PHB, NODE and SYS, from a PCIe switch to the link between CPU sockets; "X" is itself.
        complaint: Why nvidia-smi failed, "" if it did not.
        device_files: How many GPUs the kernel shows under /dev.
    """

    driver: str | None = None
    cuda: str | None = None
    cards: tuple[Card, ...] = ()
    links: tuple[tuple[str, ...], ...] = ()
    complaint: str = ""
    device_files: int = 0


@dataclass(frozen=True)
class Interface:
    """A network interface; `speed_mbit_per_s` and `mtu_bytes` are 0 where they are not known.

    Attributes:
        subnets: Those that its IPv4 addresses are in, "10.0.0.0/24".
    """

    name: str
    up: bool
    addresses: tuple[str, ...]
    speed_mbit_per_s: int = 0
    mtu_bytes: int = 0
    subnets: tuple[str, ...] = ()

    @property
    def loopback(self) -> bool:
        """True if it reaches this machine alone."""
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
    """Interfaces, InfiniBand ports, and the addresses that this host's own name has.

    Attributes:
        default_route: The interface that leads out of this network; "" if none does.
    """

    host_name: str
    host_addresses: tuple[str, ...]
    interfaces: tuple[Interface, ...]
    ports: tuple[Port, ...]
    default_route: str = ""


@dataclass(frozen=True)
class Slurm:
    """Slurm's srun, and the allocation that this process is in.

    Attributes:
        version: srun's, "22.05.8".
        mpi_kinds: What `srun --mpi=list` names, ("pmi2", "pmix").
        job: The allocation's number, None outside of one.
        nodes: Its nodes; 0 outside of one.
        tasks: Its tasks, 0 where Slurm was not told.
        gpus_per_task: True if it was asked for GPUs by the task.
    """

    version: str
    mpi_kinds: tuple[str, ...]
    job: str | None = None
    nodes: int = 0
    tasks: int = 0
    gpus_per_task: bool = False


@dataclass(frozen=True)
class Cores:
    """The CPU, and the share that a rank gets of it.

    Attributes:
        usable: Cores that the affinity allows this process.
        quota: The container's CPU quota in cores, None where there is none.
        logical: Logical CPUs of the machine.
        physical: Its physical cores, None where unknown.
        ranks: Ranks on this machine that `threads` is reckoned for.
        threads: Threads that each of them would use.
    """

    usable: int
    quota: float | None
    logical: int
    physical: int | None
    ranks: int
    threads: int


@dataclass(frozen=True)
class Memory:
    """Main memory, and the shared memory in /dev/shm (0 where there is none)."""

    total_bytes: int
    available_bytes: int
    shared_bytes: int
    shared_free_bytes: int
