"""What carries the data of a job that Horovod has joined, whatever the framework."""

from __future__ import annotations

from types import ModuleType

from hvdtools.core.installed import require


def transport(hvd: ModuleType, package: str, *, on_gpu: bool) -> str:
    """ "nccl" for tensors on GPUs if Horovod has it; else who coordinates: "mpi" or "gloo".

    Args:
        hvd: Horovod's module for `package`, "torch" or "tensorflow".
    """
    if on_gpu and require(package).nccl:
        return "nccl"
    return "mpi" if hvd.mpi_enabled() else "gloo"
