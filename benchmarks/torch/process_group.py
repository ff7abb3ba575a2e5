"""Where this rank is, what it waits for, and how all ranks meet between what is timed."""

from __future__ import annotations

import gc
import os
from collections.abc import Sequence

import torch
import torch.distributed as dist

from hvdtools.core.cpus import fair_threads_before_init
from hvdtools.core.topology import read_launch_environment

Rows = list[list[float]]

_had_a_group = False


def had_a_group() -> bool:
    """Whether this process has, or had, a process group."""
    return _had_a_group or dist.is_initialized()


def rank_and_size() -> tuple[int, int]:
    """(rank, size), from whoever started this process; takes its own GPU, or its share of CPUs."""
    place = read_launch_environment(os.environ)
    if torch.cuda.is_available():
        torch.cuda.set_device(place.local_rank % torch.cuda.device_count())
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(fair_threads_before_init(place.local_size))
    return place.rank, place.size


def this_device() -> torch.device:
    """This rank's GPU where there is one."""
    if torch.cuda.is_available():
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device("cpu")


def wait_for_device(device: torch.device) -> None:
    """Wait until the device has done what it was given; a clock read earlier would lie."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def gather_by_horovod(values: Sequence[float]) -> Rows:
    """k values on each rank -> a row for each rank, through the host."""
    import horovod.torch as hvd

    from hvdtools.torch.waiting import wait_for

    mine = torch.tensor([list(values)], dtype=torch.float64, device="cpu")
    handle = hvd.allgather_async(mine, name=f"benchmarks.gather{len(values)}")
    # Horovod's own wait looks once a millisecond, and ranks would begin that far apart.
    rows: Rows = wait_for(handle, on_gpu=False).tolist()
    return rows


def gather_by_torch(values: Sequence[float]) -> Rows:
    """The same through torch.distributed's Gloo; a single rank is its own answer."""
    place = read_launch_environment(os.environ)
    if place.size == 1:
        return [list(values)]
    barrier()
    mine = torch.tensor(values, dtype=torch.float64, device="cpu")
    rows = [torch.empty_like(mine) for _ in range(place.size)]
    dist.all_gather(rows, mine)
    return [row.tolist() for row in rows]


def barrier() -> None:
    """Make the job's process group at MASTER_ADDR:MASTER_PORT, once."""
    if dist.is_initialized():
        return
    place = read_launch_environment(os.environ)
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    dist.init_process_group(backend, rank=place.rank, world_size=place.size)
    global _had_a_group
    _had_a_group = True


def part() -> None:
    """End the process group, after whoever used it is gone."""
    if not dist.is_initialized():
        return
    # A wrapped model lies in a reference cycle. Left there it keeps Gloo's threads until Python
    # ends under them, which now and then aborts a rank that was done.
    gc.collect()
    gather_by_torch([0.0])
    dist.destroy_process_group()
