"""What a build depends on, as values: made by `detect`, read by `plan`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Python:
    """This interpreter, and where pip installs packages for it.

    Attributes:
        executable: The program, in its virtual environment.
        tag: Interpreter and ABI in the name of a wheel, "cp311-cp311".
        platform: The platform in the name of a wheel, "linux_x86_64".
        headers: The folder of Python.h; None if it is not installed.
        site: The folder that `pip install` writes to.
        root: The prefix of the environment, or the user base, that `site` is in.
    """

    executable: Path
    tag: str
    platform: str
    headers: Path | None
    site: Path
    root: Path


@dataclass(frozen=True)
class Program:
    """A compiler or tool: how to call it, and its version ("12.2.0")."""

    command: str
    version: str


@dataclass(frozen=True)
class Framework:
    """An installed framework.

    Attributes:
        name: "torch" or "tensorflow".
        version: The version that the framework reports, "2.13.0+cpu".
        cuda: The CUDA version that it was built for, "13.0"; None for a CPU build.
        libraries: The folder of its shared libraries.
        xla_headers: False if it lacks headers that the XLA ops of Horovod include.
    """

    name: str
    version: str
    cuda: str | None
    libraries: Path
    xla_headers: bool = True


@dataclass(frozen=True)
class Mpi:
    """An MPI with its compilers. `flavour` is "Open MPI", "MPICH" or "Intel MPI"."""

    flavour: str
    version: str
    mpirun: Path
    mpicxx: Path
    mpicc: Path
    libraries: Path


@dataclass(frozen=True)
class Cuda:
    """A CUDA toolkit with nvcc: its folder and release ("13.0")."""

    home: Path
    version: str


@dataclass(frozen=True)
class Nccl:
    """NCCL's header folder and shared library (libnccl.so or libnccl.so.2)."""

    version: str
    include: Path
    library: Path


@dataclass(frozen=True)
class Gpu:
    """A GPU of this machine: its name and compute capability without the dot ("90")."""

    name: str
    arch: str


@dataclass(frozen=True)
class Environment:
    """Everything here that determines how Horovod is built.

    Attributes:
        cxxflags: The CXXFLAGS of the user, which the build keeps.
        cpu_flags: Those of f16c, avx and fma that this CPU has.
        cpus: Number of cores that this process may use.
        missing: Runtime requirements of Horovod that are not installed.
        missing_to_build: Build requirements that are not installed.
    """

    python: Python
    compiler: Program | None
    cmake: Program | None
    frameworks: tuple[Framework, ...]
    mpi: Mpi | None
    cuda: Cuda | None
    nccl: Nccl | None
    gpus: tuple[Gpu, ...]
    cxxflags: str
    cpu_flags: tuple[str, ...]
    cpus: int
    missing: tuple[str, ...]
    missing_to_build: tuple[str, ...]

    def framework(self, name: str) -> Framework | None:
        """The installed framework of that name, or None."""
        return next((found for found in self.frameworks if found.name == name), None)
