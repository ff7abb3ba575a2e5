"""The engines that a suite may compare, and how a job of each is started."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Framework:
    """A family of engines that train the same model, and may be compared.

    Attributes:
        name: In words.
        package: What must be installed, as `installed` names it.
        yardstick: The engine that the others are held against.
        yardstick_name: The same in a word or two, for headings.
        models: What the shipped program can train.
        data: What it can train on.
        reads_folders: True if it can also train on the images of a folder.
    """

    name: str
    package: Literal["torch", "tensorflow"]
    yardstick: str
    yardstick_name: str
    models: tuple[str, ...]
    data: tuple[str, ...]
    reads_folders: bool = False


# The lists are the programs' own, held equal by a test.
FRAMEWORKS = {
    "torch": Framework("PyTorch", "torch", "ddp-gloo", "DDP", ("cnn",), ("digits", "synthetic")),
    "keras": Framework(
        name="Keras",
        package="tensorflow",
        yardstick="keras-mwms",
        yardstick_name="MWMS",
        models=("cnn",),
        data=("digits", "synthetic"),
        reads_folders=True,
    ),
}


@dataclass(frozen=True)
class BenchEngine:
    """One way to keep the replicas equal.

    Attributes:
        framework: A name in FRAMEWORKS.
        program_engine: What the program is told with --engine.
        starter: Who starts the ranks, as `hvdtools launch --with` names it.
        moved_by: What carries the gradients where there is no GPU.
        environment: What else its ranks need to see.
        needs_ports: True if its ranks meet at MASTER_ADDR:MASTER_PORT and the ports above it.
    """

    framework: str
    program_engine: Literal["horovod", "ddp", "mwms"]
    starter: Literal["mpirun", "horovodrun", "auto"]
    moved_by: Literal["mpi", "gloo", "grpc"]
    environment: tuple[tuple[str, str], ...] = ()
    needs_ports: bool = False


_OVER_MPI = (("HOROVOD_CONTROLLER", "mpi"), ("HOROVOD_CPU_OPERATIONS", "mpi"))
# Over the loopback interface as horovodrun's Gloo is: left alone, Gloo fails where the
# machine's own name resolves to an address of no interface.
_LOOPBACK = (("GLOO_SOCKET_IFNAME", "lo"),)

# On GPUs the gradients go through NCCL whatever moves them here, and a result says so.
ENGINES = {
    "horovod-mpi": BenchEngine("torch", "horovod", "mpirun", "mpi", _OVER_MPI),
    "horovod-gloo": BenchEngine("torch", "horovod", "horovodrun", "gloo"),
    "ddp-gloo": BenchEngine("torch", "ddp", "auto", "gloo", _LOOPBACK, needs_ports=True),
    "keras-horovod-mpi": BenchEngine("keras", "horovod", "mpirun", "mpi", _OVER_MPI),
    "keras-horovod-gloo": BenchEngine("keras", "horovod", "horovodrun", "gloo"),
    "keras-mwms": BenchEngine("keras", "mwms", "auto", "grpc", needs_ports=True),
}


def engines_of(framework: str) -> tuple[str, ...]:
    """The names of the engines of a framework."""
    return tuple(name for name, engine in ENGINES.items() if engine.framework == framework)


def as_it_ran(engine: str, moved_by: str | None) -> str:
    """The engine's name with what carried the gradients, where that differs from the name.

    "ddp-gloo" on GPUs ran as "ddp-nccl", "horovod-mpi" as "horovod-mpi+nccl":
    there MPI still agrees on what is sent.
    """
    if moved_by is None or moved_by == ENGINES[engine].moved_by:
        return engine
    if engine.startswith("ddp-"):
        return f"ddp-{moved_by}"
    return f"{engine}+{moved_by}"
