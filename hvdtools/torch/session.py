"""Join the job: who am I, and is it the job that was promised?"""

from __future__ import annotations

import math
import os
import socket
from dataclasses import dataclass

import horovod.torch as hvd
import torch

from hvdtools.cpus import fair_threads, usable_cpus
from hvdtools.errors import HvdtoolsError
from hvdtools.topology import ALONE, Promise, Topology, promised
from hvdtools.torch import log
from hvdtools.torch.stall import StallWatch


@dataclass(frozen=True)
class _Neighbour:
    """What each rank tells the others about where it runs."""

    host: str
    local_rank: int
    cpus: frozenset[int]
    gpu: str | None


def init(expect_size: int | None = None, *, stall_s: float = 60.0) -> Topology:
    """Join the job that the launcher started, and return this process' place in it.

    Rank and size come from whoever started the process (horovodrun, mpirun, or
    nobody: rank 0 of 1). On a GPU machine the process is pinned to the GPU of
    its local rank; the threads of a rank on the CPU are bounded to its share of
    the cores, unless OMP_NUM_THREADS says otherwise. Calling it again returns
    the same.

    Args:
        expect_size: The number of ranks that the script counts on; a job of
            another size raises.
        stall_s: Seconds that ranks wait for another before rank 0 says which one
            has not arrived, where it is, and what they wait for; 0 for never.

    Raises:
        HvdtoolsError: The job is not the one promised: Horovod sees another
            size than the launcher (it would train separate models), the starter
            brings no meeting point, or there are fewer GPUs than local ranks.
    """
    if not (stall_s >= 0 and math.isfinite(stall_s)):
        raise HvdtoolsError(f"init(stall_s={stall_s!r}) must be finite, 0 or more seconds.")
    if not (_session and hvd.is_initialized()):
        promise = promised(os.environ)
        if not hvd.is_initialized():
            _choose_controller(promise)
            _tune(promise)
            hvd.init()
        _require_size(promise)
        neighbours = _introduce()
        _bound_threads(neighbours)
        _require_own_gpu(neighbours)
        _session.append(_topology(neighbours))
        log.show(hvd.rank())
        if stall_s and hvd.size() > 1:
            StallWatch(stall_s)
    topology = _session[-1]
    if expect_size is not None and topology.size != expect_size:
        raise HvdtoolsError(
            f"init(expect_size={expect_size}) but the job has {topology.size} ranks: start it with "
            f"`hvdtools launch -n {expect_size} -- python ...`."
        )
    return topology


_session: list[Topology] = []


def require_started(caller: str) -> Topology:
    """The running job's topology.

    Raises:
        HvdtoolsError: `init()` was not called.
    """
    if not _session or not hvd.is_initialized():
        raise HvdtoolsError(f"{caller} needs a running job: call hvdtools.torch.init() first.")
    return _session[-1]


def _choose_controller(promise: Promise) -> None:
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


def _tune(promise: Promise) -> None:
    """Settings that pay here; what the user set stays. Figures: benchmarks/METHOD.md."""
    # Buckets are sent whole: fusing two of them would only copy both.
    os.environ.setdefault("HOROVOD_FUSION_THRESHOLD", "0")
    if torch.cuda.is_available():
        return
    # Horovod's thread meets the other ranks' in every cycle, also when there is nothing to
    # send. Waiting for them it must not hold a core that a rank computes on.
    os.environ.setdefault("OMPI_MCA_mpi_yield_when_idle", "1")
    if not promise.serves_mpi and 2 * promise.local_size > len(usable_cpus()):
        os.environ.setdefault("HOROVOD_CYCLE_TIME", "2")  # milliseconds


def _require_size(promise: Promise) -> None:
    if (hvd.rank(), hvd.size()) == (promise.rank, promise.size):
        return
    found = f"rank {hvd.rank()} of {hvd.size()}"
    hvd.shutdown()
    raise HvdtoolsError(
        f"{promise.starter} promised rank {promise.rank} of {promise.size} but Horovod sees "
        f"{found}, and going on would train separate models: start the job with `hvdtools launch`, "
        "or run `hvdtools build` so that Horovod fits the MPI that starts it."
    )


def _introduce() -> list[_Neighbour]:
    """Every rank's whereabouts, in rank order."""
    gpu = None
    if torch.cuda.is_available():
        # A launcher may show each rank only its own GPU; then that is the one.
        torch.cuda.set_device(hvd.local_rank() % torch.cuda.device_count())
        gpu = str(torch.cuda.get_device_properties(torch.cuda.current_device()).uuid)
    host = os.environ.get("HOROVOD_HOSTNAME") or socket.gethostname()
    mine = _Neighbour(host, hvd.local_rank(), usable_cpus(), gpu)
    everyone: list[_Neighbour] = hvd.allgather_object(mine, name="hvdtools.introduce")
    return everyone


def _bound_threads(neighbours: list[_Neighbour]) -> None:
    if "OMP_NUM_THREADS" in os.environ:
        return
    mine = neighbours[hvd.rank()]
    together = [other.cpus for other in neighbours if other.host == mine.host]
    torch.set_num_threads(fair_threads(mine.cpus, together))


def _require_own_gpu(neighbours: list[_Neighbour]) -> None:
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


def _topology(neighbours: list[_Neighbour]) -> Topology:
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
