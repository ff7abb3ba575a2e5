"""Run in each rank of a smoke test: one all-reduce, compared with the expected sums.

Usage: rank_check.py FRAMEWORK DEVICE CONTROLLER SIZE
with DEVICE "cpu" or "gpu" and CONTROLLER "mpi" or "gloo". A rank with the right sums prints
"PASSED rank R of S"; any other prints an error and exits with status 1.
"""

from __future__ import annotations

import sys

ELEMENTS = 1000


def _torch(device: str) -> tuple[int, int, str, list[float]]:
    import horovod.torch as hvd
    import torch

    hvd.init()
    place = f"cuda:{hvd.local_rank()}" if device == "gpu" else "cpu"
    values = torch.arange(ELEMENTS, dtype=torch.float32, device=place) * (hvd.rank() + 1)
    total = hvd.allreduce(values, op=hvd.Sum).tolist()
    controller = "mpi" if hvd.mpi_enabled() else "gloo"
    if device == "gpu" and not hvd.nccl_built():
        sys.exit("this Horovod was built without NCCL")
    return hvd.rank(), hvd.size(), controller, total


def _tensorflow(device: str) -> tuple[int, int, str, list[float]]:
    import horovod.tensorflow as hvd
    import tensorflow as tf

    hvd.init()
    place = f"GPU:{hvd.local_rank()}" if device == "gpu" else "CPU:0"
    if device == "gpu" and not hvd.nccl_built():
        sys.exit("this Horovod was built without NCCL")
    with tf.device(place):
        values = tf.range(ELEMENTS, dtype=tf.float32) * (hvd.rank() + 1)
        total = hvd.allreduce(values, op=hvd.Sum).numpy().tolist()
    controller = "mpi" if hvd.mpi_enabled() else "gloo"
    return hvd.rank(), hvd.size(), controller, total


def main(framework: str, device: str, controller: str, size: str) -> None:
    """Check the size and controller of the job, and the sums of this rank."""
    run = {"torch": _torch, "tensorflow": _tensorflow}[framework]
    rank, found_size, found_controller, total = run(device)
    if found_size != int(size):
        sys.exit(f"the job has {found_size} ranks, not the {size} that were started")
    if found_controller != controller:
        sys.exit(f"{found_controller} coordinates the ranks, not {controller}")
    # Rank r contributes (r + 1) times 0, 1, 2, ...; integers this small are exact in float32.
    factor = found_size * (found_size + 1) // 2
    wrong = sum(value != factor * index for index, value in enumerate(total))
    if wrong or len(total) != ELEMENTS:
        sys.exit(f"{wrong} of {len(total)} sums are wrong")
    print(f"PASSED rank {rank} of {found_size}", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
