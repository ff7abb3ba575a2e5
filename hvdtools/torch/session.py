"""Join the job and check that it is the one that the launcher started; learn when to stop."""

from __future__ import annotations

import os

import horovod.torch as hvd
import torch

from hvdtools.core import log, preemption
from hvdtools.core.cpus import fair_threads
from hvdtools.core.errors import HvdtoolsError
from hvdtools.core.topology import Topology, read_launch_environment
from hvdtools.rendezvous import job
from hvdtools.rendezvous.job import RankInfo
from hvdtools.torch.stall import StallWatch
from hvdtools.torch.waiting import waiting


def init(expect_size: int | None = None, *, stall_s: float = 60.0) -> Topology:
    """Join the job that the launcher started, and return this process' place in it.

    Rank and size come from the launcher (horovodrun, mpirun, srun, torchrun; without
    one: rank 0 of 1). On a GPU machine the process is pinned to
    the GPU of its local rank; the threads of a rank on the CPU are bounded to its
    share of the cores, unless OMP_NUM_THREADS says otherwise. Open MPI and Horovod
    get settings that are faster on the CPU unless they are set already. A second call
    returns the same topology.

    Args:
        expect_size: The number of ranks that the script counts on; a job of
            another size raises.
        stall_s: Seconds that ranks wait for another before rank 0 logs which one
            has not arrived, where it is, and what they wait for; 0 for never.

    Raises:
        HvdtoolsError: The job is not the one expected: Horovod sees another
            size than the launcher (it would train separate models), ranks do not
            come together, or there are fewer GPUs than local ranks.
    """
    job.require_seconds("init(stall_s", stall_s)
    launch_env = read_launch_environment(os.environ)
    if not (_session and hvd.is_initialized()):
        # Buckets are sent whole: fusing two of them would only copy both.
        os.environ.setdefault("HOROVOD_FUSION_THRESHOLD", "0")
        job.start(hvd, launch_env, on_gpu=torch.cuda.is_available())
        all_ranks = _exchange_rank_info()
        _bound_threads(all_ranks)
        job.require_one_rank_per_gpu(all_ranks)
        _session.append(job.read_topology(hvd, all_ranks))
        log.configure(hvd.rank())
        if hvd.rank() == 0 and hvd.size() > 1:
            log.logger.info(job.describe_job(hvd, launch_env, all_ranks))
        if stall_s and hvd.size() > 1:
            StallWatch(stall_s)
    topology = _session[-1]
    job.require_expected(topology, launch_env, expect_size)
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


def _exchange_rank_info() -> list[RankInfo]:
    """Host, CPUs and GPU of every rank, in rank order."""
    gpu = None
    if torch.cuda.is_available():
        # A launcher may show each rank only its own GPU; then that is the one.
        torch.cuda.set_device(hvd.local_rank() % torch.cuda.device_count())
        gpu = str(torch.cuda.get_device_properties(torch.cuda.current_device()).uuid)
    mine = job.own_rank_info(hvd, gpu)
    everyone: list[RankInfo] = hvd.allgather_object(mine, name="hvdtools.introduce")
    return everyone


def _bound_threads(all_ranks: list[RankInfo]) -> None:
    if "OMP_NUM_THREADS" in os.environ:
        return
    mine = all_ranks[hvd.rank()]
    together = [other.cpus for other in all_ranks if other.host == mine.host]
    torch.set_num_threads(fair_threads(mine.cpus, together))


def stop_requested() -> bool:
    """True on every rank, from the same call on, once any rank got the signal to save and stop.

    The signal is SIGUSR1, or what HVDTOOLS_SIGNAL names; launch/slurm.sbatch passes it to
    all ranks some time before the job's time is up, and starts the job again if it then
    ends with exit code 75. From the first call on the signal no longer ends the process.
    Each call is an all-reduce of one number: call it on every rank, every so many steps.

        if step % 50 == 0 and hvt.stop_requested():
            hvt.save("last.pt", model=model, optimizer=optimizer, step=step)
            sys.exit(75)

    Raises:
        HvdtoolsError: `init()` was not called, or the first call is not in the main thread.
    """
    require_started("stop_requested()")
    preemption.install_handler()
    if hvd.size() == 1:
        return preemption.signal_received()
    with waiting("stop_requested()"):
        asked = torch.tensor([preemption.signal_received()], dtype=torch.int32)
        return bool(hvd.allreduce(asked, op=hvd.Sum, name="hvdtools.stop_requested").item())
