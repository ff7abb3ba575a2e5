"""Join the job that a launcher started, whichever framework's Horovod does it.

Horovod has one library for each framework, and each of them a state of its own:
the functions here are handed the module (`horovod.torch`, `horovod.tensorflow`)
that they ask.
"""

from __future__ import annotations

import math
import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hvdtools.cpus import usable_cpus
from hvdtools.errors import HvdtoolsError
from hvdtools.topology import ALONE, Promise, Topology


@dataclass(frozen=True)
class Neighbour:
    """What each rank tells the others about where it runs.

    Attributes:
        host: Its machine's name.
        local_rank: As in `Topology`.
        cpus: The CPUs that it may use.
        gpu: What tells its GPU from the others of this host; None without one.
    """

    host: str
    local_rank: int
    cpus: frozenset[int]
    gpu: str | None


def this_neighbour(hvd: Any, gpu: str | None) -> Neighbour:
    """What this rank tells the others."""
    host = os.environ.get("HOROVOD_HOSTNAME") or socket.gethostname()
    return Neighbour(host, hvd.local_rank(), usable_cpus(), gpu)


def require_seconds(call: str, value: float) -> None:
    """Raise if `value` is no span of time; `call` is what the message begins with."""
    if not (value >= 0 and math.isfinite(value)):
        raise HvdtoolsError(f"{call}={value!r}) must be finite, 0 or more seconds.")


def start(hvd: Any, promise: Promise, *, on_gpu: bool) -> None:
    """Start Horovod if nobody has, and see that the job is the one promised.

    Raises:
        HvdtoolsError: It is another job, or this Horovod cannot meet the other ranks.
    """
    if not hvd.is_initialized():
        _choose_controller(hvd, promise)
        if not on_gpu:
            _tune_for_cpus(promise)
        hvd.init()
    _require_size(hvd, promise)


def _choose_controller(hvd: Any, promise: Promise) -> None:
    """Let ranks meet through whoever started them; a controller the user named stays."""
    if promise.serves_mpi and hvd.mpi_built():
        return
    if promise.serves_mpi:
        raise HvdtoolsError(
            f"{promise.starter} started {promise.size} ranks, but this Horovod was built without "
            "MPI: use `hvdtools launch --with horovodrun`, or install an MPI and run "
            "`hvdtools build`."
        )
    if promise != ALONE and not hvd.gloo_built():
        raise HvdtoolsError(
            f"{promise.starter} started {promise.size} ranks, but this Horovod was built without "
            "Gloo: use `hvdtools launch --with mpirun`, or run `hvdtools build`."
        )
    if hvd.gloo_built():
        # Alone, Horovod's default would start MPI for a single process: a second of waiting.
        os.environ.setdefault("HOROVOD_CONTROLLER", "gloo")
        os.environ.setdefault("HOROVOD_CPU_OPERATIONS", "gloo")


def _tune_for_cpus(promise: Promise) -> None:
    """Settings that pay on the CPU; what the user set stays. Figures: benchmarks/METHOD.md."""
    # Horovod's thread meets the other ranks' in every cycle, also when there is nothing to
    # send. Waiting for them it must not hold a core that a rank computes on.
    os.environ.setdefault("OMPI_MCA_mpi_yield_when_idle", "1")
    if not promise.serves_mpi and 2 * promise.local_size > len(usable_cpus()):
        os.environ.setdefault("HOROVOD_CYCLE_TIME", "2")  # milliseconds


def _require_size(hvd: Any, promise: Promise) -> None:
    if (hvd.rank(), hvd.size()) == (promise.rank, promise.size):
        return
    found = f"rank {hvd.rank()} of {hvd.size()}"
    hvd.shutdown()
    raise HvdtoolsError(
        f"{promise.starter} promised rank {promise.rank} of {promise.size} but Horovod sees "
        f"{found}, and going on would train separate models: start the job with `hvdtools launch`, "
        "or run `hvdtools build` so that Horovod fits the MPI that starts it."
    )


def require_own_gpu(neighbours: Sequence[Neighbour]) -> None:
    """NCCL refuses two ranks on one GPU with an obscure error; say it clearly, on every rank."""
    owners: dict[tuple[str, str], list[int]] = {}
    for rank, neighbour in enumerate(neighbours):
        if neighbour.gpu is not None:
            owners.setdefault((neighbour.host, neighbour.gpu), []).append(rank)
    for (host, _), ranks in owners.items():
        if len(ranks) > 1:
            raise HvdtoolsError(
                f"Ranks {', '.join(map(str, ranks))} share one GPU on {host}: start at most one "
                "rank for each GPU, or hide the GPUs with CUDA_VISIBLE_DEVICES= to train on "
                "the CPU."
            )


def topology_of(hvd: Any, neighbours: Sequence[Neighbour]) -> Topology:
    """This process' place; `neighbours` are all ranks', in rank order."""
    # A node begins wherever a local rank 0 does; two hosts may share one name.
    leaders = [rank for rank, other in enumerate(neighbours) if other.local_rank == 0]
    hosts = list(dict.fromkeys(neighbours[leader].host for leader in leaders))
    mine = neighbours[hvd.rank()]
    return Topology(
        rank=hvd.rank(),
        size=hvd.size(),
        local_rank=hvd.local_rank(),
        local_size=hvd.local_size(),
        node=hosts.index(mine.host),
        nodes=len(hosts),
    )


def require_expected(topology: Topology, expect_size: int | None) -> None:
    """Raise if the script counts on another number of ranks than there are."""
    if expect_size is not None and topology.size != expect_size:
        raise HvdtoolsError(
            f"init(expect_size={expect_size}) but the job has {topology.size} ranks: start it with "
            f"`hvdtools launch -n {expect_size} -- python ...`."
        )
