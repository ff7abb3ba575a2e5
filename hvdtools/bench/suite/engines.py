"""The programs' families, the engines that each may compare, and how a job of each is started."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

PROGRAMS = Path(__file__).parents[1] / "programs"  # benchmarks/, in a wheel too


@dataclass(frozen=True)
class Look:
    """How plots draw an engine.

    Attributes:
        color: A key of `palette.MARKS`.
        marker: A matplotlib marker.
    """

    color: str
    marker: str


@dataclass(frozen=True)
class BenchEngine:
    """One way to keep replicas equal, or to sum a message: all that the benchmark knows of it.

    To add one, add an entry to `FAMILIES`, and the class that trains with it to `ENGINES` in
    the program's engines.py.

    Attributes:
        program_engine: What the program is told with --engine.
        launcher: Who starts the ranks, as `hvdtools launch --launcher` names it; None
            where anyone may.
        transport: What carries the data where there is no GPU.
        look: How plots draw it; engines of one family differ in color and marker.
        environment: What else its ranks need to see.
        needs_ports: True if its ranks meet at MASTER_ADDR:MASTER_PORT and the ports above it.
        allreduce: The engine of the all-reduce benchmark that sends as this one does; None if
            there is none, and then its scaling cannot be predicted.
        named_after_transport: True if results call it "ddp-gloo" or "ddp-nccl".
        fuses: True if it gathers ready gradients into one message by itself.
    """

    program_engine: str
    launcher: Literal["mpirun", "horovodrun"] | None
    transport: Literal["mpi", "gloo", "grpc", "none"]
    look: Look
    environment: tuple[tuple[str, str], ...] = ()
    needs_ports: bool = False
    allreduce: str | None = None
    named_after_transport: bool = False
    fuses: bool = False

    @property
    def uses_horovod(self) -> bool:
        """True if its ranks need a Horovod that was built for the framework."""
        return self.program_engine in ("hvdtools", "horovod")


@dataclass(frozen=True)
class Family:
    """A program and the engines under which it does the same work, so that they compare.

    Attributes:
        name: In words.
        kind: What it measures, a name in `measured.KINDS`.
        program: The shipped program's file.
        folder: Where it is, in benchmarks/.
        package: What must be installed, as `installed` names it.
        engines: By name.
        baseline: The engine that the others are held against; None without one.
        baseline_name: The same in a word or two, for headings.
        ideal: The engine that communicates nothing; None without one.
    """

    name: str
    kind: Literal["training", "allreduce", "input"]
    program: str
    folder: Literal["torch", "keras", "allreduce"]
    package: Literal["torch", "tensorflow"]
    engines: dict[str, BenchEngine]
    baseline: str | None = None
    baseline_name: str = ""
    ideal: str | None = None

    @property
    def file(self) -> Path:
        """The shipped program."""
        return PROGRAMS / self.folder / self.program

    @property
    def program_engines(self) -> tuple[str, ...]:
        """What the program may be told with --engine, each once."""
        return tuple(dict.fromkeys(each.program_engine for each in self.engines.values()))


_OVER_MPI = (("HOROVOD_CONTROLLER", "mpi"), ("HOROVOD_CPU_OPERATIONS", "mpi"))
HOROVODS_FUSION_BYTES = 128 * 2**20  # its own default
# Plain Horovod as it comes. hvdtools sends whole buckets and turns this off, so the two cannot
# share a job without one of them losing by it.
_FUSION = (("HOROVOD_FUSION_THRESHOLD", str(HOROVODS_FUSION_BYTES)),)

_HOROVOD_MPI, _HOROVOD_GLOO = Look("horovod-mpi", "^"), Look("horovod-gloo", "v")
_FRAMEWORK, _NO_COMM, _OTHER = Look("framework", "D"), Look("no_comm", "P"), Look("other", "p")

_OF_HVDTOOLS = {
    "hvdtools-mpi": BenchEngine(
        *("hvdtools", "mpirun", "mpi", Look("hvdtools-mpi", "o"), _OVER_MPI),
        allreduce="horovod-mpi",
    ),
    "hvdtools-gloo": BenchEngine(
        *("hvdtools", "horovodrun", "gloo", Look("hvdtools-gloo", "s")), allreduce="horovod-gloo"
    ),
}
_OF_HOROVOD = {
    "horovod-mpi": BenchEngine(
        *("horovod", "mpirun", "mpi", _HOROVOD_MPI, _OVER_MPI),
        allreduce="horovod-mpi",
        fuses=True,
    ),
    "horovod-gloo": BenchEngine(
        *("horovod", "horovodrun", "gloo", _HOROVOD_GLOO), allreduce="horovod-gloo", fuses=True
    ),
}

# On GPUs the gradients go through NCCL whatever moves them here, and a result says so.
# Names of engines in 0.1.
RENAMED_ENGINES = {"none": "no_comm"}
FAMILIES = {
    "torch": Family(
        name="PyTorch",
        kind="training",
        program="train_torch.py",
        folder="torch",
        package="torch",
        engines={
            **_OF_HVDTOOLS,
            **{
                name: replace(engine, environment=(*engine.environment, *_FUSION))
                for name, engine in _OF_HOROVOD.items()
            },
            "ddp": BenchEngine(
                *("ddp", None, "gloo", _FRAMEWORK),
                needs_ports=True,
                allreduce="torch",
                named_after_transport=True,
            ),
            "no_comm": BenchEngine("no_comm", None, "none", _NO_COMM, needs_ports=True),
        },
        baseline="ddp",
        baseline_name="DDP",
        ideal="no_comm",
    ),
    "keras": Family(
        name="Keras",
        kind="training",
        program="train_keras.py",
        folder="keras",
        package="tensorflow",
        engines={
            **_OF_HVDTOOLS,
            **_OF_HOROVOD,
            "mwms": BenchEngine("mwms", None, "grpc", _FRAMEWORK, needs_ports=True),
            "no_comm": BenchEngine("no_comm", "mpirun", "none", _NO_COMM, _OVER_MPI),
        },
        baseline="mwms",
        baseline_name="MWMS",
        ideal="no_comm",
    ),
    "allreduce": Family(
        name="All-reduce",
        kind="allreduce",
        program="allreduce.py",
        folder="allreduce",
        package="torch",
        engines={
            **_OF_HOROVOD,
            "torch": BenchEngine(
                *("torch", None, "gloo", _FRAMEWORK), needs_ports=True, named_after_transport=True
            ),
            "mpi4py": BenchEngine("mpi4py", "mpirun", "mpi", _OTHER, _OVER_MPI),
        },
    ),
    "input": Family(
        name="Input pipeline",
        kind="input",
        program="input_pipeline.py",
        folder="torch",
        package="torch",
        engines={"loader": BenchEngine("loader", None, "none", _OTHER, needs_ports=True)},
    ),
}


def as_it_ran(family: str, engine: str, transport: str | None) -> str:
    """The engine's name with what carried the data, where that is not plain from the name.

    "hvdtools-mpi" is itself over MPI and "hvdtools-mpi+nccl" on GPUs, where MPI
    still agrees on what is sent; "ddp" is "ddp-gloo" or "ddp-nccl".
    """
    if transport in (None, "none"):
        return engine
    known = FAMILIES[family].engines[engine]
    if known.named_after_transport:
        return f"{engine}-{transport}"
    return engine if transport == known.transport else f"{engine}+{transport}"


def look_of(engine: str) -> Look:
    """How plots draw an engine as it ran: "ddp-gloo" and "ddp-nccl" are both "ddp"."""
    looks = {
        name: each.look for family in FAMILIES.values() for name, each in family.engines.items()
    }
    return looks[max((name for name in looks if engine.startswith(name)), key=len)]
