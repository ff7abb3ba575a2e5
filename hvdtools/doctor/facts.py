"""What the doctor looks at, as values: made by the probes or, in a test, by hand."""

from __future__ import annotations

from dataclasses import dataclass

from hvdtools.build.environment import Cuda, Framework, Nccl
from hvdtools.core.installed import InstalledHorovod
from hvdtools.core.mpi import Mpirun
from hvdtools.doctor.facts_host import Cores, Gpus, Memory, Network, Slurm


@dataclass(frozen=True)
class Load:
    """A framework and Horovod for it, imported by a Python of their own.

    Attributes:
        framework: "torch" or "tensorflow".
        module: The module that did not import, "" if all did.
        complaint: What it said last, "" if all went well.
        gpus: GPUs that the framework counts; None where the import failed.
    """

    framework: str
    module: str = ""
    complaint: str = ""
    gpus: int | None = 0


@dataclass(frozen=True)
class Horovod:
    """The installed Horovod, and what its build and its start need.

    Attributes:
        installed: What its files say.
        mpi: The MPI that it was built with, "Open MPI 5.0.11"; "Open MPI" where
            only its library's name tells; None for a build without MPI, or if unknown.
        missing: Python packages that it needs and that are not here.
    """

    installed: InstalledHorovod
    mpi: str | None
    missing: tuple[str, ...]


@dataclass(frozen=True)
class Facts:
    """All that the doctor knows of this machine and this Python environment.

    Attributes:
        machine: hvdtools, Python and the system, in one line.
        frameworks: Those installed, torch first.
        horovod: None where it is not installed.
        loads: One for each framework installed.
        mpi: The mpirun beside this Python or on PATH.
        cuda: A toolkit with nvcc, which only building Horovod for GPUs needs.
        nccl: The NCCL library found.
        slurm: None where there is no srun.
        variables: Those of `SHOWN_VARIABLES` that are set.
    """

    machine: str
    frameworks: tuple[Framework, ...]
    horovod: Horovod | None
    loads: tuple[Load, ...]
    mpi: Mpirun | None
    cuda: Cuda | None
    nccl: Nccl | None
    gpus: Gpus
    network: Network
    slurm: Slurm | None
    cores: Cores
    memory: Memory
    variables: dict[str, str]

    @property
    def gpu_count(self) -> int:
        """GPUs here: nvidia-smi's or, where a container lacks that tool, a framework's count."""
        return len(self.gpus.cards) or max((load.gpus or 0 for load in self.loads), default=0)

    def load(self, framework: str) -> Load | None:
        """How importing this framework went, None if it is not installed."""
        return next((load for load in self.loads if load.framework == framework), None)


# The variables that steer a run. No other is read: environments hold passwords and tokens.
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
