"""Join the job: who am I, and is it the job that was promised?"""

from __future__ import annotations

import os

import horovod.torch as hvd
import torch

from hvdtools import joining, log
from hvdtools.cpus import fair_threads
from hvdtools.errors import HvdtoolsError
from hvdtools.joining import Neighbour
from hvdtools.topology import Topology, promised
from hvdtools.torch.stall import StallWatch


def init(expect_size: int | None = None, *, stall_s: float = 60.0) -> Topology:
    """Join the job that the launcher started, and return this process' place in it.

    Rank and size come from whoever started the process (horovodrun, mpirun, srun,
    torchrun, or nobody: rank 0 of 1). On a GPU machine the process is pinned to
    the GPU of its local rank; the threads of a rank on the CPU are bounded to its
    share of the cores, unless OMP_NUM_THREADS says otherwise. Open MPI and Horovod
    are told what pays on the CPU unless they were told already. Calling it again
    returns the same.

    Args:
        expect_size: The number of ranks that the script counts on; a job of
            another size raises.
        stall_s: Seconds that ranks wait for another before rank 0 says which one
            has not arrived, where it is, and what they wait for; 0 for never.

    Raises:
        HvdtoolsError: The job is not the one promised: Horovod sees another
            size than the launcher (it would train separate models), ranks do not
            come together, or there are fewer GPUs than local ranks.
    """
    joining.require_seconds("init(stall_s", stall_s)
    promise = promised(os.environ)
    if not (_session and hvd.is_initialized()):
        # Buckets are sent whole: fusing two of them would only copy both.
        os.environ.setdefault("HOROVOD_FUSION_THRESHOLD", "0")
        joining.start(hvd, promise, on_gpu=torch.cuda.is_available())
        neighbours = _introduce()
        _bound_threads(neighbours)
        joining.require_own_gpu(neighbours)
        _session.append(joining.topology_of(hvd, neighbours))
        log.show(hvd.rank())
        if hvd.rank() == 0 and hvd.size() > 1:
            log.logger.info(joining.in_words(hvd, promise, neighbours))
        if stall_s and hvd.size() > 1:
            StallWatch(stall_s)
    topology = _session[-1]
    joining.require_expected(topology, promise, expect_size)
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


def _introduce() -> list[Neighbour]:
    """Every rank's whereabouts, in rank order."""
    gpu = None
    if torch.cuda.is_available():
        # A launcher may show each rank only its own GPU; then that is the one.
        torch.cuda.set_device(hvd.local_rank() % torch.cuda.device_count())
        gpu = str(torch.cuda.get_device_properties(torch.cuda.current_device()).uuid)
    mine = joining.this_neighbour(hvd, gpu)
    everyone: list[Neighbour] = hvd.allgather_object(mine, name="hvdtools.introduce")
    return everyone


def _bound_threads(neighbours: list[Neighbour]) -> None:
    if "OMP_NUM_THREADS" in os.environ:
        return
    mine = neighbours[hvd.rank()]
    together = [other.cpus for other in neighbours if other.host == mine.host]
    torch.set_num_threads(fair_threads(mine.cpus, together))
