"""The engines that a suite may compare, and how a job of each is started."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class BenchEngine:
    """One way to keep the replicas equal.

    Attributes:
        program_engine: What the program is told with --engine.
        starter: Who starts the ranks, as `hvdtools launch --with` names it.
        environment: What else its ranks need to see.
        needs_port: True if its ranks meet at MASTER_ADDR:MASTER_PORT.
    """

    program_engine: Literal["horovod", "ddp"]
    starter: Literal["mpirun", "horovodrun", "auto"]
    environment: tuple[tuple[str, str], ...] = ()
    needs_port: bool = False


# On GPUs the gradients go through NCCL whatever moves them here, and a result says so.
ENGINES: dict[str, BenchEngine] = {
    "horovod-mpi": BenchEngine(
        "horovod", "mpirun", (("HOROVOD_CONTROLLER", "mpi"), ("HOROVOD_CPU_OPERATIONS", "mpi"))
    ),
    "horovod-gloo": BenchEngine("horovod", "horovodrun"),
    # Over the loopback interface as horovodrun's Gloo is: left alone, Gloo fails where the
    # machine's own name resolves to an address of no interface.
    "ddp-gloo": BenchEngine("ddp", "auto", (("GLOO_SOCKET_IFNAME", "lo"),), needs_port=True),
}

YARDSTICK = "ddp-gloo"


def as_it_ran(engine: str, moved_by: str | None) -> str:
    """The engine's name with what carried the gradients, where that differs from the name.

    "ddp-gloo" on GPUs ran as "ddp-nccl", "horovod-mpi" as "horovod-mpi+nccl":
    there MPI still agrees on what is sent.
    """
    if moved_by is None or engine.endswith(moved_by):
        return engine
    if engine.startswith("ddp-"):
        return f"ddp-{moved_by}"
    return f"{engine}+{moved_by}"
