"""What a build depends on, as values: made by `detect`, read by `plan`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Python:
    """This interpreter and the place where pip puts packages for it.

    Attributes:
        executable: The program, in its virtual environment.
        tag: Interpreter and ABI as a wheel's name says them, "cp311-cp311".
        platform: As a wheel's name says it, "linux_x86_64".
        headers: The folder of Python.h, or None where it is not installed.
        site: The folder that a `pip install` writes to.
        root: What `site` belongs to: the environment's prefix, or the user's base.
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
        version: What the framework itself reports, "2.13.0+cpu".
        cuda: The CUDA version it was built for, "13.0"; None for a CPU build.
        libraries: The folder of its shared libraries.
        xla_headers: False if its headers lack what Horovod's XLA ops include.
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
    """Everything found here that decides how Horovod is built.

    Attributes:
        cxxflags: The user's own CXXFLAGS, which the build keeps.
        cpu_flags: Those of f16c, avx and fma that this CPU has.
        cpus: Cores that this process may use.
        missing: Requirements that Horovod needs when it runs and that are not here.
        missing_to_build: Requirements of its build alone that are not here.
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
